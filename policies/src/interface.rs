//! Names of WIT interfaces, as imports and grants have them.

use std::fmt;
use std::str::FromStr;

use crate::limits::{COMPONENT_NAME_BYTES, INTERFACE_BYTES};

/// `namespace:package/interface`, with the version of an import kept apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InterfaceName {
    name: String,
    slash: usize,
    version: String,
}

/// What a grant links: one interface, or all of a package (`namespace:package/*`), in every version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LinkPattern {
    /// One interface.
    Interface(InterfaceName),
    /// All interfaces of a package.
    Package(String),
}

/// The text is no interface's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a WIT interface, such as wasi:http/outgoing-handler")]
pub struct InterfaceNameError;

/// Why text is nothing that a grant can link. The operator erred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkPatternError {
    /// Not a name.
    #[error("neither an interface such as wasi:http/outgoing-handler nor a package such as portcullis:identity/*")]
    Malformed,
    /// A version.
    #[error("a version is not taken here: a grant holds for every version (raw Cedar can read context.version)")]
    Version,
}

impl InterfaceName {
    /// `namespace:package/interface`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `namespace:package`.
    pub fn package(&self) -> &str {
        self.name.get(..self.slash).unwrap_or_default()
    }

    /// The version, empty where the name has none.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl LinkPattern {
    /// Whether an interface is meant.
    pub fn matches(&self, interface: &InterfaceName) -> bool {
        match self {
            Self::Interface(own) => own.name == interface.name,
            Self::Package(package) => package == interface.package(),
        }
    }
}

impl FromStr for InterfaceName {
    type Err = InterfaceNameError;

    fn from_str(text: &str) -> Result<Self, InterfaceNameError> {
        if text.len() > INTERFACE_BYTES {
            return Err(InterfaceNameError);
        }
        let (name, version) = match text.split_once('@') {
            Some((name, version)) if is_version(version) => (name, version),
            Some(_) => return Err(InterfaceNameError),
            None => (text, ""),
        };
        match name.split_once('/') {
            Some((package, interface)) if is_package(package) && is_label(interface) => {
                Ok(Self { name: name.to_owned(), slash: package.len(), version: version.to_owned() })
            }
            _ => Err(InterfaceNameError),
        }
    }
}

impl FromStr for LinkPattern {
    type Err = LinkPatternError;

    fn from_str(text: &str) -> Result<Self, LinkPatternError> {
        if let Some(package) = text.strip_suffix("/*").filter(|package| package.len() <= INTERFACE_BYTES) {
            return if is_package(package) {
                Ok(Self::Package(package.to_owned()))
            } else {
                Err(LinkPatternError::Malformed)
            };
        }
        match text.parse::<InterfaceName>() {
            Ok(name) if name.version.is_empty() => Ok(Self::Interface(name)),
            Ok(_) => Err(LinkPatternError::Version),
            Err(_) => Err(LinkPatternError::Malformed),
        }
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version.as_str() {
            "" => f.write_str(&self.name),
            version => write!(f, "{}@{version}", self.name),
        }
    }
}

impl fmt::Display for LinkPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => name.fmt(f),
            Self::Package(package) => write!(f, "{package}/*"),
        }
    }
}

/// Whether text can be a component's name: `namespace:name`.
pub fn is_component_name(text: &str) -> bool {
    text.len() <= COMPONENT_NAME_BYTES && is_package(text)
}

fn is_package(text: &str) -> bool {
    text.split_once(':').is_some_and(|(namespace, name)| is_label(namespace) && is_label(name))
}

/// A kebab-case label of WIT in lower case: words of letters and digits joined by single dashes, a letter first.
fn is_label(text: &str) -> bool {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.split('-').all(word)
}

fn is_version(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_is_taken_apart() {
        let name: InterfaceName = "wasi:http/outgoing-handler@0.2.3".parse().unwrap();
        assert_eq!((name.name(), name.package(), name.version()), ("wasi:http/outgoing-handler", "wasi:http", "0.2.3"));
        assert_eq!(name.to_string(), "wasi:http/outgoing-handler@0.2.3");
    }

    #[test]
    fn what_is_no_interface_is_refused() {
        for text in [
            "",
            "wasi",
            "wasi:http",
            "wasi/http",
            "wasi:http/",
            "wasi:/x",
            "wasi:http/x@",
            "wasi:http/x@1 2",
            "a:b:c/d",
            "a:b/c/d",
            "A:b/c",
            "a:b/c--d",
            "a:b/-c",
            "a:b/*",
            "a:b/c\n",
            "a:b/ü",
        ] {
            assert!(text.parse::<InterfaceName>().is_err(), "{text}");
        }
        assert!(format!("a:b/{}", "c".repeat(252)).parse::<InterfaceName>().is_ok());
        assert!(format!("a:b/{}", "c".repeat(253)).parse::<InterfaceName>().is_err());
    }

    #[test]
    fn a_pattern_is_an_interface_or_a_whole_package() {
        let import: InterfaceName = "portcullis:identity/jwt@0.1.0".parse().unwrap();
        for (pattern, matches) in [
            ("portcullis:identity/*", true),
            ("portcullis:identity/jwt", true),
            ("portcullis:identity/x509", false),
            ("portcullis:identity-more/*", false),
        ] {
            assert_eq!(pattern.parse::<LinkPattern>().unwrap().matches(&import), matches, "{pattern}");
        }
        assert_eq!("portcullis:identity/jwt@0.1.0".parse::<LinkPattern>(), Err(LinkPatternError::Version));
        for text in ["*", "portcullis:*", "portcullis:*/*", "portcullis:identity/j*", "/*"] {
            assert_eq!(text.parse::<LinkPattern>(), Err(LinkPatternError::Malformed), "{text}");
        }
    }
}
