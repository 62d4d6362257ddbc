//! The rights of one connected process: those of the entries that it fits, as far as they are not revoked, as long as it is what
//! it was when it was attested.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis_identity::limits::X509_BACKDATE;
use portcullis_identity::workload_api::{Due, Entitlement, KeyedX509, ProofToken, Refusal, Token, X509Svids};
use portcullis_identity::{
    Audience, BundleDocument, Excerpt, IssueError, SpiffeId, TokenError, TrustDomain, jwt_subject_domain,
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::WorkloadApi;
use super::lease::Lease;
use super::registered::Registered;
use crate::clock;
use crate::roles::identity::keeper::Entry as Record;
use crate::roles::identity::publishing::Published;
use crate::roles::identity::rate::Use;
use crate::supervisor::workload_api::Facts;

/// One connected process.
pub(super) struct Rights {
    api: Arc<WorkloadApi>,
    facts: Facts,
    entries: Vec<Arc<Registered>>,
    lease: Lease,
    /// Serials and token ids that this connection has; each is written down once.
    delivered: Mutex<HashSet<String>>,
}

/// An SVID that is about to leave.
struct Leaving<'a> {
    entry: &'a Registered,
    id: String,
    fields: Value,
}

impl Rights {
    pub(super) fn new(api: Arc<WorkloadApi>, facts: Facts, entries: Vec<Arc<Registered>>, lease: Lease) -> Self {
        Self { api, facts, entries, lease, delivered: Mutex::default() }
    }

    /// The entries that hold now: looked at anew for each answer.
    async fn holding(&self) -> Result<(Arc<Published>, Vec<&Registered>), Refusal> {
        if !self.lease.holds().await {
            return Err(Refusal::NoIdentity);
        }
        let published = self.api.keeper.now_published();
        let entries: Vec<&Registered> =
            self.entries.iter().map(AsRef::as_ref).filter(|entry| !is_revoked(&published, entry)).collect();
        if entries.is_empty() { Err(Refusal::NoIdentity) } else { Ok((published, entries)) }
    }

    /// The foreign bundles that the entries name, as far as they are there.
    fn foreign(published: &Published, entries: &[&Registered]) -> Vec<Arc<BundleDocument>> {
        let named: BTreeSet<&TrustDomain> = entries.iter().flat_map(|entry| &entry.entry.federates_with).collect();
        let foreign = published.bundles.foreign().filter(|document| named.contains(document.trust_domain()));
        foreign.cloned().collect()
    }

    /// Sees to it that what leaves is on disk, and that nothing was revoked meanwhile.
    async fn record(&self, leaving: Vec<Leaving<'_>>) -> Result<(), Refusal> {
        let mut records = Vec::new();
        for Leaving { entry, id, fields } in &leaving {
            let issued = entry.is_recorded(id);
            if issued && self.delivered.lock().is_ok_and(|delivered| delivered.contains(id)) {
                continue;
            }
            let mut fields = fields.clone();
            if let Value::Object(members) = &mut fields {
                members.insert("entry".to_owned(), entry.entry.name.clone().into());
                members.insert("instance".to_owned(), entry.instance.as_str().into());
                members.insert("spiffe_id".to_owned(), entry.spiffe_id.to_string().into());
                members.insert("to".to_owned(), serde_json::to_value(&self.facts).unwrap_or_default());
            }
            records.push(Record::new(if issued { "delivery" } else { "issuance" }, fields));
        }
        if !records.is_empty() {
            self.api.keeper.append_many(records).await.map_err(|error| {
                tracing::error!(error, "an issuance could not be recorded and does not leave");
                Refusal::Unavailable("the audit log cannot be written")
            })?;
        }
        let published = self.api.keeper.now_published();
        for Leaving { entry, id, .. } in leaving {
            if is_revoked(&published, entry) {
                return Err(Refusal::NoIdentity);
            }
            entry.remember(&id);
            if let Ok(mut delivered) = self.delivered.lock() {
                if delivered.len() >= DELIVERED {
                    delivered.clear();
                }
                delivered.insert(id);
            }
        }
        Ok(())
    }

    /// Writes down that an audience was refused.
    async fn refused(&self, audience: &Audience) {
        let due = self.api.refusals.lock().ok().and_then(|mut all| all.refused(self.facts.uid, Instant::now()));
        let Some(number) = due else { return };
        let names: Vec<&str> = self.entries.iter().take(8).map(|entry| entry.entry.name.as_str()).collect();
        let fields = json!({
            "action": "workload-api",
            "code": "workload.audience",
            "text": format!("no entry of this process has the audience {}: {}", Excerpt::new(audience.as_str()), names.join(", ")),
            "hint": "add the audience to the [[workload]] entry if the process is to have tokens for it",
            "entries": names,
            "to": serde_json::to_value(&self.facts).unwrap_or_default(),
            "refused": number,
        });
        self.api.keeper.append_denials(vec![Record::new("denial", fields)]).await;
    }
}

fn is_revoked(published: &Published, entry: &Registered) -> bool {
    published.revoked.hold(entry.instance.as_str(), &entry.spiffe_id)
}

#[tonic::async_trait]
impl Entitlement for Rights {
    fn changes(&self) -> watch::Receiver<u64> {
        self.api.changes.subscribe()
    }

    async fn x509_svids(&self) -> Result<Due<X509Svids>, Refusal> {
        let (published, entries) = self.holding().await?;
        let (mut svids, mut leaving, mut again) = (Vec::new(), Vec::new(), LONGEST);
        for entry in &entries {
            let now = clock::now();
            let minted = {
                let mut issuer = self.api.keeper.issuer().map_err(|_| INTERNAL)?;
                issuer.export_x509(&entry.instance, entry.x509_ttl, now).map_err(|error| issue_failed(&error))?
            };
            if minted.fresh {
                self.api.keeper.counts.x509.up();
            }
            let svid = &minted.svid.svid;
            let (not_before, not_after) = (svid.not_before, svid.not_after);
            again = again.min(until_half(not_before + X509_BACKDATE, not_after, now));
            leaving.push(Leaving {
                entry,
                id: svid.serial.clone(),
                fields: json!({
                    "svid": "x509", "serial": svid.serial, "expires_at": not_after.unix_timestamp(), "private_key": true,
                }),
            });
            svids.push(KeyedX509 {
                spiffe_id: svid.spiffe_id.clone(),
                chain: svid.chain.clone(),
                key: Zeroizing::new(minted.svid.pkcs8().to_vec()),
                authorities: published.bundles.own().x509_authorities().to_vec(),
                hint: entry.entry.hint.clone(),
            });
        }
        let federated = Self::foreign(&published, &entries);
        self.record(leaving).await?;
        Ok(Due { answer: X509Svids { svids, federated: x509(federated) }, again: Some(again) })
    }

    async fn x509_bundles(&self) -> Result<BTreeMap<TrustDomain, Vec<Vec<u8>>>, Refusal> {
        let (published, entries) = self.holding().await?;
        let own = published.bundles.own();
        let mut bundles = x509(Self::foreign(&published, &entries));
        bundles.insert(own.trust_domain().clone(), own.x509_authorities().to_vec());
        Ok(bundles)
    }

    async fn jwt_svids(&self, audiences: Vec<Audience>, only: Option<SpiffeId>) -> Result<Vec<Token>, Refusal> {
        self.api.take(self.facts.uid, Use::Mint).await?;
        let (_, mut entries) = self.holding().await?;
        if let Some(only) = &only {
            entries.retain(|entry| entry.spiffe_id == *only);
        }
        if entries.is_empty() {
            return Err(Refusal::NoIdentity);
        }
        let may_have: Vec<_> = entries.iter().map(|entry| entry.may_have(&audiences)).collect();
        if let Some(Err(audience)) =
            may_have.iter().find(|may| may.is_err()).filter(|_| may_have.iter().all(Result::is_err))
        {
            self.refused(audience).await;
            return Err(Refusal::Audience(Excerpt::new(audience.as_str())));
        }
        let (mut tokens, mut leaving) = (Vec::new(), Vec::new());
        for (entry, _) in entries.into_iter().zip(&may_have).filter(|(_, may)| may.is_ok()) {
            let minted = {
                let mut issuer = self.api.keeper.issuer().map_err(|_| INTERNAL)?;
                let minted = issuer.jwt_svid(&entry.instance, &audiences, entry.jwt_ttl, clock::now());
                minted.map_err(|error| issue_failed(&error))?
            };
            if minted.fresh {
                self.api.keeper.counts.jwt.up();
            }
            let svid = minted.svid;
            let names: Vec<&str> = audiences.iter().map(Audience::as_str).collect();
            leaving.push(Leaving {
                entry,
                id: svid.jti().to_owned(),
                fields: json!({
                    "svid": "jwt", "jti": svid.jti(), "audiences": names, "expires_at": svid.expires_at().unix_timestamp(),
                }),
            });
            tokens.push(Token {
                spiffe_id: svid.spiffe_id().clone(),
                token: Zeroizing::new(svid.token().to_owned()),
                hint: entry.entry.hint.clone(),
            });
        }
        self.record(leaving).await?;
        Ok(tokens)
    }

    async fn jwt_bundles(&self) -> Result<BTreeMap<TrustDomain, String>, Refusal> {
        let (published, entries) = self.holding().await?;
        let documents = std::iter::once(Arc::clone(published.bundles.own())).chain(Self::foreign(&published, &entries));
        Ok(documents.map(|document| (document.trust_domain().clone(), keys_of(&document, "jwt-svid"))).collect())
    }

    async fn validate_jwt(&self, token: &str, audience: &Audience) -> Result<SpiffeId, Refusal> {
        self.api.take(self.facts.uid, Use::Check).await?;
        let (published, entries) = self.holding().await?;
        let domain = jwt_subject_domain(token)?;
        let known = domain == *published.bundles.trust_domain()
            || entries.iter().any(|entry| entry.entry.federates_with.contains(&domain));
        if !known {
            return Err(TokenError::UntrustedDomain(domain).into());
        }
        let claims = published.bundles.check_jwt(token, audience.as_str(), clock::now())?;
        if published.revoked.spiffe_ids.contains(claims.spiffe_id()) {
            return Err(Refusal::InvalidArgument("the JWT-SVID is not valid: its subject is revoked".to_owned()));
        }
        Ok(claims.spiffe_id().clone())
    }

    async fn wit_svids(&self, only: Option<SpiffeId>) -> Result<Due<Vec<ProofToken>>, Refusal> {
        if !self.api.wit_svid {
            return Err(Refusal::WitDisabled);
        }
        let (_, mut entries) = self.holding().await?;
        if let Some(only) = &only {
            entries.retain(|entry| entry.spiffe_id == *only);
        }
        if entries.is_empty() {
            return Err(Refusal::NoIdentity);
        }
        let (mut proofs, mut leaving, mut again) = (Vec::new(), Vec::new(), LONGEST);
        for entry in entries {
            let now = clock::now();
            let minted = {
                let mut issuer = self.api.keeper.issuer().map_err(|_| INTERNAL)?;
                issuer.wit_svid(&entry.instance, entry.jwt_ttl, now).map_err(|error| issue_failed(&error))?
            };
            if minted.fresh {
                self.api.keeper.counts.wit.up();
            }
            let svid = minted.svid;
            let issued_at = svid.claims().issued_at().unwrap_or(now);
            again = again.min(until_half(issued_at, svid.expires_at(), now));
            leaving.push(Leaving {
                entry,
                id: svid.jti().to_owned(),
                fields: json!({
                    "svid": "wit", "jti": svid.jti(), "expires_at": svid.expires_at().unix_timestamp(), "private_key": true,
                }),
            });
            proofs.push(ProofToken {
                spiffe_id: svid.spiffe_id().clone(),
                token: Zeroizing::new(svid.token().to_owned()),
                key: Zeroizing::new(svid.key_jwk().to_owned()),
                hint: entry.entry.hint.clone(),
            });
        }
        self.record(leaving).await?;
        Ok(Due { answer: proofs, again: Some(again) })
    }

    async fn wit_bundles(&self) -> Result<BTreeMap<TrustDomain, String>, Refusal> {
        if !self.api.wit_svid {
            return Err(Refusal::WitDisabled);
        }
        let (published, entries) = self.holding().await?;
        let documents = std::iter::once(Arc::clone(published.bundles.own())).chain(Self::foreign(&published, &entries));
        Ok(documents.map(|document| (document.trust_domain().clone(), keys_of(&document, "wit-svid"))).collect())
    }
}

/// Foreign authorities. A trust domain without any is left out: clients take an empty bundle for a broken one.
fn x509(documents: Vec<Arc<BundleDocument>>) -> BTreeMap<TrustDomain, Vec<Vec<u8>>> {
    let full = documents.into_iter().filter(|document| !document.x509_authorities().is_empty());
    full.map(|document| (document.trust_domain().clone(), document.x509_authorities().to_vec())).collect()
}

/// The JWK Set of the keys of one use (SPIFFE_Workload_API section 6.2.2: no others in it).
fn keys_of(document: &BundleDocument, usage: &str) -> String {
    let parsed: Value = serde_json::from_str(document.json()).unwrap_or_default();
    let keys = parsed.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
    let keys: Vec<Value> =
        keys.into_iter().filter(|key| key.get("use").and_then(Value::as_str) == Some(usage)).collect();
    json!({ "keys": keys }).to_string()
}

/// How long until an SVID is half through its life.
fn until_half(issued_at: OffsetDateTime, not_after: OffsetDateTime, now: OffsetDateTime) -> Duration {
    let half = issued_at + (not_after - issued_at) / 2;
    Duration::try_from(half - now).unwrap_or(Duration::ZERO)
}

fn issue_failed(error: &IssueError) -> Refusal {
    tracing::error!(%error, hint = error.hint(), "an SVID for the Workload API could not be made");
    match error {
        IssueError::UnknownInstance(_) => Refusal::NoIdentity,
        _ => Refusal::Unavailable("the SVID cannot be made now"),
    }
}

const INTERNAL: Refusal = Refusal::Unavailable("an error of the server");
/// A stream looks at its SVIDs at least this often.
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// Deliveries remembered for one connection; beyond, the memory starts anew and a delivery may be recorded twice.
const DELIVERED: usize = 1024;
