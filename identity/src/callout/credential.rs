//! Who wants in: what the client showed, checked. A JWT-SVID in `auth_token`, an X.509-SVID in its TLS, or both for one ID.
//!
//! A JWT-SVID is good for whoever has it. It names a key as its own where one of its audiences is `nkey:U..`: then it counts
//! only together with that key's signature over the connection's nonce. A signature by a key that the token does not name
//! proves possession of a key and nothing about the token: [`Proven::holds_key`] is false unless somebody else binds the two.

use std::fmt;

use portcullis_nkey::{Kind, PublicKey};
use time::OffsetDateTime;

use super::chain::{self, ChainError};
use super::nonce::{self, NonceError};
use super::request::Request;
use crate::audience::Audience;
use crate::bundle_set::BundleSet;
use crate::jwt_check::TokenError;
use crate::jwt_svid::JwtClaims;
use crate::spiffe_id::SpiffeId;

/// Who wants in, proven. Only [`Request::prove`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    spiffe_id: SpiffeId,
    not_after: OffsetDateTime,
    jwt: Option<JwtClaims>,
    x509: bool,
    nkey: Option<ProvenNkey>,
}

/// An nkey that signed the nonce of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvenNkey {
    key: PublicKey,
    bound: bool,
}

/// Why nobody is let in for what was shown. The client erred, or trust is configured otherwise than meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Neither a token nor a certificate. A password, or a NATS JWT, is none here.
    #[error("the client showed neither a JWT-SVID as auth_token nor an X.509-SVID")]
    None,
    /// The token.
    #[error("the client's JWT-SVID: {0}")]
    Token(#[from] TokenError),
    /// The certificates.
    #[error("the client's X.509-SVID: {0}")]
    Chain(#[from] ChainError),
    /// The signature.
    #[error("the client's nkey: {0}")]
    Nonce(#[from] NonceError),
    /// The token names a key whose signature is not there.
    #[error("the client's JWT-SVID is bound to an nkey that did not sign the nonce")]
    NotHolder,
    /// An audience `nkey:..` that is no user key, or two.
    #[error("the client's JWT-SVID is not bound to exactly one user nkey")]
    Binding,
    /// Token and certificate name two.
    #[error("the client's JWT-SVID is of {token}, its X.509-SVID of {certificate}")]
    Disagree {
        /// Whom the token names.
        token: SpiffeId,
        /// Whom the certificate names.
        certificate: SpiffeId,
    },
}

impl CredentialError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::None => {
                "the client must send a JWT-SVID for this callout as its token, or connect over TLS with an X.509-SVID where the server has `verify: true`"
            }
            Self::Token(error) => error.hint(),
            Self::Chain(error) => error.hint(),
            Self::Nonce(error) => error.hint(),
            Self::NotHolder => "the client must sign the nonce with the nkey in its token's audience `nkey:U..`",
            Self::Binding => "request the JWT-SVID with one audience `nkey:U..` at most",
            Self::Disagree { .. } => "the client must show credentials of one workload",
        }
    }

    /// A name for metrics and audit.
    pub fn code(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Token(_) => "token",
            Self::Chain(_) => "chain",
            Self::Nonce(_) => "nonce",
            Self::NotHolder => "not_holder",
            Self::Binding => "binding",
            Self::Disagree { .. } => "disagree",
        }
    }
}

impl Request {
    /// Checks everything that the client showed. `audience`: whom tokens must be for, the callout's own SPIFFE ID or a
    /// configured one.
    pub fn prove(
        &self,
        bundles: &BundleSet,
        audience: &Audience,
        now: OffsetDateTime,
    ) -> Result<Proven, CredentialError> {
        let (options, tls) = self.shown();
        let nkey = nonce::check(options, self.nonce())?;
        let jwt = match options.auth_token.as_str() {
            "" => None,
            token => Some(bundles.check_jwt(token, audience.as_str(), now)?),
        };
        let x509 = tls.map(|tls| chain::check(tls, bundles.trust(), now)).transpose()?.flatten();
        let nkey = nkey.map(|key| ProvenNkey { key, bound: false });
        let nkey = jwt.as_ref().map_or(Ok(nkey), |claims| bound(claims, nkey))?;
        let (spiffe_id, not_after) = match (&jwt, &x509) {
            (None, None) => return Err(CredentialError::None),
            (Some(claims), None) => (claims.spiffe_id(), claims.expires_at()),
            (None, Some((id, not_after))) => (id, *not_after),
            (Some(claims), Some((id, not_after))) if claims.spiffe_id() == id => {
                (id, claims.expires_at().min(*not_after))
            }
            (Some(claims), Some((id, _))) => {
                let (token, certificate) = (claims.spiffe_id().clone(), id.clone());
                return Err(CredentialError::Disagree { token, certificate });
            }
        };
        Ok(Proven { spiffe_id: spiffe_id.clone(), not_after, x509: x509.is_some(), jwt, nkey })
    }
}

/// The key that signed, bound if the token names it; refused if it names another.
fn bound(claims: &JwtClaims, signed: Option<ProvenNkey>) -> Result<Option<ProvenNkey>, CredentialError> {
    let mut named = claims.audiences().iter().filter_map(|audience| audience.as_str().strip_prefix(NKEY_AUDIENCE));
    let Some(text) = named.next() else { return Ok(signed) };
    let key = PublicKey::parse(text, Kind::User).map_err(|_| CredentialError::Binding)?;
    if named.next().is_some() {
        return Err(CredentialError::Binding);
    }
    match signed {
        Some(signed) if signed.key == key => Ok(Some(ProvenNkey { key, bound: true })),
        _ => Err(CredentialError::NotHolder),
    }
}

impl Proven {
    /// Who it is.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// When the first of its credentials ends.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// What its JWT-SVID says, if it showed one.
    pub fn jwt(&self) -> Option<&JwtClaims> {
        self.jwt.as_ref()
    }

    /// Whether it showed an X.509-SVID, whose key is that of its TLS connection.
    pub fn x509(&self) -> bool {
        self.x509
    }

    /// The nkey that signed the connection's nonce.
    pub fn nkey(&self) -> Option<ProvenNkey> {
        self.nkey
    }

    /// Whether it holds a key that a credential names, rather than just a token: the key of its certificate, or the nkey that
    /// its JWT-SVID is bound to.
    pub fn holds_key(&self) -> bool {
        self.x509 || self.nkey.is_some_and(|nkey| nkey.bound)
    }
}

impl ProvenNkey {
    /// The key.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Whether the JWT-SVID names it. If not, it may be anybody's who got hold of the token, unless policy pins it.
    pub fn is_bound(&self) -> bool {
        self.bound
    }
}

impl fmt::Display for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match (&self.jwt, self.x509) {
            (Some(_), true) => "a JWT-SVID and an X.509-SVID",
            (Some(_), false) => "a JWT-SVID",
            _ => "an X.509-SVID",
        };
        write!(f, "{} by {how}", self.spiffe_id)
    }
}

/// Before the nkey in an audience of a JWT-SVID that is bound to it.
const NKEY_AUDIENCE: &str = "nkey:";

#[cfg(test)]
mod tests {
    use portcullis_nkey::KeyPair;
    use serde_json::{Value, json};

    use super::*;
    use crate::callout::forge::{Domain, Forge, NOW, at, now, signed, trusting};
    use crate::leaf::LeafError;
    use crate::mtls::PeerError;

    const CALLOUT: &str = "spiffe://td-a.test/callout";
    const H1: &str = "spiffe://td-a.test/host/h1";

    struct Site {
        forge: Forge,
        ours: Domain,
        theirs: Domain,
    }

    impl Site {
        fn new() -> Self {
            Self { forge: Forge::new(), ours: Domain::new("td-a.test"), theirs: Domain::new("td-b.test") }
        }

        fn prove(&self, change: impl FnOnce(&mut Value)) -> Result<Proven, CredentialError> {
            let bundles = trusting(&self.ours, &[&self.theirs]);
            self.forge.shows(change).prove(&bundles, &CALLOUT.parse().unwrap(), now())
        }

        fn token(&self, token: &str) -> Result<Proven, CredentialError> {
            self.prove(|nats| nats["connect_opts"]["auth_token"] = json!(token))
        }

        fn chains(&self, chains: &[Value]) -> Result<Proven, CredentialError> {
            self.prove(|nats| nats["client_tls"] = json!({"version": "1.3", "verified_chains": chains}))
        }
    }

    fn claims(aud: &Value) -> Value {
        json!({"sub": H1, "aud": aud, "exp": NOW + 300})
    }

    #[test]
    fn a_token_for_the_callout_proves_who_and_until_when_and_holds_no_key() {
        let site = Site::new();
        let proven = site.token(&site.ours.token(&claims(&json!([CALLOUT])))).unwrap();
        assert_eq!((proven.spiffe_id().to_string().as_str(), proven.not_after()), (H1, at(300)));
        assert!(proven.jwt().is_some() && !proven.x509() && proven.nkey().is_none() && !proven.holds_key());
        let foreign = json!({"sub": "spiffe://td-b.test/x", "aud": CALLOUT, "exp": NOW + 300});
        assert_eq!(site.token(&site.theirs.token(&foreign)).unwrap().spiffe_id().trust_domain().as_str(), "td-b.test");
    }

    #[test]
    fn tokens_for_others_of_others_and_ended_ones_are_refused() {
        let site = Site::new();
        let refused = |claims: Value| match site.token(&site.ours.token(&claims)) {
            Err(CredentialError::Token(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(matches!(refused(claims(&json!(["spiffe://td-a.test/vault"]))), TokenError::Audience(_)));
        assert_eq!(refused(json!({"sub": H1, "aud": CALLOUT, "exp": NOW})), TokenError::Expired);
        let foreign = refused(json!({"sub": "spiffe://td-c.test/x", "aud": CALLOUT, "exp": NOW + 300}));
        assert!(matches!(foreign, TokenError::UntrustedDomain(_)));
        // B's key for one of A's IDs.
        let forged = site.token(&site.theirs.token(&claims(&json!([CALLOUT]))));
        assert_eq!(forged, Err(CredentialError::Token(TokenError::Signature)));
        for id in
            ["spiffe://td-a.test/host/*", "spiffe://td-a.test/host/>", "spiffe://td-a.test/a b", "spiffe://td-a.test"]
        {
            let error = refused(json!({"sub": id, "aud": CALLOUT, "exp": NOW + 300}));
            assert!(matches!(error, TokenError::Claims(_)), "{id}");
        }
        assert!(site.token("eyJ0.x").is_err() && site.token(&"x".repeat(9000)).is_err());
    }

    #[test]
    fn passwords_names_and_nats_jwts_are_no_credentials() {
        let site = Site::new();
        let token = site.ours.token(&claims(&json!([CALLOUT])));
        for (member, value) in [("jwt", token.as_str()), ("pass", &token), ("user", H1), ("name", H1)] {
            let refused = site.prove(|nats| nats["connect_opts"][member] = json!(value));
            assert_eq!(refused, Err(CredentialError::None), "{member}");
        }
        assert_eq!(site.prove(|nats| nats["client_info"]["user"] = json!(H1)), Err(CredentialError::None));
        // Nor do they do anything beside one.
        let both = site.prove(|nats| {
            nats["connect_opts"] = json!({"auth_token": token, "user": "root", "pass": "x", "jwt": "sentinel"});
        });
        assert_eq!(both.unwrap().spiffe_id().to_string(), H1);
    }

    #[test]
    fn an_nkey_that_signs_is_proven_and_bound_only_if_the_token_names_it() {
        let site = Site::new();
        let (pair, other) = (KeyPair::generate(Kind::User).unwrap(), KeyPair::generate(Kind::User).unwrap());
        let shows = |aud: Value, signer: Option<&KeyPair>, nonce: &str| {
            let token = site.ours.token(&claims(&aud));
            site.prove(|nats| {
                nats["client_info"]["nonce"] = json!(nonce);
                nats["connect_opts"]["auth_token"] = json!(token);
                if let Some(signer) = signer {
                    nats["connect_opts"]["nkey"] = json!(signer.public().to_string());
                    nats["connect_opts"]["sig"] = json!(signed(signer, nonce));
                }
            })
        };
        let loose = shows(json!([CALLOUT]), Some(&pair), "nonce").unwrap();
        assert_eq!(loose.nkey(), Some(ProvenNkey { key: pair.public(), bound: false }));
        assert!(!loose.holds_key(), "a stolen token and any key");
        let named = |pair: &KeyPair| format!("nkey:{}", pair.public());
        let bound = shows(json!([CALLOUT, named(&pair)]), Some(&pair), "nonce").unwrap();
        assert_eq!(bound.nkey(), Some(ProvenNkey { key: pair.public(), bound: true }));
        assert!(bound.holds_key());
        let stolen = Err(CredentialError::NotHolder);
        assert_eq!(shows(json!([CALLOUT, named(&pair)]), Some(&other), "nonce"), stolen);
        assert_eq!(shows(json!([CALLOUT, named(&pair)]), None, "nonce"), stolen);
        let binding = Err(CredentialError::Binding);
        assert_eq!(shows(json!([CALLOUT, named(&pair), named(&other)]), Some(&pair), "nonce"), binding);
        assert_eq!(shows(json!([CALLOUT, "nkey:x"]), Some(&pair), "nonce"), binding);
        assert_eq!(shows(json!([CALLOUT]), Some(&pair), ""), Err(CredentialError::Nonce(NonceError::Empty)));
    }

    #[test]
    fn a_signature_over_another_nonce_refuses_a_good_token() {
        let site = Site::new();
        let (pair, token) = (KeyPair::generate(Kind::User).unwrap(), site.ours.token(&claims(&json!([CALLOUT]))));
        let refused = site.prove(|nats| {
            nats["client_info"]["nonce"] = json!("this");
            nats["connect_opts"] =
                json!({"auth_token": token, "nkey": pair.public().to_string(), "sig": signed(&pair, "that")});
        });
        assert_eq!(refused, Err(CredentialError::Nonce(NonceError::Signature)));
        // Alone, a right one is nobody's.
        let alone = site.prove(|nats| {
            nats["client_info"]["nonce"] = json!("this");
            nats["connect_opts"] = json!({"nkey": pair.public().to_string(), "sig": signed(&pair, "this")});
        });
        assert_eq!(alone, Err(CredentialError::None));
    }

    #[test]
    fn a_certificate_proves_who_and_until_when() {
        let site = Site::new();
        let proven = site.chains(&[site.ours.chain(&[H1], at(600))]).unwrap();
        assert_eq!((proven.spiffe_id().to_string().as_str(), proven.not_after()), (H1, at(600)));
        assert!(proven.x509() && proven.holds_key() && proven.jwt().is_none());
        assert_eq!(site.chains(&[]), Err(CredentialError::None), "the server demands no certificates");
    }

    #[test]
    fn b_s_authority_does_not_mint_a_s_ids() {
        let site = Site::new();
        let forged = site.chains(&[site.theirs.chain(&[H1], at(600))]);
        assert!(matches!(forged, Err(CredentialError::Chain(ChainError::Peer(PeerError::Path(_))))), "{forged:?}");
        let unknown = Domain::new("td-c.test");
        let refused = site.chains(&[unknown.chain(&["spiffe://td-c.test/x"], at(600))]);
        assert!(matches!(refused, Err(CredentialError::Chain(ChainError::Peer(PeerError::UnknownTrustDomain(_))))));
        assert!(site.chains(&[site.theirs.chain(&["spiffe://td-b.test/x"], at(600))]).is_ok());
    }

    #[test]
    fn one_path_to_the_right_authority_is_enough_but_all_are_for_one_certificate() {
        let site = Site::new();
        let right = site.ours.chain(&[H1], at(600));
        let mut wrong = right.clone();
        wrong[1] = site.theirs.chain(&[H1], at(600))[1].clone();
        assert!(site.chains(&[wrong, right.clone()]).is_ok());
        let other = site.ours.chain(&["spiffe://td-a.test/other"], at(600));
        assert_eq!(site.chains(&[right.clone(), other]), Err(CredentialError::Chain(ChainError::Leaves)));
        let most = vec![right.clone(); crate::limits::MAX_CALLOUT_CHAINS];
        assert!(site.chains(&most).is_ok());
        let more = [most, vec![right]].concat();
        assert_eq!(site.chains(&more), Err(CredentialError::Chain(ChainError::TooMany)));
    }

    #[test]
    fn what_is_no_x509_svid_is_refused_even_beside_a_good_token() {
        let site = Site::new();
        let token = site.ours.token(&claims(&json!([CALLOUT])));
        let leaf = |chain: Value| {
            let shown = site.prove(|nats| {
                nats["connect_opts"]["auth_token"] = json!(token);
                nats["client_tls"] = json!({"verified_chains": [chain]});
            });
            match shown {
                Err(CredentialError::Chain(error)) => error,
                other => panic!("{other:?}"),
            }
        };
        let not = |error| ChainError::Peer(PeerError::Leaf(error));
        assert_eq!(leaf(site.ours.chain(&[], at(600))), not(LeafError::UriNames(0)));
        assert_eq!(leaf(site.ours.chain(&[H1, "spiffe://td-a.test/host/h2"], at(600))), not(LeafError::UriNames(2)));
        assert!(matches!(
            leaf(site.ours.chain(&["spiffe://td-a.test/host/*"], at(600))),
            ChainError::Peer(PeerError::Leaf(_))
        ));
        assert!(matches!(leaf(site.ours.chain(&[H1], at(-1))), ChainError::Peer(PeerError::Path(_))), "expired");
        for text in ["", "x", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"] {
            assert!(matches!(leaf(json!([text])), ChainError::Malformed | ChainError::Peer(_)), "{text}");
        }
        let chain = site.ours.chain(&[H1], at(600));
        let joined = format!("{}{}", chain[0].as_str().unwrap(), chain[1].as_str().unwrap());
        assert_eq!(leaf(json!([joined])), ChainError::Malformed, "two in one entry");
        assert_eq!(leaf(json!([])), ChainError::Malformed);
    }

    #[test]
    fn token_and_certificate_agree_and_end_with_the_first() {
        let site = Site::new();
        let both = |id: &str, ends| {
            let (token, chain) = (site.ours.token(&claims(&json!([CALLOUT]))), site.ours.chain(&[id], ends));
            site.prove(|nats| {
                nats["connect_opts"]["auth_token"] = json!(token);
                nats["client_tls"] = json!({"verified_chains": [chain]});
            })
        };
        let long = both(H1, at(600)).unwrap();
        assert!(long.x509() && long.jwt().is_some() && long.not_after() == at(300));
        assert_eq!(both(H1, at(100)).unwrap().not_after(), at(100));
        assert!(matches!(both("spiffe://td-a.test/host/h2", at(600)), Err(CredentialError::Disagree { .. })));
    }
}
