//! The control plane over HTTPS: operators get what they were granted, and whoever forges, repeats, reorders, redirects or
//! changes a message gets nothing. Against real hosts; the attackers speak the wire themselves. Over NATS: `control_nats.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::time::{Duration, Instant};

use portcullis_identity::statement::{Draft, SvidKey, UserSeed};
use portcullis_tests::http::get;
use portcullis_tests::nats::pki::{Authority, replace};
use prost::Message as _;
use serde_json::Value;
use time::OffsetDateTime;

use crate::operators::{
    ANN, LIFE, LOCAL, Target, asks, at, code, https_host, jti, key, operator_files, post, settled, signed, stored,
};

#[path = "../operators.rs"]
mod operators;

// gate: List, Logs
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_controls_a_host_over_https_as_granted_and_nobody_else_does() {
    let mut late = None;
    let host = https_host(|site| {
        late = Some(site.sign("late", &portcullis_tests::guests::ours("hello")));
    });
    operator_files(&host).await;
    let status = asks(&host, "ann", &["status"]).ok().json();
    assert_eq!(status["ready"], true, "{status:#}");
    let names = |list: &Value| {
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&asks(&host, "ann", &["list"]).ok().json()), ["test:hello"], "chatty is not ann's");
    assert_eq!(host.run(["list"]).ok().json().as_array().unwrap().len(), 2);

    for command in [&["status"][..], &["list"], &["stop", "test:hello"], &["logs", "test:hello"]] {
        let refused = asks(&host, "eve", command);
        assert_eq!(
            (refused.exit, refused.code().as_str()),
            (20, "C0202"),
            "{command:?}: {}{}",
            refused.out,
            refused.err
        );
        assert!(refused.err.contains("grants operator --config"), "{}", refused.err);
    }
    let refused = asks(&host, "ann", &["stop", "test:chatty"]);
    assert_eq!((refused.exit, refused.code().as_str()), (20, "C0202"), "{}", refused.err);
    assert!(refused.err.contains("nearest  ann"), "{}", refused.err);
    assert_eq!(host.record(&[("kind", "denial"), ("code", "C0202")])["action"], "control");

    settled().await;
    let digest = stored(&host, "late");
    let wrong = asks(&host, "ann", &["start", "--name", "test:hello", "--digest", &digest]);
    assert_ne!(wrong.exit, 0, "{}{}", wrong.out, wrong.err);
    let missing = format!("sha256:{}", "0".repeat(64));
    let missing = asks(&host, "ann", &["start", "--name", "test:late", "--digest", &missing]);
    assert_eq!(missing.code(), "start.not-stored", "{}{}", missing.out, missing.err);
    let listed = asks(&host, "ann", &["list"]).ok().json();
    let failed =
        listed.as_array().unwrap().iter().find(|one| one["name"] == "test:late").expect("a failed start is listed");
    assert_eq!(failed["state"], "refused");
    assert!(failed["detail"].as_str().unwrap().contains("start.not-stored"), "{listed:#}");
    let logs = asks(&host, "ann", &["logs", "test:late"]).ok().json();
    assert!(logs.to_string().contains("start.not-stored"), "{logs:#}");

    // Nobody granted that it may be loaded: the chain of admission holds for operators, too.
    let refused = asks(&host, "ann", &["start", "--name", "test:late", "--digest", &digest]);
    assert_eq!((refused.exit, refused.code().as_str()), (20, "A0201"), "{}{}", refused.out, refused.err);
    host.run(["grants", "add", "test:late", "--load", "--caller", "anonymous"]).ok();
    let started =
        asks(&host, "ann", &["start", "--name", "test:late", "--digest", &digest, "--route", "/late"]).ok().json();
    assert_eq!(started["state"], "running");
    assert_eq!(get(host.http(), "/late", &[]).status, 200);
    assert!(asks(&host, "ann", &["list"]).ok().json().to_string().contains("test:late"));
    let record = host.record(&[("kind", "control"), ("action", "start"), ("who", ANN)]);
    assert_eq!((record["over"].as_str(), record["statement"].as_str().map(str::len)), (Some("https"), Some(26)));
    asks(&host, "ann", &["stop", "test:late"]).ok();
    assert_ne!(get(host.http(), "/late", &[]).status, 200);

    get(host.http(), "/chatty", &[]);
    let lines = host.run(["logs", "test:chatty"]).ok().json();
    let streams: Vec<&str> = lines.as_array().unwrap().iter().filter_map(|line| line["stream"].as_str()).collect();
    assert!(streams.contains(&"stdout") || streams.contains(&"stderr"), "{lines:#}");
    assert!(!asks(&host, "ann", &["logs"]).ok().json().to_string().contains("test:chatty"), "not ann's to read");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_https_every_wrong_message_is_refused_and_changes_nothing() {
    let host = https_host(|_| {});
    let up = OffsetDateTime::now_utc();
    let address = operator_files(&host).await;
    let (ann, eve) = (key(&host, "ann"), key(&host, "eve"));
    let payload = Target { target: "test:hello".to_owned() }.encode_to_vec();
    let stop = |jti| signed(&ann, LOCAL, "control/stop", jti, &payload);

    // From before this host remembers: it could have been used already.
    let before = at(up - Duration::from_secs(25));
    let before = Draft::by_svid(ann.signer(), LOCAL, "control/stop", before, LIFE * 2, &payload).unwrap();
    let before = ann.sign_statement(&before).unwrap();
    let (_, answer) = post(&host, &address, "ann", "stop", &[&before], &payload).await;
    assert_eq!(code(&answer), "statement.before-window", "{answer:?}");
    settled().await;
    let now = OffsetDateTime::now_utc();
    let other = Authority::of_trust_domain("test.example").spiffe(ANN);
    let forger = SvidKey::parse(other.certificate.as_bytes(), other.key.as_bytes()).unwrap();
    let nkey = UserSeed::parse(&nkeys::KeyPair::new_user().seed().unwrap()).unwrap();
    let by_nkey = Draft::by_nkey(nkey.public(), LOCAL, "control/stop", jti(), LIFE, &payload).unwrap();
    let by_nkey = by_nkey.token(&nkey.sign(by_nkey.signing_input().as_bytes()));
    let swapped = {
        let good = stop(jti());
        let (head, _) = good.rsplit_once('.').unwrap();
        format!("{head}.{}", stop(jti()).rsplit('.').next().unwrap())
    };
    let good = stop(jti());
    let wrong: Vec<(&str, Vec<&str>, String)> = vec![
        ("statement.missing", vec![], String::new()),
        ("statement.missing", vec!["one", "two"], String::new()),
        ("statement.malformed", vec!["x"], String::new()),
        ("statement.chain", vec!["x"], signed(&forger, LOCAL, "control/stop", jti(), &payload)),
        ("statement.unknown-key", vec!["x"], by_nkey),
        ("statement.signature", vec!["x"], swapped),
        (
            "statement.audience",
            vec!["x"],
            signed(&ann, "spiffe://test.example/portcullis/host/h2", "control/stop", jti(), &payload),
        ),
        ("statement.audience", vec!["x"], signed(&ann, "cluster:test", "control/stop", jti(), &payload)),
        ("statement.place", vec!["x"], signed(&ann, LOCAL, "control/start", jti(), &payload)),
        ("statement.place", vec!["x"], signed(&ann, LOCAL, "control/stop/reply", jti(), &payload)),
        ("statement.payload", vec!["x"], signed(&ann, LOCAL, "control/stop", jti(), b"another")),
        ("statement.expired", vec!["x"], stop(at(now - Duration::from_secs(120)))),
        ("statement.not-yet-valid", vec!["x"], stop(at(now + Duration::from_secs(120)))),
        ("statement.other-peer", vec!["x"], signed(&eve, LOCAL, "control/stop", jti(), &payload)),
    ];
    for (expected, statements, statement) in &wrong {
        let statements: Vec<&str> = if statement.is_empty() { statements.clone() } else { vec![statement] };
        let (signed, answer) = post(&host, &address, "ann", "stop", &statements, &payload).await;
        assert_eq!(code(&answer), *expected, "{answer:?}");
        assert_eq!(signed, None, "what is not believed gets no signature of the host: {expected}");
    }
    let (_, answer) = post(&host, &address, "ann", "reload", &[&good], &payload).await;
    assert_eq!(code(&answer), "control.method");
    let list = host.run(["list"]).ok().json();
    assert!(list.to_string().contains("test:hello"), "nothing was stopped: {list:#}");

    // In order and once.
    let (earlier, later) = (stop(jti()), stop(at(OffsetDateTime::now_utc() + Duration::from_millis(5))));
    let (signed_by_host, answer) = post(&host, &address, "ann", "stop", &[&later], &payload).await;
    assert!(answer.refused.is_none() && signed_by_host.is_some(), "{answer:?}");
    let (_, answer) = post(&host, &address, "ann", "stop", &[&later], &payload).await;
    assert_eq!(code(&answer), "statement.replayed");
    let (_, answer) = post(&host, &address, "ann", "stop", &[&earlier], &payload).await;
    assert_eq!(code(&answer), "statement.reordered");
    let log = host.log();
    assert!(log.contains("a control message was not believed"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_of_a_trusted_domain_there_is_no_connection() {
    let host = https_host(|_| {});
    let address = operator_files(&host).await;
    let stranger = Authority::of_trust_domain("test.example").spiffe(ANN);
    replace(host.site().path(), "ann.pem", &stranger.certificate);
    replace(host.site().path(), "ann.key", &stranger.key);
    let refused = asks(&host, "ann", &["list"]);
    assert_eq!(
        (refused.exit, refused.code().as_str()),
        (18, "host.unreachable"),
        "{address}: {}{}",
        refused.out,
        refused.err
    );
    // A key that others can read is nobody's.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(host.site().file("eve.key"), PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(asks(&host, "eve", &["list"]).code(), "operator.key-open");
}

/// How long from the start command to the first answer of the component, on a host that has its native code already.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: run with --ignored --nocapture"]
async fn measure_start_to_serving() {
    let host = https_host(|site| {
        site.sign("late", &portcullis_tests::guests::ours("hello"));
        site.grants("[[grant]]\nid = \"late\"\nreason = \"r\"\nowner = \"o\"\ncomponent = \"test:late\"\nload = true\ncallers = [\"anonymous\"]\n\n");
    });
    let address = operator_files(&host).await;
    settled().await;
    let digest = stored(&host, "late");
    #[derive(Clone, PartialEq, prost::Message)]
    struct Start {
        #[prost(string, tag = "4")]
        route_path: String,
        #[prost(string, tag = "5")]
        component: String,
        #[prost(string, tag = "6")]
        digest: String,
    }
    let start = Start { route_path: "/late".to_owned(), component: "test:late".to_owned(), digest };
    let (start, stop) = (start.encode_to_vec(), Target { target: "test:late".to_owned() }.encode_to_vec());
    let ann = key(&host, "ann");
    let mut took = Vec::new();
    for n in 0..41 {
        let begun = Instant::now();
        let statement = signed(&ann, LOCAL, "control/start", jti(), &start);
        let (_, answer) = post(&host, &address, "ann", "start", &[&statement], &start).await;
        assert!(answer.refused.is_none(), "{answer:?}");
        while get(host.http(), "/late", &[]).status != 200 {
            assert!(begun.elapsed() < Duration::from_secs(30), "{}", host.log());
        }
        // The first one compiles.
        if n > 0 {
            took.push(begun.elapsed());
        }
        let statement = signed(&ann, LOCAL, "control/stop", jti(), &stop);
        post(&host, &address, "ann", "stop", &[&statement], &stop).await;
    }
    took.sort();
    println!(
        "start to serving, warm, HTTPS with a new connection each: p50 {:?}, p99 {:?}, {} starts",
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        took.len()
    );
}
