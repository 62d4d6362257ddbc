//! One repository of a registry, and what is fetched from it: a component, by digest, with what refers to it.

use std::path::Path;

use indicatif::ProgressBar;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::{Client, Reference};
use portcullis_signing::bundle::MEDIA_TYPE as BUNDLE;
use portcullis_signing::limits::BUNDLE_BYTES;
use portcullis_signing::oci::{ComponentManifest, Descriptor, OciReference, Pick, Referrer};
use portcullis_signing::{ComponentBytes, Digest};
use reqwest::redirect::Policy;

use super::reader::Reader;
use super::{RegistryError, Resume, credentials, download};
use crate::limits::{COMPONENT_BYTES, REGISTRY_CALL, REGISTRY_CONNECT, REGISTRY_IDLE, REGISTRY_REDIRECTS};

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
    /// Sigstore bundles that refer to it.
    pub evidence: Vec<Vec<u8>>,
    /// The reference by digest: what to write down.
    pub reference: OciReference,
    /// Referrers that could not be used, each with the reason.
    pub notes: Vec<String>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({})", self.reference)
    }
}

impl Registry {
    /// Logs in, with the credentials that Docker would use.
    pub async fn connect(reference: &OciReference, options: &Options) -> Result<Self, RegistryError> {
        portcullis_identity::install_tls_provider();
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
            .timeout(REGISTRY_CALL)
            .redirect(Policy::limited(REGISTRY_REDIRECTS))
            .https_only(!plain);
        if let Some(pem) = &options.ca {
            let certificates = reqwest::Certificate::from_pem_bundle(pem)
                .map_err(|_| RegistryError::Local("the file that --ca names holds no certificate".to_owned()))?;
            own = own.tls_certs_only(certificates);
        }
        let own = own.build().map_err(|error| local(super::error::reason(&error)))?;
        let auth = credentials::of(registry).await?;
        let reader = Reader::new(reference, &client, own, &auth, options).await?;
        Ok(Self { reference: reference.clone(), client, reader })
    }

    /// Finds out, once, which manifest is meant.
    pub async fn resolve(&self) -> Result<ComponentManifest, RegistryError> {
        let what = self.reference.to_string();
        let bytes = match self.reference.pick() {
            Pick::Digest(digest) => self.reader.manifest(digest, &what).await?,
            Pick::Tag(tag) => {
                self.reader.tagged(tag, &what).await?.ok_or_else(|| RegistryError::Missing(what.clone()))?
            }
        };
        ComponentManifest::parse(&bytes).map_err(|error| RegistryError::Manifest { what, error })
    }

    /// Fetches a component and what refers to it. An unfinished download is kept in `keep_in` and taken up again from there.
    pub async fn fetch(
        &self,
        manifest: &ComponentManifest,
        keep_in: Option<&Path>,
        bar: &ProgressBar,
    ) -> Result<Fetched, RegistryError> {
        let layer = manifest.layer();
        bar.set_length(layer.size());
        let resume = keep_in.map(|folder| Resume::in_folder(folder, layer));
        let component = self.blob(layer, COMPONENT_BYTES, "the component", resume.as_ref(), bar).await?;
        let (evidence, notes) = self.evidence(manifest).await?;
        download::finished(resume.as_ref());
        Ok(Fetched { component, evidence, reference: self.reference.at(*manifest.digest()), notes })
    }

    /// The bundles that refer to a manifest. A referrer that is broken is noted and left out: only evidence that is there grants.
    async fn evidence(&self, manifest: &ComponentManifest) -> Result<(Vec<Vec<u8>>, Vec<String>), RegistryError> {
        let (index, _) = self.reader.referrers(manifest.digest()).await?;
        let (mut evidence, mut notes) = (Vec::new(), Vec::new());
        for entry in index.manifests() {
            match self.bundles(entry.digest(), manifest.digest()).await {
                Ok(bundles) => evidence.extend(bundles),
                Err(error @ (RegistryError::Unreachable { .. } | RegistryError::Unauthorized { .. })) => {
                    return Err(error);
                }
                Err(error) => notes.push(format!("{} is not used: {error}", entry.digest())),
            }
        }
        // The same list always gives the same order.
        evidence.sort_by_cached_key(|bundle| Digest::of(bundle).hex());
        evidence.dedup();
        Ok((evidence, notes))
    }

    async fn bundles(&self, referrer: &Digest, subject: &Digest) -> Result<Vec<Vec<u8>>, RegistryError> {
        let what = format!("the referrer {referrer}");
        let bytes = self.reader.manifest(referrer, &what).await?;
        let referrer = Referrer::parse(&bytes, subject).map_err(|error| RegistryError::Manifest { what, error })?;
        let mut bundles = Vec::new();
        for layer in referrer.layers(BUNDLE) {
            let bar = ProgressBar::hidden();
            let bundle = self.blob(layer, BUNDLE_BYTES as u64, "the evidence", None, &bar).await?;
            bundles.push(bundle.bytes().to_vec());
        }
        Ok(bundles)
    }

    async fn blob(
        &self,
        blob: &Descriptor,
        max: u64,
        what: &str,
        resume: Option<&Resume>,
        bar: &ProgressBar,
    ) -> Result<ComponentBytes, RegistryError> {
        download::blob(&self.client, &self.place("any"), blob, max, what, resume, bar).await
    }

    /// A place in this repository, in the words of the library.
    pub(super) fn place(&self, tag: &str) -> Reference {
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        Reference::with_tag(registry.to_owned(), repository.to_owned(), tag.to_owned())
    }
}

const USER_AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));
