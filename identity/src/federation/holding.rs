//! What is held of one foreign trust domain, and whether a fetched document may take its place.
//!
//! A sequence never goes back, is not given up once there was one, and stands for one content (SPIFFE_Trust_Domain_and_Bundle
//! section 4.1.1): whoever replays an old bundle, with a key in it that was withdrawn, gets nowhere.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use crate::bundle_document::BundleDocument;
use crate::limits::{DEFAULT_POLL, MAX_POLL, MIN_POLL, POLL_JITTER_PERCENT};

/// A foreign bundle and when it was last seen to be current.
#[derive(Debug, Clone)]
pub struct Holding {
    document: Arc<BundleDocument>,
    confirmed: OffsetDateTime,
}

/// What came of an offered document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// The keys are the same; the bundle was confirmed.
    Same,
    /// Other keys are in force now.
    New,
}

/// Why a document is not taken. The peer erred, or somebody replays an old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// An older document.
    #[error("its sequence {offered} is lower than {held}, which is held")]
    WentBack {
        /// The one in force.
        held: u64,
        /// The one that was offered.
        offered: u64,
    },
    /// The same sequence with other keys.
    #[error("its sequence is {0}, as before, but its keys are others")]
    Reused(u64),
    /// A document without a sequence, after one with.
    #[error("it has no sequence; the one that is held has {0}")]
    Missing(u64),
}

impl OfferError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "if the peer really started anew, get its bundle by a trusted way and put it in as another bootstrap file"
    }
}

impl Holding {
    /// The first bundle of a domain.
    pub fn first(document: Arc<BundleDocument>, now: OffsetDateTime) -> Self {
        Self { document, confirmed: now }
    }

    /// The bundle.
    pub fn document(&self) -> &Arc<BundleDocument> {
        &self.document
    }

    /// When it was last fetched or confirmed.
    pub fn confirmed(&self) -> OffsetDateTime {
        self.confirmed
    }

    /// Takes a document that was fetched now from the right server, if it may take the place of the one that is held.
    pub fn offer(&mut self, document: Arc<BundleDocument>, now: OffsetDateTime) -> Result<Offered, OfferError> {
        let same = self.document.same_keys(&document);
        match (self.document.sequence(), document.sequence()) {
            (Some(held), None) => return Err(OfferError::Missing(held)),
            (Some(held), Some(offered)) if offered < held => return Err(OfferError::WentBack { held, offered }),
            (Some(held), Some(offered)) if offered == held && !same => return Err(OfferError::Reused(held)),
            (Some(_), Some(_)) | (None, _) => {}
        }
        self.document = document;
        self.confirmed = now;
        Ok(if same { Offered::Same } else { Offered::New })
    }

    /// Whether it may still be used. A clock that was set back makes nothing younger than just confirmed.
    pub fn is_fresh(&self, max_age: Duration, now: OffsetDateTime) -> bool {
        now - self.confirmed <= max_age
    }
}

/// How long to wait until a peer's bundle is fetched again: its refresh hint (section 4.1.2: about 5 minutes where there is
/// none), or what the operator says instead, within bounds, and up to a tenth more or less, so that peers do not come all at
/// once. `random` is any byte.
pub fn next_poll(hint: Option<Duration>, configured: Option<Duration>, random: u8) -> Duration {
    let base = configured.unwrap_or_else(|| hint.unwrap_or(DEFAULT_POLL).clamp(MIN_POLL, MAX_POLL));
    let spread = base * POLL_JITTER_PERCENT / 100;
    base - spread + (spread * 2) * u32::from(random) / 255
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn document(kid: &str, sequence: Option<u64>) -> Arc<BundleDocument> {
        let mut json = json!({"keys": [{"kty": "EC", "use": "jwt-svid", "kid": kid, "crv": "P-256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]});
        if let Some(sequence) = sequence {
            json["spiffe_sequence"] = json!(sequence);
        }
        Arc::new(BundleDocument::parse(&"example.com".parse().unwrap(), json.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn a_newer_sequence_is_taken_and_an_equal_one_confirms() {
        let mut held = Holding::first(document("a", Some(3)), NOW);
        let later = NOW + Duration::from_secs(60);
        assert_eq!(held.offer(document("a", Some(3)), later), Ok(Offered::Same));
        assert_eq!(held.confirmed(), later);
        assert_eq!(held.offer(document("b", Some(4)), later), Ok(Offered::New));
        assert_eq!(held.offer(document("b", Some(9)), later), Ok(Offered::Same));
        assert_eq!(held.document().sequence(), Some(9));
    }

    #[test]
    fn a_sequence_never_goes_back_and_is_never_used_twice_or_given_up() {
        let mut held = Holding::first(document("a", Some(3)), NOW);
        let later = NOW + Duration::from_secs(60);
        for (offered, why) in [
            (document("a", Some(2)), OfferError::WentBack { held: 3, offered: 2 }),
            (document("b", Some(0)), OfferError::WentBack { held: 3, offered: 0 }),
            (document("b", Some(3)), OfferError::Reused(3)),
            (document("a", None), OfferError::Missing(3)),
        ] {
            assert_eq!(held.offer(offered, later), Err(why));
            assert_eq!((held.confirmed(), held.document().sequence()), (NOW, Some(3)), "nothing changed");
        }
    }

    #[test]
    fn a_domain_without_sequences_is_taken_as_it_comes() {
        let mut held = Holding::first(document("a", None), NOW);
        assert_eq!(held.offer(document("b", None), NOW), Ok(Offered::New));
        assert_eq!(held.offer(document("b", Some(1)), NOW), Ok(Offered::Same));
    }

    #[test]
    fn a_bundle_is_used_up_to_its_greatest_age_and_not_longer() {
        let held = Holding::first(document("a", None), NOW);
        let age = Duration::from_secs(60);
        assert!(held.is_fresh(age, NOW + age) && held.is_fresh(age, NOW - age));
        assert!(!held.is_fresh(age, NOW + age + Duration::from_millis(1)));
    }

    #[test]
    fn tb_03_polls_follow_the_hint_within_bounds_and_spread() {
        let five = Duration::from_secs(300);
        assert_eq!(next_poll(None, None, 0), five - five / 10);
        assert_eq!(next_poll(None, None, 255), five + five / 10);
        assert!(next_poll(Some(Duration::ZERO), None, 0) >= MIN_POLL - MIN_POLL / 10);
        assert!(next_poll(Some(Duration::from_secs(u64::MAX)), None, 255) <= MAX_POLL + MAX_POLL / 10);
        assert_eq!(next_poll(Some(five), Some(Duration::from_secs(10)), 0), Duration::from_secs(9));
    }
}
