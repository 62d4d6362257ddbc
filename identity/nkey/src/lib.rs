//! NATS nkeys: Ed25519 keys (and the X25519 keys of NATS's boxes) as text, with a first letter that says what a key is for.
//!
//! A crate of its own, because signed claims and NATS identities both use it and neither depends on the other. Pure but for
//! the randomness of a new key. Decides whether a text is a key and of which kind, and whether a signature is a key's. Refuses
//! every text but the one canonical form of a key, kinds that it does not know, and keys of small order, whose signatures
//! anybody can make. What is secret is wiped, and is never repeated in an error.

mod error;
mod kind;
mod pair;
mod public;
mod small_order;
mod text;

pub use error::NkeyError;
pub use kind::Kind;
pub use pair::KeyPair;
pub use public::{PublicKey, SIGNATURE_BYTES};
pub use small_order::is_small_order_x25519;
pub use text::{
    KEY_BYTES, PUBLIC_TEXT_BYTES, SEED_TEXT_BYTES, base32, decode_public, decode_seed, encode_public, encode_seed,
};
