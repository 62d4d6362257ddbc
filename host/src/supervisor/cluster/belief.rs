//! What is believed: values of buckets, heartbeats and events, each by its statement. Whatever way something came proves nothing.
//!
//! A value must be signed for its own key by an operator whom this host's policy lets deploy or revoke; a heartbeat or an event by
//! its own host. Everything else is refused with a code, and where it is a value, recorded.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use portcullis_cluster::limits::EVENT_BYTES;
use portcullis_cluster::{
    CloudEvent, ClusterName, DocumentError, EventKind, Heartbeat, HostId, Manifest, Place, PolicyDocument,
    RevocationList, place,
};
use portcullis_identity::statement::{Envelope, Expected, Signer, Signers, Statement, StatementError, UserKey, check};
use portcullis_identity::{SpiffeId, TrustBundle, TrustDomain};
use portcullis_policies::{ControlAction, ControlQuestion, Operator};
use serde_json::Value as Json;
use time::OffsetDateTime;

use super::Cluster;
use crate::cli::files;
use crate::config::cluster::{Bundles, Member, Who};
use crate::limits::CONFIG_BYTES;
use crate::supervisor::Host;
use crate::supervisor::own;

/// A value that is believed: made by [`Host::believe`] alone.
#[derive(Debug)]
pub struct Believed {
    /// What it says.
    pub document: Document,
    /// The payload, as it was signed.
    pub payload: Vec<u8>,
    /// Who signed it.
    pub by: Signer,
    /// Until when it holds, in seconds since 1970.
    pub until: i64,
}

/// What a value says.
#[derive(Debug)]
pub enum Document {
    /// What a component is to be.
    App(Box<Manifest>),
    /// Who must not run.
    Revoked(RevocationList),
    /// The set of policies.
    Policy(PolicyDocument),
}

/// Why something is not believed.
#[derive(Debug, thiserror::Error)]
pub enum NotBelieved {
    /// Its statement.
    #[error("{0}")]
    Statement(#[from] StatementError),
    /// Its payload.
    #[error("{0}")]
    Document(#[from] DocumentError),
    /// It is for another place, or of another version, than it says.
    #[error("it does not say what its statement says: {0}")]
    Mismatch(&'static str),
    /// Its signer may not.
    #[error("{0}")]
    Denied(String),
    /// Its signer is not the host that it is about.
    #[error("{0} does not sign for that host")]
    Stranger(String),
}

impl NotBelieved {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Statement(error) => error.code(),
            Self::Document(_) => "cluster.malformed",
            Self::Mismatch(_) => "cluster.mismatch",
            Self::Denied(_) => "cluster.denied",
            Self::Stranger(_) => "cluster.stranger",
        }
    }
}

impl Document {
    /// Its version.
    pub fn version(&self) -> u64 {
        match self {
            Self::App(manifest) => manifest.version(),
            Self::Revoked(list) => list.epoch(),
            Self::Policy(set) => set.version(),
        }
    }
}

impl Host {
    /// Whether a value of a bucket is believed, by its statement, its signer's rights and its own words. Says nothing about
    /// whether a higher version was seen.
    pub(super) fn believe(
        &self,
        cluster: &Cluster,
        at: &Place,
        value: &[u8],
        now: OffsetDateTime,
    ) -> Result<Believed, NotBelieved> {
        let Envelope { statement, payload } = Envelope::parse(value)?;
        let (audience, sub) = (place::audience(&cluster.name), at.statement());
        let policy = self.policy();
        let operators = policy.set().operators();
        let keys = operators.iter().filter_map(|operator| operator.who().parse::<UserKey>().ok());
        let own = self.own();
        let signers = Signers::new(own.trust(), keys);
        let statement = check(&statement, &payload, &Expected::kept(&audience, &sub), &signers, now)?;
        not_revoked(&own, &statement)?;
        // INVARIANT: whom a list revokes cannot lift that, however late the identity process hears of it.
        if let Signer::Svid(id) = statement.signer()
            && (self.is_revoked(id) || cluster.revokes(id))
        {
            return Err(NotBelieved::Denied(format!("{id} is revoked")));
        }
        let (action, component) = match at {
            Place::App(name) => (ControlAction::Deploy, Some(name.to_string())),
            Place::Revoked => (ControlAction::Revoke, None),
            Place::Policy => (ControlAction::Deploy, None),
        };
        let who = Operator::Signer(statement.signer().to_string());
        let question = ControlQuestion { who, action, host: cluster.me.to_string(), component };
        policy
            .set()
            .control(&question)
            .map_err(|denial| NotBelieved::Denied(format!("{}: {}", denial.code(), denial.why())))?;
        let document = match at {
            Place::App(name) => {
                let manifest = Manifest::parse(&payload)?;
                if manifest.component() != name {
                    return Err(NotBelieved::Mismatch("it is about another component"));
                }
                Document::App(Box::new(manifest))
            }
            Place::Revoked => Document::Revoked(RevocationList::parse(&payload)?),
            Place::Policy => Document::Policy(PolicyDocument::parse(&payload)?),
        };
        if statement.version() != Some(document.version()) {
            return Err(NotBelieved::Mismatch("it is of another version"));
        }
        Ok(Believed { document, payload, by: statement.signer().clone(), until: statement.expires_at() })
    }
}

/// Keys and bundles that members of the cluster are checked with; made anew when either may have changed.
#[derive(Debug, Clone)]
pub struct MemberTrust {
    signers: Signers,
    domains: Vec<TrustDomain>,
    /// The same with those whose bundles cannot be read.
    named: Vec<TrustDomain>,
    pinned: Arc<BTreeMap<HostId, Who>>,
    own: Arc<own::State>,
}

/// A message of a member that is believed.
#[derive(Debug)]
pub struct FromHost {
    /// The event.
    pub event: CloudEvent,
    /// When it was signed.
    pub signed_at: OffsetDateTime,
}

impl MemberTrust {
    /// What is trusted now, and what is wrong with the files of the configuration.
    pub fn now(
        config: &crate::config::cluster::Cluster,
        own: Arc<own::State>,
        domain: &TrustDomain,
    ) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let mut trust = TrustBundle::new();
        let own_document = own.trust().get(domain).cloned();
        if let Some(document) = &own_document {
            let _ = trust.put(Arc::clone(document));
        }
        let (mut domains, mut all) = (vec![domain.clone()], vec![domain.clone()]);
        for (name, bundles) in &config.trust {
            let Ok(named) = name.parse::<TrustDomain>() else { continue };
            all.push(named.clone());
            let ours = own_document.as_ref().filter(|_| named == *domain).map(|document| document.json().to_owned());
            let added = merged(ours, bundles)
                .and_then(|json| trust.insert(&named, json.as_bytes()).map_err(|error| error.to_string()));
            match added {
                Ok(()) if named != *domain => domains.push(named),
                Ok(()) => {}
                Err(why) => problems.push(format!("cluster.trust: hosts of {named} are not believed: {why}")),
            }
        }
        let pinned: BTreeMap<HostId, Who> =
            config.member.iter().filter_map(|member| Some((member.host.parse().ok()?, member.who()?))).collect();
        let signers = Signers::new(Arc::new(trust), Member::keys(&config.member));
        (Self { signers, domains, named: all, pinned: Arc::new(pinned), own }, problems)
    }

    /// Whether an event is believed: signed just now for this subject by the host that the subject names.
    pub fn event(
        &self,
        cluster: &ClusterName,
        subject: &str,
        host: &HostId,
        statement: &str,
        payload: &[u8],
        now: OffsetDateTime,
    ) -> Result<FromHost, NotBelieved> {
        if payload.len() > EVENT_BYTES {
            return Err(NotBelieved::Document(DocumentError::TooLarge { what: "the event", most: EVENT_BYTES }));
        }
        let audience = place::audience(cluster);
        let statement = check(statement, payload, &Expected::message(&audience, subject), &self.signers, now)?;
        not_revoked(&self.own, &statement)?;
        let stranger = || {
            let of = self.pinned.iter().find(|(_, who)| who.is(statement.signer())).map(|(host, _)| host);
            let of = of.map(|host| format!(" (pinned for {host})")).unwrap_or_default();
            NotBelieved::Stranger(format!("{}{of}", statement.signer()))
        };
        let fits = match (self.pinned.get(host), statement.signer()) {
            (Some(who), signer) => who.is(signer),
            (None, Signer::Svid(id)) => {
                self.domains.contains(id.trust_domain()) && id.path() == format!("/portcullis/host/{host}")
            }
            (None, Signer::Nkey(_)) => false,
        };
        if !fits {
            return Err(stranger());
        }
        let event = CloudEvent::parse(payload)?;
        let source = match statement.signer() {
            Signer::Svid(id) => event.source == *id,
            // A key has no name of its own: the host that it is pinned for has.
            Signer::Nkey(_) => {
                self.domains.contains(event.source.trust_domain())
                    && event.source.path() == format!("/portcullis/host/{host}")
            }
        };
        if !source {
            return Err(NotBelieved::Mismatch("it names another source"));
        }
        if let Some(revoked) = self.revoked(host, &event.source, statement.signer()) {
            return Err(NotBelieved::Denied(format!("{revoked} is revoked")));
        }
        let signed_at =
            OffsetDateTime::from_unix_timestamp(statement.issued_at()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Ok(FromHost { event, signed_at })
    }

    /// The ID for which a host is not believed, where one is revoked. A key proves no trust domain: whoever holds it could name
    /// the one in which the host is not revoked, so each counts.
    fn revoked(&self, host: &HostId, source: &SpiffeId, by: &Signer) -> Option<SpiffeId> {
        let ids = match by {
            Signer::Svid(_) => vec![source.clone()],
            Signer::Nkey(_) => {
                let id = |domain: &TrustDomain| format!("spiffe://{domain}/portcullis/host/{host}").parse().ok();
                self.named.iter().filter_map(id).collect()
            }
        };
        ids.into_iter().find(|id| self.own.is_revoked(id))
    }

    /// The heartbeat in an event.
    pub fn heartbeat(event: &CloudEvent, host: &HostId) -> Result<Heartbeat, NotBelieved> {
        if event.kind != EventKind::Heartbeat {
            return Err(NotBelieved::Mismatch("it is no heartbeat"));
        }
        let heartbeat: Heartbeat = serde_json::from_value(event.data.clone())
            .map_err(|_| NotBelieved::Mismatch("its data is no heartbeat"))?;
        heartbeat.check()?;
        if heartbeat.host != *host {
            return Err(NotBelieved::Mismatch("it is about another host"));
        }
        Ok(heartbeat)
    }
}

fn not_revoked(own: &own::State, statement: &Statement) -> Result<(), NotBelieved> {
    match statement.signer() {
        Signer::Svid(id) if own.is_revoked(id) => Err(NotBelieved::Denied(format!("{id} is revoked"))),
        Signer::Svid(_) | Signer::Nkey(_) => Ok(()),
    }
}

/// One document with the authorities of all.
fn merged(own: Option<String>, bundles: &Bundles) -> Result<String, String> {
    let mut keys: Vec<Json> = Vec::new();
    let mut take = |text: &str, what: &dyn std::fmt::Display| -> Result<(), String> {
        let json: Json = serde_json::from_str(text).map_err(|error| format!("{what}: {error}"))?;
        let more = json.get("keys").and_then(Json::as_array).ok_or_else(|| format!("{what} is no bundle document"))?;
        let more: Vec<Json> = more.iter().filter(|key| !keys.contains(key)).cloned().collect();
        keys.extend(more);
        Ok(())
    };
    if let Some(own) = own {
        take(&own, &"the own bundle")?;
    }
    for path in bundles.paths() {
        take(&read(path)?, &path.display())?;
    }
    Ok(serde_json::json!({ "keys": keys }).to_string())
}

fn read(path: &Path) -> Result<String, String> {
    files::read_text(path, CONFIG_BYTES, "bundle").map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use portcullis_identity::statement::{Draft, UserSeed};
    use portcullis_identity::{Issuer, Lifetimes};

    use super::*;

    const SUBJECT: &str = "portcullis.prod.hb.h2";

    fn seed() -> UserSeed {
        UserSeed::parse(&portcullis_nkey::KeyPair::generate(portcullis_nkey::Kind::User).unwrap().seed()).unwrap()
    }

    /// Whether a message for h2's subject that names this source and is signed so is believed.
    fn believed(trust: &MemberTrust, by: &UserSeed, source: &str) -> Result<FromHost, NotBelieved> {
        let now = crate::clock::now();
        let source = match source.contains('/') {
            true => format!("spiffe://{source}").parse().unwrap(),
            false => format!("spiffe://example.org/portcullis/host/{source}").parse().unwrap(),
        };
        let event = CloudEvent::new("1".to_owned(), source, EventKind::Heartbeat, now, Json::Null).to_json();
        let jti = ulid::Ulid::generate().to_string().parse().unwrap();
        let life = std::time::Duration::from_secs(30);
        let draft = Draft::by_nkey(by.public(), "cluster:prod", SUBJECT, jti, life, &event).unwrap();
        let token = draft.token(&by.sign(draft.signing_input().as_bytes()));
        let (cluster, host) = ("prod".parse().unwrap(), "h2".parse().unwrap());
        trust.event(&cluster, SUBJECT, &host, &token, &event, now)
    }

    #[test]
    fn a_key_speaks_for_the_host_that_it_is_pinned_for_and_for_no_other() {
        let (h2, h3, stranger) = (seed(), seed(), seed());
        let section = format!(
            "host = 'h1'\n[[member]]\nhost = 'h2'\nwho = '{}'\n[[member]]\nhost = 'h3'\nwho = '{}'",
            h2.public(),
            h3.public()
        );
        let section = toml::from_str(&section).unwrap();
        let domain = "example.org".parse().unwrap();
        let (trust, _) = MemberTrust::now(&section, Arc::default(), &domain);
        let code = |result: Result<FromHost, NotBelieved>| result.err().map(|why| why.code());
        assert_eq!(code(believed(&trust, &h2, "h2")), None);
        assert_eq!(code(believed(&trust, &h3, "h2")), Some("cluster.stranger"), "another host's key");
        let said = believed(&trust, &h3, "h2").unwrap_err().to_string();
        assert!(said.contains("(pinned for h3)"), "{said}");
        assert_eq!(code(believed(&trust, &stranger, "h2")), Some("statement.unknown-key"));
        assert_eq!(code(believed(&trust, &h2, "h3")), Some("cluster.mismatch"), "it names another host as its source");
        // Without a pin no key speaks for anybody.
        let (none, _) = MemberTrust::now(&toml::from_str("host = 'h1'").unwrap(), Arc::default(), &domain);
        assert_eq!(code(believed(&none, &h2, "h2")), Some("statement.unknown-key"));
    }

    #[test]
    fn a_revoked_host_with_a_key_is_not_believed_by_the_name_of_another_trust_domain() {
        let h2 = seed();
        let temp = tempfile::tempdir().unwrap();
        let bundle = temp.path().join("other.json");
        let (keys, other) = (temp.path().join("keys"), "other.example".parse().unwrap());
        let issuer = Issuer::open(&keys, &other, Lifetimes::default(), crate::clock::now()).unwrap();
        std::fs::write(&bundle, issuer.bundle().to_json()).unwrap();
        let section = format!(
            "host = 'h1'\n[trust]\n'other.example' = '{}'\n[[member]]\nhost = 'h2'\nwho = '{}'",
            bundle.display(),
            h2.public()
        );
        let section = toml::from_str(&section).unwrap();
        let domain = "example.org".parse().unwrap();
        let trust = |revoked: &[&str]| {
            let revoked = revoked.iter().map(|id| id.parse().unwrap());
            let (trust, problems) = MemberTrust::now(&section, Arc::new(own::State::of_revoked(revoked)), &domain);
            assert!(problems.is_empty(), "{problems:?}");
            trust
        };
        let (here, there) = ("example.org/portcullis/host/h2", "other.example/portcullis/host/h2");
        let code = |trust: &MemberTrust, source: &str| believed(trust, &h2, source).err().map(|why| why.code());
        for source in [here, there] {
            assert_eq!(code(&trust(&[]), source), None, "{source}");
            assert_eq!(code(&trust(&["spiffe://example.org/portcullis/host/h3"]), source), None, "{source}");
            for revoked in [here, there] {
                let revoked = format!("spiffe://{revoked}");
                assert_eq!(code(&trust(&[&revoked]), source), Some("cluster.denied"), "{source}, {revoked} is revoked");
            }
        }
        // Nor where the bundle of the domain in which it is revoked cannot be read.
        std::fs::remove_file(&bundle).unwrap();
        let revoked = Arc::new(own::State::of_revoked(std::iter::once(format!("spiffe://{there}").parse().unwrap())));
        let (without, _) = MemberTrust::now(&section, revoked, &domain);
        assert_eq!(code(&without, here), Some("cluster.denied"));
    }
}
