//! Gets messages, as `wasmcloud:messaging/handler` has it, and serves nothing else. The first word of a message says what it does:
//!
//! `trap`; `spin`, without end; `hold N`, for N milliseconds, before it goes on; `fail TEXT`, the error that it returns; `send SUBJECT`,
//! to there too; `ask SUBJECT`; `twice`, answers a second time; `silent`, does not answer.
//!
//! An answer, where there is a subject for one, is the message itself. Then what happened goes to the subject `report.listener`, as JSON.

use serde_json::{Value, json};
use wasip2::clocks::monotonic_clock;

use crate::exports::wasmcloud::messaging::handler::Guest;
use crate::wasmcloud::messaging::consumer;
use crate::wasmcloud::messaging::types::BrokerMessage;

wit_bindgen::generate!({
    inline: "
        package guests:listener;
        world listener {
            import wasmcloud:messaging/consumer@0.2.0;
            export wasmcloud:messaging/handler@0.2.0;
        }
    ",
    path: ["../../../wit/wasmcloud-messaging"],
    generate_all,
});

struct Listener;

export!(Listener);

impl Guest for Listener {
    fn handle_message(message: BrokerMessage) -> Result<(), String> {
        let text = String::from_utf8_lossy(&message.body).into_owned();
        let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let mut other = Value::Null;
        match word {
            "trap" => std::arch::wasm32::unreachable(),
            "spin" => loop {
                std::hint::black_box(());
            },
            "hold" => monotonic_clock::subscribe_duration(rest.parse().unwrap_or(0) * 1_000_000).block(),
            "fail" => return Err(rest.to_owned()),
            "send" => other = shown(send(rest, &message.body)),
            "ask" => {
                other = match consumer::request(rest, b"asked", 1000) {
                    Ok(answer) => json!(String::from_utf8_lossy(&answer.body)),
                    Err(error) => json!({ "error": error }),
                }
            }
            _ => {}
        }
        let mut answers = Vec::new();
        if let Some(subject) = message.reply_to.as_deref().filter(|_| word != "silent") {
            for _ in 0..if word == "twice" { 2 } else { 1 } {
                answers.push(shown(send(subject, &message.body)));
            }
        }
        let report = json!({
            "subject": message.subject,
            "body": text,
            "reply_to": message.reply_to,
            "answers": answers,
            "other": other,
        });
        send("report.listener", report.to_string().as_bytes())
    }
}

fn send(subject: &str, body: &[u8]) -> Result<(), String> {
    consumer::publish(&BrokerMessage { subject: subject.to_owned(), body: body.to_vec(), reply_to: None })
}

fn shown(sent: Result<(), String>) -> Value {
    match sent {
        Ok(()) => json!("sent"),
        Err(error) => json!({ "error": error }),
    }
}
