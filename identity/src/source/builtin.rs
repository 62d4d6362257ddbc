//! The built-in issuer as a source: an adapter that decides nothing.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{IdentitySource, SourceError, SourceKind, SourcePublished, SourceStatus, Vouched};
use crate::audience::Audience;
use crate::bundle_document::BundleDocument;
use crate::bundle_set::BundleSet;
use crate::issuer::{IssueError, Issuer, Minted, SignError, X509Svid};
use crate::jwt_svid::JwtSvid;
use crate::key_scan::KeyScan;
use crate::statement::Draft;
use crate::trust_domain::TrustDomain;
use crate::workload::InstanceId;

/// This host's own issuer.
#[derive(Debug)]
pub struct BuiltIn {
    issuer: Arc<Mutex<Issuer>>,
    trust_domain: TrustDomain,
    published: watch::Sender<SourcePublished>,
}

impl BuiltIn {
    /// The issuer, which others may hold too: whoever rotates it calls [`BuiltIn::publish`] afterwards.
    pub fn new(issuer: Arc<Mutex<Issuer>>, trust_domain: TrustDomain) -> Self {
        let source = Self { issuer, trust_domain, published: watch::Sender::new(SourcePublished::default()) };
        source.publish(0);
        source
    }

    /// Tells whoever follows about the issuer's bundle, where it changed, and about the epoch of its SVIDs.
    pub fn publish(&self, svid_epoch: u64) {
        let Ok(bundle) = self.lock().map(|issuer| issuer.bundle()) else { return };
        let Ok(own) = BundleDocument::parse(&self.trust_domain, bundle.to_json().as_bytes()) else { return };
        let bundles = BundleSet::new(Arc::new(own));
        self.published.send_if_modified(|before| {
            let sequence = before.bundles.as_ref().and_then(|known| known.own().sequence());
            let same = sequence == bundles.own().sequence() && before.svid_epoch == svid_epoch;
            *before = SourcePublished { bundles: Some(Arc::new(bundles)), svid_epoch };
            !same
        });
    }

    fn lock(&self) -> Result<MutexGuard<'_, Issuer>, SourceError> {
        self.issuer.lock().map_err(|_| SourceError::Issue(IssueError::Minting("the issuer is poisoned")))
    }
}

#[async_trait]
impl IdentitySource for BuiltIn {
    fn kind(&self) -> SourceKind {
        SourceKind::BuiltIn
    }

    fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    fn admit(&self, vouched: Vouched) -> Result<(), SourceError> {
        Ok(self.lock()?.admit(vouched.workload)?)
    }

    fn stop(&self, instance: &InstanceId) -> bool {
        self.lock().is_ok_and(|mut issuer| issuer.stop(instance))
    }

    async fn x509_svid(
        &self,
        instance: &InstanceId,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Minted<X509Svid>, SourceError> {
        Ok(self.lock()?.x509_svid(instance, ttl, now)?)
    }

    async fn jwt_svid(
        &self,
        instance: &InstanceId,
        audiences: &[Audience],
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Minted<JwtSvid>, SourceError> {
        Ok(self.lock()?.jwt_svid(instance, audiences, ttl, now)?)
    }

    fn sign_handshake(&self, instance: &InstanceId, key_id: &str, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.issuer.lock().map_err(|_| SignError::Signing)?.sign_handshake(instance, key_id, message)
    }

    fn sign(&self, instance: &InstanceId, key_id: &str, purpose: &str, data: &[u8]) -> Result<Vec<u8>, SignError> {
        self.issuer.lock().map_err(|_| SignError::Signing)?.sign(instance, key_id, purpose, data)
    }

    fn sign_statement(&self, instance: &InstanceId, key_id: &str, draft: &Draft) -> Result<String, SignError> {
        self.issuer.lock().map_err(|_| SignError::Signing)?.sign_statement(instance, key_id, draft)
    }

    fn published(&self) -> watch::Receiver<SourcePublished> {
        self.published.subscribe()
    }

    fn status(&self) -> SourceStatus {
        let held = self.lock().map_or(0, |issuer| issuer.instances());
        SourceStatus {
            kind: SourceKind::BuiltIn,
            connected: true,
            last_contact: None,
            problem: None,
            held,
            refused: 0,
            waiting: 0,
        }
    }

    fn key_scan(&self) -> KeyScan {
        match self.issuer.lock() {
            Ok(issuer) => issuer.key_scan(),
            Err(_) => KeyScan::new(std::iter::empty(), std::iter::empty()),
        }
    }
}
