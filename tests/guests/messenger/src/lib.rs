//! Sends messages, as `wasmcloud:messaging/consumer` has it, and answers with what came of it, as JSON. The last segment of the
//! path says which, the request's body is the message's:
//!
//! `publish?subject=S&reply=R`; `request?subject=S&ms=N`. Both take `&times=N` and tell how many went well; `&bytes=N` sends that
//! many bytes instead of the body. An error of the interface is 422 with its text in `error`.

use guest_http::{Answer, Target, read_body};
use serde_json::{Value, json};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

use crate::wasmcloud::messaging::consumer;
use crate::wasmcloud::messaging::types::BrokerMessage;

wit_bindgen::generate!({
    inline: "
        package guests:messenger;
        world messenger {
            import wasmcloud:messaging/consumer@0.2.0;
        }
    ",
    path: ["../../../wit/wasmcloud-messaging"],
    generate_all,
});

struct Messenger;

wasip2::http::proxy::export!(Messenger);

impl wasip2::exports::http::incoming_handler::Guest for Messenger {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = Target::of(&request);
        let subject = target.query("subject").unwrap_or_default();
        let body = match target.number("bytes", 0) {
            0 => request.consume().ok().and_then(|body| read_body(&body, BODY_BYTES).ok()).unwrap_or_default(),
            bytes => vec![b'x'; bytes as usize],
        };
        let send = || match target.path().rsplit('/').next().unwrap_or_default() {
            "publish" => {
                let message =
                    BrokerMessage { subject: subject.clone(), body: body.clone(), reply_to: target.query("reply") };
                consumer::publish(&message).map(|()| json!({ "published": true }))
            }
            "request" => {
                let answer = consumer::request(&subject, &body, target.number("ms", 2000))?;
                Ok(json!({
                    "subject": answer.subject,
                    "body": String::from_utf8_lossy(&answer.body),
                    "reply_to": answer.reply_to,
                }))
            }
            _ => Err("no such path".to_owned()),
        };
        let (status, body) = match target.number("times", 1) {
            1 => shown(send()),
            times => (200, json!({ "ok": (0..times).filter(|_| send().is_ok()).count() })),
        };
        Answer::json(status, body).send(out);
    }
}

fn shown(sent: Result<Value, String>) -> (u16, Value) {
    match sent {
        Ok(value) => (200, value),
        Err(error) => (422, json!({ "error": error })),
    }
}

const BODY_BYTES: usize = 4 << 20;
