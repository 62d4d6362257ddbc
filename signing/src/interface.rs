//! Names of what a component imports and exports, and patterns of them in a signer's import ceiling.
//!
//! Interface names are compared by compatible track, as the engine's linker matches them: 0.2.1 stands for 0.2.7, 1.2.0
//! for 1.5.0, while 0.0.1 and pre-releases stand for themselves only. Packages and interfaces are whole names, never prefixes.

use std::fmt;
use std::str::FromStr;

use wasmparser::names::{ComponentName as Extern, ComponentNameKind};

use crate::excerpt::serde_as_text;
use crate::limits::NAME_BYTES;
use crate::malformed::Malformed;

/// `namespace:package/interface`, with `@version` or without.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName {
    namespace: String,
    package: String,
    interface: String,
    version: Option<semver::Version>,
}

/// The name of an import or export.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ImportName {
    /// A named interface.
    Interface(InterfaceName),
    /// Any other name: a function, type or instance that the world itself names.
    Plain(String),
}

/// What a component imports and exports at its top level: sorted, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interfaces {
    /// What it needs from the host.
    pub imports: Vec<ImportName>,
    /// What it offers.
    pub exports: Vec<ImportName>,
}

/// A part of a ceiling: `wasi:*`, `wasi:http/*`, `wasi:http/types`, `wasi:http/types@0.2.0` (its track), or one plain name.
#[derive(Clone, PartialEq, Eq)]
pub enum ImportPattern {
    /// All interfaces of a namespace.
    Namespace(String),
    /// All interfaces of a package, in any version.
    Package(String, String),
    /// One interface: any version where none is given, else the version's track.
    Interface(InterfaceName),
    /// Exactly this plain name.
    Plain(String),
}

impl InterfaceName {
    /// `wasi` of `wasi:http/types@0.2.0`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// `http` of `wasi:http/types@0.2.0`.
    pub fn package(&self) -> &str {
        &self.package
    }

    /// `types` of `wasi:http/types@0.2.0`.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// `0.2.0` of `wasi:http/types@0.2.0`.
    pub fn version(&self) -> Option<&semver::Version> {
        self.version.as_ref()
    }

    /// Whether the two differ in nothing but a compatible version.
    pub fn same_track(&self, other: &Self) -> bool {
        self.same_name(other)
            && match (&self.version, &other.version) {
                (None, None) => true,
                (Some(a), Some(b)) => {
                    a == b
                        || (is_tracked(a)
                            && is_tracked(b)
                            && a.major == b.major
                            && (a.major != 0 || a.minor == b.minor))
                }
                _ => false,
            }
    }

    fn same_name(&self, other: &Self) -> bool {
        self.namespace == other.namespace && self.package == other.package && self.interface == other.interface
    }
}

/// Whether a version stands for its track and not only for itself.
fn is_tracked(version: &semver::Version) -> bool {
    version.pre.is_empty() && (version.major != 0 || version.minor != 0)
}

impl ImportName {
    /// Whether what was claimed under this name covers `actual`.
    pub fn covers(&self, actual: &Self) -> bool {
        match (self, actual) {
            (ImportName::Interface(own), ImportName::Interface(actual)) => own.same_track(actual),
            (ImportName::Plain(own), ImportName::Plain(actual)) => own == actual,
            (ImportName::Interface(_), ImportName::Plain(_)) | (ImportName::Plain(_), ImportName::Interface(_)) => {
                false
            }
        }
    }

    /// The interface, where it is one.
    pub fn as_interface(&self) -> Option<&InterfaceName> {
        match self {
            ImportName::Interface(name) => Some(name),
            ImportName::Plain(_) => None,
        }
    }
}

impl Interfaces {
    /// What it needs from the host.
    pub fn imports(&self) -> &[ImportName] {
        &self.imports
    }

    /// What it offers.
    pub fn exports(&self) -> &[ImportName] {
        &self.exports
    }
}

impl ImportPattern {
    /// Whether every import that `other` matches is matched by this one too.
    pub fn includes(&self, other: &Self) -> bool {
        match (self, other) {
            (ImportPattern::Namespace(own), ImportPattern::Namespace(other)) => own == other,
            (ImportPattern::Namespace(own), ImportPattern::Package(other, _)) => own == other,
            (ImportPattern::Package(namespace, package), ImportPattern::Package(other, name)) => {
                namespace == other && package == name
            }
            (ImportPattern::Interface(own), ImportPattern::Interface(other)) => {
                own.same_track(other) || (own.version.is_none() && own.same_name(other))
            }
            (_, ImportPattern::Interface(other)) => self.matches(&ImportName::Interface(other.clone())),
            (ImportPattern::Plain(own), ImportPattern::Plain(other)) => own == other,
            _ => false,
        }
    }

    /// Whether `name` is meant.
    pub fn matches(&self, name: &ImportName) -> bool {
        match (self, name) {
            (ImportPattern::Namespace(namespace), ImportName::Interface(name)) => *namespace == name.namespace,
            (ImportPattern::Package(namespace, package), ImportName::Interface(name)) => {
                *namespace == name.namespace && *package == name.package
            }
            (ImportPattern::Interface(own), ImportName::Interface(name)) => {
                own.same_track(name) || (own.version.is_none() && own.same_name(name))
            }
            (ImportPattern::Plain(own), ImportName::Plain(name)) => own == name,
            (ImportPattern::Plain(_), ImportName::Interface(_)) | (_, ImportName::Plain(_)) => false,
        }
    }
}

/// Why a name is refused although the component format knows it.
const UNSUPPORTED: &str = "an interface namespace:package/interface@version or a plain name; not url=, integrity=, locked-dep= or unlocked-dep=";

impl FromStr for ImportName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new("an import or export that is supported", UNSUPPORTED, text);
        if text.len() > NAME_BYTES {
            return Err(malformed());
        }
        let name = Extern::new(text, 0).map_err(|_| malformed())?;
        match name.kind() {
            ComponentNameKind::Interface(_) => {
                text.parse().map(ImportName::Interface).map_err(|_: Malformed| malformed())
            }
            ComponentNameKind::Label(_)
            | ComponentNameKind::Constructor(_)
            | ComponentNameKind::Method(_)
            | ComponentNameKind::Static(_) => Ok(ImportName::Plain(text.to_owned())),
            ComponentNameKind::Dependency(_) | ComponentNameKind::Url(_) | ComponentNameKind::Hash(_) => {
                Err(malformed())
            }
        }
    }
}

impl FromStr for InterfaceName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || {
            Malformed::new("an interface", "namespace:package/interface@version such as wasi:http/types@0.2.0", text)
        };
        if text.len() > NAME_BYTES {
            return Err(malformed());
        }
        let name = Extern::new(text, 0).map_err(|_| malformed())?;
        let ComponentNameKind::Interface(parts) = name.kind() else { return Err(malformed()) };
        let version = match text.split_once('@') {
            Some((_, version)) => Some(semver::Version::parse(version).map_err(|_| malformed())?),
            None => None,
        };
        let own = Self {
            namespace: parts.namespace().as_str().to_owned(),
            package: parts.package().as_str().to_owned(),
            interface: parts.interface().as_str().to_owned(),
            version,
        };
        // Names with more parts than these three would lose one here.
        if own.to_string() == text { Ok(own) } else { Err(malformed()) }
    }
}

impl FromStr for ImportPattern {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || {
            Malformed::new(
                "a pattern of imports",
                "wasi:*, wasi:http/*, wasi:http/types, wasi:http/types@0.2.0 or a plain name",
                text,
            )
        };
        // The rest of the pattern is parsed as the name that it would be with something in place of the star.
        if let Some(package) = text.strip_suffix("/*") {
            let name: InterfaceName = format!("{package}/x").parse().map_err(|_| malformed())?;
            return Ok(ImportPattern::Package(name.namespace, name.package));
        }
        if let Some(namespace) = text.strip_suffix(":*") {
            let name: InterfaceName = format!("{namespace}:x/x").parse().map_err(|_| malformed())?;
            return Ok(ImportPattern::Namespace(name.namespace));
        }
        match text.parse().map_err(|_| malformed())? {
            ImportName::Interface(name) => Ok(ImportPattern::Interface(name)),
            ImportName::Plain(name) => Ok(ImportPattern::Plain(name)),
        }
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.namespace, self.package, self.interface)?;
        self.version.as_ref().map_or(Ok(()), |version| write!(f, "@{version}"))
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ImportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportName::Interface(name) => fmt::Display::fmt(name, f),
            ImportName::Plain(name) => f.write_str(name),
        }
    }
}

impl fmt::Debug for ImportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ImportPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportPattern::Namespace(namespace) => write!(f, "{namespace}:*"),
            ImportPattern::Package(namespace, package) => write!(f, "{namespace}:{package}/*"),
            ImportPattern::Interface(name) => fmt::Display::fmt(name, f),
            ImportPattern::Plain(name) => f.write_str(name),
        }
    }
}

impl fmt::Debug for ImportPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(InterfaceName, ImportName, ImportPattern);

#[cfg(test)]
mod tests;
