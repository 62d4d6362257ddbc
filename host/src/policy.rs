//! Policy sources as they travel between the processes, and how each compiles them for itself.

use portcullis_policies::{PolicySet, Source, SourceKind};

pub mod audited;
pub mod pushed;

pub use audited::Audited;
pub use pushed::{Ending, Pushed};

/// Compiles sources given as (name, kind, text). Any problem refuses the whole set.
pub fn compile(sources: impl Iterator<Item = (String, String, String)>, generation: u64) -> Result<PolicySet, String> {
    let mut parsed = Vec::new();
    for (name, kind, text) in sources {
        let kind = kind_of(&kind).ok_or_else(|| format!("unknown kind of policy source: {}", kind.escape_debug()))?;
        parsed.push(Source { name, text, kind });
    }
    PolicySet::compile(&parsed, generation).map_err(|errors| errors.to_string())
}

/// The word for a kind of source.
pub fn kind_name(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::Grants => "grants",
        SourceKind::Cedar => "cedar",
    }
}

fn kind_of(name: &str) -> Option<SourceKind> {
    match name {
        "grants" => Some(SourceKind::Grants),
        "cedar" => Some(SourceKind::Cedar),
        _ => None,
    }
}
