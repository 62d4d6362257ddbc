//! Reads manifests and lists of a registry: at most so many bytes, within so much time, the status told apart: "unsigned" and
//! "could not be asked" are two things.

use oci_client::secrets::RegistryAuth;
use portcullis_signing::Digest;
use portcullis_signing::limits::OCI_MANIFEST_BYTES;
use portcullis_signing::oci::{IMAGE_INDEX, IMAGE_MANIFEST, OciReference, ReferrerIndex};
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, HeaderValue, LINK, RANGE};

use super::error::reason;
use super::{Options, RegistryError};
use crate::limits::{REFERRER_PAGES, REGISTRY_CALL};

/// What was read, and where the next page of it is.
struct Answer {
    status: StatusCode,
    body: Vec<u8>,
    next: Option<String>,
}

/// A reader of one repository.
pub(super) struct Reader {
    client: reqwest::Client,
    registry: String,
    base: String,
    rights: RegistryAuth,
}

impl Reader {
    /// A reader with these rights.
    pub(super) fn new(
        reference: &OciReference,
        client: reqwest::Client,
        rights: RegistryAuth,
        options: &Options,
    ) -> Self {
        let registry = reference.registry().to_owned();
        let scheme = if options.is_plain(reference) { "http" } else { "https" };
        let base = format!("{scheme}://{registry}/v2/{}", reference.repository());
        Self { client, registry, base, rights }
    }

    /// The beginning of an answer to a request for a blob, from an offset on.
    pub(super) async fn blob(&self, digest: &Digest, offset: u64) -> Result<reqwest::Response, reqwest::Error> {
        let mut request = self.shown(self.client.get(format!("{}/blobs/{digest}", self.base)));
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        request.send().await
    }

    pub(super) fn registry(&self) -> &str {
        &self.registry
    }

    /// A request with the rights to it.
    fn shown(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.rights {
            RegistryAuth::Bearer(token) => request.bearer_auth(token),
            RegistryAuth::Basic(user, password) => request.basic_auth(user, Some(password)),
            RegistryAuth::Anonymous => request,
        }
    }

    /// A manifest by its digest: exactly these bytes, or an error.
    pub(super) async fn manifest(&self, digest: &Digest, what: &str) -> Result<Vec<u8>, RegistryError> {
        let body =
            self.tagged(&digest.to_string(), what).await?.ok_or_else(|| RegistryError::Missing(what.to_owned()))?;
        let found = Digest::of(&body);
        if found == *digest { Ok(body) } else { Err(RegistryError::OtherBytes { wanted: *digest, found }) }
    }

    /// What a tag points to now; `None` where there is no such tag.
    pub(super) async fn tagged(&self, tag: &str, what: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        let answer = self.get(format!("{}/manifests/{tag}", self.base), what).await?;
        match answer.status {
            StatusCode::OK => Ok(Some(answer.body)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refused(&answer, what)),
        }
    }

    /// What refers to a manifest, and whether the registry keeps that list itself.
    pub(super) async fn referrers(&self, subject: &Digest) -> Result<(ReferrerIndex, bool), RegistryError> {
        let what = "the list of referrers";
        let parse = |body: &[u8]| {
            ReferrerIndex::parse(body).map_err(|error| RegistryError::Manifest { what: what.to_owned(), error })
        };
        let mut url = format!("{}/referrers/{subject}", self.base);
        let mut found: Option<ReferrerIndex> = None;
        for _ in 0..REFERRER_PAGES {
            let answer = self.get(url, what).await?;
            match answer.status {
                StatusCode::OK => {
                    let page = parse(&answer.body)?;
                    match &mut found {
                        None => found = Some(page),
                        Some(all) => {
                            all.extend(page)
                                .map_err(|error| RegistryError::Manifest { what: what.to_owned(), error })?;
                        }
                    }
                }
                // No such API: the specification says 404, some registries say otherwise.
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST if found.is_none() => {
                    let fallback = self.tagged(&fallback_tag(subject), what).await?;
                    return Ok((fallback.map_or_else(|| Ok(ReferrerIndex::default()), |body| parse(&body))?, false));
                }
                _ => return Err(self.refused(&answer, what)),
            }
            match answer.next {
                Some(next) => url = next,
                None => return Ok((found.unwrap_or_default(), true)),
            }
        }
        Err(RegistryError::TooLarge { what: what.to_owned(), max: (REFERRER_PAGES * OCI_MANIFEST_BYTES) as u64 })
    }

    async fn get(&self, url: String, what: &str) -> Result<Answer, RegistryError> {
        match tokio::time::timeout(REGISTRY_CALL, self.get_whole(url, what)).await {
            Ok(answer) => answer,
            Err(_) => Err(unreachable_(&self.registry, "no answer in time")),
        }
    }

    async fn get_whole(&self, url: String, what: &str) -> Result<Answer, RegistryError> {
        let failed = |error: reqwest::Error| unreachable_(&self.registry, &reason(&error));
        let request = self.client.get(url).header(ACCEPT, format!("{IMAGE_MANIFEST}, {IMAGE_INDEX}"));
        let request = self.shown(request);
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let next = response.headers().get(LINK).and_then(|link| self.next_page(link));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > OCI_MANIFEST_BYTES {
                return Err(RegistryError::TooLarge { what: what.to_owned(), max: OCI_MANIFEST_BYTES as u64 });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body, next })
    }

    /// The next page, where it is of the same registry: the rights that are shown are for it alone.
    fn next_page(&self, link: &HeaderValue) -> Option<String> {
        let text = link.to_str().ok()?;
        let (target, parameters) = text.trim().strip_prefix('<')?.split_once('>')?;
        if !parameters.contains("rel=\"next\"") && !parameters.contains("rel=next") {
            return None;
        }
        let base = reqwest::Url::parse(&self.base).ok()?;
        let next = base.join(target).ok()?;
        (next.origin() == base.origin()).then(|| next.into())
    }

    fn refused(&self, answer: &Answer, what: &str) -> RegistryError {
        let registry = self.registry.clone();
        match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Unauthorized { registry, what: "read" },
            status => {
                let status = status.as_u16().to_string();
                RegistryError::Answer { registry, status, what: format!("give {what}") }
            }
        }
    }
}

/// The tag under which referrers are listed where the registry has no API for it.
pub(super) fn fallback_tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

fn unreachable_(registry: &str, why: &str) -> RegistryError {
    RegistryError::Unreachable { registry: registry.to_owned(), why: why.to_owned() }
}
