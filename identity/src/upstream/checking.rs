//! Decides whether what an upstream handed over is an SVID of the workload that it is for. Pure: the time, the bundles and the
//! bytes come in.
//!
//! Trusts the bundle of our own trust domain and nothing in the message. Refuses another SPIFFE ID than the one that follows
//! from the verified claims, a chain that the bundle does not verify, a key that is not the leaf's, tokens for other audiences
//! than those asked for.

use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use time::OffsetDateTime;

use super::wire::{HandedJwt, HandedX509};
use crate::audience::Audience;
use crate::bundle_set::BundleSet;
use crate::hex::hex;
use crate::issuer::X509Svid;
use crate::jwt_check::check_jwt;
use crate::jwt_svid::JwtSvid;
use crate::leaf::Leaf;
use crate::limits::MAX_CHAIN_CERTIFICATES;
use crate::p256_key::{P256Key, SignatureForm};
use crate::pkcs8::p256_scalar;
use crate::spiffe_id::SpiffeId;

/// An X.509-SVID with its key, checked.
pub(super) struct HeldKey {
    pub(super) svid: X509Svid,
    pub(super) key: P256Key,
}

/// Why what was handed over is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Nothing at all.
    Nothing,
    /// Only other IDs; the first of them.
    Other(String),
    /// Why it is no SVID.
    Invalid(String),
    /// The bundle does not verify it: the bundle may be on its way.
    Unverified(String),
}

/// The X.509-SVID of this workload among those handed over.
pub(super) fn x509(
    expected: &SpiffeId,
    handed: &[HandedX509],
    bundles: Option<&BundleSet>,
    now: OffsetDateTime,
) -> Result<HeldKey, Unfit> {
    let first = handed.first().ok_or(Unfit::Nothing)?;
    let wanted = expected.to_string();
    let found =
        handed.iter().find(|svid| svid.spiffe_id == wanted).ok_or_else(|| Unfit::Other(first.spiffe_id.clone()))?;
    let invalid = |why: &dyn ToString| Unfit::Invalid(why.to_string());
    let der = found.chain.first().ok_or_else(|| invalid(&"an SVID without a certificate"))?;
    let leaf = Leaf::parse(der).map_err(|error| invalid(&error))?;
    // The name beside the certificate is the upstream's word; the one in it is what peers see.
    if leaf.spiffe_id != *expected {
        return Err(Unfit::Other(leaf.spiffe_id.to_string()));
    }
    let scalar = p256_scalar(&found.pkcs8).map_err(|error| invalid(&error))?;
    let key = P256Key::from_parts(SignatureForm::Asn1, scalar.as_slice(), &leaf.public_key)
        .map_err(|_| invalid(&"the private key is not that of the certificate"))?;
    verify(expected, &found.chain, bundles, now)?;
    let svid = X509Svid {
        spiffe_id: leaf.spiffe_id,
        chain: found.chain.clone(),
        key_id: hex(digest(&SHA256, &leaf.public_key).as_ref()),
        serial: hex(&leaf.serial),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
    };
    Ok(HeldKey { svid, key })
}

/// X509-SVID section 5.1: path validation with the authorities of the SVID's own trust domain.
pub(super) fn verify(
    id: &SpiffeId,
    chain: &[Vec<u8>],
    bundles: Option<&BundleSet>,
    now: OffsetDateTime,
) -> Result<(), Unfit> {
    let unverified = |why: &dyn ToString| Unfit::Unverified(why.to_string());
    if chain.len() > MAX_CHAIN_CERTIFICATES {
        return Err(Unfit::Invalid("its chain is too long".to_owned()));
    }
    let seconds = u64::try_from(now.unix_timestamp()).map_err(|error| unverified(&error))?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let document = bundles.and_then(|bundles| bundles.get(id.trust_domain()));
    let roots =
        document.and_then(|document| document.roots(at)).ok_or_else(|| unverified(&"there is no bundle yet"))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, crate::mtls::provider())
        .build()
        .map_err(|error| unverified(&error))?;
    let mut certificates = chain.iter().map(|der| CertificateDer::from(der.as_slice()));
    let leaf = certificates.next().ok_or_else(|| unverified(&"an SVID without a certificate"))?;
    let rest: Vec<_> = certificates.collect();
    verifier.verify_client_cert(&leaf, &rest, at).map(|_| ()).map_err(|error| unverified(&error))
}

/// Whether a token that passed before is still one of this workload's by the bundle of now.
pub(super) fn still(svid: &JwtSvid, audiences: &[Audience], bundles: Option<&BundleSet>, now: OffsetDateTime) -> bool {
    let document = bundles.and_then(|bundles| bundles.get(svid.spiffe_id().trust_domain()));
    let checked = document
        .zip(audiences.first())
        .map(|(document, audience)| check_jwt(svid.token(), audience.as_str(), document.jwt_keys(), now));
    checked.is_some_and(|checked| checked.is_ok())
}

/// The JWT-SVID of this workload among those handed over, for these audiences (sorted, without repeats) and no others.
pub(super) fn jwt(
    expected: &SpiffeId,
    audiences: &[Audience],
    handed: Vec<HandedJwt>,
    bundles: Option<&BundleSet>,
    now: OffsetDateTime,
) -> Result<JwtSvid, Unfit> {
    let first = handed.first().ok_or(Unfit::Nothing)?.spiffe_id.clone();
    let wanted = expected.to_string();
    let found = handed.into_iter().find(|svid| svid.spiffe_id == wanted).ok_or(Unfit::Other(first))?;
    let document = bundles.and_then(|bundles| bundles.get(expected.trust_domain()));
    let document = document.ok_or_else(|| Unfit::Unverified("there is no bundle yet".to_owned()))?;
    let audience = audiences.first().ok_or(Unfit::Nothing)?;
    let mut claims =
        check_jwt(&found.token, audience.as_str(), document.jwt_keys(), now).map_err(|error| match error {
            crate::jwt_check::TokenError::UnknownKey(_) => Unfit::Unverified(error.to_string()),
            other => Unfit::Invalid(other.to_string()),
        })?;
    if claims.spiffe_id != *expected {
        return Err(Unfit::Other(claims.spiffe_id.to_string()));
    }
    let mut named = claims.audiences.clone();
    named.sort_unstable();
    named.dedup();
    if named != audiences {
        return Err(Unfit::Invalid("the token is for other audiences than those asked for".to_owned()));
    }
    // What the audit log knows it by, where its issuer gave it no name.
    claims.jti.get_or_insert_with(|| format!("sha256:{}", hex(digest(&SHA256, found.token.as_bytes()).as_ref())));
    claims.issued_at.get_or_insert(now);
    Ok(JwtSvid { token: found.token, claims })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::KeyPair;
    use zeroize::Zeroizing;

    use super::*;
    use crate::bundle_document::BundleDocument;
    use crate::issuer::Issuer;
    use crate::lifetimes::Lifetimes;
    use crate::limits::MAX_CERTIFICATE_BYTES;
    use crate::workload::{InstanceId, Workload};

    const CART: &str = "spiffe://example.org/cart";

    /// Another authority for the same trust domain is as good as SPIRE.
    struct Site {
        issuer: Issuer,
        bundles: BundleSet,
        _folder: tempfile::TempDir,
    }

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn site() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let domain = "example.org".parse().unwrap();
        let mut issuer = Issuer::open(&folder.path().join("state"), &domain, Lifetimes::default(), now()).unwrap();
        for name in ["cart", "other"] {
            issuer
                .admit(Workload {
                    instance: name.parse().unwrap(),
                    spiffe_id: format!("spiffe://example.org/{name}").parse().unwrap(),
                    digest: String::new(),
                    component: String::new(),
                    exportable: true,
                })
                .unwrap();
        }
        let own = BundleDocument::parse(&domain, issuer.bundle().to_json().as_bytes()).unwrap();
        Site { issuer, bundles: BundleSet::new(Arc::new(own)), _folder: folder }
    }

    impl Site {
        fn x509(&mut self, name: &str) -> HandedX509 {
            let instance: InstanceId = name.parse().unwrap();
            let exported = self.issuer.export_x509(&instance, Duration::from_secs(600), now()).unwrap().svid;
            HandedX509 {
                spiffe_id: exported.svid.spiffe_id.to_string(),
                chain: exported.svid.chain.clone(),
                pkcs8: Zeroizing::new(exported.pkcs8().to_vec()),
            }
        }

        fn jwt(&mut self, name: &str, audiences: &[&str]) -> HandedJwt {
            let audiences: Vec<Audience> = audiences.iter().map(|name| name.parse().unwrap()).collect();
            let minted =
                self.issuer.jwt_svid(&name.parse().unwrap(), &audiences, Duration::from_secs(60), now()).unwrap();
            let token = Zeroizing::new(minted.svid.token().to_owned());
            HandedJwt { spiffe_id: minted.svid.spiffe_id().to_string(), token }
        }

        fn check(&self, handed: &[HandedX509]) -> Result<HeldKey, Unfit> {
            x509(&CART.parse().unwrap(), handed, Some(&self.bundles), now())
        }

        fn check_jwt(&self, audiences: &[&str], handed: Vec<HandedJwt>) -> Result<JwtSvid, Unfit> {
            let audiences: Vec<Audience> = audiences.iter().map(|name| name.parse().unwrap()).collect();
            jwt(&CART.parse().unwrap(), &audiences, handed, Some(&self.bundles), now())
        }
    }

    #[test]
    fn the_right_one_of_several_is_taken_and_signs_with_its_own_key() {
        let mut site = site();
        let handed = [site.x509("other"), site.x509("cart")];
        let held = site.check(&handed).unwrap_or_else(|why| panic!("{why:?}"));
        assert_eq!(held.svid.spiffe_id.to_string(), CART);
        let leaf = Leaf::parse(&held.svid.chain[0]).unwrap();
        let signature = held.key.sign(b"message").unwrap();
        ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_ASN1, leaf.public_key)
            .verify(b"message", &signature)
            .unwrap();
    }

    #[test]
    fn another_identity_is_refused_whatever_the_name_beside_it_says() {
        let mut site = site();
        assert_eq!(site.check(&[]).err(), Some(Unfit::Nothing));
        let other = site.x509("other");
        assert_eq!(site.check(&[other]).err(), Some(Unfit::Other("spiffe://example.org/other".to_owned())));
        let lie = HandedX509 { spiffe_id: CART.to_owned(), ..site.x509("other") };
        assert_eq!(site.check(&[lie]).err(), Some(Unfit::Other("spiffe://example.org/other".to_owned())));
    }

    #[test]
    fn a_key_that_is_not_the_certificates_is_refused() {
        let mut site = site();
        let other = site.x509("other").pkcs8;
        let wrong = HandedX509 { pkcs8: other, ..site.x509("cart") };
        assert!(
            matches!(site.check(&[wrong]).err(), Some(Unfit::Invalid(why)) if why.contains("not that of the certificate"))
        );
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_der();
        let wrong = HandedX509 { pkcs8: Zeroizing::new(p384), ..site.x509("cart") };
        assert!(matches!(site.check(&[wrong]).err(), Some(Unfit::Invalid(why)) if why.contains("P-256")));
        let none = HandedX509 { pkcs8: Zeroizing::default(), ..site.x509("cart") };
        assert!(matches!(site.check(&[none]).err(), Some(Unfit::Invalid(_))));
    }

    #[test]
    fn chains_that_the_bundle_does_not_verify_are_refused() {
        let (mut ours, mut theirs) = (site(), site());
        let foreign = theirs.x509("cart");
        assert!(matches!(ours.check(&[foreign]).err(), Some(Unfit::Unverified(_))), "an authority of the same name");
        let good = ours.x509("cart");
        let id: SpiffeId = CART.parse().unwrap();
        let at = |seconds| verify(&id, &good.chain, Some(&ours.bundles), now() + Duration::from_secs(seconds));
        assert_eq!(at(0), Ok(()));
        assert!(matches!(at(601), Err(Unfit::Unverified(_))), "expired");
        assert!(matches!(verify(&id, &good.chain, None, now()), Err(Unfit::Unverified(_))), "no bundle yet");
        let other: SpiffeId = "spiffe://other.example/cart".parse().unwrap();
        assert!(matches!(verify(&other, &good.chain, Some(&ours.bundles), now()), Err(Unfit::Unverified(_))));
        let long = vec![good.chain[0].clone(); MAX_CHAIN_CERTIFICATES + 1];
        assert!(matches!(verify(&id, &long, Some(&ours.bundles), now()), Err(Unfit::Invalid(_))));
        let empty = HandedX509 { chain: Vec::new(), ..ours.x509("cart") };
        assert!(matches!(ours.check(&[empty]).err(), Some(Unfit::Invalid(_))));
        let junk = HandedX509 { chain: vec![vec![0x30; MAX_CERTIFICATE_BYTES + 1]], ..ours.x509("cart") };
        assert!(matches!(ours.check(&[junk]).err(), Some(Unfit::Invalid(_))));
    }

    #[test]
    fn tokens_have_exactly_the_audiences_that_were_asked_for() {
        let mut site = site();
        let token = site.jwt("cart", &["vault"]);
        assert_eq!(site.check_jwt(&["vault"], vec![token]).unwrap().spiffe_id().to_string(), CART);
        for (given, asked) in
            [(&["vault", "bank"][..], &["vault"][..]), (&["vault"], &["bank", "vault"]), (&["bank"], &["vault"])]
        {
            let token = site.jwt("cart", given);
            assert!(matches!(site.check_jwt(asked, vec![token]), Err(Unfit::Invalid(_))), "{given:?} for {asked:?}");
        }
    }

    #[test]
    fn tokens_of_somebody_else_or_of_another_authority_are_refused() {
        let (mut ours, mut theirs) = (site(), site());
        assert_eq!(ours.check_jwt(&["vault"], Vec::new()).err(), Some(Unfit::Nothing));
        let other = ours.jwt("other", &["vault"]);
        assert!(matches!(ours.check_jwt(&["vault"], vec![other]), Err(Unfit::Other(_))));
        let lie = HandedJwt { spiffe_id: CART.to_owned(), ..ours.jwt("other", &["vault"]) };
        assert!(matches!(ours.check_jwt(&["vault"], vec![lie]), Err(Unfit::Other(_))));
        let foreign = theirs.jwt("cart", &["vault"]);
        assert!(matches!(ours.check_jwt(&["vault"], vec![foreign]), Err(Unfit::Unverified(_))), "an unknown key");
        let mut cut = ours.jwt("cart", &["vault"]);
        cut.token.pop();
        assert!(matches!(ours.check_jwt(&["vault"], vec![cut]), Err(Unfit::Invalid(_))));
        let late = ours.jwt("cart", &["vault"]);
        let audiences = ["vault".parse().unwrap()];
        let after = now() + Duration::from_secs(61);
        let refused = jwt(&CART.parse().unwrap(), &audiences, vec![late], Some(&ours.bundles), after);
        assert!(matches!(refused, Err(Unfit::Invalid(_))));
    }
}
