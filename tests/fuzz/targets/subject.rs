//! Subjects: what is taken is the same again, and what a pattern covers is what a message may have. No reserved subject is
//! covered by a pattern that does not spell its first token out. A subject, a line feed, a pattern.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_policies::{Subject, SubjectPattern};

fuzz_target!(|input: &str| {
    let (text, other) = input.split_once('\n').unwrap_or((input, ">"));
    if let Ok(subject) = text.parse::<Subject>() {
        assert_eq!(subject.as_str(), text);
        assert!(!text.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()));
        let own = SubjectPattern::from(subject.clone());
        assert!(own.covers(&subject) && own.is_literal());
        for parent in subject.parents() {
            let parent: SubjectPattern = parent.parse().expect("a parent is a pattern");
            assert!(parent.covers(&subject) && parent.covers_all_of(&own));
        }
        if let Ok(pattern) = other.parse::<SubjectPattern>() {
            assert_eq!(pattern.covers(&subject), pattern.covers_all_of(&own));
            if pattern.covers(&subject) {
                assert!(pattern.overlaps(&own));
                assert_eq!(subject.is_reserved(), pattern.reaches_reserved());
            }
        }
    }
});
