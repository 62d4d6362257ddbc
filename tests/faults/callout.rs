//! What becomes of logins when something fails or changes: revocations, a callout that is killed, silent, flooded, told to stop;
//! a server that is started again; files that cannot be used.

use std::time::{Duration, Instant};

use async_nats::connection::State;

use portcullis_tests::nats::free_port;
use portcullis_tests::nats::hosted::connections;

use crate::rig::{Callout, ROLES, Rig, Shape, TIMEOUT};

fn revoked(ids: &[&str]) -> String {
    let entry = |id: &&str| format!("[[revoked]]\nid = \"{id}\"\nreason = \"test\"\n");
    format!("version = 1\n{}", ids.iter().map(entry).collect::<String>())
}

async fn wait_until_closed(client: &async_nats::Client, within: Duration, callout: &Callout) -> Duration {
    let begin = Instant::now();
    while client.connection_state() == State::Connected {
        assert!(begin.elapsed() < within, "still connected after {within:?}\n{}", callout.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_the_connection_within_a_second_and_leaves_the_others() {
    let Some(rig) = Rig::start("callout::revocation") else { return };
    let callout = rig.callout();
    let ((one, _), (two, _)) = (rig.host("h1").await, rig.host("h2").await);
    rig.policy("revoked.toml", &revoked(&["spiffe://td-a.test/host/h1"]));
    let took = wait_until_closed(&one, Duration::from_secs(1), &callout).await;
    println!("revoked to closed: {took:?}");
    callout.wait_for_audit("callout-kick");
    assert_eq!(two.connection_state(), State::Connected);
    two.flush().await.unwrap();
    // It does not come back.
    let leaf = rig.a.spiffe("spiffe://td-a.test/host/h1");
    rig.refused(&leaf, &callout, "\"code\":\"revoked\"").await;
    // A connection that another process let in is found too.
    drop(callout);
    rig.policy("revoked.toml", &revoked(&["spiffe://td-a.test/host/h1", "spiffe://td-a.test/host/h2"]));
    let other = rig.callout_named("two");
    wait_until_closed(&two, Duration::from_secs(5), &other).await;
}

/// Writes a file in place again and again, a little more each time, for so long.
fn keeps_writing(path: std::path::PathBuf, mut text: String, most: Duration) -> std::thread::JoinHandle<()> {
    let begin = Instant::now();
    std::thread::spawn(move || {
        while begin.elapsed() < most {
            text.push('\n');
            std::fs::write(&path, &text).unwrap();
            std::thread::sleep(Duration::from_millis(40));
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_does_not_wait_while_another_file_is_being_written() {
    let Some(rig) = Rig::start("callout::beside") else { return };
    let callout = rig.callout();
    let (client, _) = rig.host("h1").await;
    let writing = keeps_writing(rig.path("policy/roles.toml"), ROLES.to_owned(), Duration::from_secs(5));
    tokio::time::sleep(Duration::from_millis(300)).await;
    rig.policy("revoked.toml", &revoked(&["spiffe://td-a.test/host/h1"]));
    wait_until_closed(&client, Duration::from_secs(2), &callout).await;
    assert!(!writing.is_finished(), "it was written all the time");
    writing.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callout_begins_when_its_list_of_the_revoked_is_whole() {
    let Some(rig) = Rig::start("callout::whole") else { return };
    let h1 = "spiffe://td-a.test/host/h1";
    // As a copy in place writes it: what is there reads well at any time, and the last name comes last.
    let writing = keeps_writing(rig.path("policy/revoked.toml"), revoked(&[]), Duration::from_secs(3));
    let (path, whole) = (rig.path("policy/revoked.toml"), revoked(&[h1]));
    let ended = std::thread::spawn(move || {
        writing.join().unwrap();
        std::fs::write(path, whole).unwrap();
    });
    let callout = rig.begin_changed("whole", "version = 1", "version = 1");
    assert!(ended.is_finished(), "it began with what was there\n{}", callout.log());
    callout.wait_until_ready();
    assert!(!callout.audit().iter().any(|record| record["kind"] == "callout-revocations"), "it had it when it began");
    rig.refused(&rig.a.spiffe(h1), &callout, "\"code\":\"revoked\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_a_domain_or_a_role_that_is_gone_are_ended() {
    let Some(rig) = Rig::start("callout::gone") else { return };
    let callout = rig.callout();
    let (client, _) = rig.host("h1").await;
    // A file that cannot be used changes nothing, and says so.
    rig.policy("roles.toml", "version = 1\n[[role]]\n");
    callout.wait_until_not_ready();
    assert_eq!(client.connection_state(), State::Connected);
    rig.host("h2").await;
    rig.policy("roles.toml", ROLES);
    callout.wait_until_ready();
    rig.policy("roles.toml", &ROLES.replace("/host/{host}", "/hosts/{host}"));
    wait_until_closed(&client, Duration::from_secs(3), &callout).await;
    let leaf = rig.a.spiffe("spiffe://td-a.test/host/h1");
    rig.refused(&leaf, &callout, "Q0201").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_holds_up_no_revocation_and_undoes_none() {
    let Some(rig) = Rig::start("callout::broken file") else { return };
    let callout = rig.callout();
    let ((one, _), (two, _)) = (rig.host("h1").await, rig.host("h2").await);
    for (name, broken) in [("roles.toml", "version = 1\n[[role]]\n"), ("td-b.json", "{")] {
        rig.policy(name, broken);
    }
    callout.wait_until_not_ready();
    rig.policy("revoked.toml", &revoked(&["spiffe://td-a.test/host/h1"]));
    wait_until_closed(&one, Duration::from_secs(1), &callout).await;
    let leaf = rig.a.spiffe("spiffe://td-a.test/host/h1");
    rig.refused(&leaf, &callout, "\"code\":\"revoked\"").await;
    assert_eq!(two.connection_state(), State::Connected);
    assert!(callout.get("/readyz").1.contains("files"), "{:?}", callout.get("/readyz"));
    // Nobody comes off the list while a file is broken; a second one comes onto it.
    rig.policy("revoked.toml", &revoked(&["spiffe://td-a.test/host/h2"]));
    wait_until_closed(&two, Duration::from_secs(1), &callout).await;
    assert!(rig.connect(&leaf).await.is_err(), "it came off the list by a change that was not taken whole");
    rig.policy("roles.toml", ROLES);
    rig.policy("td-b.json", &crate::rig::bundle(&rig.b.der(), &[]));
    callout.wait_until_ready();
    rig.host("h1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_being_written_in_place_lets_nobody_in_again() {
    let Some(rig) = Rig::start("callout::half a list") else { return };
    let both = revoked(&["spiffe://td-a.test/host/h1", "spiffe://td-a.test/host/h2"]);
    rig.policy("revoked.toml", &both);
    let callout = rig.callout();
    let leaf = rig.a.spiffe("spiffe://td-a.test/host/h2");
    // A writer that is slow: what it has written so far reads well, and lacks the second name, or both.
    let path = rig.path("policy/revoked.toml");
    let half = revoked(&["spiffe://td-a.test/host/h1"]);
    for written in ["version = 1\n", &half, "version = 1\n# ", &format!("{half}# more\n"), &half, &both] {
        std::fs::write(&path, written).unwrap();
        let until = Instant::now() + Duration::from_millis(600);
        while Instant::now() < until {
            assert!(rig.connect(&leaf).await.is_err(), "let in by half a list\n{}", callout.log());
        }
    }
    // Taken from it for good, it is let in, and the log says so.
    std::fs::write(&path, &half).unwrap();
    let end = Instant::now() + TIMEOUT;
    while rig.connect(&leaf).await.is_err() {
        assert!(Instant::now() < end, "it stays revoked\n{}", callout.log());
    }
    let record = callout.wait_for_audit("callout-policy");
    assert_eq!(record["lifted"][0], "spiffe://td-a.test/host/h2", "{record}");
    // A list that says how long it is adds, and lifts only where it is that long.
    rig.policy("revoked.toml", &both.replace("version = 1", "version = 1\nentries = 3"));
    callout.wait_until_not_ready();
    assert!(rig.connect(&leaf).await.is_err(), "it was added by a list that is not whole");
    rig.policy("revoked.toml", &half.replace("version = 1", "version = 1\nentries = 2"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(rig.connect(&leaf).await.is_err(), "let in by a list that is not whole\n{}", callout.log());
    assert_eq!(callout.get("/readyz"), (503, "not ready: files\n".to_owned()));
    rig.policy("revoked.toml", &half.replace("version = 1", "version = 1\nentries = 1"));
    callout.wait_until_ready();
    rig.connect(&leaf).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callout_does_not_begin_with_a_list_that_is_not_whole() {
    let Some(rig) = Rig::start("callout::begin with half a list") else { return };
    rig.policy("revoked.toml", "version = 1\nentries = 1\n");
    let (code, error) = rig.fails_to_begin("");
    assert_eq!(code, Some(64), "{error}");
    assert!(error.contains("entries = 1 and has 0") && error.contains("hint:"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_callouts_never_share_a_folder() {
    let Some(rig) = Rig::start("callout::one folder") else { return };
    let one = rig.callout_at("one", &rig.path("state-fails"));
    let (code, error) = rig.fails_to_begin("");
    assert_eq!(code, Some(64), "{error}");
    assert!(error.contains("in use by another callout") && error.contains("state_dir"), "{error}");
    // What holds it is the process: a killed one leaves nothing that bars the next.
    drop(one);
    rig.callout_at("two", &rig.path("state-fails"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_renewed_by_a_rename_is_shown_at_the_next_connection() {
    let Some(mut rig) = Rig::start("callout::renewed") else { return };
    let callout = rig.callout_named("one");
    assert!(!callout.log().contains("seeds lie in its folder"), "{}", callout.log());
    let (pem, key) = rig.a.spiffe("spiffe://td-a.test/callout").write(&rig.path("tls"), "renewed");
    std::fs::rename(key, rig.path("tls/callout.key")).unwrap();
    std::fs::rename(pem, rig.path("tls/callout.pem")).unwrap();
    rig.server.kill();
    callout.wait_until_not_ready();
    rig.server.restart();
    callout.wait_until_ready();
    rig.host("h1").await;
    drop(callout);
    // Above the seeds the fence opens the one file that lies there now, and the log says what that means.
    std::fs::copy(rig.path("tls/callout.pem"), rig.path("callout.pem")).unwrap();
    let above = rig.begin_changed("above", "certificate = \"tls/callout.pem\"", "certificate = \"callout.pem\"");
    above.wait_until_ready();
    assert!(above.log().contains("seeds lie in its folder"), "{}", above.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn why_it_cannot_connect_is_said_in_one_clear_line_with_a_hint() {
    let Some(mut rig) = Rig::start("callout::causes") else { return };
    let other = portcullis_tests::nats::pki::Authority::new("another");
    other.write(&rig.path("tls"), "other");
    let url = format!("localhost:{}", rig.server.port());
    let stranger = nkeys::KeyPair::new_user().seed().unwrap();
    portcullis_tests::nats::pki::replace(&rig.path("keys"), "stranger.nk", &stranger);
    for (n, (from, to, says, hint)) in [
        (url.as_str(), "localhost:1", "nobody listens there", "`servers`"),
        (url.as_str(), "no-such-name.invalid:4222", "has no address", "resolver"),
        ("ca = \"tls/ca.pem\"", "ca = \"tls/other.pem\"", "an authority that is not trusted", "`ca` under [tls]"),
        ("keys/callout.nk", "keys/stranger.nk", "does not let this callout in", "auth_users"),
        ("first = true", "first = false", "waits for TLS first", "set first = true under [tls]"),
    ]
    .into_iter()
    .enumerate()
    {
        let callout = rig.begin_changed(&format!("cause{n}"), from, to);
        let end = Instant::now() + TIMEOUT;
        while !callout.log().contains(says) {
            assert!(Instant::now() < end, "{to}: {says:?} is not said:\n{}", callout.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let log = callout.log();
        let lines: Vec<&str> =
            log.lines().filter(|line| line.contains(says) && line.contains("connection=\"callout\"")).collect();
        assert_eq!(lines.len(), 1, "{to}: one line, not one for each attempt:\n{log}");
        assert!(lines[0].contains("ERROR") && lines[0].contains("hint:") && lines[0].contains(hint), "{}", lines[0]);
        let (status, body) = callout.get("/readyz");
        assert!(status == 503 && body.contains("callout"), "{to}: {status} {body}");
    }
    // One that was connected says so, too, and is ready again by itself.
    let callout = rig.callout();
    rig.server.kill();
    callout.wait_until_not_ready();
    let end = Instant::now() + TIMEOUT;
    while !callout.log().contains("nobody listens there") {
        assert!(Instant::now() < end, "{}", callout.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.server.restart();
    callout.wait_until_ready();
}

#[test]
fn files_that_are_missing_unreadable_or_do_not_belong_together_end_it_with_64_and_a_hint() {
    use std::os::unix::fs::PermissionsExt;
    let Some(rig) = Rig::start("callout::files") else { return };
    rig.b.spiffe("spiffe://td-b.test/callout").write(&rig.path("tls"), "other");
    std::fs::write(rig.path("tls/noise.pem"), "noise").unwrap();
    for (file, says) in [
        ("keys/callout.nk", "cannot be read"),
        ("keys/issuer.nk", "cannot be read"),
        ("keys/callout.xk", "cannot be read"),
        ("policy/roles.toml", "roles"),
        ("policy/revoked.toml", "list of the revoked"),
        ("policy/td-a.json", "bundle"),
        ("tls/ca.pem", "CA file"),
        ("tls/callout.pem", "certificate"),
        ("tls/callout.key", "private key"),
    ] {
        let aside = rig.path("aside");
        std::fs::rename(rig.path(file), &aside).unwrap();
        let (code, error) = rig.fails_to_begin("");
        assert_eq!(code, Some(64), "{file}: {error}");
        assert!(error.contains(says) && error.contains("hint:"), "{file}: {error}");
        std::fs::rename(&aside, rig.path(file)).unwrap();
    }
    for (from, to, says) in [
        ("tls/ca.pem", "tls/noise.pem", "no certificate that can be used"),
        ("tls/callout.pem", "tls/other.pem", "the key is not that of the certificate"),
        ("tls/callout.key", "tls/noise.pem", "no private key"),
    ] {
        let (code, error) = rig.fails_to_begin(&format!("{from} {to}"));
        assert_eq!(code, Some(64), "{to}: {error}");
        assert!(error.contains(says) && error.contains("hint:"), "{to}: {error}");
    }
    std::fs::set_permissions(rig.path("keys/callout.nk"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let (code, error) = rig.fails_to_begin("");
    assert!(code == Some(64) && error.contains("chmod 600"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_replicas_one_may_be_killed() {
    let Some(rig) = Rig::start("callout::replicas") else { return };
    let (one, two) = (rig.callout_named("one"), rig.callout_named("two"));
    for n in 0..20 {
        rig.host(&format!("a{n}")).await;
    }
    let (first, second) = (one.count("callout-allow"), two.count("callout-allow"));
    assert!(first > 0 && second > 0 && first + second == 20, "they share: {first} and {second}");
    drop(one);
    let mut failed = 0;
    for n in 0..20 {
        let leaf = rig.a.spiffe(&format!("spiffe://td-a.test/host/b{n}"));
        failed += usize::from(rig.connect(&leaf).await.is_err());
    }
    assert!(failed <= 1, "{failed} of 20 were not let in");
    two.wait_for_audit("host/b19");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_callout_is_silent_nobody_is_let_in() {
    let Some(rig) = Rig::start("callout::silent callout") else { return };
    let callout = rig.callout();
    callout.signal("STOP");
    let leaf = rig.a.spiffe("spiffe://td-a.test/host/h1");
    let begin = Instant::now();
    assert!(rig.connect(&leaf).await.is_err());
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    callout.signal("CONT");
    rig.host("h2").await;
    drop(callout);
    assert!(rig.connect(&leaf).await.is_err(), "no callout at all");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_denied_at_once() {
    let shape = Shape { limits: (1, 0), ..Shape::default() };
    let Some(rig) = Rig::shaped("callout::flood", &shape) else { return };
    let callout = rig.callout();
    let leaf = rig.a.spiffe("spiffe://td-a.test/host/h1");
    let attempts = (0..48).map(|_| rig.connect(&leaf));
    let ended = futures::future::join_all(attempts).await;
    assert!(ended.iter().any(Result::is_ok), "nobody got in");
    let busy = callout.metric("portcullis_callout_requests_total{result=\"busy\"}");
    assert!(busy > 0, "48 at once, one place, and none was too many");
    rig.host("h2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_started_again_has_another_key_and_is_known() {
    let Some(mut rig) = Rig::start("callout::restart") else { return };
    let callout = rig.callout();
    rig.host("h1").await;
    rig.server.restart();
    callout.wait_until_ready();
    let leaf = rig.a.spiffe("spiffe://td-a.test/host/h2");
    let end = Instant::now() + TIMEOUT;
    while let Err(why) = rig.connect(&leaf).await {
        assert!(Instant::now() < end, "{why}\n{}", callout.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_does_not_wait_for_a_server_that_is_gone() {
    let Some(mut rig) = Rig::start("callout::stop without a server") else { return };
    let mut callout = rig.callout();
    rig.server.kill();
    callout.signal("TERM");
    let end = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = callout.child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end, "it waits\n{}", callout.log());
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "{status}\n{}", callout.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_answers_what_the_server_has_given_it_already_and_says_so() {
    let monitoring = free_port();
    let shape = Shape { server: format!("http: \"127.0.0.1:{monitoring}\""), ..Shape::default() };
    let Some(rig) = Rig::shaped("callout::stop in the middle", &shape) else { return };
    for signal in ["TERM", "INT"] {
        let mut callout = rig.callout_named(signal);
        // What the server has sent to the callout's connection so far.
        let sent = || {
            let all = connections(&rig.server, monitoring);
            let of = all.iter().filter(|one| one["name"] == "portcullis callout" && one["account"] == "AUTH");
            of.filter_map(|one| one["out_msgs"].as_u64()).sum::<u64>()
        };
        let leaves: Vec<_> =
            (0..8).map(|n| rig.a.spiffe(&format!("spiffe://td-a.test/host/{signal}-{n}").to_lowercase())).collect();
        callout.signal("STOP");
        let before = sent();
        let logins = futures::future::join_all(leaves.iter().map(|leaf| rig.connect(leaf)));
        let waits = async {
            let end = Instant::now() + TIMEOUT;
            // Those of before whose time was up are asked for again: eight of now is what counts.
            while sent() < before + 8 {
                assert!(Instant::now() < end, "{} of 8 requests\n{}", sent() - before, rig.server.log());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            callout.signal(signal);
            callout.signal("CONT");
        };
        tokio::join!(logins, waits);
        let end = Instant::now() + TIMEOUT * 2;
        let status = loop {
            if let Some(status) = callout.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "it does not end\n{}", callout.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(status.code(), Some(0), "{}", callout.log());
        let log = callout.log();
        for says in [&format!("told by SIG{signal}"), "no new ones are taken", "all logins are answered"] {
            assert!(log.contains(says), "{says}\n{log}");
        }
        // Each has an answer: a yes, or, where its time was up on a busy machine, a no.
        let (_, ended) = log.split_once("it has ended: ").unwrap();
        let numbers = ended.lines().next().unwrap().split(|c: char| !c.is_ascii_digit());
        let answered: u64 = numbers.filter_map(|number| number.parse::<u64>().ok()).sum();
        assert!(answered >= 8, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_finishes_and_leaves_a_whole_audit_log() {
    let Some(rig) = Rig::start("callout::stop") else { return };
    let mut callout = rig.callout();
    rig.host("h1").await;
    let leaf = rig.a.spiffe("spiffe://td-a.test/host/h2");
    let storm = futures::future::join_all((0..16).map(|_| rig.connect(&leaf)));
    let (ended, ()) = tokio::join!(storm, async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        callout.signal("TERM");
    });
    let status = callout.child.wait().unwrap();
    assert!(status.success(), "{status}\n{}", callout.log());
    let let_in = ended.iter().filter(|one| one.is_ok()).count();
    assert!(callout.count("callout-allow") > let_in, "every yes was recorded");
    let mut verify = std::process::Command::new(portcullis_tests::binary());
    let verified = verify.args(["audit", "verify"]).arg(callout.state.join("audit.jsonl")).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}
