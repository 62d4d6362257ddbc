//! What a key is for. The kinds are those of NATS; there is no other, and none stands in for another.

use std::fmt;

/// The kind of a key: its first letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `A`: signs users, and answers of an auth callout.
    Account,
    /// `C`: a cluster of servers.
    Cluster,
    /// `X`: X25519, for boxes. Signs nothing.
    Curve,
    /// `M`: a WebAssembly module.
    Module,
    /// `O`: signs accounts.
    Operator,
    /// `N`: a server.
    Server,
    /// `V`: a service.
    Service,
    /// `U`: a client.
    User,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Account,
        Self::Cluster,
        Self::Curve,
        Self::Module,
        Self::Operator,
        Self::Server,
        Self::Service,
        Self::User,
    ];

    /// The first letter of its public keys; seeds begin with `S` and this letter.
    pub fn letter(self) -> char {
        match self {
            Self::Account => 'A',
            Self::Cluster => 'C',
            Self::Curve => 'X',
            Self::Module => 'M',
            Self::Operator => 'O',
            Self::Server => 'N',
            Self::Service => 'V',
            Self::User => 'U',
        }
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Cluster => "cluster",
            Self::Curve => "curve",
            Self::Module => "module",
            Self::Operator => "operator",
            Self::Server => "server",
            Self::Service => "service",
            Self::User => "user",
        }
    }

    /// The first byte of its public keys: the letter's value in base32, in the upper five bits.
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Account => 0,
            Self::Cluster => 2 << 3,
            Self::Curve => 23 << 3,
            Self::Module => 12 << 3,
            Self::Operator => 14 << 3,
            Self::Server => 13 << 3,
            Self::Service => 21 << 3,
            Self::User => 20 << 3,
        }
    }

    pub(crate) fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_writes_the_letter() {
        for kind in Kind::ALL {
            let text = crate::encode_public(kind, &[0; 32]);
            assert!(text.starts_with(kind.letter()), "{kind}: {text}");
            assert!(crate::encode_seed(kind, &[0; 32]).starts_with(&format!("S{}", kind.letter())), "{kind}");
            assert_eq!(Kind::of(kind.byte()), Some(kind));
        }
    }

    #[test]
    fn no_other_byte_is_a_kind() {
        let known: Vec<u8> = Kind::ALL.iter().map(|kind| kind.byte()).collect();
        for byte in 0..=u8::MAX {
            assert_eq!(Kind::of(byte).is_some(), known.contains(&byte), "{byte}");
        }
    }
}
