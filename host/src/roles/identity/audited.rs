//! What audit mode lets through in the identity process, and when it stops, against a real issuer, policy and audit log.

use std::time::Duration;

use portcullis_identity::rpc::{
    Audited, ExportX509Request, JwtSvid, MintJwtSvidRequest, RotateRequest, SignDataRequest,
};

use super::keeper::Stop;
use super::rig::Rig;
use crate::clock;

async fn jwt(rig: &Rig, audience: &str) -> Result<JwtSvid, Stop> {
    let (instance, audiences) = ("i".to_owned(), vec![audience.to_owned()]);
    rig.keeper.mint_jwt(MintJwtSvidRequest { instance, audiences, ttl_seconds: None }).await
}

fn code<T>(result: Result<T, Stop>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(Stop::Failed(failed)) => failed.kind,
        Err(Stop::Denied(denied)) => denied.code,
    }
}

fn for_seconds(component: &str, seconds: i64) -> Vec<Audited> {
    vec![Audited { component: component.to_owned(), until: clock::now().unix_timestamp() + seconds }]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_granted_is_issued_and_recorded_first_and_a_key_never() {
    let rig = Rig::new().await;
    assert_eq!(code(rig.admit("i")), "ok");
    assert_eq!(code(jwt(&rig, "bank").await), "I0201");
    assert!(rig.push(2, for_seconds("test:one", 3600)));
    assert_eq!(code(jwt(&rig, "bank").await), "ok");
    let sign = SignDataRequest { instance: "i".to_owned(), purpose: "invoice".to_owned(), data: vec![1] };
    assert_eq!(code(rig.keeper.sign_data(sign).await), "ok");
    let let_through = rig.records("let-through");
    let actions: Vec<_> = let_through.iter().map(|record| record["denial"]["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["svid.jwt", "svid.sign"]);
    assert!(let_through.iter().all(|record| record["denial"]["question"].is_object() && record["text"].is_string()));
    // Granted: nothing to note.
    assert_eq!(code(jwt(&rig, "vault").await), "ok");
    assert_eq!(rig.records("let-through").len(), 2);
    let export = rig.keeper.export_x509(ExportX509Request { instance: "i".to_owned() }).await;
    assert!(code(export).starts_with("I02"), "a private key is never let through");
    // What cannot be recorded does not happen.
    rig.sink.set_broken(true);
    assert_eq!(code(jwt(&rig, "bank").await), "I0201");
    rig.sink.set_broken(false);
    assert_eq!(code(jwt(&rig, "bank").await), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_by_the_clock_of_this_process_and_only_for_whom_it_is() {
    let rig = Rig::new().await;
    assert_eq!(code(rig.admit("i")), "ok");
    assert!(rig.push(2, for_seconds("test:other", 3600)));
    assert_eq!(code(jwt(&rig, "bank").await), "I0201", "somebody else's");
    assert!(rig.push(3, for_seconds("test:one", 25 * 3600)));
    assert_eq!(code(jwt(&rig, "bank").await), "I0201", "longer than audit mode may last");
    assert!(rig.push(4, for_seconds("test:one", -1)));
    assert_eq!(code(jwt(&rig, "bank").await), "I0201", "over already");
    // Where this machine is busy, a short time is over before it is used.
    let mut used = false;
    for (generation, seconds) in [(5, 2), (6, 8), (7, 30)] {
        assert!(rig.push(generation, for_seconds("test:one", seconds)));
        used = code(jwt(&rig, "bank").await) == "ok";
        tokio::time::sleep(Duration::from_secs(seconds.unsigned_abs()) + Duration::from_millis(100)).await;
        if used {
            break;
        }
    }
    assert!(used, "it is let through");
    // Nobody pushed anything.
    assert_eq!(code(jwt(&rig, "bank").await), "I0201");
    assert!(rig.push(8, for_seconds("test:one", 3600)));
    assert_eq!(code(jwt(&rig, "bank").await), "ok");
    assert!(rig.push(9, Vec::new()));
    assert_eq!(code(jwt(&rig, "bank").await), "I0201", "ended by the supervisor");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_svid_that_is_issued_anew_under_audit_mode_is_recorded_as_such() {
    let rig = Rig::new().await;
    assert_eq!(code(rig.admit("i")), "ok");
    rig.push_text(2, NOTHING, for_seconds("test:one", 3600));
    let fetch = portcullis_identity::rpc::FetchX509SvidRequest { instance: "i".to_owned() };
    assert_eq!(code(rig.keeper.mint_x509(fetch).await), "ok");
    assert_eq!(rig.records("let-through").len(), 1);
    let every = RotateRequest { x509: false, jwt: false, wit: false, svids: true };
    assert_eq!(code(rig.keeper.rotate(every).await), "ok");
    let let_through = rig.records("let-through");
    assert_eq!(let_through.len(), 2, "{let_through:#?}");
    assert!(let_through.iter().all(|record| record["denial"]["action"] == "svid.x509"));
}

/// Grants of somebody else.
const NOTHING: &str = "version = 1\n[[grant]]\nid = \"other\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:other\"\nload = true\n";
