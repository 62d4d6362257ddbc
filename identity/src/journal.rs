//! The journal of the authorities: which there are, in which state, and which sequence the bundle has. It is one small file that
//! is replaced as a whole before a change takes effect (write-ahead), so a crash leaves the state of before or of after.
//! Holds no secrets; names the keys.
//!
//! Refuses a journal that contradicts itself: two authorities in one slot, two active ones of a kind, a name twice.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::authority::{AuthorityId, AuthorityKind, AuthorityState, Slot};
use crate::authority_key::KeyAlgorithm;
use crate::checked_file::{SEAL_BYTES, seal, unseal};
use crate::hex::hex;
use crate::limits::{MAX_AUTHORITIES, MAX_JOURNAL_BYTES};
use crate::public_key::PublicKey;
use crate::trust_domain::TrustDomain;

/// All authorities and the numbers that must never go back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Journal {
    pub(crate) trust_domain: TrustDomain,
    /// Of the bundle whose fingerprint is `content`.
    pub(crate) sequence: u64,
    pub(crate) content: String,
    pub(crate) svid_epoch: u64,
    pub(crate) entries: Vec<Entry>,
}

/// One authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: AuthorityKind,
    pub(crate) slot: Option<Slot>,
    pub(crate) state: AuthorityState,
    pub(crate) id: AuthorityId,
    pub(crate) algorithm: KeyAlgorithm,
    /// Where the private key lies; none any more when it is old or tainted.
    pub(crate) key: Option<KeyName>,
    pub(crate) public: PublicKey,
    /// DER; empty for tokens.
    pub(crate) certificate: Vec<u8>,
    pub(crate) prepared_at: OffsetDateTime,
    pub(crate) activated_at: Option<OffsetDateTime>,
    pub(crate) not_after: OffsetDateTime,
    /// Seconds: no SVID under this authority was or will be given a longer life.
    pub(crate) longest_svid: u64,
    /// For old and tainted ones: when the last of its SVIDs has ended.
    pub(crate) published_until: Option<OffsetDateTime>,
}

/// Where a private key lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum KeyName {
    /// A file of the key directory.
    File(String),
    /// The object with this label in the PKCS#11 token.
    Pkcs11(String),
}

impl Journal {
    /// The authority of this kind that signs.
    pub(crate) fn active(&self, kind: AuthorityKind) -> Option<&Entry> {
        self.of(kind).find(|entry| entry.state == AuthorityState::Active)
    }

    /// The authority of this kind that comes next.
    pub(crate) fn prepared(&self, kind: AuthorityKind) -> Option<&Entry> {
        self.of(kind).find(|entry| entry.state == AuthorityState::Prepared)
    }

    pub(crate) fn of(&self, kind: AuthorityKind) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.kind == kind)
    }

    pub(crate) fn entry(&self, id: &AuthorityId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == *id)
    }

    pub(crate) fn entry_mut(&mut self, id: &AuthorityId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == *id)
    }

    /// Tells one published content from another.
    pub(crate) fn fingerprint(&self) -> String {
        let published: Vec<_> = self
            .entries
            .iter()
            .filter(|entry| entry.state.is_published())
            .map(|entry| (entry.kind.name(), entry.id.as_str(), STANDARD.encode(&entry.certificate)))
            .collect();
        hex(digest(&SHA256, &serde_json::to_vec(&published).unwrap_or_default()).as_ref())
    }

    /// The bytes of the file.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        let file = File {
            version: VERSION,
            trust_domain: self.trust_domain.as_str().to_owned(),
            sequence: self.sequence,
            content: self.content.clone(),
            svid_epoch: self.svid_epoch,
            authorities: self.entries.iter().map(Record::of).collect(),
        };
        let mut bytes = serde_json::to_vec(&file).ok()?;
        seal(&mut bytes);
        (bytes.len() <= MAX_JOURNAL_BYTES - SEAL_BYTES).then_some(bytes)
    }

    /// Reads the bytes of a file; the error says what is wrong with it.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, &'static str> {
        let file: File = serde_json::from_slice(unseal(bytes)?).map_err(|_| "it is not in the expected format")?;
        if file.version != VERSION {
            return Err("it was written by another version");
        }
        let journal = Self {
            trust_domain: file.trust_domain.parse().map_err(|_| "its trust domain is malformed")?,
            sequence: file.sequence,
            content: file.content,
            svid_epoch: file.svid_epoch,
            entries: file.authorities.into_iter().map(Record::entry).collect::<Result<_, _>>()?,
        };
        journal.check()?;
        Ok(journal)
    }

    /// What must hold in every journal, read or about to be written.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        for kind in AuthorityKind::ALL {
            let count = |wanted: &dyn Fn(&Entry) -> bool| self.of(kind).filter(|entry| wanted(entry)).count();
            for slot in [Slot::A, Slot::B] {
                if count(&|entry| entry.slot == Some(slot)) > 1 {
                    return Err("it has two authorities in one slot");
                }
            }
            if count(&|entry| entry.state == AuthorityState::Active) > 1
                || count(&|entry| entry.state == AuthorityState::Prepared) > 1
            {
                return Err("it has two active or two prepared authorities of one kind");
            }
            if count(&|_| true) > MAX_AUTHORITIES {
                return Err("it has too many authorities");
            }
        }
        for (at, entry) in self.entries.iter().enumerate() {
            let signs = matches!(entry.state, AuthorityState::Active | AuthorityState::Prepared);
            if signs != entry.key.is_some() || signs == entry.published_until.is_some() {
                return Err("it has an authority that signs without a key, or one with a key that does not");
            }
            if signs && entry.slot.is_none() {
                return Err("it has an authority that signs outside a slot");
            }
            if self.entries.iter().skip(at + 1).any(|other| other.id == entry.id) {
                return Err("it names an authority twice");
            }
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    trust_domain: String,
    sequence: u64,
    content: String,
    svid_epoch: u64,
    authorities: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    kind: AuthorityKind,
    slot: Option<Slot>,
    state: AuthorityState,
    id: AuthorityId,
    algorithm: KeyAlgorithm,
    key: Option<KeyName>,
    public_key: Map<String, Value>,
    certificate: String,
    prepared_at: i64,
    activated_at: Option<i64>,
    not_after: i64,
    longest_svid: u64,
    published_until: Option<i64>,
}

impl Record {
    fn of(entry: &Entry) -> Self {
        let members = entry.public.members().into_iter();
        Self {
            kind: entry.kind,
            slot: entry.slot,
            state: entry.state,
            id: entry.id.clone(),
            algorithm: entry.algorithm,
            key: entry.key.clone(),
            public_key: members.map(|(name, text)| (name.to_owned(), Value::String(text))).collect(),
            certificate: STANDARD.encode(&entry.certificate),
            prepared_at: entry.prepared_at.unix_timestamp(),
            activated_at: entry.activated_at.map(OffsetDateTime::unix_timestamp),
            not_after: entry.not_after.unix_timestamp(),
            longest_svid: entry.longest_svid,
            published_until: entry.published_until.map(OffsetDateTime::unix_timestamp),
        }
    }

    fn entry(self) -> Result<Entry, &'static str> {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| "its times are out of range");
        Ok(Entry {
            kind: self.kind,
            slot: self.slot,
            state: self.state,
            id: self.id,
            algorithm: self.algorithm,
            key: self.key,
            public: PublicKey::from_jwk(&self.public_key)?,
            certificate: STANDARD.decode(self.certificate).map_err(|_| "its certificate is not base64")?,
            prepared_at: at(self.prepared_at)?,
            activated_at: self.activated_at.map(at).transpose()?,
            not_after: at(self.not_after)?,
            longest_svid: self.longest_svid,
            published_until: self.published_until.map(at).transpose()?,
        })
    }
}

const VERSION: u32 = 1;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::p256_key::{P256Key, SignatureForm};

    pub(crate) fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
    }

    pub(crate) fn entry(kind: AuthorityKind, slot: Option<Slot>, state: AuthorityState) -> Entry {
        let public = PublicKey::P256(*P256Key::generate(SignatureForm::Fixed).unwrap().public());
        let signs = matches!(state, AuthorityState::Active | AuthorityState::Prepared);
        Entry {
            kind,
            slot,
            state,
            id: public.thumbprint().parse().unwrap(),
            algorithm: KeyAlgorithm::Es256,
            key: signs.then(|| KeyName::File("jwt-1.key".to_owned())),
            public,
            certificate: Vec::new(),
            prepared_at: at(0),
            activated_at: None,
            not_after: at(86_400),
            longest_svid: 300,
            published_until: (!signs).then(|| at(300)),
        }
    }

    fn journal(entries: Vec<Entry>) -> Journal {
        let trust_domain = "example.org".parse().unwrap();
        Journal { trust_domain, sequence: 7, content: "c".into(), svid_epoch: 3, entries }
    }

    use AuthorityKind::{Jwt, X509};
    use AuthorityState::{Active, Old, Prepared, Tainted};
    use Slot::{A, B};

    #[test]
    fn a_journal_comes_back_as_it_was_written() {
        let journal = journal(vec![
            entry(Jwt, Some(A), Active),
            entry(Jwt, Some(B), Prepared),
            entry(X509, Some(A), Old),
            entry(X509, None, Tainted),
        ]);
        assert_eq!(Journal::from_bytes(&journal.to_bytes().unwrap()), Ok(journal));
    }

    #[test]
    fn a_journal_that_contradicts_itself_is_refused() {
        let twice = entry(Jwt, Some(A), Active);
        let mut same = entry(Jwt, Some(B), Old);
        same.id = twice.id.clone();
        let mut keyless = entry(Jwt, Some(A), Active);
        keyless.key = None;
        for entries in [
            vec![entry(Jwt, Some(A), Active), entry(Jwt, Some(A), Old)],
            vec![entry(Jwt, Some(A), Active), entry(Jwt, Some(B), Active)],
            vec![entry(Jwt, Some(A), Prepared), entry(Jwt, Some(B), Prepared)],
            vec![twice, same],
            vec![keyless],
            vec![entry(Jwt, None, Active)],
            (0..=MAX_AUTHORITIES).map(|_| entry(Jwt, None, Old)).collect(),
        ] {
            let bytes = journal(entries.clone()).to_bytes().unwrap();
            assert!(Journal::from_bytes(&bytes).is_err(), "{entries:?}");
        }
        let fits = (0..MAX_AUTHORITIES).map(|_| entry(Jwt, None, Old)).collect();
        assert!(Journal::from_bytes(&journal(fits).to_bytes().unwrap()).is_ok());
    }

    #[test]
    fn the_largest_journal_that_is_allowed_fits_its_file() {
        let entries = AuthorityKind::ALL.into_iter().flat_map(|kind| {
            (0..MAX_AUTHORITIES).map(move |_| {
                let mut entry = entry(kind, None, Old);
                entry.certificate = vec![7; 1024];
                entry
            })
        });
        assert!(journal(entries.collect()).to_bytes().is_some());
        let mut huge = entry(X509, None, Old);
        huge.certificate = vec![7; MAX_JOURNAL_BYTES];
        assert!(journal(vec![huge]).to_bytes().is_none());
    }

    #[test]
    fn the_fingerprint_is_of_what_is_published() {
        let (active, tainted) = (entry(Jwt, Some(A), Active), entry(Jwt, Some(B), Tainted));
        let one = journal(vec![active.clone()]).fingerprint();
        assert_eq!(journal(vec![active.clone(), tainted]).fingerprint(), one);
        assert_ne!(journal(vec![active, entry(Jwt, Some(B), Old)]).fingerprint(), one);
    }
}
