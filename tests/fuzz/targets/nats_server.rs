//! The configuration of a NATS server, and what is found in it: no panic, and the same twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_policies::nats_server::{Context, Loaded, check, read};

fuzz_target!(|text: &str| {
    let look = || {
        let first = Loaded { name: "server.conf".to_owned(), text: text.to_owned() };
        // An include of the file itself: bounded all the same.
        let mut load = |_: usize, name: &str| match name {
            "self" => Ok(Loaded { name: "self".to_owned(), text: text.to_owned() }),
            _ => Err("not there".to_owned()),
        };
        read(first, &mut load)
            .map(|(map, files)| check(&map, &Context { files, now: Some(1_800_000_000), ..Context::default() }))
    };
    let (one, two) = (look(), look());
    assert_eq!(one, two);
    if let Ok(findings) = one {
        for finding in findings {
            assert!(!finding.reason.is_empty() && !finding.hint.is_empty());
            assert!(!finding.reason.chars().any(char::is_control));
        }
    }
});
