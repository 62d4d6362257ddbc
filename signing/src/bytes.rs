//! The bytes of a component, read once. What is hashed, verified, parsed and compiled is this one buffer.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use crate::digest::Digest;

/// Owned bytes and their digest, made together. A clone shares both.
#[derive(Clone)]
pub struct ComponentBytes(Arc<Inner>);

struct Inner {
    bytes: Vec<u8>,
    digest: Digest,
}

/// Why bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// More bytes than allowed. Reading stopped there.
    #[error("it is larger than {max} bytes")]
    TooLarge {
        /// The limit.
        max: u64,
    },
    /// The source failed.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl ReadError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            ReadError::TooLarge { .. } => "raise maxComponentSize in the trust policy, or make the component smaller",
            ReadError::Io(_) => "check that the file is there and readable",
        }
    }
}

impl ComponentBytes {
    /// Reads to the end, hashing on the way; stops as soon as there are more than `max` bytes.
    pub fn read(mut reader: impl Read, max: u64) -> Result<Self, ReadError> {
        const CHUNK: usize = 64 << 10;
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let mut bytes = Vec::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => {
                    chunk.get(..read).ok_or_else(|| io::Error::other("a reader gave more than it was asked for"))?
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if (bytes.len() + read.len()) as u64 > max {
                return Err(ReadError::TooLarge { max });
            }
            context.update(read);
            bytes.extend_from_slice(read);
        }
        let digest = Digest::from_ring(&context.finish());
        Ok(Self(Arc::new(Inner { bytes, digest })))
    }

    /// Takes bytes that are in memory already.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let digest = Digest::of(&bytes);
        Self(Arc::new(Inner { bytes, digest }))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Their digest.
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }
}

impl fmt::Debug for ComponentBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ComponentBytes({} bytes, {})", self.0.bytes.len(), self.0.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_gives_the_same_digest_as_hashing() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| i as u8).collect();
        let read = ComponentBytes::read(bytes.as_slice(), 200_000).unwrap();
        assert_eq!(read.bytes(), bytes);
        assert_eq!(*read.digest(), Digest::of(&bytes));
        assert_eq!(read.digest(), ComponentBytes::from_vec(bytes).digest());
    }

    #[test]
    fn one_byte_too_many_is_refused() {
        assert!(matches!(ComponentBytes::read(&[0; 11][..], 10), Err(ReadError::TooLarge { max: 10 })));
        assert!(ComponentBytes::read(io::repeat(0), 1 << 20).is_err());
        assert!(ComponentBytes::read(&[0; 10][..], 10).is_ok());
    }

    #[test]
    fn a_failing_reader_is_an_error() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        assert!(matches!(ComponentBytes::read(Failing, 10), Err(ReadError::Io(_))));
    }
}
