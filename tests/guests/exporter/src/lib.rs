//! Asks for its X.509-SVID with the private key and answers with both, as JSON and hexadecimal. Nothing that a component should
//! do: it shows what is refused, and what leaves where it is not.

use guest_http::Answer;
use serde_json::json;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

use crate::portcullis::identity::key_export;
use crate::portcullis::identity::types::Error;

wit_bindgen::generate!({
    inline: "
        package guests:exporter;
        world exporter {
            import portcullis:identity/key-export@0.1.0;
        }
    ",
    path: ["../../../wit/portcullis-identity"],
    generate_all,
});

struct Exporter;

wasip2::http::proxy::export!(Exporter);

impl wasip2::exports::http::incoming_handler::Guest for Exporter {
    fn handle(_: IncomingRequest, out: ResponseOutparam) {
        let (status, body) = match key_export::fetch_x509() {
            Ok(svid) => {
                let certificates: Vec<String> = svid.certificates.iter().map(|der| hex(der)).collect();
                let body = json!({
                    "spiffe_id": svid.spiffe_id,
                    "certificates": certificates,
                    "private_key": hex(&svid.private_key),
                    "expires_at": svid.expires_at,
                });
                (200, body)
            }
            Err(Error::Denied(refusal)) => {
                (403, json!({ "error": "denied", "code": refusal.code, "reference": refusal.reference }))
            }
            Err(error) => (422, json!({ "error": format!("{error:?}") })),
        };
        Answer::json(status, body).send(out);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
