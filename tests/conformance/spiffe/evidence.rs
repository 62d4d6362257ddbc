//! What a Workload API socket was seen to do: asked once, then judged item by item.

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tonic::{Code, Status};

use crate::foreign::{Foreign, Forged};
use crate::wire::{
    Client, Empty, Header, JwtBundlesResponse, JwtSvidRequest, JwtSvidResponse, ValidateJwtSvidRequest,
    ValidateJwtSvidResponse, WitBundlesResponse, WitSvidRequest, WitSvidResponse, X509BundlesResponse,
    X509SvidResponse,
};

/// The audience that the server under test lets the suite ask for.
pub const AUDIENCE: &str = "conformance";
/// A second one.
pub const OTHER_AUDIENCE: &str = "conformance-too";

/// Where to ask, and what is known beforehand.
#[derive(Debug)]
pub struct Subject {
    /// Whose column of the table it is.
    pub name: &'static str,
    pub socket: PathBuf,
    pub trust_domain: String,
    /// The SPIFFE bundle document of the trust domain, where there is a way to it.
    pub bundle_document: Option<Value>,
    /// The federated domain, where the server was told of it.
    pub foreign: Option<Foreign>,
}

/// What was seen.
#[derive(Debug)]
pub struct Evidence {
    pub name: &'static str,
    /// Whether it is our own host: then our own parsers and tests stand for it, too.
    pub is_ours: bool,
    pub trust_domain: String,
    pub is_unix_socket: bool,
    pub bundle_document: Option<Value>,
    pub x509: Result<X509SvidResponse, Status>,
    /// How long the first message took.
    pub x509_after: Duration,
    pub x509_bundles: Result<X509BundlesResponse, Status>,
    pub jwt_bundles: Result<JwtBundlesResponse, Status>,
    pub jwt: Result<JwtSvidResponse, Status>,
    pub jwt_two_audiences: Result<JwtSvidResponse, Status>,
    pub jwt_without_audience: Result<JwtSvidResponse, Status>,
    pub jwt_of_somebody_else: Result<JwtSvidResponse, Status>,
    pub jwt_malformed_id: Result<JwtSvidResponse, Status>,
    pub validated: Option<Result<ValidateJwtSvidResponse, Status>>,
    pub validated_for_another: Option<Result<ValidateJwtSvidResponse, Status>>,
    pub validate_without_audience: Result<ValidateJwtSvidResponse, Status>,
    pub validate_without_token: Result<ValidateJwtSvidResponse, Status>,
    pub foreign_good: Option<Result<ValidateJwtSvidResponse, Status>>,
    /// Tokens with one thing wrong, and the answer to each.
    pub foreign_forged: Vec<(&'static str, Result<ValidateJwtSvidResponse, Status>)>,
    pub foreign_irregular: Vec<(&'static str, Result<ValidateJwtSvidResponse, Status>)>,
    pub wit: Result<WitSvidResponse, Status>,
    pub wit_bundles: Result<WitBundlesResponse, Status>,
    /// Method and header, and the code that came.
    pub headers: Vec<(String, Code)>,
    pub unknown_method: Code,
    /// The services that reflection names; `None`: no reflection.
    pub services: Option<Vec<String>>,
    /// Whether a stream stayed open, and silent while nothing changed.
    pub still_open: bool,
}

impl Evidence {
    /// Asks everything once.
    pub fn gather(subject: Subject) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Self::ask(subject))
    }

    async fn ask(subject: Subject) -> Self {
        let client = Client::connect(&subject.socket)
            .await
            .unwrap_or_else(|error| panic!("{}: no connection to {}: {error}", subject.name, subject.socket.display()));
        let begin = std::time::Instant::now();
        let x509 = client.first("FetchX509SVID", Header::Right, Empty {}).await;
        let x509_after = begin.elapsed();
        let jwt: Result<JwtSvidResponse, Status> = fetch_jwt(&client, &[AUDIENCE], "").await;
        let token = jwt.as_ref().ok().and_then(|answer| answer.svids.first()).map(|svid| svid.svid.clone());
        let mut validated = None;
        let mut validated_for_another = None;
        if let Some(token) = &token {
            validated = Some(validate(&client, AUDIENCE, token).await);
            validated_for_another = Some(validate(&client, "somebody-else", token).await);
        }
        let (mut foreign_good, mut foreign_forged, mut foreign_irregular) = (None, Vec::new(), Vec::new());
        if let Some(foreign) = &subject.foreign {
            foreign_good = Some(validate(&client, AUDIENCE, &foreign.good(AUDIENCE)).await);
            for Forged { name, token } in foreign.forged(AUDIENCE, &subject.trust_domain) {
                foreign_forged.push((name, validate(&client, AUDIENCE, &token).await));
            }
            for Forged { name, token } in foreign.irregular(AUDIENCE) {
                foreign_irregular.push((name, validate(&client, AUDIENCE, &token).await));
            }
        }
        Self {
            name: subject.name,
            is_ours: subject.name == "portcullis",
            x509_bundles: client.first("FetchX509Bundles", Header::Right, Empty {}).await,
            jwt_bundles: client.first("FetchJWTBundles", Header::Right, Empty {}).await,
            jwt_two_audiences: fetch_jwt(&client, &[AUDIENCE, OTHER_AUDIENCE], "").await,
            jwt_without_audience: fetch_jwt(&client, &[], "").await,
            jwt_of_somebody_else: {
                fetch_jwt(&client, &[AUDIENCE], &format!("spiffe://{}/ns/no/sa/body", subject.trust_domain)).await
            },
            jwt_malformed_id: fetch_jwt(&client, &[AUDIENCE], "spiffe://UPPER/%2e").await,
            validated,
            validated_for_another,
            validate_without_audience: validate(&client, "", token.as_deref().unwrap_or("e30.e30.e30")).await,
            validate_without_token: validate(&client, AUDIENCE, "").await,
            foreign_good,
            foreign_forged,
            foreign_irregular,
            wit: client.first("FetchWITSVID", Header::Right, WitSvidRequest::default()).await,
            wit_bundles: client.first("FetchWITBundles", Header::Right, Empty {}).await,
            headers: headers(&client).await,
            unknown_method: {
                let answer: Result<Empty, Status> = client.unary("FetchEverything", Header::Right, Empty {}).await;
                answer.err().map_or(Code::Ok, |status| status.code())
            },
            services: reflection(&client).await,
            still_open: stays_open(&client).await,
            trust_domain: subject.trust_domain,
            is_unix_socket: std::fs::metadata(&subject.socket).is_ok_and(|meta| meta.file_type().is_socket()),
            bundle_document: subject.bundle_document,
            x509,
            x509_after,
            jwt,
        }
    }

    /// Leaf first, as DER, of each X.509-SVID.
    pub fn chains(&self) -> Vec<Vec<Vec<u8>>> {
        self.x509.iter().flat_map(|answer| &answer.svids).map(|svid| split_der(&svid.x509_svid)).collect()
    }

    /// The CA certificates of the own trust domain.
    pub fn authorities(&self) -> Vec<Vec<u8>> {
        self.x509.iter().flat_map(|answer| &answer.svids).take(1).flat_map(|svid| split_der(&svid.bundle)).collect()
    }

    /// Every token that was handed out: header and claims.
    pub fn tokens(&self) -> Vec<(String, Value, Value)> {
        let all = [&self.jwt, &self.jwt_two_audiences];
        all.into_iter()
            .flatten()
            .flat_map(|answer| &answer.svids)
            .map(|svid| (svid.svid.clone(), part(&svid.svid, 0), part(&svid.svid, 1)))
            .collect()
    }

    /// Every SPIFFE ID that the server gave away.
    pub fn ids(&self) -> Vec<String> {
        let x509 = self.x509.iter().flat_map(|answer| &answer.svids).map(|svid| svid.spiffe_id.clone());
        let jwt = self.jwt.iter().flat_map(|answer| &answer.svids).map(|svid| svid.spiffe_id.clone());
        let claims = self.tokens().into_iter().filter_map(|(_, _, claims)| Some(claims["sub"].as_str()?.to_owned()));
        x509.chain(jwt).chain(claims).collect()
    }

    /// The JWK Set of the own trust domain as the Workload API has it.
    pub fn own_jwks(&self) -> Option<Value> {
        let bundles = &self.jwt_bundles.as_ref().ok()?.bundles;
        let own = format!("spiffe://{}", self.trust_domain);
        serde_json::from_slice(bundles.get(&own)?).ok()
    }
}

/// A certificate chain, DER after DER.
pub fn split_der(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Ok((rest, _)) = x509_parser::parse_x509_certificate(bytes) {
        all.push(bytes[..bytes.len() - rest.len()].to_vec());
        bytes = rest;
    }
    assert!(bytes.is_empty(), "something other than certificates in a chain");
    all
}

fn part(token: &str, index: usize) -> Value {
    let text = token.split('.').nth(index).unwrap_or_default();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap_or_default()).unwrap_or_default()
}

async fn fetch_jwt(client: &Client, audience: &[&str], spiffe_id: &str) -> Result<JwtSvidResponse, Status> {
    let audience = audience.iter().map(|&audience| audience.to_owned()).collect();
    client.unary("FetchJWTSVID", Header::Right, JwtSvidRequest { audience, spiffe_id: spiffe_id.to_owned() }).await
}

async fn validate(client: &Client, audience: &str, token: &str) -> Result<ValidateJwtSvidResponse, Status> {
    let request = ValidateJwtSvidRequest { audience: audience.to_owned(), svid: token.to_owned() };
    client.unary("ValidateJWTSVID", Header::Right, request).await
}

async fn headers(client: &Client) -> Vec<(String, Code)> {
    let mut seen = Vec::new();
    let wrong = [Header::Missing, Header::Wrong("TRUE"), Header::Wrong("false"), Header::Wrong(""), Header::Twice];
    for header in wrong {
        for method in ["FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles"] {
            let answer: Result<Empty, Status> = client.first(method, header, Empty {}).await;
            seen.push((format!("{method} {header:?}"), code(answer)));
        }
        let request = JwtSvidRequest { audience: vec![AUDIENCE.to_owned()], spiffe_id: String::new() };
        seen.push((
            format!("FetchJWTSVID {header:?}"),
            code::<Empty>(client.unary("FetchJWTSVID", header, request).await),
        ));
        let request = ValidateJwtSvidRequest { audience: AUDIENCE.to_owned(), svid: "e30.e30.e30".to_owned() };
        seen.push((
            format!("ValidateJWTSVID {header:?}"),
            code::<Empty>(client.unary("ValidateJWTSVID", header, request).await),
        ));
    }
    seen
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

/// Whether a stream stays open after its first message, and says nothing where nothing changed.
async fn stays_open(client: &Client) -> bool {
    let Ok(mut stream) = client.stream::<Empty, X509BundlesResponse>("FetchX509Bundles", Header::Right, Empty {}).await
    else {
        return false;
    };
    let first = tokio::time::timeout(Duration::from_secs(60), stream.message()).await;
    matches!(first, Ok(Ok(Some(_)))) && tokio::time::timeout(Duration::from_secs(2), stream.message()).await.is_err()
}

/// The services that the server names by gRPC reflection.
async fn reflection(client: &Client) -> Option<Vec<String>> {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(client.channel());
    let answers = reflection.server_reflection_info(tokio_stream::once(request)).await.ok()?;
    let answer: ServerReflectionResponse = answers.into_inner().message().await.ok()??;
    match answer.message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            Some(list.service.into_iter().map(|service| service.name).collect())
        }
        _ => None,
    }
}

/// Runs openssl over files in a folder of its own; what it printed, and whether it was content.
pub fn openssl(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let output = std::process::Command::new("openssl").current_dir(folder).args(arguments).output();
    let output = output.expect("openssl is installed");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Certificates by the name of a file, as PEM, in a folder for openssl.
pub fn pem_files(files: &BTreeMap<&str, Vec<Vec<u8>>>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, certificates) in files {
        let mut text = String::new();
        for der in certificates {
            let body = base64::engine::general_purpose::STANDARD.encode(der);
            text.push_str("-----BEGIN CERTIFICATE-----\n");
            for line in body.as_bytes().chunks(64) {
                text.push_str(std::str::from_utf8(line).unwrap());
                text.push('\n');
            }
            text.push_str("-----END CERTIFICATE-----\n");
        }
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}
