//! The callee of the demo: it answers `GET /secret` to the greeter of its own namespace, and to nobody else.
//!
//! It trusts two proofs and wants both of the same caller: the SPIFFE ID of the connection, which the host verified by
//! mTLS, and a JWT-SVID for the audience `vault` as the bearer token. Which trust domain a caller may come from is what
//! the host verifies certificates against; this component decides on the path. No header tells it who calls.

use guest_http::{Answer, Target};
use serde_json::{Value, json};
use wasip2::http::types::{IncomingRequest, Method, ResponseOutparam};

use crate::portcullis::identity::types::Error;
use crate::portcullis::identity::{jwt, peer};

wit_bindgen::generate!({
    inline: "
        package guests:vault;
        world vault {
            import portcullis:identity/jwt@0.1.0;
            import portcullis:identity/peer@0.1.0;
        }
    ",
    path: ["../../../wit/portcullis-identity"],
    generate_all,
});

struct Vault;

wasip2::http::proxy::export!(Vault);

impl wasip2::exports::http::incoming_handler::Guest for Vault {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = Target::of(&request);
        let answer = match (request.method(), target.path()) {
            (Method::Get, "/secret") => secret(&request),
            (Method::Get, _) => Err(Refusal::because(404, "no such path")),
            (_, _) => Err(Refusal::because(405, "only GET is answered")),
        };
        let (status, body) = match answer {
            Ok(body) => (200, body),
            Err(refusal) => (refusal.status, refusal.body),
        };
        Answer::json(status, body).send(out);
    }
}

/// A refusal: 401 where a proof is missing or wrong, 403 where the proof is good and the caller is not welcome.
struct Refusal {
    status: u16,
    body: Value,
}

impl Refusal {
    fn because(status: u16, error: &str) -> Self {
        Self { status, body: json!({ "error": error }) }
    }
}

fn secret(request: &IncomingRequest) -> Result<Value, Refusal> {
    let caller = peer::caller().map_err(|error| refusal_of("peer.caller", error))?;
    let caller = caller.ok_or(Refusal::because(401, "the caller showed no X.509-SVID"))?.spiffe_id;
    if path_of(&caller) != Some(WELCOME_PATH) {
        return Err(Refusal::because(403, "this caller is not welcome"));
    }
    let token = bearer_token(request).ok_or(Refusal::because(401, "exactly one bearer token is needed"))?;
    let claims = jwt::validate(&token, AUDIENCE).map_err(|error| refusal_of("jwt.validate", error))?;
    if claims.spiffe_id != caller {
        return Err(Refusal::because(403, "the token speaks for somebody else than the caller"));
    }
    Ok(json!({ "secret": SECRET, "caller": caller, "token_subject": claims.spiffe_id }))
}

fn path_of(spiffe_id: &str) -> Option<&str> {
    let rest = spiffe_id.strip_prefix("spiffe://")?;
    rest.find('/').map(|cut| rest.split_at(cut).1)
}

fn bearer_token(request: &IncomingRequest) -> Option<String> {
    let values = request.headers().get("authorization");
    let [value] = values.as_slice() else { return None };
    let (scheme, token) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.to_owned())
}

fn refusal_of(call: &str, error: Error) -> Refusal {
    match error {
        Error::Denied(refusal) => Refusal {
            status: 403,
            body: json!({
                "error": format!("{call}: denied, {} {}", refusal.code, refusal.reference),
                "code": refusal.code,
                "reference": refusal.reference,
            }),
        },
        Error::InvalidArgument(text) => Refusal::because(401, &format!("{call}: invalid-argument, {text}")),
        Error::InvalidToken(text) => Refusal::because(401, &format!("{call}: invalid-token, {text}")),
        Error::RateLimited(text) => Refusal::because(503, &format!("{call}: rate-limited, {text}")),
        Error::Unavailable(text) => Refusal::because(503, &format!("{call}: unavailable, {text}")),
    }
}

const WELCOME_PATH: &str = "/ns/demo/sa/greeter";
const AUDIENCE: &str = "vault";
const SECRET: &str = "the portcullis is down";
