//! Components that want more of NATS than they were granted, and others that want to use a component for what they may not do
//! themselves.

#[path = "../messages.rs"]
mod messages;

use std::time::Duration;

use crate::messages::{ask, connect, encoded, outsider, report_of, served, server};
use async_nats::HeaderMap;
use futures::StreamExt as _;
use portcullis_tests::host::Host;
use portcullis_tests::patience::LONG;
use portcullis_tests::site::Site;
use serde_json::{Value, json};

/// Each is refused with this code, and the refusal is in the audit log under the reference that the component saw.
fn refused(host: &Host, path: &str, code: &str) -> Value {
    let (status, answer) = ask(host, path, "x");
    let error = answer["error"].as_str().unwrap_or_default().to_owned();
    assert!(status == 422 && error.starts_with(&format!("denied {code}, reference ")), "{path}: {status} {answer}");
    let reference = error.rsplit(' ').next().unwrap().to_owned();
    let record = host.record(&[("ref", &reference)]);
    assert_eq!(record["code"], code, "{path}: {record:#}");
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_outside_of_what_is_granted() {
    let Some(nats) = server("nothing_is_sent_outside_of_what_is_granted") else { return };
    let mut site = Site::new();
    site.guest("messenger", "publish = [\"orders.*.new\"]\nrequest = [\"stock.ask\"]\nsubscribe = [\"answers.here\"]");
    connect(&mut site, &nats, "");
    let host = Host::ready(site);
    let client = outsider(&nats).await;
    let mut all = client.subscribe(">").await.unwrap();
    client.flush().await.unwrap();
    let publish = |subject: &str| format!("/messenger/publish?subject={}", encoded(subject));
    for (subject, code) in [
        ("orders.new", "M0201"),
        ("orders.eu.old", "M0201"),
        ("orders.eu.x.new", "M0201"),
        ("stock.ask", "M0201"),
        ("orders", "M0201"),
        // Overlaps with what is granted, and is more than it.
        ("orders.*.new", "M0309"),
        ("orders.>", "M0309"),
        (">", "M0309"),
        ("", "M0309"),
        ("orders..new", "M0309"),
        // The end of a line of the protocol, and another command behind it.
        ("orders.eu.new 1\r\nx\r\nPUB $SYS.REQ.USER.INFO", "M0309"),
        ("orders.eu.new\tinbox", "M0309"),
        ("_INBOX.x.y", "M0320"),
        ("_INBOX_data.x.y", "M0320"),
        ("_inbox.x", "M0320"),
        ("$SYS.REQ.USER.INFO", "M0320"),
        ("$JS.API.STREAM.LIST", "M0320"),
        ("$KV.bucket.key", "M0320"),
        ("portcullis.test.ctl.h1.stop", "M0320"),
    ] {
        let record = refused(&host, &publish(subject), code);
        assert!(code != "M0201" || !record["denial"]["fix"].is_null(), "{record:#}");
    }
    for (subject, code) in [("stock.other", "M0202"), ("orders.eu.new", "M0202"), ("$JS.API.INFO", "M0320")] {
        refused(&host, &format!("/messenger/request?subject={}", encoded(subject)), code);
    }
    // Answers to where somebody else listens: the component would have others publish there.
    for (reply, code) in
        [("_INBOX.foreign.1", "M0320"), ("$JS.API.STREAM.DELETE.x", "M0320"), ("answers.there", "M0203")]
    {
        refused(&host, &format!("{}&reply={}", publish("orders.eu.new"), encoded(reply)), code);
    }
    assert_eq!(ask(&host, &format!("{}&reply=answers.here", publish("orders.eu.new")), "granted").0, 200);
    // What the host itself asks the server is there, too; of what the component wanted to send, the one that was granted.
    let message = loop {
        let message = tokio::time::timeout(LONG, all.next()).await.unwrap().unwrap();
        assert_ne!(message.payload.as_ref(), b"x", "{message:?}");
        if message.payload.as_ref() == b"granted" {
            break message;
        }
    };
    assert_eq!((message.subject.as_str(), message.reply.as_deref()), ("orders.eu.new", Some("answers.here")));
    assert!(message.headers.is_none(), "no header of anybody's making leaves: {:?}", message.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fix_of_a_refusal_allows_it() {
    let Some(nats) = server("the_fix_of_a_refusal_allows_it") else { return };
    let mut site = Site::new();
    site.guest("messenger", "publish = [\"orders.a\"]\nsubscribe = [\"answers.a\"]");
    connect(&mut site, &nats, "");
    let host = Host::ready(site);
    for path in ["/messenger/publish?subject=stock.b", "/messenger/publish?subject=orders.a&reply=answers.c"] {
        let (status, answer) = ask(&host, path, "x");
        assert_eq!(status, 422, "{answer}");
        let reference = answer["error"].as_str().unwrap().rsplit(' ').next().unwrap().to_owned();
        let record = host.record(&[("ref", &reference)]);
        let fix: Vec<String> = serde_json::from_value(record["fix"].clone()).unwrap();
        let text = record["text"].as_str().unwrap();
        assert!(text.contains("nearest  messenger"), "{text}");
        host.site().run(&fix[1..]).ok();
        assert_eq!(ask(&host, path, "x").0, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_subjects_are_reached_under_no_wildcard() {
    let Some(nats) = server("reserved_subjects_are_reached_under_no_wildcard") else { return };
    let mut site = Site::new();
    site.guest("messenger", "publish = [\">\"]\nrequest = [\"*.>\"]");
    site.guest("listener", "subscribe = [\"*.goes\", \"*.*.y\"]\npublish = [\"report.listener\"]");
    connect(&mut site, &nats, "");
    let host = Host::ready(site);
    let client = outsider(&nats).await;
    // Both subscriptions are there before anything is sent to one of them: what nobody receives yet is lost.
    served(&client, "anything.goes").await;
    served(&client, "is.up.y").await;
    for subject in ["$SYS.REQ.USER.INFO", "$JS.API.INFO", "_INBOX.x.y", "portcullis.test.ctl.h1.stop"] {
        refused(&host, &format!("/messenger/publish?subject={}", encoded(subject)), "M0320");
        refused(&host, &format!("/messenger/request?subject={}", encoded(subject)), "M0320");
    }
    // What the server delivers under a wildcard and is nobody's does not reach a component.
    let mut reports = client.subscribe("report.listener").await.unwrap();
    client.flush().await.unwrap();
    for subject in ["_INBOX.somebody.y", "_INBOX_data.x.y", "$KV.bucket.y", "portcullis.test.y"] {
        client.publish(subject, "not for you".into()).await.unwrap();
    }
    assert_eq!(ask(&host, "/messenger/publish?subject=any.thing.y", "for you").0, 200);
    // Reports of what went before may still come.
    let mut next = async |within: Duration| loop {
        let message = tokio::time::timeout(within, reports.next()).await.ok()?.unwrap();
        let report: Value = serde_json::from_slice(&message.payload).unwrap();
        if report["subject"] != "is.up.y" && report["subject"] != "anything.goes" {
            return Some(report);
        }
    };
    let report = next(LONG).await.expect("a report");
    assert_eq!((&report["body"], &report["subject"]), (&json!("for you"), &json!("any.thing.y")));
    let more = next(Duration::from_millis(500)).await;
    assert!(more.is_none(), "{more:?}");
    // Grants of what is reserved are no grants.
    for subject in ["$SYS.>", "_INBOX.>", "portcullis.>"] {
        let ended = host.run(["grants", "add", "test:messenger", "--subscribe", subject]);
        assert_eq!(ended.exit, 2, "{ended:?}");
        assert!(format!("{}{}", ended.out, ended.err).contains("nobody"), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_is_not_talked_into_answering_elsewhere_or_twice() {
    let Some(nats) = server("a_component_is_not_talked_into_answering_elsewhere_or_twice") else { return };
    let mut site = Site::new();
    site.guest("listener", "subscribe = [\"orders.>\"]\npublish = [\"report.listener\", \"log.open\"]");
    connect(&mut site, &nats, "");
    let host = Host::ready(site);
    let client = outsider(&nats).await;
    let mut reports = client.subscribe("report.listener").await.unwrap();
    let mut stolen = client.subscribe("stock.>").await.unwrap();
    client.flush().await.unwrap();
    served(&client, "orders.new").await;

    // The sender's choice of a subject is no right to it.
    client.publish_with_reply("orders.new", "stock.steal", "by reply".into()).await.unwrap();
    let report = report_of(&mut reports, "by reply").await;
    assert!(report["answers"][0]["error"].as_str().unwrap().starts_with("denied M0201"), "{report}");
    // One that the component may publish to anyway is.
    client.publish_with_reply("orders.new", "log.open", "by grant".into()).await.unwrap();
    assert_eq!(report_of(&mut reports, "by grant").await["answers"], json!(["sent"]));
    // Of the server's own it is not even told.
    for reply in ["$JS.API.STREAM.DELETE.x", "portcullis.test.ctl.h1.stop", "$SYS.REQ.USER.INFO"] {
        client.publish_with_reply("orders.new", reply, format!("reply {reply}").into()).await.unwrap();
        let report = report_of(&mut reports, &format!("reply {reply}")).await;
        assert_eq!((&report["reply_to"], &report["answers"]), (&json!(null), &json!([])), "{report}");
    }
    // An inbox: once, and only this one.
    client.publish_with_reply("orders.new", "_INBOX.mine.1", "twice".into()).await.unwrap();
    let report = report_of(&mut reports, "twice").await;
    assert_eq!(report["answers"][0], "sent");
    assert!(report["answers"][1]["error"].as_str().unwrap().starts_with("denied M0320"), "{report}");
    client.publish_with_reply("orders.new", "_INBOX.mine.2", "send _INBOX.other.2".into()).await.unwrap();
    let report = report_of(&mut reports, "send _INBOX.other.2").await;
    assert!(report["other"]["error"].as_str().unwrap().starts_with("denied M0320"), "{report}");
    assert_eq!(report["answers"], json!(["sent"]));
    let nothing = tokio::time::timeout(Duration::from_millis(300), stolen.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    let _ = host.record(&[("kind", "denial"), ("code", "M0320"), ("component", "test:listener")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_others_do_not_reach_a_component() {
    let Some(nats) = server("headers_of_others_do_not_reach_a_component") else { return };
    let mut site = Site::new();
    site.guest("listener", "subscribe = [\"orders.>\"]\npublish = [\"report.listener\"]");
    connect(&mut site, &nats, "");
    let _host = Host::ready(site);
    let client = outsider(&nats).await;
    let mut reports = client.subscribe("report.listener").await.unwrap();
    client.flush().await.unwrap();
    served(&client, "orders.new").await;
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Request-Info", "{\"user\":\"spiffe://test.example/portcullis/host\"}");
    headers.insert("Portcullis-Statement", "e30.e30.e30");
    client.publish_with_headers("orders.new", headers, "forged".into()).await.unwrap();
    let report = report_of(&mut reports, "forged").await;
    let text = report.to_string();
    assert!(!text.contains("portcullis/host") && !text.contains("e30"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_large_go_neither_out_nor_in() {
    let Some(nats) = server("messages_that_are_too_large_go_neither_out_nor_in") else { return };
    let mut site = Site::new();
    site.guest("messenger", "publish = [\"orders.big\"]\nrequest = [\"orders.big\"]");
    site.guest("listener", "subscribe = [\"orders.>\"]\npublish = [\"report.listener\"]");
    connect(&mut site, &nats, "message_bytes = 1000");
    let host = Host::ready(site);
    let client = outsider(&nats).await;
    let mut reports = client.subscribe("report.listener").await.unwrap();
    client.flush().await.unwrap();
    served(&client, "orders.new").await;
    for what in ["publish", "request"] {
        let (status, answer) = ask(&host, &format!("/messenger/{what}?subject=orders.big&bytes=1001"), "");
        assert_eq!((status, &answer["error"]), (422, &json!("a message has at most 1000 bytes")));
    }
    client.publish("orders.big", vec![b'y'; 1001].into()).await.unwrap();
    client.publish("orders.small", "fits".into()).await.unwrap();
    assert_eq!(report_of(&mut reports, "fits").await["subject"], "orders.small");
    let _ = host.record(&[("kind", "failure"), ("kind_of_failure", "messages-dropped")]);
    assert_eq!(ask(&host, "/messenger/publish?subject=orders.big&bytes=900", "").0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_link_a_component_has_no_messages_at_all() {
    let Some(nats) = server("without_the_link_a_component_has_no_messages_at_all") else { return };
    let mut site = Site::new();
    site.guest("messenger", "");
    connect(&mut site, &nats, "");
    let host = Host::start(site);
    let record = host.record(&[("kind", "denial"), ("code", "L0201")]);
    assert!(record["text"].as_str().unwrap().contains("wasmcloud:messaging/"), "{record:#}");
}
