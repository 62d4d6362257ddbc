//! What the keeper promises, against a real issuer, policy and audit log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_identity::rpc::workloads_client::WorkloadsClient;
use portcullis_identity::rpc::workloads_server::WorkloadsServer;
use portcullis_identity::rpc::{
    BundleUpdate, FetchX509SvidRequest, JwtSvid, MintJwtSvidRequest, RotateRequest, SetRevokedRequest, TaintRequest,
    ValidateJwtSvidRequest, WatchBundleRequest, X509Svid,
};
use serde_json::Value;

use super::keeper::{Entry, Stop};
use super::rig::{Rig, id};
use super::workloads::ForRuntime;
use crate::limits;

fn kind<T>(result: Result<T, Stop>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(Stop::Failed(failed)) => failed.kind,
        Err(Stop::Denied(denied)) => denied.code,
    }
}

async fn jwt(rig: &Rig, instance: &str, audience: &str) -> Result<JwtSvid, Stop> {
    let audiences = vec![audience.to_owned()];
    let request = MintJwtSvidRequest { instance: instance.to_owned(), audiences, ttl_seconds: None };
    rig.keeper.mint_jwt(request).await
}

async fn x509(rig: &Rig, instance: &str) -> Result<X509Svid, Stop> {
    rig.keeper.mint_x509(FetchX509SvidRequest { instance: instance.to_owned() }).await
}

fn ok<T>(result: Result<T, Stop>) -> T {
    match result {
        Ok(value) => value,
        Err(stop) => panic!("refused: {}", kind::<()>(Err(stop))),
    }
}

fn revoke(rig: &Rig, instances: &[&str], spiffe_ids: &[&str]) -> u64 {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    ok(rig.keeper.set_revoked(SetRevokedRequest { instances: texts(instances), spiffe_ids: texts(spiffe_ids) }))
}

const EVERY_SVID: RotateRequest = RotateRequest { x509: false, jwt: false, wit: false, svids: true };

#[tokio::test(flavor = "multi_thread")]
async fn all_svids_are_replaced_in_one_record_write_before_anybody_is_told() {
    const INSTANCES: usize = 1_000;
    let rig = Rig::new().await;
    let mut old = Vec::new();
    for n in 0..INSTANCES {
        let name = format!("i{n}");
        ok(rig.admit(&name));
        old.push(ok(rig.keeper.current_x509(FetchX509SvidRequest { instance: name }).await));
    }
    let mut published = rig.keeper.published();
    published.mark_unchanged();
    let (writes, epoch, began) = (rig.sink.writes(), rig.keeper.now_published().svid_epoch, Instant::now());
    let report = ok(rig.keeper.rotate(EVERY_SVID).await);
    assert_eq!((report.x509_svids, report.x509_failed), (1_000, 0));
    assert_eq!(rig.sink.writes(), writes + 1, "the batch was written in pieces");
    // A debug build on a busy machine; the bench says how long it takes in earnest.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(published.has_changed().unwrap());
    assert_eq!(rig.keeper.now_published().svid_epoch, epoch + 1);
    let issued = rig.records("issuance");
    assert_eq!(issued.len(), 2 * INSTANCES);
    for (n, old) in old.iter().enumerate().step_by(97) {
        let new = ok(rig.keeper.current_x509(FetchX509SvidRequest { instance: format!("i{n}") }).await);
        assert!(new.key_id != old.key_id && new.svid_epoch == epoch + 1);
    }
    assert_eq!(rig.records("issuance").len(), 2 * INSTANCES, "what was reissued was recorded again");
    assert_eq!(rig.records("authority").last().unwrap()["change"], "svids-replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_instance_gets_nothing_more_and_its_neighbour_everything() {
    let rig = Rig::new().await;
    ok(rig.admit("a"));
    ok(rig.admit("b"));
    ok(x509(&rig, "a").await);
    let token = ok(jwt(&rig, "a", "vault").await).token;
    assert_eq!(revoke(&rig, &["a"], &[]), 1);
    assert_eq!(kind(x509(&rig, "a").await), "revoked");
    assert_eq!(kind(jwt(&rig, "a", "vault").await), "revoked");
    assert_eq!(kind(x509(&rig, "b").await), "ok");
    let check = |token: &str| {
        let request =
            ValidateJwtSvidRequest { instance: "b".to_owned(), token: token.to_owned(), audience: "vault".to_owned() };
        rig.keeper.validate(request)
    };
    assert_eq!(kind(check(&token).await), "ok", "the ID itself is not revoked");
    assert_eq!(revoke(&rig, &["a"], &[&id("a")]), 0);
    assert_eq!(kind(check(&token).await), "invalid-token");
    assert!(rig.keeper.show().is_ok_and(|shown| shown.identities[0].revoked && !shown.identities[1].revoked));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_admitted_under_a_revoked_id_has_no_identity_until_it_is_lifted_and_admitted_anew() {
    let rig = Rig::new().await;
    revoke(&rig, &[], &[&id("a")]);
    ok(rig.admit("a"));
    assert_eq!(kind(jwt(&rig, "a", "vault").await), "revoked");
    revoke(&rig, &[], &[]);
    assert_eq!(kind(jwt(&rig, "a", "vault").await), "revoked", "a revoked instance came back by itself");
    assert!(rig.keeper.stop("a").is_ok());
    ok(rig.admit("a"));
    assert_eq!(kind(jwt(&rig, "a", "vault").await), "ok");
}

async fn next(updates: &mut tonic::Streaming<BundleUpdate>) -> BundleUpdate {
    let update = tokio::time::timeout(Duration::from_secs(90), updates.message()).await;
    update.expect("no update came").unwrap().expect("the stream ended")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_is_told_at_once_of_revocations_and_new_epochs() {
    let rig = Rig::new().await;
    ok(rig.admit("a"));
    let (ours, theirs) = crate::rpc::pair().unwrap();
    let service = WorkloadsServer::new(ForRuntime(Arc::clone(&rig.keeper)));
    tokio::spawn(crate::rpc::serve(theirs, tonic::service::Routes::new(service)));
    let mut client = WorkloadsClient::new(crate::rpc::client(ours).await.unwrap());
    let mut updates = client.watch_bundle(WatchBundleRequest {}).await.unwrap().into_inner();
    let first = updates.message().await.unwrap().unwrap();
    assert!(first.revoked.is_empty() && first.bundle_json.contains("x509-svid"));
    revoke(&rig, &["a"], &[&id("b")]);
    let update = next(&mut updates).await;
    assert_eq!((update.revoked, update.revoked_instances), (vec![id("b")], vec!["a".to_owned()]));
    ok(rig.keeper.rotate(EVERY_SVID).await);
    let update = next(&mut updates).await;
    assert_eq!((update.svid_epoch, update.sequence), (first.svid_epoch + 1, first.sequence));
    revoke(&rig, &["a"], &[&id("b")]);
    let nothing = tokio::time::timeout(Duration::from_millis(200), updates.message()).await;
    assert!(nothing.is_err(), "an update without a change");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bundles_of_others_keep_no_revocation_from_the_runtime() {
    let rig = Rig::new().await;
    let (ours, theirs) = crate::rpc::pair().unwrap();
    let service = WorkloadsServer::new(ForRuntime(Arc::clone(&rig.keeper)));
    tokio::spawn(crate::rpc::serve(theirs, tonic::service::Routes::new(service)));
    let client = crate::runtime::identity::IdentityClient::new("example.org".parse().unwrap());
    client.connect(crate::rpc::client(ours).await.unwrap());
    let mut updates = client.updates().await.unwrap();
    next(&mut updates).await;
    // Each as large as a bundle may be, in what a reader has to ignore.
    let head = r#"{"keys":[],"spiffe_sequence":1,"other":""#;
    let most = portcullis_identity::limits::MAX_BUNDLE_BYTES;
    let json = format!("{head}{}\"}}", "x".repeat(most - head.len() - 2));
    let document = |n: usize| {
        let domain = format!("d{n}.example").parse().unwrap();
        Arc::new(portcullis_identity::BundleDocument::parse(&domain, json.as_bytes()).unwrap())
    };
    let all: Vec<_> = (0..limits::FEDERATION_PEERS).map(document).collect();
    rig.keeper.foreign.send_replace(Arc::new(all));
    assert!(rig.keeper.publish().is_ok());
    assert_eq!(next(&mut updates).await.federated.len(), limits::FEDERATION_PEERS);
    revoke(&rig, &["a"], &[]);
    assert_eq!(next(&mut updates).await.revoked_instances, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taint_that_the_disk_does_not_take_is_told_to_everybody_all_the_same() {
    let rig = Rig::new().await;
    ok(rig.admit("a"));
    let token = ok(jwt(&rig, "a", "vault").await).token;
    let shown = rig.keeper.show().ok().unwrap();
    let active = shown.authorities.iter().filter(|one| one.state == "active");
    let active: Vec<_> = active.filter(|one| one.kind != "wit").map(|one| one.id.clone()).collect();
    assert_eq!(active.len(), 2);
    rig.lose_keys();
    for authority in active {
        let before = rig.keeper.now_published();
        assert_ne!(kind(rig.keeper.taint(TaintRequest { authority }).await), "ok", "it could not be written");
        let now = rig.keeper.now_published();
        assert!(now.sequence > before.sequence && now.svid_epoch > before.svid_epoch);
        assert!(!now.bundles.own().same_keys(before.bundles.own()), "it is trusted still");
    }
    let request = ValidateJwtSvidRequest { instance: "a".to_owned(), token, audience: "vault".to_owned() };
    assert_eq!(kind(rig.keeper.validate(request).await), "invalid-token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taint_waits_for_no_audit_log() {
    let rig = Rig::new().await;
    ok(rig.admit("a"));
    ok(x509(&rig, "a").await);
    let shown = rig.keeper.show().ok().unwrap();
    let authority = shown.authorities.into_iter().find(|one| one.kind == "x509" && one.state == "active").unwrap().id;
    let mut published = rig.keeper.published();
    let before = Arc::clone(&published.borrow_and_update());
    rig.sink.set_held(true);
    let keeper = Arc::clone(&rig.keeper);
    let request = TaintRequest { authority: authority.clone() };
    let tainted = tokio::spawn(async move { keeper.taint(request).await.is_ok() });
    let told = tokio::time::timeout(Duration::from_secs(90), published.changed()).await;
    let (now, records) = (rig.keeper.now_published(), rig.records("authority").len());
    rig.sink.set_held(false);
    assert!(told.is_ok(), "nobody was told while the audit log did not answer");
    assert!(!now.bundles.own().same_keys(before.bundles.own()) && now.svid_epoch > before.svid_epoch);
    assert_eq!(records, 0, "and yet it was recorded already");
    assert!(tainted.await.unwrap());
    assert!(rig.records("authority").iter().any(|record| record["change"] == "tainted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tainted_authority_is_out_of_the_bundle_and_its_svids_are_issued_anew() {
    let rig = Rig::new().await;
    ok(rig.admit("a"));
    let old = ok(x509(&rig, "a").await);
    let active = |kind: &str| {
        let shown = rig.keeper.show().ok().unwrap();
        let found = shown.authorities.into_iter().find(|one| one.kind == kind && one.state == "active");
        found.unwrap().id
    };
    for kind in ["x509", "jwt"] {
        let authority = active(kind);
        let before = rig.keeper.now_published();
        let report = ok(rig.keeper.taint(TaintRequest { authority: authority.clone() }).await);
        let changes: Vec<_> = report.authorities.iter().map(|one| one.change.as_str()).collect();
        assert!(changes.contains(&"tainted") && changes.contains(&"activated"), "{changes:?}");
        let now = rig.keeper.now_published();
        assert!(now.sequence > before.sequence && now.svid_epoch > before.svid_epoch);
        assert!(!now.bundles.own().same_keys(before.bundles.own()));
        assert_ne!(active(kind), authority);
        assert!(
            rig.records("authority")
                .iter()
                .any(|record| record["authority"] == authority.as_str() && record["change"] == "tainted")
        );
    }
    assert_ne!(ok(x509(&rig, "a").await).key_id, old.key_id);
    for unknown in ["", "a b", "00ff"] {
        let refused = rig.keeper.taint(TaintRequest { authority: unknown.to_owned() }).await;
        assert_eq!(kind(refused), "invalid-argument", "{unknown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_rotation_keeps_the_old_keys_in_the_bundle() {
    let rig = Rig::new().await;
    ok(rig.admit("a"));
    let token = ok(jwt(&rig, "a", "vault").await).token;
    let both = RotateRequest { x509: true, jwt: true, wit: false, svids: false };
    let epoch = rig.keeper.now_published().svid_epoch;
    let report = ok(rig.keeper.rotate(both).await);
    assert_eq!(report.authorities.iter().filter(|one| one.change == "activated").count(), 2);
    assert_eq!(rig.keeper.now_published().svid_epoch, epoch, "SVIDs of the old authority stay valid");
    let request =
        ValidateJwtSvidRequest { instance: "a".to_owned(), token: token.clone(), audience: "vault".to_owned() };
    assert_eq!(kind(rig.keeper.validate(request).await), "ok");
    assert_ne!(ok(jwt(&rig, "a", "vault").await).token, token, "a cached token of the old key");
    let wit = RotateRequest { x509: false, jwt: false, wit: true, svids: false };
    assert_eq!(kind(rig.keeper.rotate(wit).await), "invalid-argument", "there is no WIT authority here");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_does_not_leave() {
    let rig = Rig::new().await;
    ok(rig.admit("a"));
    rig.sink.set_broken(true);
    assert_eq!(kind(jwt(&rig, "a", "vault").await), "unavailable");
    assert_eq!(kind(x509(&rig, "a").await), "unavailable");
    assert_eq!(kind(jwt(&rig, "a", "other").await), "I0201", "a denial stays one");
    assert_eq!(kind(rig.keeper.rotate(EVERY_SVID).await), "unavailable");
    rig.sink.set_broken(false);
    assert_eq!(kind(jwt(&rig, "a", "vault").await), "ok");
    let svid = ok(x509(&rig, "a").await);
    let records = rig.records("issuance");
    assert_eq!(records.len(), 2, "{records:#?}");
    assert_eq!(svid.spiffe_id, id("a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_asks_in_a_loop_is_refused_and_recorded_once_with_its_number() {
    let rig = Rig::new().await;
    ok(rig.admit("a"));
    ok(rig.admit("b"));
    let (mut served, mut refused, mut references) = (0_u32, 0_u32, Vec::new());
    // Denials count too: each one is a record on the disk.
    while refused < 500 {
        match jwt(&rig, "a", if served % 2 == 0 { "vault" } else { "other" }).await {
            Err(Stop::Failed(failed)) if failed.kind == "rate-limited" => {
                refused += 1;
                references.extend(Some(failed.reference).filter(|text| !text.is_empty()));
            }
            _ => served += 1,
        }
        assert!(served < 4 * limits::MINTS_EACH.1, "nobody stops it");
    }
    assert!(served >= limits::MINTS_EACH.1);
    assert_eq!(kind(jwt(&rig, "b", "vault").await), "ok", "its neighbour pays for it");
    let limited: Vec<Value> =
        rig.records("denial").into_iter().filter(|record| record["code"] == "identity.rate-limited").collect();
    assert!((1..=3).contains(&limited.len()), "{} records", limited.len());
    assert!(references.contains(&limited[0]["ref"].as_str().unwrap().to_owned()));
    let metrics = rig.keeper.metrics().ok().unwrap();
    assert!(
        metrics.contains(&format!("portcullis_identity_rate_limited_total{{what=\"mint\"}} {refused}")),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_instance_is_unknown_at_once() {
    let rig = Rig::new().await;
    ok(rig.admit("a"));
    ok(jwt(&rig, "a", "vault").await);
    assert!(rig.keeper.stop("a").is_ok_and(|known| known));
    assert_eq!(kind(jwt(&rig, "a", "vault").await), "unknown-instance");
    assert!(rig.keeper.show().is_ok_and(|shown| shown.identities.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_count_what_was_done_and_name_nobody() {
    let rig = Rig::new().await;
    ok(rig.admit("a"));
    ok(x509(&rig, "a").await);
    ok(jwt(&rig, "a", "vault").await);
    ok(jwt(&rig, "a", "vault").await);
    assert_eq!(kind(jwt(&rig, "a", "other").await), "I0201");
    let text = rig.keeper.metrics().ok().unwrap();
    for line in [
        "portcullis_identity_svids_minted_total{kind=\"x509\"} 1",
        "portcullis_identity_svids_minted_total{kind=\"jwt\"} 1",
        "portcullis_identity_denied_total 1",
        "portcullis_identity_instances 1",
        "portcullis_identity_request_seconds_count{call=\"jwt\"} 2",
    ] {
        assert!(text.lines().any(|has| has == line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("spiffe://") && !text.contains("test:one"), "{text}");
    let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert_eq!(families.join("\n") + "\n", include_str!("tests/families.txt"), "{}", families.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_records_is_no_larger_than_its_limit() {
    let rig = Rig::new().await;
    let writes = rig.sink.writes();
    let entries = |count: usize| (0..count).map(|n| Entry::new("issuance", serde_json::json!({ "n": n }))).collect();
    assert!(rig.keeper.append_many(entries(limits::AUDIT_BATCH)).await.is_ok());
    assert_eq!(rig.sink.writes(), writes + 1);
    assert!(rig.keeper.append_many(entries(limits::AUDIT_BATCH + 1)).await.is_ok());
    assert_eq!(rig.sink.writes(), writes + 3);
    let numbers: Vec<_> = rig.records("issuance").iter().map(|record| record["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers.len(), 2 * limits::AUDIT_BATCH + 1);
    assert!(numbers[limits::AUDIT_BATCH..].iter().copied().eq(0..=limits::AUDIT_BATCH as u64), "out of order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_revocations_over_its_limit_is_refused_and_changes_nothing() {
    let rig = Rig::new().await;
    ok(rig.admit("a"));
    // Those of this host, and as many of its cluster.
    let spiffe_ids: Vec<_> = (0..=2 * limits::REVOKED).map(|n| id(&n.to_string())).chain([id("a")]).collect();
    let refused = rig.keeper.set_revoked(SetRevokedRequest { instances: Vec::new(), spiffe_ids });
    assert_eq!(kind(refused), "invalid-argument");
    let malformed = SetRevokedRequest { instances: vec!["a".to_owned()], spiffe_ids: vec!["spiffe://".to_owned()] };
    assert_eq!(kind(rig.keeper.set_revoked(malformed)), "invalid-argument");
    assert_eq!(kind(jwt(&rig, "a", "vault").await), "ok");
}
