//! What becomes of logins when something fails or changes: revocations, a callout that is killed, silent, flooded, told to stop;
//! a server that is started again; files that cannot be used.

use std::time::{Duration, Instant};

use async_nats::connection::State;

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
