//! Components that must be refused, each for another reason.

use std::path::PathBuf;

use portcullis_signing::{Claims as SignedClaims, ComponentBytes, ImportName, KeyKind, SecretKey, read_interfaces};

use super::site::{self, Claims, Site};
use crate::cli::error::CliError;
use crate::cli::files;

/// A component that must be refused.
#[derive(Debug)]
pub struct Bad {
    /// What is wrong with it.
    pub what: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The exit code that must come.
    pub exit: u8,
    /// The reason code that must come, or its beginning.
    pub code: &'static str,
}

/// What, file name, bytes, evidence, exit code, reason code.
type Row = (&'static str, &'static str, Vec<u8>, Option<Vec<u8>>, u8, &'static str);

/// Makes all of them in the folder of the site.
pub fn all(site: &Site) -> Result<Vec<Bad>, CliError> {
    let greeter = files::read_component(&site.path("greeter.wasm"))?;
    let honest = site.bundle(&greeter, "greeter", Claims::Honest, site.signer())?;
    let stranger = SecretKey::generate(KeyKind::Signer).map_err(CliError::internal)?;
    let mut flipped = greeter.bytes().to_vec();
    if let Some(byte) = flipped.last_mut() {
        *byte ^= 1;
    }
    let unknown = site.bundle(&greeter, "greeter", Claims::Honest, &stranger)?;
    let expired = site.bundle(&greeter, "greeter", Claims::Expired, site.signer())?;
    let core = b"\0asm\x01\0\0\0".to_vec();
    let native = native(greeter.bytes())?;
    let rows: [Row; 8] = [
        ("no evidence", "no-evidence", greeter.bytes().to_vec(), None, 10, "evidence.none"),
        ("one byte flipped", "flipped", flipped, Some(honest), 13, "claims.digest"),
        ("unknown signer", "stranger", greeter.bytes().to_vec(), Some(unknown), 12, "signer.unknown"),
        ("expired claims", "expired", greeter.bytes().to_vec(), Some(expired), 14, "time.expired"),
        (
            "claims that hide an import",
            "hidden",
            greeter.bytes().to_vec(),
            Some(hiding(site, &greeter)?),
            13,
            "claims.imports",
        ),
        (
            "an import that nobody granted",
            "ungranted",
            greeter.bytes().to_vec(),
            Some(renamed(site, &greeter)?),
            20,
            "A0201",
        ),
        ("a core module", "core", core.clone(), Some(lying(site, core)?), 13, "claims.not-component"),
        (
            "native code in place of a component",
            "native",
            native.clone(),
            Some(lying(site, native)?),
            13,
            "claims.not-component",
        ),
    ];
    let mut bad = Vec::new();
    for (what, name, bytes, bundle, exit, code) in rows {
        let path = site.path(&format!("bad-{name}.wasm"));
        files::write(&path, &bytes, 0o600, true)?;
        if let Some(bundle) = bundle {
            files::write(&files::evidence_beside(&path), &bundle, 0o600, true)?;
        }
        bad.push(Bad { what, path, exit, code });
    }
    Ok(bad)
}

/// Signs whatever the claims say, as an attacker with a signing key would: our own signer refuses to.
pub fn sign_as_is(component: &ComponentBytes, claims: &SignedClaims, key: &SecretKey) -> Result<Vec<u8>, CliError> {
    let claims = claims.to_json().map_err(CliError::internal)?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).map_err(CliError::internal)?;
    sign_statement(component, &claims, key)
}

fn sign_statement(
    component: &ComponentBytes,
    claims: &serde_json::Value,
    key: &SecretKey,
) -> Result<Vec<u8>, CliError> {
    use base64::Engine;
    let text = |pointer: &str| claims.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default();
    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": format!("{}@{}", text("/component/name"), text("/component/version")), "digest": { "sha256": component.digest().hex() } }],
        "predicateType": portcullis_signing::PREDICATE_TYPE,
        "predicate": claims,
    });
    let payload = statement.to_string();
    let kind = "application/vnd.in-toto+json";
    let signed = format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len());
    let base64 = base64::engine::general_purpose::STANDARD;
    let bundle = serde_json::json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": { "publicKey": { "hint": key.public().to_string() } },
        "dsseEnvelope": {
            "payload": base64.encode(&payload),
            "payloadType": kind,
            "signatures": [{ "sig": base64.encode(key.sign(signed.as_bytes())), "keyid": key.public().to_string() }],
        },
    });
    Ok(bundle.to_string().into_bytes())
}

/// Claims that leave out an import that the component has.
fn hiding(site: &Site, component: &ComponentBytes) -> Result<Vec<u8>, CliError> {
    let mut interfaces = read_interfaces(component.bytes()).map_err(CliError::internal)?;
    interfaces.imports.retain(|import: &ImportName| !import.to_string().contains("outgoing-handler"));
    let claims = site::draft(&interfaces, "greeter", Claims::Honest)?.build().map_err(CliError::internal)?;
    sign_as_is(component, &claims, site.signer())
}

/// The greeter under a name for which the operator granted nothing.
fn renamed(site: &Site, component: &ComponentBytes) -> Result<Vec<u8>, CliError> {
    site.bundle(component, "newcomer", Claims::Honest, site.signer())
}

/// Signed claims over bytes that are no component at all.
fn lying(site: &Site, bytes: Vec<u8>) -> Result<Vec<u8>, CliError> {
    let interfaces = portcullis_signing::Interfaces::default();
    let claims = site::draft(&interfaces, "greeter", Claims::Honest)?.build().map_err(CliError::internal)?;
    sign_as_is(&ComponentBytes::from_vec(bytes), &claims, site.signer())
}

/// Real native code of this very engine: what nobody may hand in.
fn native(component: &[u8]) -> Result<Vec<u8>, CliError> {
    let engine = crate::runtime::engine::compiler().map_err(|error| CliError::internal(format!("{error:#}")))?;
    engine.precompile_component(component).map_err(|error| CliError::internal(format!("{error:#}")))
}
