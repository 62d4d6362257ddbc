//! Typed reading of a TOML document that collects every problem instead of stopping at the first.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use crate::limits::PROBLEMS;
use crate::shown;
use crate::source::{LoadError, Places, Source};

/// Reads values, remembers problems.
pub(super) struct Reader<'a> {
    places: Places<'a>,
    errors: Vec<LoadError>,
    problems: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { places: source.places(), errors: Vec::new(), problems: 0 }
    }

    pub(super) fn places(&self) -> &Places<'a> {
        &self.places
    }

    /// How many there were so far.
    pub(super) fn problems(&self) -> usize {
        self.problems
    }

    pub(super) fn problem(&mut self, at: &Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.problems += 1;
        // One more than are listed, so that it shows that there are more.
        if self.errors.len() <= PROBLEMS {
            self.errors.push(self.places.problem(at, message, hint));
        }
    }

    pub(super) fn unknown(&mut self, at: Range<usize>, key: &str, known: &str) {
        let message = format!("unknown key `{}`", shown::inside(key, 64));
        let meant = known.split(", ").find(|one| is_near(key, one));
        let meant = meant.map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
        self.problem(&at, message, format!("{meant}known keys: {known}"));
    }

    /// What was read if nothing was wrong, otherwise everything that was.
    pub(super) fn finish<T>(self, value: T) -> Result<T, Vec<LoadError>> {
        if self.problems == 0 { Ok(value) } else { Err(self.errors) }
    }

    pub(super) fn integer(&mut self, value: &Spanned<DeValue<'_>>) -> Option<u64> {
        let integer = value.get_ref().as_integer();
        let number = integer.and_then(|integer| u64::from_str_radix(integer.as_str(), integer.radix()).ok());
        if number.is_none() {
            self.problem(&value.span(), "this is not a whole number", "");
        }
        // A number that cannot be read is not a missing one.
        number.or(Some(u64::MAX))
    }

    pub(super) fn boolean(&mut self, value: &Spanned<DeValue<'_>>) -> bool {
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.problem(&value.span(), "this is neither true nor false", "");
        }
        found.unwrap_or(false)
    }

    pub(super) fn text(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        is_valid: impl Fn(&str) -> bool,
        wanted: &str,
    ) -> String {
        let parsed = self.parsed(value, |text| match is_valid(text) {
            true => Ok(text.to_owned()),
            false => Err(("this value is not taken".to_owned(), format!("wanted: {wanted}"))),
        });
        parsed.unwrap_or_default()
    }

    pub(super) fn parsed<T>(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        parse: impl Fn(&str) -> Result<T, (String, String)>,
    ) -> Option<T> {
        let Some(text) = value.get_ref().as_str() else {
            self.problem(&value.span(), "this is not text in quotes", "");
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err((message, hint)) => {
                self.problem(&value.span(), format!("\"{}\": {message}", shown::inside(text, 64)), hint);
                None
            }
        }
    }
}

/// Whether one mistake makes one of two words the other: a letter too many, too few, another one, or two that changed places.
fn is_near(one: &str, other: &str) -> bool {
    fn shorter(word: &str) -> impl Iterator<Item = String> + '_ {
        let without = |skip: usize| word.chars().enumerate().filter(move |(n, _)| *n != skip).map(|(_, c)| c).collect();
        (0..=word.chars().count()).map(without)
    }
    // INVARIANT: the keys that it is compared with are short.
    one.len() <= 32 && shorter(one).any(|one| shorter(other).any(|other| one == other))
}

#[cfg(test)]
mod tests {
    use super::is_near;

    #[test]
    fn a_word_is_near_one_that_it_becomes_by_one_mistake() {
        for (typed, meant) in
            [("lod", "load"), ("htpp", "http"), ("audience", "audiences"), ("laod", "load"), ("load", "load")]
        {
            assert!(is_near(typed, meant) && is_near(meant, typed), "{typed}");
        }
        for typed in ["", "colour", "link", &"l".repeat(100_000)] {
            assert!(!is_near(typed, "load"), "{typed:.10}");
        }
    }
}
