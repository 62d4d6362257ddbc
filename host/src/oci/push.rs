//! Pushes a component and what belongs to it. The tag comes last: it never names a component whose evidence is not there yet.

use futures::stream;
use indicatif::ProgressBar;
use oci_client::Reference;
use oci_client::errors::OciDistributionError;
use portcullis_signing::oci::{
    ComponentArtifact, ComponentManifest, Descriptor, IMAGE_INDEX, IMAGE_MANIFEST, OciReference, evidence_manifest,
};
use portcullis_signing::{ComponentBytes, Digest};
use reqwest::header::HeaderValue;

use super::reader::fallback_tag;
use super::{Registry, RegistryError};
use crate::limits::{PUSH_CHUNK, REFERRER_TRIES};

/// Something that refers to a component.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// Its media type.
    pub media_type: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The predicate type of a bundle, for the benefit of other tools.
    pub predicate_type: Option<String>,
}

/// What was pushed.
#[derive(Debug)]
pub struct Pushed {
    /// The reference by digest: what to write down.
    pub reference: OciReference,
    /// Manifests of the attachments.
    pub attachments: Vec<Digest>,
    /// Whether the registry lists referrers itself, or the fallback tag was written.
    pub referrers_api: bool,
}

impl Registry {
    /// Pushes. What is there already is not sent again.
    pub async fn push(
        &self,
        component: &ComponentBytes,
        artifact: &ComponentArtifact,
        attachments: &[Attachment],
        bar: &ProgressBar,
    ) -> Result<Pushed, RegistryError> {
        let what = self.reference.to_string();
        let manifest = ComponentManifest::parse(artifact.manifest())
            .map_err(|error| RegistryError::Manifest { what: what.clone(), error })?;
        bar.set_length(component.bytes().len() as u64);
        self.push_blob(component.bytes(), bar).await?;
        self.push_blob(artifact.config(), &ProgressBar::hidden()).await?;
        self.push_manifest(&manifest.digest().to_string(), artifact.manifest(), IMAGE_MANIFEST).await?;

        let subject = manifest.descriptor();
        let mut pushed = Vec::new();
        for attachment in attachments {
            self.push_blob(&attachment.bytes, &ProgressBar::hidden()).await?;
            self.push_blob(b"{}", &ProgressBar::hidden()).await?;
            let predicate_type = attachment.predicate_type.as_deref();
            let bytes = evidence_manifest(&subject, attachment.media_type, &attachment.bytes, predicate_type);
            let entry = Descriptor::of(IMAGE_MANIFEST, &bytes).with_artifact_type(attachment.media_type);
            self.push_manifest(&entry.digest().to_string(), &bytes, IMAGE_MANIFEST).await?;
            pushed.push(entry);
        }
        let referrers_api = self.list(manifest.digest(), &pushed).await?;
        if let Some(tag) = self.reference.tag() {
            self.push_manifest(tag, artifact.manifest(), IMAGE_MANIFEST).await?;
        }
        Ok(Pushed {
            reference: self.reference.at(*manifest.digest()),
            attachments: pushed.iter().map(|entry| *entry.digest()).collect(),
            referrers_api,
        })
    }

    /// Sees to it that the referrers are listed: by the registry, or under the fallback tag. Others may write that at the same
    /// time, so it is read again.
    async fn list(&self, subject: &Digest, entries: &[Descriptor]) -> Result<bool, RegistryError> {
        for _ in 0..REFERRER_TRIES {
            let (mut index, api) = self.reader.referrers(subject).await?;
            let missing: Vec<&Descriptor> = entries.iter().filter(|entry| !index.has(entry.digest())).collect();
            if missing.is_empty() {
                return Ok(api);
            }
            if !api {
                for entry in missing {
                    index
                        .add(entry.clone())
                        .map_err(|error| RegistryError::Manifest { what: "the list of referrers".to_owned(), error })?;
                }
                self.push_manifest(&fallback_tag(subject), &index.to_json(), IMAGE_INDEX).await?;
            }
        }
        Err(RegistryError::Answer {
            registry: self.reference.registry().to_owned(),
            status: "without the evidence that was just pushed".to_owned(),
            what: "list the referrers".to_owned(),
        })
    }

    async fn push_blob(&self, bytes: &[u8], bar: &ProgressBar) -> Result<(), RegistryError> {
        let failed = |error: &OciDistributionError| self.failed(error);
        let (place, digest) = (self.place("any"), Digest::of(bytes).to_string());
        if self.client.blob_exists(&place, &digest).await.map_err(|error| failed(&error))? {
            bar.set_position(bytes.len() as u64);
            return Ok(());
        }
        let chunks: Vec<bytes::Bytes> = bytes.chunks(PUSH_CHUNK).map(bytes::Bytes::copy_from_slice).collect();
        let counted = bar.clone();
        let stream = stream::iter(chunks.into_iter().map(move |chunk| {
            counted.inc(chunk.len() as u64);
            Ok(chunk)
        }));
        let pushed = match self.client.push_blob_stream(&place, stream, &digest, None).await {
            // A registry that takes no pieces takes the whole.
            Err(OciDistributionError::SpecViolationError(_)) => {
                self.client.push_blob(&place, bytes.to_vec(), &digest).await
            }
            pushed => pushed,
        };
        match pushed {
            Ok(_) => Ok(()),
            // Uploaded, and not said where to: it lies where it always does.
            Err(OciDistributionError::RegistryNoLocationError)
                if self.client.blob_exists(&place, &digest).await.is_ok_and(|exists| exists) =>
            {
                Ok(())
            }
            Err(error) => Err(failed(&error)),
        }
    }

    async fn push_manifest(&self, name: &str, bytes: &[u8], media_type: &'static str) -> Result<(), RegistryError> {
        let (registry, repository) = (self.reference.registry().to_owned(), self.reference.repository().to_owned());
        // As a tag also where it is a digest: the library cuts the name off the address where no location comes back.
        let place = Reference::with_tag(registry, repository, name.to_owned());
        let pushed = self.client.push_manifest_raw(&place, bytes.to_vec(), HeaderValue::from_static(media_type)).await;
        pushed.map(drop).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &OciDistributionError) -> RegistryError {
        RegistryError::from_library(self.reference.registry(), "push", error)
    }
}
