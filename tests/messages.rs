//! A host whose components send and get messages over a real nats-server, and an outsider in the same account.
#![allow(dead_code, unreachable_pub, reason = "two tests share this, and each uses a part")]

use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Subscriber};
use portcullis_tests::host::Host;
use portcullis_tests::nats::NatsServer;
use portcullis_tests::nats::pki::replace;
use portcullis_tests::patience::LONG;
use portcullis_tests::site::Site;
use serde_json::Value;

/// A nats-server with an account for hosts and one for components, by passwords, on the loopback.
pub fn server(test: &str) -> Option<NatsServer> {
    let config = r#"max_payload: 1MB
        accounts {
          HOSTS { users: [ { user: host, password: host-secret } ] }
          APPS { jetstream: enabled, users: [ { user: data, password: data-secret }, { user: outsider, password: outsider-secret } ] }
        }
        jetstream { store_dir: js }"#;
    NatsServer::start(test, config)
}

/// Lets a site's components have messages over that server. `more` are keys of `[messaging]`.
pub fn connect(site: &mut Site, server: &NatsServer, more: &str) {
    replace(site.path(), "host.pass", "host-secret\n");
    replace(site.path(), "data.pass", "data-secret\n");
    site.config(&format!(
        "[nats]\nservers = [\"{}\"]\naccount = \"HOSTS\"\ndanger_plaintext = true\nauth.user = \"host\"\nauth.password = \"host.pass\"\n\n\
         [nats.data]\naccount = \"APPS\"\nauth.user = \"data\"\nauth.password = \"data.pass\"\n\n[messaging]\n{more}\n",
        server.url()
    ));
}

/// Somebody else in the account of the components.
pub async fn outsider(server: &NatsServer) -> Client {
    let options = ConnectOptions::with_user_and_password("outsider".to_owned(), "outsider-secret".to_owned());
    options.connect(server.url()).await.expect("the outsider connects")
}

/// Waits until somebody serves a subject: asks until an answer comes.
pub async fn served(client: &Client, subject: &str) {
    let end = Instant::now() + LONG;
    loop {
        let asked = client.request(subject.to_owned(), "are you there".into());
        match tokio::time::timeout(Duration::from_secs(2), asked).await {
            Ok(Ok(_)) => return,
            _ => assert!(Instant::now() < end, "nobody serves {subject}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How long it takes until nobody serves a subject any more. What comes in between is not answered.
pub async fn unserved(client: &Client, subject: &str) -> Duration {
    let begin = Instant::now();
    loop {
        let asked = client.request(subject.to_owned(), "are you there".into());
        match tokio::time::timeout(Duration::from_millis(200), asked).await {
            Ok(Err(error)) if error.kind() == async_nats::RequestErrorKind::NoResponders => return begin.elapsed(),
            _ => assert!(begin.elapsed() < LONG, "{subject} is still served"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The next message as JSON; `None` where none comes for a while.
pub async fn next_json(messages: &mut Subscriber) -> Option<Value> {
    next_within(messages, Duration::from_secs(5)).await
}

async fn next_within(messages: &mut Subscriber, most: Duration) -> Option<Value> {
    use futures::StreamExt as _;
    let message = tokio::time::timeout(most, messages.next()).await.ok()??;
    Some(serde_json::from_slice(&message.payload).expect("a report is JSON"))
}

/// The next report about a message with this body.
pub async fn report_of(messages: &mut Subscriber, body: &str) -> Value {
    while let Some(report) = next_within(messages, LONG).await {
        if report["body"] == body {
            return report;
        }
    }
    panic!("no report about {body:?}");
}

/// Has the messenger do something: status and JSON.
pub fn ask(host: &Host, path: &str, body: &str) -> (u16, Value) {
    let answer = portcullis_tests::http::post(host.http(), path, body.as_bytes());
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
}

/// Percent-encodes all but letters and digits, for a query.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
