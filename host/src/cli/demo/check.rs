//! Checks SVIDs against the published bundle with other code than the one that issued them: the `spiffe` crate for the token,
//! `x509-parser` for the chain.

use portcullis_identity::SpiffeId;
use spiffe::{BundleSource, JwtBundle, JwtSvid, TrustDomain};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

#[derive(Debug)]
struct One(JwtBundle);

impl BundleSource for One {
    type Item = JwtBundle;
    type Error = std::convert::Infallible;

    fn bundle_for_trust_domain(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<Option<std::sync::Arc<JwtBundle>>, Self::Error> {
        Ok((self.0.trust_domain() == trust_domain).then(|| std::sync::Arc::new(self.0.clone())))
    }
}

/// The subject of a JWT-SVID that is valid for `audience` under the JWT keys of a SPIFFE bundle document.
pub fn token(token: &str, audience: &str, bundle: &str, trust_domain: &str) -> Result<String, String> {
    let domain = TrustDomain::new(trust_domain).map_err(|error| error.to_string())?;
    let keys = jwt_keys(bundle)?;
    let bundle = JwtBundle::from_jwt_authorities(domain, keys.as_bytes()).map_err(|error| error.to_string())?;
    let svid = JwtSvid::parse_and_validate(token, &One(bundle), &[audience]).map_err(|error| error.to_string())?;
    Ok(svid.spiffe_id().to_string())
}

/// The URI SAN of a leaf whose signature, times and usages check under an X.509 authority of the bundle document.
pub fn chain(leaf: &[u8], bundle: &str, now: time::OffsetDateTime) -> Result<String, String> {
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
    let authorities = x509_authorities(bundle)?;
    let at = x509_parser::time::ASN1Time::from_timestamp(now.unix_timestamp()).map_err(|error| error.to_string())?;
    let signed = authorities.iter().any(|der| {
        X509Certificate::from_der(der).is_ok_and(|(_, authority)| {
            leaf.verify_signature(Some(authority.public_key())).is_ok()
                && authority.is_ca()
                && authority.validity().is_valid_at(at)
        })
    });
    if !signed {
        return Err("no authority of the bundle signed it".to_owned());
    }
    if !leaf.validity().is_valid_at(at) || leaf.is_ca() {
        return Err("expired, or a CA".to_owned());
    }
    let names =
        leaf.subject_alternative_name().map_err(|error| error.to_string())?.ok_or("no subject alternative name")?;
    let uris: Vec<&str> = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [one] => one.parse::<SpiffeId>().map(|id| id.to_string()).map_err(|error| error.to_string()),
        _ => Err(format!("{} URI names, must be one", uris.len())),
    }
}

fn keys(bundle: &str) -> Result<Vec<serde_json::Value>, String> {
    let document: serde_json::Value = serde_json::from_str(bundle).map_err(|error| error.to_string())?;
    Ok(document.get("keys").and_then(|keys| keys.as_array()).cloned().unwrap_or_default())
}

fn jwt_keys(bundle: &str) -> Result<String, String> {
    let used = |key: &serde_json::Value| key.get("use").and_then(|word| word.as_str()) == Some("jwt-svid");
    let keys: Vec<_> = keys(bundle)?.into_iter().filter(used).collect();
    Ok(serde_json::json!({ "keys": keys }).to_string())
}

fn x509_authorities(bundle: &str) -> Result<Vec<Vec<u8>>, String> {
    use base64::Engine;
    let used = |key: &&serde_json::Value| key.get("use").and_then(|word| word.as_str()) == Some("x509-svid");
    let first = |key: &serde_json::Value| key.pointer("/x5c/0").and_then(|der| der.as_str()).map(str::to_owned);
    let decode =
        |text: String| base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| error.to_string());
    keys(bundle)?.iter().filter(used).filter_map(first).map(decode).collect()
}
