//! Secret bytes. They live on the heap at one address, are wiped when dropped, and cannot be printed, cloned or serialised.

use std::fmt;

use ring::rand::SecureRandom;
use zeroize::Zeroize;

/// `N` secret bytes.
pub(crate) struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Fresh random bytes; `None` when the system has no randomness to give.
    pub(crate) fn random(random: &dyn SecureRandom) -> Option<Self> {
        let mut secret = Self(Box::new([0; N]));
        random.fill(secret.0.as_mut_slice()).ok()?;
        Some(secret)
    }

    /// A copy of exactly `N` bytes.
    pub(crate) fn copied(bytes: &[u8]) -> Option<Self> {
        let mut secret = Self(Box::new([0; N]));
        if bytes.len() != N {
            return None;
        }
        secret.0.copy_from_slice(bytes);
        Some(secret)
    }

    /// The bytes, for the one call that needs them.
    pub(crate) fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nothing_and_takes_exactly_its_length() {
        let secret = Secret::<4>::copied(&[1, 2, 3, 4]).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret.expose(), &[1, 2, 3, 4]);
        assert!(Secret::<4>::copied(&[1, 2, 3]).is_none());
        assert!(Secret::<4>::copied(&[1, 2, 3, 4, 5]).is_none());
    }
}
