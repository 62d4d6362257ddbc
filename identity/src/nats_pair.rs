//! Whether a certificate will do at a NATS server, before there is one: that what was issued fits where it is going to be used. Asks
//! the verifiers that clients and servers ask, so that nothing passes here and fails there.

use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, Error};
use time::OffsetDateTime;

use crate::excerpt::Excerpt;
use crate::mtls::provider;
use crate::nats_key::NatsKey;
use crate::nats_tls::NatsRoots;

/// Why a certificate will not do. Whoever issued it, or named its files, erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NatsPairError {
    /// Another authority.
    #[error("the certificate is not of an authority of the CA file")]
    Authority,
    /// Another name.
    #[error("the certificate is not for the name {0}")]
    Name(Excerpt),
    /// Not for this side.
    #[error("the certificate may not be used by a {0}: see its extended key usages")]
    Purpose(&'static str),
    /// Its own time, or that of one of its issuers.
    #[error("the certificate, or one of its issuers, is not valid now")]
    Time,
    /// Anything else.
    #[error("the certificate cannot be used: {0}")]
    Other(Excerpt),
}

impl NatsPairError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Authority => "add its issuer to the CA file, and its intermediates to the certificate's file",
            Self::Name(_) => "have one issued for the name by which clients reach the server, or name the server so",
            Self::Purpose(_) => {
                "have one issued with the key usages serverAuth for a server, clientAuth for a client, or both"
            }
            Self::Time => "have a new one issued, and see that the clocks agree",
            Self::Other(_) => "give an X.509 certificate with a P-256, P-384, Ed25519 or RSA key",
        }
    }
}

/// Whether clients that believe these authorities will take this certificate for that of the server `name`.
pub fn check_server(roots: &NatsRoots, pair: &NatsKey, name: &str, now: OffsetDateTime) -> Result<(), NatsPairError> {
    let named = |_| NatsPairError::Name(Excerpt::new(name));
    let server = ServerName::try_from(name.trim_matches(['[', ']']).to_owned()).map_err(named)?;
    let (leaf, rest) = chain(pair)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.store(), provider()).build();
    let verifier = verifier.map_err(|error| NatsPairError::Other(Excerpt::new(&error.to_string())))?;
    let verified = verifier.verify_server_cert(&leaf, &rest, &server, &[], unix(now));
    verified.map(|_| ()).map_err(|error| why(&error, name, "server"))
}

/// Whether a server with these authorities will take this certificate from a client.
pub fn check_client(roots: &NatsRoots, pair: &NatsKey, now: OffsetDateTime) -> Result<(), NatsPairError> {
    let (leaf, rest) = chain(pair)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.store(), provider()).build();
    let verifier = verifier.map_err(|error| NatsPairError::Other(Excerpt::new(&error.to_string())))?;
    verifier.verify_client_cert(&leaf, &rest, unix(now)).map(|_| ()).map_err(|error| why(&error, "", "client"))
}

type Chain = (CertificateDer<'static>, Vec<CertificateDer<'static>>);

fn chain(pair: &NatsKey) -> Result<Chain, NatsPairError> {
    let mut all = pair.chain().iter().map(|der| CertificateDer::from(der.clone()));
    let leaf = all.next().ok_or(NatsPairError::Authority)?;
    Ok((leaf, all.collect()))
}

fn unix(now: OffsetDateTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.unix_timestamp()).unwrap_or_default()))
}

fn why(error: &Error, name: &str, side: &'static str) -> NatsPairError {
    use CertificateError as Certificate;
    match error {
        Error::InvalidCertificate(error) => match error {
            Certificate::UnknownIssuer | Certificate::BadSignature => NatsPairError::Authority,
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                NatsPairError::Name(Excerpt::new(name))
            }
            Certificate::InvalidPurpose | Certificate::InvalidPurposeContext { .. } => NatsPairError::Purpose(side),
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. } => NatsPairError::Time,
            other => NatsPairError::Other(Excerpt::new(&format!("{other:?}"))),
        },
        other => NatsPairError::Other(Excerpt::new(&other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    };
    use time::Duration;

    use super::*;

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn pair(ca: &CertifiedIssuer<'static, KeyPair>, usage: ExtendedKeyUsagePurpose) -> NatsKey {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["nats.example".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - Duration::hours(1), now + Duration::hours(1));
        let pem = params.signed_by(&key, ca).unwrap().pem();
        NatsKey::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    #[test]
    fn a_servers_certificate_must_be_of_its_authority_for_its_name_its_use_and_now() {
        let (ca, other) = (authority(), authority());
        let roots = |ca: &CertifiedIssuer<'static, KeyPair>| NatsRoots::from_pem(ca.pem().as_bytes()).unwrap();
        let (server, client) =
            (pair(&ca, ExtendedKeyUsagePurpose::ServerAuth), pair(&ca, ExtendedKeyUsagePurpose::ClientAuth));
        let now = OffsetDateTime::now_utc();
        for name in ["nats.example", "127.0.0.1"] {
            assert_eq!(check_server(&roots(&ca), &server, name, now), Ok(()), "{name}");
        }
        for name in ["other.example", "127.0.0.2", "", "a b", "[::1]"] {
            let checked = check_server(&roots(&ca), &server, name, now);
            assert!(matches!(checked, Err(NatsPairError::Name(_))), "{name}: {checked:?}");
        }
        let check = |ca, pair, now| check_server(&roots(ca), pair, "nats.example", now);
        assert_eq!(check(&other, &server, now), Err(NatsPairError::Authority));
        assert_eq!(check(&ca, &client, now), Err(NatsPairError::Purpose("server")));
        assert_eq!(check(&ca, &server, now + Duration::hours(2)), Err(NatsPairError::Time));
        assert_eq!(check_client(&roots(&ca), &client, now), Ok(()));
        assert_eq!(check_client(&roots(&other), &client, now), Err(NatsPairError::Authority));
        assert_eq!(check_client(&roots(&ca), &server, now), Err(NatsPairError::Purpose("client")));
        assert_eq!(check_client(&roots(&ca), &client, now - Duration::hours(2)), Err(NatsPairError::Time));
    }
}
