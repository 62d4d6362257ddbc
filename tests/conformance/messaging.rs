//! Messages of components over a real nats-server: sent, received, asked for; shared among replicas; through a restart of the
//! server; ended with the grant, the instance, the connection of one's own.

#[path = "../messages.rs"]
mod messages;

use std::time::{Duration, Instant};

use crate::messages::{ask, connect, next_json, outsider, report_of, served, server, unserved};
use futures::StreamExt as _;
use portcullis_tests::host::Host;
use portcullis_tests::nats::pki::{Authority, replace};
use portcullis_tests::nats::{NatsServer, folder};
use portcullis_tests::patience::{LONG, promised};
use portcullis_tests::site::Site;
use serde_json::json;

const LISTENER: &str = "subscribe = [\"orders.>\"]\npublish = [\"report.listener\"]";
const MESSENGER: &str = "publish = [\"orders.*\"]\nrequest = [\"orders.ask\", \"nobody.there\"]";

// gate: wasmcloud:messaging/consumer.publish, wasmcloud:messaging/consumer.request, wasmcloud:messaging/handler.handle-message
#[tokio::test(flavor = "multi_thread")]
async fn components_publish_ask_and_answer() {
    let Some(nats) = server("components_publish_ask_and_answer") else { return };
    let mut site = Site::new();
    site.guest("listener", LISTENER);
    site.guest("messenger", MESSENGER);
    connect(&mut site, &nats, "");
    let host = Host::ready(site);
    let client = outsider(&nats).await;
    let mut reports = client.subscribe("report.listener").await.unwrap();
    client.flush().await.unwrap();
    served(&client, "orders.new").await;

    let answer = client.request("orders.eu.new", "hello".into()).await.unwrap();
    assert_eq!(answer.payload.as_ref(), b"hello");
    assert!(answer.headers.is_none());
    let report = report_of(&mut reports, "hello").await;
    assert_eq!((&report["subject"], &report["answers"]), (&json!("orders.eu.new"), &json!(["sent"])));
    let members: Vec<&String> = report.as_object().unwrap().keys().collect();
    assert_eq!(members.len(), 5, "nothing else is told of a message: {members:?}");

    assert_eq!(ask(&host, "/messenger/publish?subject=orders.x", "from inside").0, 200);
    let report = report_of(&mut reports, "from inside").await;
    assert_eq!((&report["subject"], &report["reply_to"]), (&json!("orders.x"), &json!(null)));

    let (status, answer) = ask(&host, "/messenger/request?subject=orders.ask", "a question");
    assert_eq!((status, &answer["body"]), (200, &json!("a question")), "{answer}");
    let inbox = answer["subject"].as_str().unwrap();
    assert!(inbox.starts_with("_INBOX_data.") && inbox.split('.').count() == 3, "{inbox}");
    let (status, answer) = ask(&host, "/messenger/request?subject=orders.ask", "another");
    assert!(status == 200 && answer["subject"] != inbox, "an inbox is good for one answer");

    let (status, answer) = ask(&host, "/messenger/request?subject=nobody.there", "x");
    assert_eq!((status, &answer["error"]), (422, &json!("nobody answers requests to this subject")));
    let begin = Instant::now();
    let (status, answer) = ask(&host, "/messenger/request?subject=orders.ask&ms=300", "silent");
    assert_eq!((status, &answer["error"]), (422, &json!("no answer came in time")));
    assert!(begin.elapsed() < promised(Duration::from_secs(5)), "{:?}", begin.elapsed());

    // What has no HTTP is not called by HTTP.
    assert_eq!(ask(&host, "/listener", "").0, 404);
    // A request within a message.
    client.publish("orders.y", "ask stock.x".into()).await.unwrap();
    let report = report_of(&mut reports, "ask stock.x").await;
    assert!(report["other"]["error"].as_str().unwrap().starts_with("denied M0202"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_handled_badly_costs_itself_alone() {
    let Some(nats) = server("a_message_that_is_handled_badly_costs_itself_alone") else { return };
    let mut site = Site::new();
    site.guest("listener", LISTENER);
    connect(&mut site, &nats, "concurrent = 2");
    site.config("\n[limits]\ncpu_ms = 200\nrequest_ms = 3000\n");
    let host = Host::ready(site);
    let client = outsider(&nats).await;
    let mut reports = client.subscribe("report.listener").await.unwrap();
    client.flush().await.unwrap();
    served(&client, "orders.new").await;
    for body in ["trap", "spin", "fail on purpose", "spin", "trap"] {
        client.publish("orders.bad", body.into()).await.unwrap();
    }
    // Places are taken by two that spin, the third waits for its turn and gets it.
    let answer = tokio::time::timeout(LONG, client.request("orders.good", "after all".into())).await;
    assert_eq!(answer.unwrap().unwrap().payload.as_ref(), b"after all");
    let _ = report_of(&mut reports, "after all").await;
    for n in 0..6 {
        client.publish("orders.slow", format!("hold 200 {n}").into()).await.unwrap();
    }
    let _ = host.record(&[("kind", "failure"), ("kind_of_failure", "trap")]);
    let _ = host.record(&[("kind", "failure"), ("kind_of_failure", "cpu-time")]);
    let mut held = 0;
    while held < 6 {
        let report = next_json(&mut reports).await.expect("all that waited come");
        held += usize::from(report["body"].as_str().unwrap().starts_with("hold"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_on_two_hosts_share_what_comes() {
    let Some(nats) = server("replicas_on_two_hosts_share_what_comes") else { return };
    let hosts: Vec<Host> = (0..2)
        .map(|_| {
            let mut site = Site::new();
            site.guest("listener", LISTENER);
            connect(&mut site, &nats, "");
            Host::ready(site)
        })
        .collect();
    let client = outsider(&nats).await;
    let mut reports = client.subscribe("report.listener").await.unwrap();
    client.flush().await.unwrap();
    served(&client, "orders.new").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for n in 0..40 {
        client.publish("orders.new", format!("order {n}").into()).await.unwrap();
    }
    let mut seen = Vec::new();
    while let Some(report) = next_json(&mut reports).await {
        let body = report["body"].as_str().unwrap().to_owned();
        if body.starts_with("order") {
            seen.push(body);
        }
    }
    assert_eq!(seen.len(), 40, "each exactly once");
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 40);
    // One of the two goes, the other has it all.
    let mut hosts = hosts.into_iter();
    let _ = hosts.next().unwrap().stop();
    for _ in 0..10 {
        assert_eq!(client.request("orders.new", "still".into()).await.unwrap().payload.as_ref(), b"still");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_live_through_a_restart_of_the_server() {
    let Some(mut nats) = server("subscriptions_live_through_a_restart_of_the_server") else { return };
    let mut site = Site::new();
    site.guest("listener", LISTENER);
    site.guest("messenger", MESSENGER);
    connect(&mut site, &nats, "");
    let host = Host::ready(site);
    let client = outsider(&nats).await;
    served(&client, "orders.new").await;
    nats.kill();
    let end = Instant::now() + LONG;
    loop {
        let (status, answer) = ask(&host, "/messenger/publish?subject=orders.x", "into the void");
        if status == 422 {
            assert_eq!(answer["error"], "no connection to NATS at the moment");
            break;
        }
        assert!(Instant::now() < end, "what is lost is not called sent");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    nats.restart();
    let client = outsider(&nats).await;
    served(&client, "orders.new").await;
    let end = Instant::now() + LONG;
    while ask(&host, "/messenger/request?subject=orders.ask", "again").0 != 200 {
        assert!(Instant::now() < end, "it does not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_ends_with_its_grant_and_with_its_instance_within_a_second() {
    let Some(nats) = server("a_subscription_ends_with_its_grant_and_with_its_instance_within_a_second") else { return };
    let mut site = Site::new();
    site.guest("listener", LISTENER);
    connect(&mut site, &nats, "");
    let host = Host::ready(site);
    let client = outsider(&nats).await;
    served(&client, "orders.new").await;
    let grants = std::fs::read_to_string(host.site().file("grants.toml")).unwrap();
    let without = grants.replace("subscribe = [\"orders.>\"]", "subscribe = [\"orders.other\"]");
    std::fs::write(host.site().file("grants.toml"), without).unwrap();
    host.run(["reload"]).ok();
    let took = unserved(&client, "orders.new").await;
    assert!(took < promised(Duration::from_secs(1)), "{took:?}");
    served(&client, "orders.other").await;
    let _ = host.record(&[("kind", "denial"), ("code", "M0203")]);
    std::fs::write(host.site().file("grants.toml"), grants).unwrap();
    host.run(["reload"]).ok();
    served(&client, "orders.new").await;
    host.run(["stop", "test:listener"]).ok();
    let took = unserved(&client, "orders.new").await;
    assert!(took < promised(Duration::from_secs(1)), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_ends_with_the_revocation_of_its_component_within_a_second() {
    let Some(nats) = server("a_subscription_ends_with_the_revocation_of_its_component_within_a_second") else { return };
    let mut site = Site::new();
    site.guest("listener", LISTENER);
    site.guest("messenger", MESSENGER);
    connect(&mut site, &nats, "");
    let host = Host::ready(site);
    let client = outsider(&nats).await;
    served(&client, "orders.new").await;
    host.run(["identity", "revoke", "spiffe://test.example/ns/test/sa/listener"]).ok();
    let took = unserved(&client, "orders.new").await;
    assert!(took < promised(Duration::from_secs(1)), "{took:?}");
    assert_eq!(ask(&host, "/messenger/publish?subject=orders.x", "others go on").0, 200);
    host.run(["identity", "revoke", "spiffe://test.example/ns/test/sa/messenger"]).ok();
    let begin = Instant::now();
    loop {
        let (status, answer) = ask(&host, "/messenger/publish?subject=orders.x", "x");
        if status != 200 {
            assert_eq!(answer["error"], "this instance was stopped or revoked");
            assert!(begin.elapsed() < promised(Duration::from_secs(1)), "{:?}", begin.elapsed());
            break;
        }
        assert!(begin.elapsed() < LONG, "it still publishes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_connection_of_its_own_the_server_holds_a_component_to_its_permissions_too() {
    let test = "with_a_connection_of_its_own_the_server_holds_a_component_to_its_permissions_too";
    let (place, authority) = (folder(), Authority::new("A test root"));
    authority.server().write(place.path(), "server");
    let mut site = Site::new();
    replace(site.path(), "ca.pem", &authority.pem());
    // The host grants more than the server allows: the server has the last word.
    let messenger = "publish = [\"orders.>\"]\nrequest = [\"orders.>\"]\nidentity = [\"x509\"]";
    site.guest("messenger", messenger);
    site.guest("listener", &format!("{LISTENER}\nidentity = [\"x509\"]"));
    // The trust domain begins with the host: its authority is known afterwards.
    let host = Host::ready(site);
    let bundle: serde_json::Value = serde_json::from_str(&host.run(["identity", "bundle"]).ok().out).unwrap();
    let mut site = host.stop();
    let pems = bundle["keys"].as_array().unwrap().iter().filter_map(|key| key["x5c"][0].as_str());
    let pems = pems.map(|der| format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n"));
    replace(place.path(), "clients.pem", &pems.collect::<String>());
    let inbox = |name: &str| {
        let hash =
            ring::digest::digest(&ring::digest::SHA256, format!("spiffe://test.example/ns/test/sa/{name}").as_bytes());
        format!("_INBOX_{}.>", hash.as_ref().iter().take(10).map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    let config = format!(
        "tls {{ cert_file: server.pem, key_file: server.key, ca_file: clients.pem, verify_and_map: true }}
        accounts {{
          HOSTS {{ users: [ {{ user: \"spiffe://test.example/portcullis/host\" }} ] }}
          APPS {{ users: [
            {{ user: \"spiffe://test.example/ns/test/sa/messenger\", permissions: {{
                publish: {{ allow: [\"orders.open\", \"$SYS.REQ.USER.INFO\"] }}, subscribe: {{ allow: [\"{}\"] }} }} }}
            {{ user: \"spiffe://test.example/ns/test/sa/listener\", permissions: {{
                publish: {{ allow: [\"report.listener\", \"$SYS.REQ.USER.INFO\"] }}, allow_responses: {{ max: 1, expires: \"5s\" }},
                subscribe: {{ allow: [\"orders.> component.test.listener\", \"{}\"] }} }} }}
          ] }}
        }}",
        inbox("messenger"),
        inbox("listener")
    );
    let Some(nats) = NatsServer::start_in(test, place, &config) else { return };
    site.config(&format!(
        "[nats]\nservers = [\"{}\"]\naccount = \"HOSTS\"\ntls.ca = \"ca.pem\"\nauth.svid = true\n\n\
         [messaging]\nper_component = true\naccount = \"APPS\"\n",
        nats.tls_url()
    ));
    let host = Host::ready(site);
    let end = Instant::now() + LONG;
    loop {
        let (status, answer) = ask(&host, "/messenger/request?subject=orders.open", "through the server");
        if status == 200 {
            assert_eq!(answer["body"], "through the server");
            break;
        }
        assert!(Instant::now() < end, "{answer}\n{}\n{}", nats.log(), host.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (status, answer) = ask(&host, "/messenger/request?subject=orders.closed", "x");
    assert_eq!((status, &answer["error"]), (422, &json!("the server denies it")));
    let denied = host.record(&[("kind", "failure"), ("kind_of_failure", "nats-server")]);
    assert!(denied["detail"].as_str().unwrap().contains("orders.closed"), "{denied:#}");
    nats.wait_for_log("Publish Violation");
    assert!(nats.log().contains("spiffe://test.example/ns/test/sa/messenger"), "{}", nats.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_at_work_end_before_a_host_that_stops() {
    let Some(nats) = server("messages_at_work_end_before_a_host_that_stops") else { return };
    let mut site = Site::new();
    site.guest("listener", LISTENER);
    connect(&mut site, &nats, "");
    let host = Host::ready(site);
    let client = outsider(&nats).await;
    let mut reports = client.subscribe("report.listener").await.unwrap();
    client.flush().await.unwrap();
    served(&client, "orders.new").await;
    client.publish("orders.new", "hold 1500".into()).await.unwrap();
    client.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stopped = tokio::task::spawn_blocking(move || host.stop());
    let _ = report_of(&mut reports, "hold 1500").await;
    let _ = stopped.await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), reports.next()).await.is_err());
}
