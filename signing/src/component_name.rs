//! Names of components, `namespace:name`, and patterns of them in delegations.

use std::fmt;
use std::str::FromStr;

use crate::excerpt::serde_as_text;
use crate::limits::LABEL_BYTES;
use crate::malformed::Malformed;

/// A component's claimed name: two lower-case kebab-case labels.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ComponentName {
    text: String,
    colon: usize,
}

/// A component's claimed version: semantic versioning.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ComponentVersion(semver::Version);

/// An exact name, or all names of a namespace (`demo:*`).
#[derive(Clone, PartialEq, Eq)]
pub struct NamePattern {
    namespace: String,
    name: Option<String>,
}

/// A cluster's name in `audience`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Audience(String);

impl ComponentName {
    /// The part before the colon.
    pub fn namespace(&self) -> &str {
        self.text.get(..self.colon).unwrap_or_default()
    }

    /// The part after the colon.
    pub fn name(&self) -> &str {
        self.text.get(self.colon + 1..).unwrap_or_default()
    }

    /// The whole.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl NamePattern {
    /// Whether every name that `other` matches is matched by this one too.
    pub fn includes(&self, other: &Self) -> bool {
        self.namespace == other.namespace && (self.name.is_none() || self.name == other.name)
    }

    /// Whether `name` is meant.
    pub fn matches(&self, name: &ComponentName) -> bool {
        self.namespace == name.namespace() && self.name.as_deref().is_none_or(|own| own == name.name())
    }
}

impl Audience {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A lower-case kebab-case label: letters and digits in words joined by `-`, the first character a letter.
pub(crate) fn is_label(text: &str) -> bool {
    text.len() <= LABEL_BYTES
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .split('-')
            .all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

impl FromStr for ComponentName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text.split_once(':') {
            Some((namespace, name)) if is_label(namespace) && is_label(name) => {
                Ok(Self { text: text.to_owned(), colon: namespace.len() })
            }
            _ => Err(Malformed::new(
                "a component name",
                "namespace:name in lower-case letters, digits and single dashes",
                text,
            )),
        }
    }
}

impl FromStr for ComponentVersion {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new("a version", "semantic versioning such as 1.4.2", text);
        if text.len() > LABEL_BYTES {
            return Err(malformed());
        }
        semver::Version::parse(text).map(Self).map_err(|_| malformed())
    }
}

impl FromStr for NamePattern {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text.split_once(':') {
            Some((namespace, "*")) if is_label(namespace) => Ok(Self { namespace: namespace.to_owned(), name: None }),
            Some((namespace, name)) if is_label(namespace) && is_label(name) => {
                Ok(Self { namespace: namespace.to_owned(), name: Some(name.to_owned()) })
            }
            _ => Err(Malformed::new("a pattern of component names", "namespace:name or namespace:*", text)),
        }
    }
}

impl FromStr for Audience {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if (1..=crate::limits::TEXT_BYTES).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic())
            && text != "*"
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed::new(
                "an audience",
                "the name of a cluster in 1 to 255 printable ASCII characters; there is no wildcard",
                text,
            ))
        }
    }
}

impl fmt::Display for ComponentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ComponentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for ComponentVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ComponentVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.namespace, self.name.as_deref().unwrap_or("*"))
    }
}

impl fmt::Debug for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(ComponentName, ComponentVersion, NamePattern, Audience);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_two_halves() {
        let name: ComponentName = "acme-1:orders".parse().unwrap();
        assert_eq!((name.namespace(), name.name(), name.to_string().as_str()), ("acme-1", "orders", "acme-1:orders"));
    }

    #[test]
    fn names_of_another_form_are_refused() {
        let long = format!("a:{}", "x".repeat(LABEL_BYTES + 1));
        for text in [
            "", "a", "a:", ":a", "a:b:c", "A:b", "a:b_c", "a:-b", "a:b-", "a:b--c", "1a:b", "a:1", "a:b ", "a/b:c",
            "a:*", "é:a", &long,
        ] {
            assert!(text.parse::<ComponentName>().is_err(), "{text}");
        }
        assert!(format!("a:{}", "x".repeat(LABEL_BYTES)).parse::<ComponentName>().is_ok());
    }

    #[test]
    fn a_pattern_never_reaches_beyond_its_namespace() {
        let (all, one): (NamePattern, NamePattern) = ("demo:*".parse().unwrap(), "demo:a".parse().unwrap());
        let name = |text: &str| text.parse::<ComponentName>().unwrap();
        assert!(all.matches(&name("demo:a")) && all.matches(&name("demo:b")) && one.matches(&name("demo:a")));
        assert!(!all.matches(&name("demos:a")) && !one.matches(&name("demo:ab")) && !one.matches(&name("dem:a")));
        for text in ["*", "*:*", "demo:a*", "de*:a", "demo", ""] {
            assert!(text.parse::<NamePattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_includes_what_is_no_wider() {
        let pattern = |text: &str| text.parse::<NamePattern>().unwrap();
        for (wide, narrow) in [("demo:*", "demo:*"), ("demo:*", "demo:a"), ("demo:a", "demo:a")] {
            assert!(pattern(wide).includes(&pattern(narrow)), "{wide} {narrow}");
        }
        for (narrow, wide) in [("demo:a", "demo:*"), ("demo:a", "demo:b"), ("demo:*", "demos:a")] {
            assert!(!pattern(narrow).includes(&pattern(wide)), "{narrow} {wide}");
        }
    }

    #[test]
    fn an_audience_is_never_a_wildcard() {
        assert!("prod-eu".parse::<Audience>().is_ok() && "a".repeat(255).parse::<Audience>().is_ok());
        for text in ["", "*", "a b", "a\n", "é", &"a".repeat(256)] {
            assert!(text.parse::<Audience>().is_err(), "{text}");
        }
    }

    #[test]
    fn versions_are_semantic() {
        assert_eq!("1.4.2-rc.1+b".parse::<ComponentVersion>().unwrap().to_string(), "1.4.2-rc.1+b");
        for text in ["", "1", "1.0", "v1.0.0", "01.0.0", &format!("1.0.0-{}", "a".repeat(80))] {
            assert!(text.parse::<ComponentVersion>().is_err(), "{text}");
        }
    }
}
