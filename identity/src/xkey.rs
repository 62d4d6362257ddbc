//! NATS's boxes (`xkv1`): XSalsa20-Poly1305 under a secret shared by two X25519 keys (nkeys `X..`). Decides whether a payload is
//! a box of a peer for us. Refuses peers whose key has a small order: everybody knows what is shared with them.
//!
//! A box says who sealed it only as far as the reader knows whose key that is. Shared secrets are kept for the peers seen last:
//! making one costs as much as everything else of a login.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crypto_box::aead::Aead;
use crypto_box::{Nonce, SalsaBox, SecretKey};
use portcullis_nkey::{KEY_BYTES, Kind, NkeyError, PublicKey, decode_seed, encode_seed, is_small_order_x25519};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use crate::limits::MAX_XKEY_PEERS;

/// A key for boxes. No `Clone`, no `Serialize`, no content in `Debug`; wiped when dropped.
pub struct XKey {
    secret: Box<Zeroizing<[u8; KEY_BYTES]>>,
    public: PublicKey,
    shared: Mutex<VecDeque<(PublicKey, Arc<SalsaBox>)>>,
}

/// Why there is no box, or why it stays closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XKeyError {
    /// Shorter than the shortest box. The sender erred.
    #[error("the payload is too short for a box")]
    Short,
    /// Not `xkv1`. The sender erred.
    #[error("the payload is no box of version xkv1")]
    Version,
    /// For another key, by another key, or changed.
    #[error("the box was not sealed by this peer for this key, or was changed")]
    Closed,
    /// No curve key, or one of small order. The peer erred, or means harm.
    #[error("the peer's key is no key for boxes")]
    Peer,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandom,
    /// The library refused. This product erred.
    #[error("the box could not be sealed")]
    Defect,
}

impl XKeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Short | Self::Version | Self::Peer => "see that the peer is a nats-server with auth_callout.xkey set",
            Self::Closed => "see that the server's auth_callout.xkey is the public key of the xkey given here",
            Self::NoRandom => "check that the kernel's random number generator is up",
            Self::Defect => "this is a defect of the product",
        }
    }
}

impl XKey {
    /// A new key.
    pub fn generate() -> Result<Self, NkeyError> {
        let mut secret = Box::new(Zeroizing::new([0; KEY_BYTES]));
        SystemRandom::new().fill(secret.as_mut_slice()).map_err(|_| NkeyError::NoRandom)?;
        Ok(Self::new(secret))
    }

    /// The key of a seed's text (`SX..`). White space around it is left out.
    pub fn from_seed(text: &str) -> Result<Self, NkeyError> {
        match decode_seed(text.trim_ascii()) {
            Some((Kind::Curve, bytes)) => {
                let mut secret = Box::new(Zeroizing::new([0; KEY_BYTES]));
                secret.copy_from_slice(bytes.as_slice());
                Ok(Self::new(secret))
            }
            Some((found, _)) => Err(NkeyError::WrongKind { needed: Kind::Curve, found }),
            None if text.trim_ascii().parse::<PublicKey>().is_ok() => Err(NkeyError::PublicGiven),
            None => Err(NkeyError::NotSeed),
        }
    }

    /// Its seed's text.
    pub fn seed(&self) -> Zeroizing<String> {
        encode_seed(Kind::Curve, &self.secret)
    }

    /// Its public half, `X..`.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// What the peer sealed for this key.
    pub fn open(&self, peer: &PublicKey, payload: &[u8]) -> Result<Zeroizing<Vec<u8>>, XKeyError> {
        if payload.len() < VERSION.len() + NONCE_BYTES + TAG_BYTES {
            return Err(XKeyError::Short);
        }
        let rest = payload.strip_prefix(VERSION).ok_or(XKeyError::Version)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(XKeyError::Short)?;
        let shared = self.shared_with(peer)?;
        shared.decrypt(&Nonce::from(*nonce), sealed).map(Zeroizing::new).map_err(|_| XKeyError::Closed)
    }

    /// A box that only the peer opens.
    pub fn seal(&self, peer: &PublicKey, plain: &[u8]) -> Result<Vec<u8>, XKeyError> {
        let shared = self.shared_with(peer)?;
        let mut nonce = [0; NONCE_BYTES];
        SystemRandom::new().fill(&mut nonce).map_err(|_| XKeyError::NoRandom)?;
        let sealed = shared.encrypt(&Nonce::from(nonce), plain).map_err(|_| XKeyError::Defect)?;
        Ok([VERSION, &nonce, &sealed].concat())
    }

    fn new(secret: Box<Zeroizing<[u8; KEY_BYTES]>>) -> Self {
        let public = with_secret(&secret, |key| *key.public_key().as_bytes());
        Self { secret, public: PublicKey::new(Kind::Curve, public), shared: Mutex::default() }
    }

    fn shared_with(&self, peer: &PublicKey) -> Result<Arc<SalsaBox>, XKeyError> {
        if peer.kind() != Kind::Curve || is_small_order_x25519(peer.as_bytes()) {
            return Err(XKeyError::Peer);
        }
        // Nothing is left half done in it, so a poisoned lock is as good as another.
        let kept = || self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, shared)) = kept().iter().find(|(known, _)| known == peer) {
            return Ok(Arc::clone(shared));
        }
        let theirs = crypto_box::PublicKey::from_bytes(*peer.as_bytes());
        let shared = Arc::new(with_secret(&self.secret, |key| SalsaBox::new(&theirs, key)));
        let mut kept = kept();
        if kept.len() >= MAX_XKEY_PEERS {
            kept.pop_front();
        }
        kept.push_back((*peer, Arc::clone(&shared)));
        Ok(shared)
    }
}

impl fmt::Debug for XKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XKey(of {})", self.public)
    }
}

/// The library's key wipes only one of its two copies when it is dropped, so it lives for one call and is overwritten.
fn with_secret<T>(secret: &[u8; KEY_BYTES], call: impl FnOnce(&SecretKey) -> T) -> T {
    let mut key = SecretKey::from_bytes(*secret);
    let result = call(&key);
    key = SecretKey::from_bytes([0; KEY_BYTES]);
    std::hint::black_box(&key);
    result
}

const VERSION: &[u8] = b"xkv1";
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(key: &XKey) -> usize {
        key.shared.lock().unwrap().len()
    }

    #[test]
    fn a_box_opens_for_its_two_keys_only() {
        let (ours, server, other) = (XKey::generate().unwrap(), XKey::generate().unwrap(), XKey::generate().unwrap());
        for plain in [&b""[..], b"x", &[7; 5000]] {
            let sealed = server.seal(&ours.public(), plain).unwrap();
            assert_eq!(ours.open(&server.public(), &sealed).unwrap().as_slice(), plain);
            assert_eq!(ours.open(&other.public(), &sealed), Err(XKeyError::Closed));
            assert_eq!(other.open(&server.public(), &sealed), Err(XKeyError::Closed));
        }
        assert_eq!(kept(&ours), 2, "a shared secret is made once");
    }

    #[test]
    fn the_reference_implementation_opens_ours_and_we_open_its() {
        let ours = XKey::generate().unwrap();
        let reference = nkeys::XKey::new();
        let theirs: PublicKey = reference.public_key().parse().unwrap();
        let ours_for_them = nkeys::XKey::from_public_key(&ours.public().to_string()).unwrap();
        let sealed = ours.seal(&theirs, b"answer").unwrap();
        assert_eq!(reference.open(&sealed, &ours_for_them).unwrap(), b"answer");
        let sealed = reference.seal(b"request", &ours_for_them).unwrap();
        assert_eq!(ours.open(&theirs, &sealed).unwrap().as_slice(), b"request");
        let again = XKey::from_seed(&reference.seed().unwrap()).unwrap();
        assert_eq!((again.public(), again.seed().as_str()), (theirs, reference.seed().unwrap().as_str()));
    }

    #[test]
    fn every_changed_or_missing_byte_is_refused() {
        let (ours, server) = (XKey::generate().unwrap(), XKey::generate().unwrap());
        let sealed = server.seal(&ours.public(), b"request").unwrap();
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(ours.open(&server.public(), &changed).is_err(), "at {position}");
            assert!(ours.open(&server.public(), &sealed[..position]).is_err(), "cut at {position}");
        }
        assert_eq!(ours.open(&server.public(), b""), Err(XKeyError::Short));
        let long = b"eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.e30.x";
        assert_eq!(ours.open(&server.public(), long), Err(XKeyError::Version));
    }

    #[test]
    fn peers_of_small_order_are_refused_though_the_library_takes_them() {
        let ours: Vec<XKey> = (0..64).map(|_| XKey::generate().unwrap()).collect();
        let boxes = |point: [u8; 32]| {
            let theirs = crypto_box::PublicKey::from_bytes(point);
            let sealed = ours.iter().map(|key| {
                with_secret(&key.secret, |key| {
                    SalsaBox::new(&theirs, key).encrypt(&Nonce::from([0; 24]), &b"x"[..]).unwrap()
                })
            });
            sealed.collect::<std::collections::BTreeSet<_>>().len()
        };
        for (first, rest, last) in [(0, 0, 0), (1, 0, 0), (0xec, 0xff, 0x7f), (0xed, 0xff, 0x7f), (0xee, 0xff, 0x7f)] {
            let mut point = [rest; 32];
            (point[0], point[31]) = (first, last);
            assert!(boxes(point) <= 8, "anybody can guess what is shared: {point:?}");
            let peer = PublicKey::new(Kind::Curve, point);
            assert_eq!(ours[0].seal(&peer, b"x"), Err(XKeyError::Peer));
            assert_eq!(ours[0].open(&peer, &[VERSION, &[0; 60]].concat()), Err(XKeyError::Peer));
        }
        assert_eq!(boxes(*ours[0].public().as_bytes()), 64);
        assert_eq!(ours[0].seal(&PublicKey::new(Kind::User, [9; 32]), b"x"), Err(XKeyError::Peer));
    }

    #[test]
    fn secrets_of_so_many_peers_are_kept_and_the_oldest_makes_room() {
        let ours = XKey::generate().unwrap();
        let peer = |index: usize| {
            let mut bytes = [9; 32];
            bytes[..8].copy_from_slice(&index.to_le_bytes());
            PublicKey::new(Kind::Curve, bytes)
        };
        for index in 0..=MAX_XKEY_PEERS {
            ours.seal(&peer(index), b"x").unwrap();
        }
        assert_eq!(kept(&ours), MAX_XKEY_PEERS);
        assert!(!ours.shared.lock().unwrap().iter().any(|(known, _)| *known == peer(0)));
    }

    #[test]
    fn other_seeds_are_refused_and_debug_shows_no_secret() {
        let key = XKey::generate().unwrap();
        assert_eq!(XKey::from_seed(&format!("{}\n", *key.seed())).unwrap().public(), key.public());
        let user = portcullis_nkey::KeyPair::generate(Kind::User).unwrap();
        let refused = XKey::from_seed(&user.seed()).err();
        assert_eq!(refused, Some(NkeyError::WrongKind { needed: Kind::Curve, found: Kind::User }));
        assert_eq!(XKey::from_seed(&key.public().to_string()).err(), Some(NkeyError::PublicGiven));
        assert_eq!(XKey::from_seed("SX").err(), Some(NkeyError::NotSeed));
        assert_eq!(format!("{key:?}"), format!("XKey(of {})", key.public()));
    }
}
