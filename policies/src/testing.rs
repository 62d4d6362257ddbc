//! What tests share: randomness that is the same on every run, facts, sets.

use std::sync::Arc;

use crate::component::ComponentFacts;
use crate::engine::PolicySet;
use crate::slice::Slice;
use crate::source::{Source, SourceKind};

/// A xorshift generator.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A component `demo:<name>`.
pub(crate) fn facts(name: &str) -> ComponentFacts {
    ComponentFacts {
        name: format!("demo:{name}"),
        digest: format!("sha256:{}", "3f".repeat(32)),
        spiffe_id: format!("spiffe://demo.example/ns/demo/sa/{name}"),
        signer: "AB5KQV7NQZ2W3TXJ4Y6M".to_owned(),
        signer_group: "team-demo".to_owned(),
        instance: format!("01jd8z0000000000000000{name}"),
    }
}

/// A grants file: each line is the rest of a grant, its component first.
pub(crate) fn grants(lines: &[(&str, &str)]) -> String {
    let grant = |(n, (component, rest)): (usize, &(&str, &str))| {
        format!(
            "[[grant]]\nid = \"{component}-{n}\"\nreason = \"r\"\nowner = \"o\"\ncomponent = \"demo:{component}\"\n{rest}\n\n"
        )
    };
    format!("version = 1\n\n{}", lines.iter().enumerate().map(grant).collect::<String>())
}

/// A compiled set of grants and raw policies.
pub(crate) fn set(lines: &[(&str, &str)], raw: &str) -> PolicySet {
    let sources = [
        Source { name: "grants.toml".to_owned(), text: grants(lines), kind: SourceKind::Grants },
        Source { name: "raw.cedar".to_owned(), text: raw.to_owned(), kind: SourceKind::Cedar },
    ];
    PolicySet::compile(&sources, 41).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The slice of `demo:<name>`.
pub(crate) fn slice(lines: &[(&str, &str)], raw: &str, name: &str) -> Arc<Slice> {
    set(lines, raw).slice(&facts(name))
}
