//! The caller of the demo: it learns who it is, fetches tokens, and calls the vault as itself.
//!
//! `GET /greeter` greets the vault named in the header `x-vault-url`; `/greeter/fetch?url=URL` tries any destination;
//! `/greeter/mint?aud=AUDIENCE` fetches a token for any audience. It holds no key: mTLS is made by the host. What is
//! refused to it, it reports by the name of the WASI error code, or by code and reference of the identity error.

mod failure;

use guest_http::{Answer, Fetched, Target, fetch};
use serde_json::{Value, json};
use wasip2::http::types::{IncomingRequest, Method, ResponseOutparam};

use crate::failure::Failure;
use crate::portcullis::identity::{jwt, workload, x509};
use crate::wasmcloud::identity::store;

wit_bindgen::generate!({
    inline: "
        package guests:greeter;
        world greeter {
            import portcullis:identity/workload@0.1.0;
            import portcullis:identity/jwt@0.1.0;
            import portcullis:identity/x509@0.1.0;
            import wasmcloud:identity/store@0.0.1;
        }
    ",
    path: ["../../../wit/portcullis-identity", "../../../wit/wasmcloud-identity"],
    generate_all,
});

struct Greeter;

wasip2::http::proxy::export!(Greeter);

impl wasip2::exports::http::incoming_handler::Guest for Greeter {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = Target::of(&request);
        let answer = match (request.method(), target.path()) {
            (Method::Get, "/greeter") => greet(&request),
            (Method::Get, "/greeter/fetch") => try_destination(&target),
            (Method::Get, "/greeter/mint") => mint(&target),
            (Method::Get, "/greeter/store") => stored(&target),
            (Method::Get, _) => Err(Failure::request(404, "no such path")),
            (_, _) => Err(Failure::request(405, "only GET is answered")),
        };
        let (status, body) = match answer {
            Ok(body) => (200, body),
            Err(failure) => (failure.status(), failure.into_json()),
        };
        Answer::json(status, body).send(out);
    }
}

/// The greeting. Every failed step is answered with 502: what is behind this component let it down.
fn greet(request: &IncomingRequest) -> Result<Value, Failure> {
    let url = vault_url(request)?;
    let spiffe_id = workload::spiffe_id().map_err(|error| Failure::identity("workload.spiffe-id", error).upstream())?;
    let svid =
        jwt::fetch(&[VAULT_AUDIENCE.to_owned()]).map_err(|error| Failure::identity("jwt.fetch", error).upstream())?;
    let wasmcloud_token = match store::get(VAULT_AUDIENCE) {
        Ok(token) => token.is_some_and(|token| !token.is_empty()),
        Err(store::Error::NotFound) => false,
        Err(store::Error::Io(text) | store::Error::Other(text)) => return Err(Failure::step("store.get", text)),
    };
    let chain = x509::fetch_chain().map_err(|error| Failure::identity("x509.fetch-chain", error).upstream())?;
    let leaf = chain.certificates.first().ok_or(Failure::step("x509.fetch-chain", "an empty chain".to_owned()))?;
    let certificate: String = leaf.iter().map(|byte| format!("{byte:02x}")).collect();
    let authorization = format!("Bearer {}", svid.token);
    let Fetched { status, body } = fetch(&url, &[("authorization", &authorization)], VAULT_ANSWER_BYTES)
        .map_err(|error| Failure::fetch("vault", &error).upstream())?;
    let vault: Value = serde_json::from_slice(&body)
        .map_err(|_| Failure::step("vault", format!("status {status}, and the body is not JSON")))?;
    Ok(json!({
        "spiffe_id": spiffe_id,
        "token": svid.token,
        "token_expires_at": svid.expires_at,
        "wasmcloud_token": wasmcloud_token,
        "certificate": certificate,
        "vault_status": status,
        "vault": vault,
    }))
}

fn try_destination(target: &Target) -> Result<Value, Failure> {
    let url = target.query("url").ok_or(Failure::request(400, "?url=URL, percent-encoded, is missing"))?;
    let Fetched { status, body } =
        fetch(&url, &[], SHOWN_BODY_BYTES).map_err(|error| Failure::fetch("fetch", &error))?;
    Ok(json!({ "status": status, "body": String::from_utf8_lossy(&body) }))
}

fn mint(target: &Target) -> Result<Value, Failure> {
    let audience = target.query("aud").ok_or(Failure::request(400, "?aud=AUDIENCE, percent-encoded, is missing"))?;
    let svid = jwt::fetch(&[audience]).map_err(|error| Failure::identity("jwt.fetch", error))?;
    Ok(json!({ "spiffe_id": svid.spiffe_id, "token": svid.token, "token_expires_at": svid.expires_at }))
}

/// A token by wasmCloud's interface, which knows no codes.
fn stored(target: &Target) -> Result<Value, Failure> {
    let audience = target.query("aud").ok_or(Failure::request(400, "?aud=AUDIENCE, percent-encoded, is missing"))?;
    match store::get(&audience) {
        Ok(token) => Ok(json!({ "token": token })),
        Err(store::Error::NotFound) => Err(Failure::step("store.get", "not-found")),
        Err(store::Error::Io(text)) => Err(Failure::step("store.get", format!("io, {text}"))),
        Err(store::Error::Other(text)) => Err(Failure::step("store.get", format!("other, {text}"))),
    }
}

fn vault_url(request: &IncomingRequest) -> Result<String, Failure> {
    let values = request.headers().get("x-vault-url");
    let value = values.into_iter().next().ok_or(Failure::request(400, "the header x-vault-url is missing"))?;
    String::from_utf8(value).map_err(|_| Failure::request(400, "the header x-vault-url is not UTF-8"))
}

const VAULT_AUDIENCE: &str = "vault";
const VAULT_ANSWER_BYTES: usize = 64 * 1024;
const SHOWN_BODY_BYTES: usize = 1024;
