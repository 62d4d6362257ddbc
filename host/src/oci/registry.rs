//! One repository of a registry, and what is fetched from it: a component, by digest, with what refers to it.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indicatif::ProgressBar;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::{Client, Reference};
use portcullis_signing::bundle::MEDIA_TYPE as BUNDLE;
use portcullis_signing::limits::BUNDLE_BYTES;
use portcullis_signing::oci::{ComponentManifest, Descriptor, OciReference, Pick, Referrer, layers_of};
use portcullis_signing::{ComponentBytes, Digest};
use reqwest::redirect::Policy;
use serde_json::json;

use super::reader::Reader;
use super::{CYCLONE_DX, RegistryError, Resume, SIMPLE_SIGNATURE, SIMPLE_SIGNING, SPDX, credentials, download, login};
use crate::limits::{COMPONENT_BYTES, REGISTRY_CONNECT, REGISTRY_IDLE, REGISTRY_REDIRECTS, SBOM_BYTES};

/// How a registry is spoken to.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The only CA that may vouch for it, PEM; absent: those of this machine.
    pub ca: Option<Vec<u8>>,
    /// Whether something will be written.
    pub push: bool,
}

impl Options {
    /// Plain HTTP is for this machine, where no CA was named.
    pub(super) fn is_plain(&self, reference: &OciReference) -> bool {
        reference.is_loopback() && self.ca.is_none()
    }
}

/// A repository.
pub struct Registry {
    pub(super) reference: OciReference,
    pub(super) client: Client,
    pub(super) reader: Reader,
}

/// What was fetched. The component's bytes are those of the digest; what the evidence is worth is not known yet.
#[derive(Debug)]
pub struct Fetched {
    /// The component.
    pub component: ComponentBytes,
    /// What refers to it.
    pub evidence: Vec<Piece>,
    /// The reference by digest: what to write down.
    pub reference: OciReference,
    /// Referrers that could not be used, each with the reason.
    pub notes: Vec<String>,
}

/// One piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Piece {
    /// A Sigstore bundle, or a signature of cosign 2 in the form that the verifier reads.
    Signed(Vec<u8>),
    /// An SBOM.
    Sbom(Vec<u8>),
}

/// The manifest that a reference means, found out once.
#[derive(Debug, Clone)]
pub struct Resolved {
    manifest: ComponentManifest,
    bytes: Vec<u8>,
}

impl Piece {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Piece::Signed(bytes) | Piece::Sbom(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({})", self.reference)
    }
}

impl Registry {
    /// Logs in, with the credentials that Docker would use.
    pub async fn connect(reference: &OciReference, options: &Options) -> Result<Self, RegistryError> {
        portcullis_tls::install_provider();
        let registry = reference.registry();
        let local = |error: String| RegistryError::Unreachable { registry: registry.to_owned(), why: error };
        let plain = options.is_plain(reference);
        let certificates: Vec<Certificate> = options
            .ca
            .iter()
            .map(|pem| Certificate { encoding: CertificateEncoding::Pem, data: pem.clone() })
            .collect();
        let config = ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            tls_certs_only: certificates,
            platform_resolver: None,
            max_concurrent_upload: 1,
            read_timeout: Some(REGISTRY_IDLE),
            connect_timeout: Some(REGISTRY_CONNECT),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| local(error.to_string()))?;
        let mut own = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(REGISTRY_CONNECT)
            .read_timeout(REGISTRY_IDLE)
            .redirect(Policy::limited(REGISTRY_REDIRECTS))
            .https_only(!plain);
        if let Some(pem) = &options.ca {
            let certificates = reqwest::Certificate::from_pem_bundle(pem)
                .map_err(|_| RegistryError::Local("the file that --ca names holds no certificate".to_owned()))?;
            own = own.tls_certs_only(certificates);
        }
        let own = own.build().map_err(|error| local(super::error::reason(&error)))?;
        let auth = credentials::of(registry).await?;
        let rights = login::rights(&own, reference, &auth, options).await?;
        // So that the library asks nobody for a token of its own.
        client.store_auth_if_needed(registry, &rights).await;
        let reader = Reader::new(reference, own, rights, options);
        Ok(Self { reference: reference.clone(), client, reader })
    }

    /// Finds out, once, which manifest is meant.
    pub async fn resolve(&self) -> Result<Resolved, RegistryError> {
        let what = self.reference.to_string();
        let bytes = match self.reference.pick() {
            Pick::Digest(digest) => self.reader.manifest(digest, &what).await?,
            Pick::Tag(tag) => {
                self.reader.tagged(tag, &what).await?.ok_or_else(|| RegistryError::Missing(what.clone()))?
            }
        };
        let manifest = ComponentManifest::parse(&bytes).map_err(|error| RegistryError::Manifest { what, error })?;
        Ok(Resolved { manifest, bytes })
    }

    /// Fetches a component and what refers to it. An unfinished download is kept in `keep_in` and taken up again from there.
    pub async fn fetch(
        &self,
        resolved: &Resolved,
        keep_in: Option<&Path>,
        bar: &ProgressBar,
    ) -> Result<Fetched, RegistryError> {
        let layer = resolved.manifest.layer();
        bar.set_length(layer.size());
        let resume = keep_in.map(|folder| Resume::in_folder(folder, layer));
        let component = self.blob(layer, COMPONENT_BYTES, "the component", resume.as_ref(), bar).await?;
        let (evidence, notes) = self.evidence(resolved).await?;
        download::finished(resume.as_ref());
        Ok(Fetched { component, evidence, reference: self.reference.at(*resolved.manifest.digest()), notes })
    }

    /// What refers to a manifest. A referrer that is broken is noted and left out: only evidence that is there grants.
    async fn evidence(&self, resolved: &Resolved) -> Result<(Vec<Piece>, Vec<String>), RegistryError> {
        let subject = resolved.manifest.digest();
        let (index, _) = self.reader.referrers(subject).await?;
        let (mut evidence, mut notes) = (Vec::new(), Vec::new());
        let mut keep = |what: String, found: Result<Vec<Piece>, RegistryError>| match found {
            Ok(pieces) => {
                evidence.extend(pieces);
                Ok(())
            }
            Err(error @ (RegistryError::Unreachable { .. } | RegistryError::Unauthorized { .. })) => Err(error),
            Err(error) => {
                notes.push(format!("{what} is not used: {error}"));
                Ok(())
            }
        };
        for entry in index.manifests() {
            keep(entry.digest().to_string(), self.referrer(entry.digest(), subject).await)?;
        }
        let tag = format!("sha256-{}.sig", subject.hex());
        if let Some(bytes) = self.reader.tagged(&tag, "the signatures of cosign 2").await? {
            keep(tag, self.simple_signatures(&bytes, &resolved.bytes).await)?;
        }
        // The same list always gives the same order.
        evidence.sort();
        evidence.dedup();
        Ok((evidence, notes))
    }

    async fn referrer(&self, referrer: &Digest, subject: &Digest) -> Result<Vec<Piece>, RegistryError> {
        let what = format!("the referrer {referrer}");
        let bytes = self.reader.manifest(referrer, &what).await?;
        let referrer = Referrer::parse(&bytes, subject).map_err(|error| RegistryError::Manifest { what, error })?;
        let mut pieces = Vec::new();
        for layer in referrer.layers(BUNDLE) {
            pieces.push(Piece::Signed(self.small(layer, BUNDLE_BYTES as u64, "the evidence").await?));
        }
        for layer in [SPDX, CYCLONE_DX].into_iter().flat_map(|media_type| referrer.layers(media_type)) {
            pieces.push(Piece::Sbom(self.small(layer, SBOM_BYTES, "the SBOM").await?));
        }
        Ok(pieces)
    }

    /// Signatures of cosign 2: each a payload that names the component's manifest, so that is handed on with it.
    async fn simple_signatures(&self, bytes: &[u8], manifest: &[u8]) -> Result<Vec<Piece>, RegistryError> {
        let what = "the signatures of cosign 2".to_owned();
        let layers = layers_of(bytes).map_err(|error| RegistryError::Manifest { what, error })?;
        let mut pieces = Vec::new();
        for layer in layers.iter().filter(|layer| layer.media_type() == SIMPLE_SIGNING) {
            let Some(signature) = layer.annotation(SIMPLE_SIGNATURE) else { continue };
            let payload = self.small(layer, BUNDLE_BYTES as u64, "a signature of cosign 2").await?;
            let piece = json!({
                "mediaType": COSIGN_2,
                "manifest": STANDARD.encode(manifest),
                "payload": STANDARD.encode(payload),
                "signature": signature,
            });
            pieces.push(Piece::Signed(piece.to_string().into_bytes()));
        }
        Ok(pieces)
    }

    async fn small(&self, blob: &Descriptor, max: u64, what: &str) -> Result<Vec<u8>, RegistryError> {
        Ok(self.blob(blob, max, what, None, &ProgressBar::hidden()).await?.bytes().to_vec())
    }

    async fn blob(
        &self,
        blob: &Descriptor,
        max: u64,
        what: &str,
        resume: Option<&Resume>,
        bar: &ProgressBar,
    ) -> Result<ComponentBytes, RegistryError> {
        download::blob(&self.reader, blob, max, what, resume, bar).await
    }

    /// A place in this repository, in the words of the library.
    pub(super) fn place(&self, tag: &str) -> Reference {
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        Reference::with_tag(registry.to_owned(), repository.to_owned(), tag.to_owned())
    }
}

/// The form in which the verifier reads a signature of cosign 2.
const COSIGN_2: &str = "application/vnd.portcullis.cosign-v2+json";
const USER_AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));
