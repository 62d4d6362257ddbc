//! Calls each function of `portcullis:identity` and answers with what came, as JSON. The last segment of the path says which:
//!
//! `id`; `jwt?aud=A,B`; `validate?aud=A`, with the token as the body; `chain`; `sign?purpose=P`, with the data as the body;
//! `bundle`; `bundle-for?td=NAME`; `domains`; `caller`; `hold?ms=N`, which answers `first`, then `last` that much later. `jwt` and
//! `chain` take `&times=N`, call that often and tell how long a call took; `headers` shows the names of the request's headers.
//!
//! An error of the identity interfaces is 403 with its code where it is a refusal, otherwise 422; its name is in `error`.

use guest_http::{Answer, Target, begin, read_body, write_all};
use serde_json::{Value, json};
use wasip2::clocks::monotonic_clock;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, ResponseOutparam};

use crate::portcullis::identity::types::Error;
use crate::portcullis::identity::{bundle, jwt, peer, signing, workload, x509};

wit_bindgen::generate!({
    inline: "
        package guests:identity;
        world identity {
            import portcullis:identity/workload@0.1.0;
            import portcullis:identity/jwt@0.1.0;
            import portcullis:identity/x509@0.1.0;
            import portcullis:identity/signing@0.1.0;
            import portcullis:identity/bundle@0.1.0;
            import portcullis:identity/peer@0.1.0;
        }
    ",
    path: ["../../../wit/portcullis-identity"],
    generate_all,
});

struct Identity;

wasip2::http::proxy::export!(Identity);

impl wasip2::exports::http::incoming_handler::Guest for Identity {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = Target::of(&request);
        let what = target.path().rsplit('/').next().unwrap_or_default();
        if what == "hold" {
            return hold(out, target.number("ms", 1000));
        }
        let times = target.number("times", 1);
        let answer = match what {
            "id" => workload::spiffe_id().map(|id| json!({ "spiffe_id": id })),
            "jwt" => repeated(times, || fetch(&target)),
            "validate" => validate(&request, &target),
            "chain" => repeated(times, chain),
            "sign" => sign(&request, &target),
            "bundle" => bundle::fetch().map(|text| json!({ "bundle": text })),
            "bundle-for" => {
                bundle::fetch_for(&target.query("td").unwrap_or_default()).map(|text| json!({ "bundle": text }))
            }
            "domains" => bundle::trust_domains().map(|names| json!({ "trust_domains": names })),
            "caller" => peer::caller().map(|caller| match caller {
                Some(caller) => json!({
                    "spiffe_id": caller.spiffe_id,
                    "trust_domain": caller.trust_domain,
                    "expires_at": caller.expires_at,
                }),
                None => Value::Null,
            }),
            "headers" => Ok(json!(request.headers().entries().into_iter().map(|(name, _)| name).collect::<Vec<_>>())),
            _ => return Answer::json(404, json!({ "error": "no such path" })).send(out),
        };
        match answer {
            Ok(body) => Answer::json(200, body).send(out),
            Err(error) => {
                let (status, body) = shown(error);
                Answer::json(status, body).send(out);
            }
        }
    }
}

/// Calls that often; of more than one call, says how long they took.
fn repeated(times: u32, call: impl Fn() -> Result<Value, Error>) -> Result<Value, Error> {
    if times < 2 {
        return call();
    }
    let (mut taken, mut last) = (Vec::new(), Value::Null);
    for _ in 0..times {
        let began = monotonic_clock::now();
        last = call()?;
        taken.push(monotonic_clock::now() - began);
    }
    taken.sort_unstable();
    let part = |hundredth: usize| taken.get((taken.len() - 1) * hundredth / 100).copied().unwrap_or_default();
    last["nanos"] = json!({ "p50": part(50), "p99": part(99), "max": part(100) });
    Ok(last)
}

fn fetch(target: &Target) -> Result<Value, Error> {
    let text = target.query("aud").unwrap_or_default();
    let audiences: Vec<String> = text.split(',').filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect();
    let svid = jwt::fetch(&audiences)?;
    Ok(json!({ "token": svid.token, "spiffe_id": svid.spiffe_id, "expires_at": svid.expires_at }))
}

fn validate(request: &IncomingRequest, target: &Target) -> Result<Value, Error> {
    let token = String::from_utf8(body_of(request)).unwrap_or_default();
    let claims = jwt::validate(&token, &target.query("aud").unwrap_or_default())?;
    Ok(json!({ "spiffe_id": claims.spiffe_id, "audiences": claims.audiences, "expires_at": claims.expires_at }))
}

fn chain() -> Result<Value, Error> {
    let chain = x509::fetch_chain()?;
    let certificates: Vec<String> = chain.certificates.iter().map(|der| hex(der)).collect();
    Ok(json!({ "spiffe_id": chain.spiffe_id, "certificates": certificates, "expires_at": chain.expires_at }))
}

fn sign(request: &IncomingRequest, target: &Target) -> Result<Value, Error> {
    let signature = signing::sign(&target.query("purpose").unwrap_or_default(), &body_of(request))?;
    let certificates: Vec<String> = signature.certificates.iter().map(|der| hex(der)).collect();
    Ok(json!({ "signature": hex(&signature.bytes), "certificates": certificates, "expires_at": signature.expires_at }))
}

/// A response whose second half comes later, so that a connection lives.
fn hold(out: ResponseOutparam, milliseconds: u32) {
    let Some((body, stream)) = begin(out, 200, Fields::new()) else { return };
    if write_all(&stream, b"first\n").is_err() {
        return;
    }
    monotonic_clock::subscribe_duration(u64::from(milliseconds) * 1_000_000).block();
    let written = write_all(&stream, b"last\n");
    drop(stream);
    if written.is_ok() {
        let _ = OutgoingBody::finish(body, None);
    }
}

fn body_of(request: &IncomingRequest) -> Vec<u8> {
    request.consume().ok().and_then(|body| read_body(&body, BODY_BYTES).ok()).unwrap_or_default()
}

fn shown(error: Error) -> (u16, Value) {
    match error {
        Error::Denied(refusal) => {
            (403, json!({ "error": "denied", "code": refusal.code, "reference": refusal.reference }))
        }
        Error::InvalidArgument(text) => (422, json!({ "error": "invalid-argument", "text": text })),
        Error::InvalidToken(text) => (422, json!({ "error": "invalid-token", "text": text })),
        Error::RateLimited(text) => (422, json!({ "error": "rate-limited", "text": text })),
        Error::Unavailable(text) => (422, json!({ "error": "unavailable", "text": text })),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// More than the host signs at once.
const BODY_BYTES: usize = 128 << 10;
