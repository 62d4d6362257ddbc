//! Sigstore bundles v0.3: one signature, over an envelope or over the file alone, and a hint of whose it is or a certificate.
//!
//! Refuses every other media type: the media type is not signed, so an older one would ask for weaker checks. Log entries
//! and timestamps beside a key are carried, not trusted: the trust policy alone says which keys count. What a certificate
//! is worth is decided elsewhere ([`crate::keyless`], [`crate::svid`]).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::envelope::{Envelope, EnvelopeError};
use crate::excerpt::Excerpt;
use crate::json::{self, JsonError};
use crate::limits::{BUNDLE_BYTES, CERTIFICATES};

/// The media type that is written.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The older spelling of the same version, accepted as well.
const MEDIA_TYPE_PARAMETER: &str = "application/vnd.dev.sigstore.bundle+json;version=0.3";

/// A parsed bundle. Nothing in it has been verified.
#[derive(Debug, Clone)]
pub struct Bundle {
    material: Material,
    content: Content,
    /// As it was read; absent: made here.
    read: Option<Value>,
}

/// Whose signature it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Material {
    /// A hint at a key. Selects candidates, proves nothing.
    Key(String),
    /// A certificate in DER, as Fulcio issues it.
    Certificate(Vec<u8>),
    /// A certificate and those that it was issued under, leaf first, as an X.509-SVID comes.
    Chain(Vec<Vec<u8>>),
}

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// An envelope with exactly one signature.
    Envelope(Envelope),
    /// The file alone: this is the signature over its bytes.
    File(Vec<u8>),
}

/// Why bytes are not a bundle that can be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Not JSON.
    #[error("the bundle cannot be read: {0}")]
    Json(#[from] JsonError),
    /// JSON of another form.
    #[error("the bundle is malformed: {0}")]
    Form(String),
    /// Another media type.
    #[error("the bundle has the media type `{0}`")]
    MediaType(String),
    /// The envelope in it.
    #[error("the bundle's envelope cannot be used: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Not exactly one signature.
    #[error("the bundle's envelope has {0} signatures, exactly one is accepted")]
    Signatures(usize),
}

impl BundleError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            BundleError::MediaType(_) => {
                "only Sigstore bundles v0.3 are accepted; sign again with `portcullis sign` or cosign 3"
            }
            BundleError::Signatures(_) => "write one bundle for each signer",
            BundleError::Json(_) | BundleError::Form(_) | BundleError::Envelope(_) => {
                "the file is damaged or no bundle; copy it again or sign again with `portcullis sign`"
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    #[serde(rename = "mediaType")]
    _media_type: String,
    verification_material: RawMaterial,
    message_signature: Option<RawMessage>,
    dsse_envelope: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawMaterial {
    public_key: Option<RawKey>,
    certificate: Option<RawCertificate>,
    x509_certificate_chain: Option<RawChain>,
    #[serde(rename = "tlogEntries")]
    _tlog_entries: Option<Vec<Value>>,
    #[serde(rename = "timestampVerificationData")]
    _timestamp_verification_data: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    #[serde(default)]
    hint: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawCertificate {
    raw_bytes: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChain {
    certificates: Vec<RawCertificate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawMessage {
    #[serde(rename = "messageDigest")]
    _message_digest: Option<Value>,
    signature: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    media_type: &'a str,
    verification_material: WrittenMaterial,
    #[serde(skip_serializing_if = "Option::is_none")]
    dsse_envelope: Option<&'a Envelope>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_signature: Option<WrittenMessage>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum WrittenMaterial {
    PublicKey(RawKey),
    Certificate(WrittenCertificate),
    X509CertificateChain { certificates: Vec<WrittenCertificate> },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenCertificate {
    raw_bytes: String,
}

#[derive(Serialize)]
struct WrittenMessage {
    signature: String,
}

/// Parses a bundle.
pub fn parse(bytes: &[u8]) -> Result<Bundle, BundleError> {
    parse_value(json::parse(bytes, BUNDLE_BYTES)?)
}

pub(crate) fn parse_value(value: Value) -> Result<Bundle, BundleError> {
    // Before anything else is looked at: the form depends on it.
    match value.get("mediaType") {
        Some(Value::String(media_type)) if media_type == MEDIA_TYPE || media_type == MEDIA_TYPE_PARAMETER => {}
        Some(Value::String(media_type)) => return Err(BundleError::MediaType(Excerpt(media_type).to_string())),
        _ => return Err(BundleError::Form("it has no media type".to_owned())),
    }
    let form = |error: serde_json::Error| BundleError::Form(Excerpt(&error.to_string()).to_string());
    let raw = Raw::deserialize(&value).map_err(form)?;
    let material = raw.verification_material.read()?;
    let content = match (raw.dsse_envelope, raw.message_signature) {
        (Some(envelope), None) => {
            let envelope = Envelope::from_value(envelope)?;
            match envelope.signatures() {
                [_] => Content::Envelope(envelope),
                several => return Err(BundleError::Signatures(several.len())),
            }
        }
        (None, Some(message)) => Content::File(decode("signature", &message.signature)?),
        (None, None) => return Err(BundleError::Form("it has neither an envelope nor a signature".to_owned())),
        (Some(_), Some(_)) => return Err(BundleError::Form("it has both an envelope and a signature".to_owned())),
    };
    Ok(Bundle { material, content, read: Some(value) })
}

/// The payload of a bundle's envelope. Nothing about it is verified.
pub fn payload(bytes: &[u8]) -> Result<Vec<u8>, BundleError> {
    let bundle = parse(bytes)?;
    let envelope = bundle.envelope().ok_or_else(|| BundleError::Form("it signs the file alone".to_owned()))?;
    Ok(envelope.payload().to_vec())
}

impl RawMaterial {
    fn read(self) -> Result<Material, BundleError> {
        match (self.public_key, self.certificate, self.x509_certificate_chain) {
            (Some(key), None, None) => Ok(Material::Key(key.hint)),
            (None, Some(certificate), None) => {
                Ok(Material::Certificate(decode("certificate", &certificate.raw_bytes)?))
            }
            (None, None, Some(chain)) => match chain.certificates.len() {
                1..=CERTIFICATES => {
                    let chain = chain.certificates.iter().map(|one| decode("certificate", &one.raw_bytes));
                    Ok(Material::Chain(chain.collect::<Result<_, _>>()?))
                }
                count => {
                    Err(BundleError::Form(format!("it has {count} certificates, 1 to {CERTIFICATES} are accepted")))
                }
            },
            (None, None, None) => Err(BundleError::Form("it names neither a key nor a certificate".to_owned())),
            _ => Err(BundleError::Form("it names more than one of key, certificate and chain".to_owned())),
        }
    }
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, BundleError> {
    STANDARD.decode(text).map_err(|_| BundleError::Form(format!("its {what} is not base64")))
}

impl Bundle {
    /// A bundle of an envelope that was signed with the key that `hint` names.
    pub fn new(hint: String, envelope: Envelope) -> Self {
        Self { material: Material::Key(hint), content: Content::Envelope(envelope), read: None }
    }

    /// A bundle of an envelope that was signed with the key of the first of these certificates (DER).
    pub fn with_chain(certificates: Vec<Vec<u8>>, envelope: Envelope) -> Self {
        Self { material: Material::Chain(certificates), content: Content::Envelope(envelope), read: None }
    }

    /// Whose signature it may be.
    pub fn material(&self) -> &Material {
        &self.material
    }

    /// What is signed.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Which key may have signed; empty where a certificate says it. Selects candidates, proves nothing.
    pub fn hint(&self) -> &str {
        match &self.material {
            Material::Key(hint) => hint,
            Material::Certificate(_) | Material::Chain(_) => "",
        }
    }

    /// The envelope, unless the file alone is signed.
    pub fn envelope(&self) -> Option<&Envelope> {
        match &self.content {
            Content::Envelope(envelope) => Some(envelope),
            Content::File(_) => None,
        }
    }

    /// Indented JSON with a line end.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        if let Some(value) = &self.read {
            return json::pretty(value);
        }
        let certificate = |der: &Vec<u8>| WrittenCertificate { raw_bytes: STANDARD.encode(der) };
        let verification_material = match &self.material {
            Material::Key(hint) => WrittenMaterial::PublicKey(RawKey { hint: hint.clone() }),
            Material::Certificate(der) => WrittenMaterial::Certificate(certificate(der)),
            Material::Chain(chain) => {
                WrittenMaterial::X509CertificateChain { certificates: chain.iter().map(certificate).collect() }
            }
        };
        let (dsse_envelope, message_signature) = match &self.content {
            Content::Envelope(envelope) => (Some(envelope), None),
            Content::File(signature) => (None, Some(WrittenMessage { signature: STANDARD.encode(signature) })),
        };
        json::pretty(&Written { media_type: MEDIA_TYPE, verification_material, dsse_envelope, message_signature })
    }
}

impl PartialEq for Bundle {
    fn eq(&self, other: &Self) -> bool {
        self.material == other.material && self.content == other.content
    }
}

impl Eq for Bundle {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::envelope::EnvelopeSignature;

    fn good() -> Value {
        let envelope =
            Envelope::new("t", b"p".to_vec(), vec![EnvelopeSignature { keyid: String::new(), sig: vec![1; 64] }]);
        serde_json::from_slice(&Bundle::new("A".into(), envelope).to_json().unwrap()).unwrap()
    }

    fn parsed(value: &Value) -> Result<Bundle, BundleError> {
        parse(value.to_string().as_bytes())
    }

    #[test]
    fn a_bundle_survives_its_json() {
        let bundle = parsed(&good()).unwrap();
        assert_eq!((bundle.hint(), bundle.envelope().unwrap().payload()), ("A", &b"p"[..]));
        assert_eq!(parse(&bundle.to_json().unwrap()), Ok(bundle));
    }

    #[test]
    fn every_other_media_type_is_refused() {
        for media_type in [
            "application/vnd.dev.sigstore.bundle+json;version=0.1",
            "application/vnd.dev.sigstore.bundle+json;version=0.2",
            "application/vnd.dev.sigstore.bundle+json;version=0.4",
            "application/vnd.dev.sigstore.bundle+json; version=0.3",
            "application/vnd.dev.sigstore.bundle.v0.4+json",
            "application/vnd.dev.sigstore.bundle.v0.3+json ",
            "",
        ] {
            let mut value = good();
            value["mediaType"] = json!(media_type);
            assert!(matches!(parsed(&value), Err(BundleError::MediaType(_))), "{media_type}");
        }
        let mut value = good();
        value.as_object_mut().unwrap().remove("mediaType");
        assert!(matches!(parsed(&value), Err(BundleError::Form(_))));
    }

    #[test]
    fn a_key_a_certificate_and_a_chain_exclude_each_other() {
        let forms = [
            ("publicKey", json!({"hint": "A"}), Material::Key("A".into())),
            ("certificate", json!({"rawBytes": "cA=="}), Material::Certificate(b"p".to_vec())),
            (
                "x509CertificateChain",
                json!({"certificates": [{"rawBytes": "cA=="}, {"rawBytes": ""}]}),
                Material::Chain(vec![b"p".to_vec(), Vec::new()]),
            ),
        ];
        for (key, form, expected) in &forms {
            let mut value = good();
            value["verificationMaterial"] = json!({ *key: form });
            let bundle = parsed(&value).unwrap();
            assert_eq!(bundle.material(), expected);
            assert_eq!(parse(&bundle.to_json().unwrap()), Ok(bundle));
            for (other, form, _) in forms.iter().filter(|(other, _, _)| other != key) {
                let mut value = value.clone();
                value["verificationMaterial"][*other] = form.clone();
                assert!(matches!(parsed(&value), Err(BundleError::Form(_))), "{key} and {other}");
            }
        }
    }

    #[test]
    fn a_chain_beyond_the_limit_is_refused() {
        let chain = |count: usize| {
            let mut value = good();
            let certificates = vec![json!({"rawBytes": ""}); count];
            value["verificationMaterial"] = json!({"x509CertificateChain": {"certificates": certificates}});
            parsed(&value).map(drop)
        };
        assert!(chain(CERTIFICATES).is_ok() && chain(0).is_err() && chain(CERTIFICATES + 1).is_err());
    }

    #[test]
    fn a_signature_over_the_file_alone_is_read_and_never_beside_an_envelope() {
        let mut value = good();
        value["messageSignature"] = json!({"signature": "cA=="});
        assert!(matches!(parsed(&value), Err(BundleError::Form(_))));
        value.as_object_mut().unwrap().remove("dsseEnvelope");
        let bundle = parsed(&value).unwrap();
        assert_eq!((bundle.content(), bundle.envelope()), (&Content::File(b"p".to_vec()), None));
        let mut made = bundle.clone();
        made.read = None;
        assert_eq!(parse(&made.to_json().unwrap()), Ok(bundle));
    }

    #[test]
    fn two_signatures_are_refused() {
        let mut value = good();
        let signature = value["dsseEnvelope"]["signatures"][0].clone();
        value["dsseEnvelope"]["signatures"].as_array_mut().unwrap().push(signature);
        assert_eq!(parsed(&value), Err(BundleError::Signatures(2)));
        value["dsseEnvelope"]["signatures"] = json!([]);
        assert_eq!(parsed(&value), Err(BundleError::Envelope(EnvelopeError::Signatures(0))));
    }

    #[test]
    fn unknown_and_missing_parts_are_refused() {
        for pointer in ["", "/verificationMaterial", "/verificationMaterial/publicKey"] {
            let mut value = good();
            value.pointer_mut(pointer).unwrap()["unknown"] = json!(1);
            assert!(matches!(parsed(&value), Err(BundleError::Form(_))), "{pointer}");
        }
        for (pointer, key) in
            [("", "verificationMaterial"), ("", "dsseEnvelope"), ("/verificationMaterial", "publicKey")]
        {
            let mut value = good();
            value.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key);
            assert!(matches!(parsed(&value), Err(BundleError::Form(_))), "{key}");
        }
    }

    #[test]
    fn log_entries_beside_a_key_are_carried() {
        let mut value = good();
        value["verificationMaterial"]["tlogEntries"] = json!([{"logIndex": "1"}]);
        value["verificationMaterial"]["timestampVerificationData"] = json!({});
        assert!(parsed(&value).is_ok());
    }

    #[test]
    fn a_bundle_beyond_the_limit_is_refused() {
        let mut bytes = good().to_string().into_bytes();
        bytes.resize(BUNDLE_BYTES, b' ');
        assert!(parse(&bytes).is_ok());
        bytes.push(b' ');
        assert_eq!(parse(&bytes), Err(BundleError::Json(JsonError::TooLarge { max: BUNDLE_BYTES })));
    }

    #[test]
    fn a_key_twice_is_refused() {
        let text = good().to_string().replacen('{', r#"{"mediaType":"x","#, 1);
        assert!(matches!(parse(text.as_bytes()), Err(BundleError::Json(JsonError::Syntax(_)))));
    }
}
