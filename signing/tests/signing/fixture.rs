//! A small world: a root, a signer, a trust policy, a component and claims about it; and bundles forged by hand.

use portcullis_signing::bundle::Bundle;
use portcullis_signing::envelope::{Envelope, EnvelopeSignature, pae};
use portcullis_signing::statement::PAYLOAD_TYPE;
use portcullis_signing::trust::{Origin, OriginEvidence};
use portcullis_signing::{
    Claims, ComponentBytes, Context, Delegation, DenyList, HighWaterError, KeyKind, Refusal, SecretKey, SignerEntry,
    SignerIdentity, TrustDocument, TrustPolicy, Verified, sign_component, sign_trust, verify,
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;

pub(crate) const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);
pub(crate) const CLUSTER: &str = "demo";

pub(crate) struct World {
    pub(crate) root: SecretKey,
    pub(crate) signer: SecretKey,
    pub(crate) component: ComponentBytes,
    pub(crate) now: OffsetDateTime,
    pub(crate) seen: Result<Option<u64>, HighWaterError>,
    pub(crate) document: TrustDocument,
    pub(crate) deny_list: Option<DenyList>,
}

pub(crate) fn wat(text: &str) -> ComponentBytes {
    ComponentBytes::from_vec(wat::parse_str(text).unwrap())
}

pub(crate) fn key(kind: KeyKind) -> SecretKey {
    SecretKey::generate(kind).unwrap()
}

pub(crate) fn entry(name: &str, key: &SecretKey) -> SignerEntry {
    SignerEntry {
        name: name.to_owned(),
        identity: key.public().into(),
        group: Some("ci".to_owned()),
        roles: Vec::new(),
        parent: None,
        delegation: Delegation {
            names: vec!["demo:*".parse().unwrap()],
            identity_paths: vec!["ns/demo/sa/*".parse().unwrap()],
            audiences: vec![CLUSTER.parse().unwrap()],
            imports: vec!["wasi:http/*".parse().unwrap(), "log".parse().unwrap()],
            max_lifetime: "720h".parse().unwrap(),
            not_after: None,
            onward: None,
        },
    }
}

/// Claims that fit [`World::new`]'s component and delegation.
pub(crate) fn claims() -> Value {
    json!({
        "component": {"name": "demo:greeter", "version": "1.0.0", "revision": 7},
        "kind": "component",
        "imports": ["wasi:http/types@0.2.0", "log"],
        "exports": [],
        "identity": {"path": "ns/demo/sa/greeter"},
        "issuedAt": "2026-11-20T00:00:00Z",
        "notBefore": "2026-11-20T00:00:00Z",
        "expiresAt": "2026-12-01T00:00:00Z",
        "audience": ["other", "demo"]
    })
}

impl World {
    pub(crate) fn new() -> Self {
        let (root, signer) = (key(KeyKind::Root), key(KeyKind::Signer));
        let mut document = TrustDocument::new(
            3,
            datetime!(2026-11-01 0:00 UTC),
            datetime!(2027-01-01 0:00 UTC),
            vec![root.public()],
            1,
        )
        .unwrap();
        document.add_signer(entry("builder", &signer)).unwrap();
        let component = wat(r#"(component (import "wasi:http/types@0.2.3" (instance)) (import "log" (func)))"#);
        Self { root, signer, component, now: NOW, seen: Ok(None), document, deny_list: None }
    }

    pub(crate) fn policy(&self) -> TrustPolicy {
        let signed = sign_trust(&self.document, None, &self.root).unwrap();
        TrustPolicy::verify(&signed, &[self.root.public()], 1, NOW, None).unwrap()
    }

    /// A proper bundle.
    pub(crate) fn bundle(&self, claims: &Value) -> Vec<u8> {
        let claims = Claims::parse(claims.to_string().as_bytes()).unwrap();
        sign_component(&self.component, &claims, &self.signer, NOW).unwrap()
    }

    /// A statement as it should be, to be bent.
    pub(crate) fn statement(&self, claims: &Value) -> Value {
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "x", "digest": {"sha256": self.component.digest().hex()}}],
            "predicateType": "https://portcullis.dev/component-claims/v1",
            "predicate": claims
        })
    }

    /// A bundle over any payload, properly signed by the trusted signer.
    pub(crate) fn forge(&self, payload_type: &str, payload: &[u8]) -> Vec<u8> {
        let sig = self.signer.sign(&pae(payload_type, payload)).to_vec();
        let signature = EnvelopeSignature { keyid: String::new(), sig };
        let envelope = Envelope::new(payload_type, payload.to_vec(), vec![signature]);
        Bundle::new(self.signer.public().to_string(), envelope).to_json().unwrap()
    }

    pub(crate) fn forge_statement(&self, statement: &Value) -> Vec<u8> {
        self.forge(PAYLOAD_TYPE, statement.to_string().as_bytes())
    }

    /// A properly signed bundle with claims that the signer's own tool might not have signed.
    pub(crate) fn forge_claims(&self, claims: &Value) -> Vec<u8> {
        self.forge_statement(&self.statement(claims))
    }

    pub(crate) fn verify(&self, evidence: &[&[u8]]) -> Result<Verified<Claims>, Refusal> {
        self.verify_under(&self.policy(), evidence)
    }

    /// The same under a policy that was verified before.
    pub(crate) fn verify_under(&self, trust: &TrustPolicy, evidence: &[&[u8]]) -> Result<Verified<Claims>, Refusal> {
        let highest_seen = |_: &_, _: &str| self.seen.clone();
        let context = Context {
            trust,
            deny_list: self.deny_list.as_ref(),
            audience: CLUSTER,
            now: self.now,
            highest_seen: &highest_seen,
        };
        verify(&self.component, evidence, &context)
    }

    /// A signer whose evidence proves an origin, and the claims for it.
    pub(crate) fn add_origin_signer(&mut self, name: &str, identity: SignerIdentity, evidence: OriginEvidence) {
        let mut signer = entry(name, &self.signer);
        signer.identity = identity;
        signer.delegation.max_lifetime = "3000d".parse().unwrap();
        self.document.add_signer(signer).unwrap();
        let origin = Origin {
            signer: name.to_owned(),
            evidence,
            digest: None,
            name: "demo:foreign".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            revision: 1,
            imports: vec!["wasi:http/types@0.2.0".parse().unwrap(), "log".parse().unwrap()],
            identity_path: "ns/demo/sa/foreign".parse().unwrap(),
            audience: vec![CLUSTER.parse().unwrap()],
            expires_at: datetime!(2029-01-01 0:00 UTC),
        };
        self.document.add_origin(origin).unwrap();
    }

    /// The code of the verdict about several pieces of evidence.
    pub(crate) fn code_of(&self, evidence: &[&[u8]]) -> String {
        match self.verify(evidence) {
            Ok(_) => "verified".to_owned(),
            Err(refusal) => refusal.code().as_str().to_owned(),
        }
    }

    /// The code of the refusal of one bundle.
    pub(crate) fn code(&self, bundle: &[u8]) -> String {
        match self.verify(&[bundle]) {
            Ok(_) => "verified".to_owned(),
            Err(refusal) => {
                assert!(!refusal.hint().is_empty() && !refusal.message().is_empty());
                assert_eq!(refusal.digest(), Some(self.component.digest()));
                refusal.code().as_str().to_owned()
            }
        }
    }
}

/// `value` with the part at `pointer` replaced.
pub(crate) fn with(mut value: Value, pointer: &str, to: impl Into<Value>) -> Value {
    *value.pointer_mut(pointer).unwrap() = to.into();
    value
}
