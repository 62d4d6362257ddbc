//! What a component says about itself: the name and version that its builder wrote into it. Suggestions for claims, never facts.

use wasmparser::{ComponentName, Encoding, KnownCustom, Parser, Payload};

use crate::component_name::{ComponentName as Name, ComponentVersion};
use crate::interface::Interfaces;
use crate::limits::{SECTIONS, TEXT_BYTES};

/// Suggestions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `namespace:name`, or a name without a namespace.
    pub name: Option<String>,
    /// Semantic version.
    pub version: Option<ComponentVersion>,
}

/// The metadata of the component in `bytes`: its own name and version sections, else the WIT package of what it exports.
pub fn read_metadata(bytes: &[u8], interfaces: &Interfaces) -> Metadata {
    let mut found = own_sections(bytes);
    if let Some((package, version)) = exported_package(interfaces) {
        if found.name.as_ref().is_none_or(|name| name.parse::<Name>().is_err()) {
            found.name = Some(package);
        }
        found.version = found.version.or(version);
    }
    found
}

fn own_sections(bytes: &[u8]) -> Metadata {
    let mut found = Metadata::default();
    let mut depth = 0usize;
    for payload in Parser::new(0).parse_all(bytes).take(SECTIONS) {
        match payload {
            Ok(Payload::Version { encoding: Encoding::Component | Encoding::Module, .. }) => depth += 1,
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(Payload::CustomSection(section)) if depth == 1 => match section.as_known() {
                KnownCustom::ComponentName(names) => {
                    for name in names.into_iter().flatten() {
                        if let ComponentName::Component { name, .. } = name {
                            found.name = short(name);
                        }
                    }
                }
                _ if section.name() == "version" => {
                    let text = std::str::from_utf8(section.data()).ok();
                    found.version = text.and_then(|text| text.trim().parse().ok());
                }
                _ => {}
            },
            Ok(_) => {}
            Err(_) => return found,
        }
    }
    found
}

/// The one package whose interfaces are exported, besides those of standards: `acme:orders/api@1.4.2` is of `acme:orders`.
fn exported_package(interfaces: &Interfaces) -> Option<(String, Option<ComponentVersion>)> {
    let mut packages: Vec<(String, Option<ComponentVersion>)> = Vec::new();
    for export in interfaces.exports() {
        let text = export.to_string();
        let Some((package, interface)) = text.split_once('/') else { continue };
        if STANDARD.iter().any(|standard| package.starts_with(standard)) || package.parse::<Name>().is_err() {
            continue;
        }
        let version = interface.split_once('@').and_then(|(_, version)| version.parse().ok());
        packages.push((package.to_owned(), version));
    }
    packages.dedup();
    match packages.as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    }
}

fn short(text: &str) -> Option<String> {
    ((1..=TEXT_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_owned())
}

/// Namespaces of interfaces that many components export: they name no component.
const STANDARD: [&str; 3] = ["wasi:", "wasmcloud:", "portcullis:"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::read_interfaces;

    fn metadata(text: &str, version: Option<&str>) -> Metadata {
        let mut bytes = wat::parse_str(text).unwrap();
        if let Some(version) = version {
            let content = [&[7u8], b"version".as_slice(), version.as_bytes()].concat();
            bytes.push(0);
            bytes.push(u8::try_from(content.len()).unwrap());
            bytes.extend(content);
        }
        read_metadata(&bytes, &read_interfaces(&bytes).unwrap())
    }

    #[test]
    fn the_builders_own_sections_come_first() {
        let found = metadata("(component $acme:orders)", Some("1.4.2"));
        assert_eq!((found.name.as_deref(), found.version), (Some("acme:orders"), Some("1.4.2".parse().unwrap())));
        let found = metadata("(component $orders)", Some("not a version"));
        assert_eq!((found.name.as_deref(), found.version), (Some("orders"), None));
        assert_eq!(metadata("(component)", None), Metadata::default());
    }

    #[test]
    fn a_nested_component_names_only_itself() {
        assert_eq!(metadata("(component (component $acme:inner))", None).name, None);
    }

    #[test]
    fn the_one_package_that_is_exported_names_the_component() {
        let export = |names: &[&str]| {
            let exports: String = names.iter().map(|name| format!("(export \"{name}\" (instance $i))")).collect();
            format!("(component (instance $i) {exports})")
        };
        let found = metadata(&export(&["acme:orders/api@1.4.2", "wasi:http/incoming-handler@0.2.3"]), None);
        assert_eq!((found.name.as_deref(), found.version), (Some("acme:orders"), Some("1.4.2".parse().unwrap())));
        let found = metadata(&export(&["acme:orders/api@1.4.2", "other:thing/api@1.0.0"]), None);
        assert_eq!(found, Metadata::default());
        assert_eq!(metadata(&export(&["wasi:http/incoming-handler@0.2.3"]), None), Metadata::default());
    }

    #[test]
    fn bytes_that_end_early_are_no_reason_to_stop() {
        let bytes = wat::parse_str("(component $acme:orders (core module) (component))").unwrap();
        for length in 0..bytes.len() {
            let _ = read_metadata(&bytes[..length], &Interfaces::default());
        }
    }
}
