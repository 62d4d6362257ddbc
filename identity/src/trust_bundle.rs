//! The X.509 authorities that peers are verified with: SPIFFE bundle documents, each kept under its own trust domain and never
//! mixed (SPIFFE_Trust_Domain_and_Bundle section 3). Trusts no domain that was not put in.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::UnixTime;

use crate::bundle_document::{BundleDocument, BundleError};
use crate::limits::MAX_TRUST_DOMAINS;
use crate::trust_domain::TrustDomain;

/// Trust domains and their documents.
#[derive(Debug, Clone, Default)]
pub struct TrustBundle {
    domains: BTreeMap<TrustDomain, Arc<BundleDocument>>,
}

impl TrustBundle {
    /// Trusts nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bundle of one trust domain.
    pub fn from_json(trust_domain: &TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        let mut bundle = Self::new();
        bundle.insert(trust_domain, json)?;
        Ok(bundle)
    }

    /// Takes the document as the authorities of this trust domain, in place of those that it had. On an error nothing changes.
    pub fn insert(&mut self, trust_domain: &TrustDomain, json: &[u8]) -> Result<(), BundleError> {
        self.put(Arc::new(BundleDocument::parse(trust_domain, json)?))
    }

    /// Takes a document in place of the one that its trust domain had.
    pub fn put(&mut self, document: Arc<BundleDocument>) -> Result<(), BundleError> {
        let domain = document.trust_domain();
        if self.domains.len() >= MAX_TRUST_DOMAINS && !self.domains.contains_key(domain) {
            return Err(BundleError::TooManyDomains);
        }
        self.domains.insert(domain.clone(), document);
        Ok(())
    }

    /// The document of this trust domain.
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&Arc<BundleDocument>> {
        self.domains.get(trust_domain)
    }

    /// All documents, by trust domain.
    pub fn documents(&self) -> impl Iterator<Item = &Arc<BundleDocument>> {
        self.domains.values()
    }

    /// The authorities of this trust domain, DER; `None` if it is not in the bundle at all.
    pub fn authorities(&self, trust_domain: &TrustDomain) -> Option<&[Vec<u8>]> {
        self.domains.get(trust_domain).map(|document| document.x509_authorities())
    }

    /// The sequence of this trust domain's document, if it had one.
    pub fn sequence(&self, trust_domain: &TrustDomain) -> Option<u64> {
        self.domains.get(trust_domain)?.sequence()
    }

    /// The roots to verify a member of this trust domain with at this time; `None` if there is none.
    pub(crate) fn roots(&self, trust_domain: &TrustDomain, now: UnixTime) -> Option<Arc<RootCertStore>> {
        self.domains.get(trust_domain)?.roots(now)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    fn document(domain: &str) -> Vec<u8> {
        use base64::Engine as _;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").try_into().unwrap())];
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let x5c = base64::engine::general_purpose::STANDARD.encode(der);
        serde_json::json!({"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [x5c]}]}).to_string().into_bytes()
    }

    #[test]
    fn tb_06_domains_are_kept_apart() {
        let (ours, other): (TrustDomain, TrustDomain) =
            ("example.org".parse().unwrap(), "example.com".parse().unwrap());
        let mut bundle = TrustBundle::from_json(&ours, &document("example.org")).unwrap();
        assert!(bundle.authorities(&other).is_none() && bundle.roots(&other, UnixTime::now()).is_none());
        bundle.insert(&other, &document("example.com")).unwrap();
        assert_ne!(bundle.authorities(&ours), bundle.authorities(&other));
        let wrong = bundle.insert(&other, &document("example.org"));
        assert!(matches!(wrong, Err(BundleError::Entry { index: 0, .. })));
        assert_eq!(bundle.authorities(&other).unwrap().len(), 1, "an error changes nothing");
    }

    #[test]
    fn domains_beyond_the_limit_are_refused() {
        let mut bundle = TrustBundle::new();
        for i in 0..MAX_TRUST_DOMAINS {
            bundle.insert(&format!("d{i}").parse().unwrap(), b"{\"keys\":[]}").unwrap();
        }
        let more = bundle.insert(&"example.org".parse().unwrap(), b"{\"keys\":[]}");
        assert_eq!(more, Err(BundleError::TooManyDomains));
        assert_eq!(bundle.insert(&"d0".parse().unwrap(), b"{\"keys\":[]}"), Ok(()));
    }
}
