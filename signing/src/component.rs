//! Reads what a component imports and exports. Runs only on bytes whose signature and digest have been verified, or on
//! those of the one who is about to sign them.
//!
//! Only the top level counts: what is nested reaches no further than the top level hands on. Refuses everything that is
//! not a component, names that make an engine fetch code, and anything beyond a limit. Total: any bytes give an answer.

use wasmparser::{Chunk, ComponentExternName, Encoding, Parser, Payload};

use crate::excerpt::Excerpt;
use crate::interface::{ImportName, Interfaces};
use crate::limits::{COMPONENT_BYTES, COMPONENT_DEPTH, INTERFACES, NAME_BYTES, SECTIONS};

/// Why bytes are not a component that can be admitted. Whoever made the file erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComponentError {
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// Not WebAssembly.
    #[error("the file is not WebAssembly")]
    NotWasm,
    /// WebAssembly text.
    #[error("the file is WebAssembly text, not a binary")]
    Text,
    /// An ELF file: native code, such as what an engine compiles ahead of time.
    #[error("the file is native code (ELF), not WebAssembly")]
    Native,
    /// A core module.
    #[error("the file is a core module, not a component")]
    CoreModule,
    /// It ends in the middle.
    #[error("the file is cut off after {0} bytes")]
    Truncated(usize),
    /// It breaks the format.
    #[error("the file is not a valid component: {0}")]
    Malformed(String),
    /// A name of an import or export that is not supported.
    #[error("the {side} `{name}` is not supported")]
    Name {
        /// `import` or `export`.
        side: &'static str,
        /// The name, escaped and cut.
        name: String,
    },
    /// More than a limit allows.
    #[error("the component has more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: u64,
    },
}

impl ComponentError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            ComponentError::Empty | ComponentError::Truncated(_) => "build or copy the file again",
            ComponentError::NotWasm => "name the .wasm file of a component",
            ComponentError::Text => "turn it into a binary with `wasm-tools parse`",
            ComponentError::Native => "give the .wasm that it was compiled from; precompiled code is never taken",
            ComponentError::CoreModule => "build for wasm32-wasip2, or wrap the module with `wasm-tools component new`",
            ComponentError::Malformed(_) => "check it with `wasm-tools validate`",
            ComponentError::Name { .. } => {
                "interfaces are named namespace:package/interface@version; url=, integrity=, locked-dep= and unlocked-dep= are refused"
            }
            ComponentError::TooMany { .. } => "split the component; the limits are fixed",
        }
    }
}

/// The top-level imports and exports of the component in `bytes`.
pub fn read_interfaces(bytes: &[u8]) -> Result<Interfaces, ComponentError> {
    check_header(bytes)?;
    let mut found = Interfaces::default();
    let mut parsers = vec![Parser::new(0)];
    let mut rest = bytes;
    let mut sections = 0;
    while let Some(parser) = parsers.last_mut() {
        let truncated = || ComponentError::Truncated(bytes.len());
        let (consumed, payload) = match parser.parse(rest, rest.is_empty()).map_err(malformed)? {
            Chunk::NeedMoreData(_) => return Err(truncated()),
            Chunk::Parsed { consumed, payload } => (consumed, payload),
        };
        rest = rest.get(consumed..).ok_or_else(truncated)?;
        sections += 1;
        if sections > SECTIONS {
            return Err(ComponentError::TooMany { what: "sections", max: SECTIONS as u64 });
        }
        let top = parsers.len() == 1;
        match payload {
            Payload::Version { encoding: Encoding::Component, .. } => {}
            Payload::Version { .. } => return Err(ComponentError::CoreModule),
            Payload::ModuleSection { unchecked_range, .. } => {
                rest = rest.get(unchecked_range.len()..).ok_or_else(truncated)?;
            }
            Payload::ComponentSection { parser, unchecked_range } => {
                if unchecked_range.len() > rest.len() {
                    return Err(truncated());
                }
                if parsers.len() >= COMPONENT_DEPTH {
                    return Err(ComponentError::TooMany {
                        what: "levels of nested components",
                        max: COMPONENT_DEPTH as u64,
                    });
                }
                parsers.push(parser);
            }
            Payload::ComponentImportSection(section) if top => {
                for import in section {
                    add(&mut found.imports, "import", "imports", &import.map_err(malformed)?.name)?;
                }
            }
            Payload::ComponentExportSection(section) if top => {
                for export in section {
                    add(&mut found.exports, "export", "exports", &export.map_err(malformed)?.name)?;
                }
            }
            Payload::End(_) => {
                parsers.pop();
            }
            Payload::UnknownSection { id, .. } => {
                return Err(ComponentError::Malformed(format!("a section of the unknown kind {id}")));
            }
            _ => {}
        }
    }
    for names in [&mut found.imports, &mut found.exports] {
        names.sort_by_cached_key(ToString::to_string);
        names.dedup();
    }
    Ok(found)
}

/// Tells apart what people hand over by mistake, before any parser runs.
fn check_header(bytes: &[u8]) -> Result<(), ComponentError> {
    const MAGIC: &[u8] = b"\0asm";
    if bytes.is_empty() {
        Err(ComponentError::Empty)
    } else if bytes.len() as u64 > COMPONENT_BYTES {
        Err(ComponentError::TooMany { what: "bytes", max: COMPONENT_BYTES })
    } else if bytes.starts_with(b"\x7fELF") {
        Err(ComponentError::Native)
    } else if bytes.trim_ascii_start().starts_with(b"(") {
        Err(ComponentError::Text)
    } else if bytes.len() < 8 && (MAGIC.starts_with(bytes) || bytes.starts_with(MAGIC)) {
        Err(ComponentError::Truncated(bytes.len()))
    } else if !bytes.starts_with(MAGIC) {
        Err(ComponentError::NotWasm)
    } else if Parser::is_core_wasm(bytes) {
        Err(ComponentError::CoreModule)
    } else {
        Ok(())
    }
}

fn add(
    names: &mut Vec<ImportName>,
    side: &'static str,
    sides: &'static str,
    name: &ComponentExternName<'_>,
) -> Result<(), ComponentError> {
    if names.len() >= INTERFACES {
        return Err(ComponentError::TooMany { what: sides, max: INTERFACES as u64 });
    }
    let refused = || ComponentError::Name { side, name: Excerpt(name.name).to_string() };
    // An option of a name can make it stand for another interface than the name says.
    if name.name.len() > NAME_BYTES
        || name.implements.is_some()
        || name.version_suffix.is_some()
        || name.external_id.is_some()
    {
        return Err(refused());
    }
    names.push(name.name.parse().map_err(|_| refused())?);
    Ok(())
}

fn malformed(error: wasmparser::Error) -> ComponentError {
    ComponentError::Malformed(Excerpt(&error.to_string()).to_string())
}

#[cfg(test)]
mod tests;
