//! Credentials files: a user's token and the seed of its key, in NATS's decorated text. The file is a secret. Refuses a token
//! and a seed that do not belong together, either of them twice, and whatever is too large.

use portcullis_nkey::{KeyPair, Kind, NkeyError, PublicKey};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::token::{NatsJwtError, TokenType};
use super::verified::Verified;
use crate::limits::MAX_CREDS_BYTES;

/// A user's token with its key. The token's signature is right; who signed it is the server's to judge.
pub struct Creds {
    jwt: Zeroizing<String>,
    key: KeyPair,
    issuer_account: PublicKey,
    expires_at: Option<OffsetDateTime>,
}

/// Why a file holds no credentials. Who wrote or named it erred. Never repeats what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredsError {
    /// Over [`MAX_CREDS_BYTES`].
    #[error("the file is larger than {MAX_CREDS_BYTES} bytes")]
    TooLarge,
    /// Not decorated text with one token and one seed.
    #[error("the file has not exactly one USER JWT and one USER NKEY SEED between their markers")]
    Form,
    /// The token is none.
    #[error("the user's token in the file: {0}")]
    Token(#[from] NatsJwtError),
    /// The seed is none, or of no user.
    #[error("the seed in the file: {0}")]
    Seed(#[from] NkeyError),
    /// The seed is not that of the token's user.
    #[error("the file's seed is not that of the user in its token")]
    Mismatch,
}

impl CredsError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLarge | Self::Form => {
                "name a credentials file as `nsc generate creds` or `portcullis callout init` writes it"
            }
            Self::Token(error) => error.hint(),
            Self::Seed(error) => error.hint(),
            Self::Mismatch => "make the credentials anew: token and seed come from two files",
        }
    }
}

impl Creds {
    /// A token and its user's key.
    pub fn new(jwt: &str, key: KeyPair) -> Result<Self, CredsError> {
        let read = Verified::parse(jwt, TokenType::User)?;
        let user = key.public().require(Kind::User)?;
        if read.subject() != user {
            return Err(CredsError::Mismatch);
        }
        let issuer_account = read.issuer_account()?;
        Ok(Self { jwt: Zeroizing::new(jwt.to_owned()), key, issuer_account, expires_at: read.expires_at() })
    }

    /// The credentials in a file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, CredsError> {
        if bytes.len() > MAX_CREDS_BYTES {
            return Err(CredsError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| CredsError::Form)?;
        let (mut jwt, mut seed, mut open) = (None, None, None);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match (marker(line), open) {
                (Some(Marker::Begin(block)), None) => open = Some(block),
                (Some(Marker::End(ended)), Some(block)) if ended == block => open = None,
                (Some(_), _) => return Err(CredsError::Form),
                (None, Some(Block::Jwt)) if jwt.is_none() => jwt = Some(line),
                (None, Some(Block::Seed)) if seed.is_none() => seed = Some(line),
                (None, Some(_)) => return Err(CredsError::Form),
                // Between the blocks stands what people are told.
                (None, None) => {}
            }
        }
        match (jwt, seed, open) {
            (Some(jwt), Some(seed), None) => Self::new(jwt, KeyPair::from_seed_of(seed, Kind::User)?),
            _ => Err(CredsError::Form),
        }
    }

    /// The file's text. Write it where nobody else reads it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let seed = self.key.seed();
        let mut text = Zeroizing::new(String::with_capacity(self.jwt.len() + TEXT_BYTES));
        for part in [
            "-----BEGIN NATS USER JWT-----\n",
            self.jwt.as_str(),
            "\n------END NATS USER JWT------\n\n",
            "************************* IMPORTANT *************************\n",
            "The seed below is a secret: whoever has it is this user.\n\n",
            "-----BEGIN USER NKEY SEED-----\n",
            seed.as_str(),
            "\n------END USER NKEY SEED------\n\n",
            "*************************************************************\n",
        ] {
            text.push_str(part);
        }
        text
    }

    /// The user's token: what is sent with each connection.
    pub fn jwt(&self) -> &str {
        &self.jwt
    }

    /// The user.
    pub fn user(&self) -> PublicKey {
        self.key.public()
    }

    /// The key that signs the nonce of a server.
    pub fn key(&self) -> &KeyPair {
        &self.key
    }

    /// The account whose user this is.
    pub fn account(&self) -> PublicKey {
        self.issuer_account
    }

    /// When the token ends, if it does.
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        self.expires_at
    }
}

impl std::fmt::Debug for Creds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Creds(of {})", self.key.public())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Jwt,
    Seed,
}

enum Marker {
    Begin(Block),
    End(Block),
}

/// `-----BEGIN ..-----`, `------END ..------`: at least three dashes on both sides, as NATS's own readers have it.
fn marker(line: &str) -> Option<Marker> {
    let inner = line.trim_matches('-');
    if !line.starts_with("---") {
        return None;
    }
    match inner {
        "BEGIN NATS USER JWT" => Some(Marker::Begin(Block::Jwt)),
        "END NATS USER JWT" => Some(Marker::End(Block::Jwt)),
        "BEGIN USER NKEY SEED" => Some(Marker::Begin(Block::Seed)),
        "END USER NKEY SEED" => Some(Marker::End(Block::Seed)),
        _ => None,
    }
}

/// More than is around the token, so that the text never moves and leaves a copy.
const TEXT_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::nats_jwt::{AccountSigner, Permissions, Rights, UserToken};

    fn creds() -> Creds {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let key = KeyPair::generate(Kind::User).unwrap();
        let signer = AccountSigner::account(KeyPair::generate(Kind::Account).unwrap()).unwrap();
        let rights = Rights::Explicit(Permissions::none());
        let token = UserToken::new(key.public(), "a".parse().unwrap(), rights, now + Duration::from_secs(60)).unwrap();
        Creds::new(&token.sign(&signer, now).unwrap(), key).unwrap()
    }

    #[test]
    fn credentials_survive_their_file_with_either_line_end() {
        let made = creds();
        for text in [made.to_text().to_string(), made.to_text().replace('\n', "\r\n")] {
            let read = Creds::parse(text.as_bytes()).unwrap();
            assert_eq!((read.jwt(), read.user(), read.account()), (made.jwt(), made.user(), made.account()));
            assert_eq!(read.expires_at(), made.expires_at());
        }
        assert!(made.to_text().capacity() < made.jwt().len() + TEXT_BYTES + 1, "it never moved");
    }

    #[test]
    fn the_seed_of_another_user_is_refused() {
        let (one, other) = (creds(), creds());
        let mixed = one.to_text().replace(one.key.seed().as_str(), other.key.seed().as_str());
        assert_eq!(Creds::parse(mixed.as_bytes()).err(), Some(CredsError::Mismatch));
        let account = KeyPair::generate(Kind::Account).unwrap().seed();
        let mixed = one.to_text().replace(one.key.seed().as_str(), &account);
        assert!(matches!(Creds::parse(mixed.as_bytes()), Err(CredsError::Seed(NkeyError::WrongKind { .. }))));
    }

    #[test]
    fn a_part_missing_twice_cut_or_in_the_wrong_place_is_refused() {
        let text = creds().to_text().to_string();
        assert_eq!(Creds::parse(b"").err(), Some(CredsError::Form));
        assert_eq!(Creds::parse(format!("{text}{text}").as_bytes()).err(), Some(CredsError::Form));
        assert_eq!(Creds::parse(b"\xff").err(), Some(CredsError::Form));
        let lines: Vec<&str> = text.lines().collect();
        for left_out in [0, 1, 2, 7, 8, 9] {
            let mut fewer = lines.clone();
            assert!(!fewer.remove(left_out).is_empty());
            assert!(Creds::parse(fewer.join("\n").as_bytes()).is_err(), "without line {left_out}");
        }
        assert!(Creds::parse(text.replace("BEGIN NATS", "BEGIN USER").as_bytes()).is_err());
    }

    #[test]
    fn a_changed_token_is_refused() {
        let made = creds();
        let (head, signature) = made.jwt().rsplit_once('.').unwrap();
        let other = if signature.starts_with('A') { "B" } else { "A" };
        let changed = format!("{head}.{other}{}", signature.get(1..).unwrap());
        let text = made.to_text().replace(made.jwt(), &changed);
        assert_eq!(Creds::parse(text.as_bytes()).err(), Some(CredsError::Token(NatsJwtError::Signature)));
    }

    #[test]
    fn the_largest_file_passes_one_more_byte_does_not_and_nothing_secret_is_shown() {
        let made = creds();
        let mut text = made.to_text().to_string();
        text.push_str(&" ".repeat(MAX_CREDS_BYTES - text.len()));
        assert!(Creds::parse(text.as_bytes()).is_ok());
        text.push(' ');
        assert_eq!(Creds::parse(text.as_bytes()).err(), Some(CredsError::TooLarge));
        assert_eq!(format!("{made:?}"), format!("Creds(of {})", made.user()));
    }
}
