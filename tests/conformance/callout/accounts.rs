//! Accounts mode: who is let in, with what.

use std::time::{Duration, Instant};

use async_nats::ConnectOptions;

use portcullis_tests::patience::LONG;

use crate::rig::{ROLES, Rig, Shape, allowed, bundle, user_info};
use crate::tokens::{self, Issuer, Signs};

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_with_an_x509_svid_gets_its_account_and_exactly_its_subjects() {
    let Some(rig) = Rig::start("callout::x509") else { return };
    let callout = rig.callout();
    let (client, info) = rig.host("h1").await;
    assert_eq!(info["account"], "APP", "{info}");
    assert_eq!(info["user"], "spiffe://td-a.test/host/h1", "{info}");
    assert_eq!(allowed(&info, "publish"), ["$SYS.REQ.USER.INFO", "lat.evt.h1.>"], "{info}");
    assert_eq!(allowed(&info, "subscribe"), ["_INBOX_h1.>", "lat.ctl.h1.>"], "{info}");
    assert!(info["expires"].as_u64().is_some_and(|left| left > 0), "it ends some time: {info}");
    // It was on the disk before it left.
    let record = callout.wait_for_audit("callout-allow");
    assert_eq!(record["placement"]["workload"], "spiffe://td-a.test/host/h1");
    assert!(callout.metric("portcullis_callout_requests_total{result=\"allowed\"}") >= 1);
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_subjects_may_do_nothing_rather_than_everything() {
    let Some(rig) = Rig::start("callout::silent") else { return };
    let _callout = rig.callout();
    let leaf = rig.a.spiffe("spiffe://td-a.test/silent");
    let (sender, mut denied) = tokio::sync::mpsc::unbounded_channel();
    let options = || {
        let sender = sender.clone();
        ConnectOptions::new().event_callback(move |event| {
            let _ = sender.send(event.to_string());
            async {}
        })
    };
    let client = rig.let_in(async || rig.connect_with(&leaf, "_INBOX", options()).await).await;
    client.publish("anything", "x".into()).await.unwrap();
    let _subscription = client.subscribe("anything").await.unwrap();
    client.flush().await.unwrap();
    let (mut publish, mut subscribe) = (false, false);
    let end = Instant::now() + LONG;
    while !(publish && subscribe) {
        let left = end.saturating_duration_since(Instant::now());
        let event = tokio::time::timeout(left, denied.recv()).await.expect("two violations").unwrap().to_lowercase();
        publish |= event.contains("permissions violation for publish");
        subscribe |= event.contains("permissions violation for subscription");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_svid_that_names_the_clients_nkey_is_let_in() {
    let shape = Shape { certificates: false, ..Shape::default() };
    let Some(rig) = Rig::shaped("callout::jwt", &shape) else { return };
    let issuer = Issuer::new();
    rig.policy("td-a.json", &bundle(&rig.a.der(), &[issuer.jwk()]));
    let callout = rig.callout();
    let key = nkeys::KeyPair::new_user();
    let audience = format!("nkey:{}", key.public_key());
    let token = issuer.token("spiffe://td-a.test/bot/b1", &["spiffe://td-a.test/callout", &audience], 300);
    let shows = async || tokens::connect(&rig, tokens::options(&token, &key, Signs::Nonce), "_INBOX_b1").await;
    let client = rig.let_in(shows).await;
    let info = user_info(&client).await;
    assert_eq!((&info["account"], &info["user"]), (&"APP".into(), &"spiffe://td-a.test/bot/b1".into()), "{info}");
    assert_eq!(allowed(&info, "publish"), ["$SYS.REQ.USER.INFO", "bot.b1"]);
    let record = callout.wait_for_audit("callout-allow");
    assert_eq!(record["nkey"], key.public_key());
    assert!(
        !std::fs::read_to_string(callout.state.join("audit.jsonl")).unwrap().contains(&token),
        "a token is no record"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn token_and_certificate_together_must_be_of_one_workload() {
    let Some(rig) = Rig::start("callout::both") else { return };
    let issuer = Issuer::new();
    rig.policy("td-a.json", &bundle(&rig.a.der(), &[issuer.jwk()]));
    let roles = ROLES.replace("credential = \"jwt\"", "credential = \"both\"");
    rig.policy("roles.toml", &roles);
    let callout = rig.callout();
    let leaf = rig.a.spiffe("spiffe://td-a.test/bot/b1");
    let key = nkeys::KeyPair::new_user();
    let shows = async |sub: &str| {
        let token = issuer.token(sub, &["spiffe://td-a.test/callout"], 300);
        rig.connect_with(&leaf, "_INBOX_b1", tokens::options(&token, &key, Signs::Nothing)).await
    };
    rig.let_in(async || shows("spiffe://td-a.test/bot/b1").await).await;
    let another = shows("spiffe://td-a.test/bot/b2").await;
    assert!(another.is_err(), "{another:?}");
    callout.wait_for_audit("disagree");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_never_outlives_its_role_or_its_svid() {
    let Some(rig) = Rig::start("callout::expiry") else { return };
    let _callout = rig.callout();
    // The role gives 30 s, the certificate an hour.
    let leaf = rig.a.spiffe("spiffe://td-a.test/short");
    let client = rig.let_in(async || rig.connect_with(&leaf, "_INBOX_short", ConnectOptions::new()).await).await;
    let left = seconds_left(&user_info(&client).await);
    assert!((1..=30).contains(&left), "{left}");
    // The role gives an hour, the certificate two minutes.
    let leaf = rig.a.leaf(|params| {
        params.subject_alt_names = vec![rcgen::SanType::URI("spiffe://td-a.test/host/h1".try_into().unwrap())];
        params.not_after = time::OffsetDateTime::now_utc() + Duration::from_secs(120);
    });
    let client = rig.let_in(async || rig.connect_with(&leaf, "_INBOX_h1", ConnectOptions::new()).await).await;
    let left = seconds_left(&user_info(&client).await);
    assert!((1..=120).contains(&left), "{left}");
}

/// The server says nanoseconds.
fn seconds_left(info: &serde_json::Value) -> u64 {
    info["expires"].as_u64().unwrap_or_default().div_ceil(1_000_000_000)
}
