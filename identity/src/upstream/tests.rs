//! The engine against a wire that says what the test wants. Time stands still unless a test moves it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use futures::StreamExt as _;
use tokio::sync::broadcast;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::*;
use crate::issuer::Issuer;
use crate::lifetimes::Lifetimes;
use crate::limits::{MAX_CACHED_TOKENS, MAX_UPSTREAM_PROBLEM_CHARS, UPSTREAM_BUNDLE_AGE};
use crate::workload::Workload;

const START: i64 = 1_800_000_000;

type Said = Result<Vec<(Vec<Vec<u8>>, Vec<u8>)>, Code>;

/// What the wire says: shared with the test.
struct Script {
    issuer: Mutex<Issuer>,
    svids: broadcast::Sender<Said>,
    first: Mutex<Option<Said>>,
    jwt: Mutex<Option<Code>>,
    jwt_asked: AtomicI64,
    /// Whether a token that is asked for never comes.
    jwt_hangs: AtomicBool,
    now: AtomicI64,
    bundles: watch::Sender<u64>,
    /// Whether the streams of bundles break off and do not come back.
    away: AtomicBool,
    _folder: tempfile::TempDir,
}

#[derive(Clone)]
struct Scripted(Arc<Script>);

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripted")
    }
}

fn handed(said: Said) -> Result<Vec<HandedX509>, Status> {
    let svids = said.map_err(|code| Status::new(code, "as the test says"))?;
    Ok(svids
        .into_iter()
        .map(|(chain, key)| HandedX509 { spiffe_id: CART.to_owned(), chain, pkcs8: Zeroizing::new(key) })
        .collect())
}

#[async_trait]
impl Wire for Scripted {
    fn kind(&self) -> SourceKind {
        SourceKind::SpireDelegated
    }

    async fn x509(&self, _: &Vouched) -> Result<Messages<Vec<HandedX509>>, Status> {
        let later = futures::stream::unfold(self.0.svids.subscribe(), |mut said| async {
            let next = said.recv().await.ok()?;
            Some((handed(next), said))
        });
        let first = self.0.first.lock().unwrap().clone();
        Ok(Box::pin(futures::stream::iter(first.map(handed)).chain(later)))
    }

    async fn jwt(&self, _: &Vouched, audiences: &[Audience]) -> Result<Vec<HandedJwt>, Status> {
        self.0.jwt_asked.fetch_add(1, Ordering::SeqCst);
        if self.0.jwt_hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if let Some(code) = *self.0.jwt.lock().unwrap() {
            return Err(Status::new(code, "as the test says"));
        }
        let now = self.0.now();
        let ttl = Duration::from_secs(300);
        let minted = self.0.issuer.lock().unwrap().jwt_svid(&"cart".parse().unwrap(), audiences, ttl, now).unwrap();
        let token = Zeroizing::new(minted.svid.token().to_owned());
        Ok(vec![HandedJwt { spiffe_id: CART.to_owned(), token }])
    }

    async fn x509_bundles(&self) -> Result<Messages<ByDomain>, Status> {
        if self.0.away.load(Ordering::SeqCst) {
            return Err(Status::unavailable("as the test says"));
        }
        let script = Arc::clone(&self.0);
        let messages = versions(&self.0).map(move |_| {
            if script.away.load(Ordering::SeqCst) {
                return Err(Status::unavailable("as the test says"));
            }
            let authorities = script.issuer.lock().unwrap().bundle().x509_authorities().concat();
            Ok(ByDomain::from([("spiffe://example.org".to_owned(), authorities)]))
        });
        Ok(Box::pin(messages))
    }

    async fn jwt_bundles(&self) -> Result<Messages<ByDomain>, Status> {
        if self.0.away.load(Ordering::SeqCst) {
            return Err(Status::unavailable("as the test says"));
        }
        let script = Arc::clone(&self.0);
        let messages = versions(&self.0).map(move |_| {
            if script.away.load(Ordering::SeqCst) {
                return Err(Status::unavailable("as the test says"));
            }
            let document = script.issuer.lock().unwrap().bundle().to_json();
            Ok(ByDomain::from([("spiffe://example.org".to_owned(), document.into_bytes())]))
        });
        Ok(Box::pin(messages))
    }
}

/// One item at once and one for each change.
fn versions(script: &Script) -> impl futures::Stream<Item = ()> + Send + use<> {
    let mut changes = script.bundles.subscribe();
    changes.mark_changed();
    futures::stream::unfold(changes, |mut changes| async {
        changes.changed().await.ok()?;
        Some(((), changes))
    })
}

const CART: &str = "spiffe://example.org/cart";

impl Script {
    fn new() -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let start = OffsetDateTime::from_unix_timestamp(START).unwrap();
        let domain = "example.org".parse().unwrap();
        let mut issuer = Issuer::open(&folder.path().join("state"), &domain, Lifetimes::default(), start).unwrap();
        issuer.admit(vouched("cart").workload).unwrap();
        Arc::new(Self {
            issuer: Mutex::new(issuer),
            svids: broadcast::Sender::new(16),
            first: Mutex::new(None),
            jwt: Mutex::new(None),
            jwt_asked: AtomicI64::new(0),
            jwt_hangs: AtomicBool::new(false),
            now: AtomicI64::new(START),
            bundles: watch::Sender::new(0),
            away: AtomicBool::new(false),
            _folder: folder,
        })
    }

    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.now.load(Ordering::SeqCst)).unwrap()
    }

    fn later(&self, seconds: i64) {
        self.now.fetch_add(seconds, Ordering::SeqCst);
    }

    fn mint(&self) -> Said {
        let mut issuer = self.issuer.lock().unwrap();
        issuer.rotate_svids();
        let exported =
            issuer.export_x509(&"cart".parse().unwrap(), Duration::from_secs(3600), self.now()).unwrap().svid;
        Ok(vec![(exported.svid.chain.clone(), exported.pkcs8().to_vec())])
    }

    fn say(&self, said: Said) {
        self.svids.send(said).unwrap();
    }

    async fn source(self: &Arc<Self>, first: Option<Said>) -> Upstream {
        *self.first.lock().unwrap() = first;
        let script = Arc::clone(self);
        let clock: Clock = Arc::new(move || script.now());
        let source = Upstream::start(Box::new(Scripted(Arc::clone(self))), "example.org".parse().unwrap(), clock);
        assert!(source.ready(Duration::from_secs(5)).await);
        source.admit(vouched("cart")).unwrap();
        source
    }

    async fn x509(&self, source: &Upstream, ttl: u64) -> Result<X509Svid, &'static str> {
        let minted = source.x509_svid(&"cart".parse().unwrap(), Duration::from_secs(ttl), self.now()).await;
        minted.map(|minted| minted.svid).map_err(|error| error.kind())
    }

    async fn jwt(&self, source: &Upstream, audience: &str, ttl: u64) -> Result<Minted<JwtSvid>, &'static str> {
        let audiences = [audience.parse().unwrap()];
        let minted = source.jwt_svid(&"cart".parse().unwrap(), &audiences, Duration::from_secs(ttl), self.now()).await;
        minted.map_err(|error| error.kind())
    }
}

fn vouched(instance: &str) -> Vouched {
    let workload = Workload {
        instance: instance.parse().unwrap(),
        spiffe_id: CART.parse().unwrap(),
        digest: String::new(),
        component: "shop:cart".to_owned(),
        exportable: true,
    };
    Vouched { workload, signer: String::new(), signer_group: String::new() }
}

/// Lets the following tasks run.
async fn settle() {
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_stays_silent_is_not_waited_for_without_end() {
    let script = Script::new();
    let source = script.source(None).await;
    let before = tokio::time::Instant::now();
    assert_eq!(script.x509(&source, 3600).await, Err("source-unavailable"));
    assert_eq!(before.elapsed().as_secs(), UPSTREAM_FIRST_ANSWER.as_secs());
    assert_eq!(source.status().waiting, 1);
}

#[tokio::test(start_paused = true)]
async fn an_svid_that_lives_longer_than_granted_passes_by_no_more_than_the_slack() {
    let script = Script::new();
    let source = script.source(Some(script.mint())).await;
    let svid = script.x509(&source, 3600).await.unwrap();
    let left = u64::try_from((svid.not_after - script.now()).whole_seconds()).unwrap();
    let slack = UPSTREAM_LIFETIME_SLACK.as_secs();
    assert!(script.x509(&source, left - slack).await.is_ok());
    assert_eq!(script.x509(&source, left - slack - 1).await, Err("longer-than-granted"));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_serves_to_its_end_through_an_outage_and_no_longer() {
    let script = Script::new();
    let source = script.source(Some(script.mint())).await;
    let svid = script.x509(&source, 3600).await.unwrap();
    *script.first.lock().unwrap() = None;
    script.say(Err(Code::Unavailable));
    settle().await;
    assert!(!source.status().connected && source.status().held == 1);
    let left = (svid.not_after - script.now()).whole_seconds();
    script.later(left - 1);
    assert_eq!(script.x509(&source, 3600).await.unwrap().serial, svid.serial);
    script.later(1);
    assert_eq!(script.x509(&source, 3600).await, Err("source-unavailable"));
    assert_eq!(source.status().held, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_takes_the_svid_the_tokens_and_the_key_away_and_a_new_svid_brings_them_back() {
    let script = Script::new();
    let source = script.source(Some(script.mint())).await;
    let svid = script.x509(&source, 3600).await.unwrap();
    script.jwt(&source, "vault", 300).await.unwrap();
    let epoch = source.published().borrow().svid_epoch;
    for refusal in [Code::PermissionDenied, Code::NotFound, Code::Unauthenticated] {
        *script.first.lock().unwrap() = None;
        script.say(Err(refusal));
        settle().await;
        assert_eq!(script.x509(&source, 3600).await, Err("no-identity-issued"), "{refusal:?}");
        let signed = source.sign(&"cart".parse().unwrap(), &svid.key_id, "test", b"data");
        assert_eq!(signed, Err(SignError::UnknownKey));
        *script.first.lock().unwrap() = Some(script.mint());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(script.x509(&source, 3600).await.is_ok(), "after {refusal:?}");
    }
    assert!(source.published().borrow().svid_epoch >= epoch + 3);
    let asked = script.jwt_asked.load(Ordering::SeqCst);
    assert!(script.jwt(&source, "vault", 300).await.is_ok());
    assert_eq!(script.jwt_asked.load(Ordering::SeqCst), asked + 1, "the token of before was forgotten");
}

#[tokio::test(start_paused = true)]
async fn an_empty_message_is_a_refusal_and_a_broken_one_changes_nothing() {
    let script = Script::new();
    let source = script.source(Some(script.mint())).await;
    let svid = script.x509(&source, 3600).await.unwrap();
    let Ok(mut broken) = script.mint() else { panic!("an SVID") };
    broken[0].1 = vec![0x30, 0x00];
    script.say(Ok(broken));
    settle().await;
    assert_eq!(script.x509(&source, 3600).await.unwrap().serial, svid.serial);
    script.say(Ok(Vec::new()));
    settle().await;
    assert_eq!(script.x509(&source, 3600).await, Err("no-identity-issued"));
}

#[tokio::test(start_paused = true)]
async fn handshakes_under_way_may_use_the_key_of_before_and_a_tainted_authority_takes_all() {
    let script = Script::new();
    let source = script.source(Some(script.mint())).await;
    let before = script.x509(&source, 3600).await.unwrap();
    script.say(script.mint());
    settle().await;
    let after = script.x509(&source, 3600).await.unwrap();
    assert_ne!(before.serial, after.serial);
    let instance = "cart".parse().unwrap();
    for svid in [&before, &after] {
        assert!(source.sign(&instance, &svid.key_id, "test", b"data").is_ok());
    }
    let epoch = source.published().borrow().svid_epoch;
    let authority =
        script.issuer.lock().unwrap().authorities().into_iter().find(|one| one.kind.name() == "x509").unwrap();
    script.issuer.lock().unwrap().taint(&authority.id, script.now()).unwrap();
    script.bundles.send_modify(|version| *version += 1);
    settle().await;
    assert_eq!(script.x509(&source, 3600).await, Err("source-invalid"));
    assert!(source.published().borrow().svid_epoch > epoch);
    assert!(source.sign(&instance, &after.key_id, "test", b"data").is_err());
}

#[tokio::test(start_paused = true)]
async fn tokens_are_kept_to_half_of_their_life_and_serve_to_its_end_only_in_an_outage() {
    let script = Script::new();
    let source = script.source(Some(script.mint())).await;
    assert!(script.jwt(&source, "vault", 300).await.unwrap().fresh);
    assert!(!script.jwt(&source, "vault", 300).await.unwrap().fresh);
    assert_eq!(script.jwt_asked.load(Ordering::SeqCst), 1);
    script.later(151);
    assert!(script.jwt(&source, "vault", 300).await.unwrap().fresh, "renewed at half of its life");
    *script.jwt.lock().unwrap() = Some(Code::Unavailable);
    script.later(200);
    assert!(!script.jwt(&source, "vault", 300).await.unwrap().fresh, "the one that is held");
    assert_eq!(script.jwt(&source, "bank", 300).await.unwrap_err(), "source-unavailable");
    script.later(100);
    assert_eq!(script.jwt(&source, "vault", 300).await.unwrap_err(), "source-unavailable");
    *script.jwt.lock().unwrap() = Some(Code::PermissionDenied);
    assert_eq!(script.jwt(&source, "vault", 300).await.unwrap_err(), "no-identity-issued");
    assert_eq!(script.x509(&source, 3600).await, Err("no-identity-issued"), "it is nobody any more");
}

#[tokio::test(start_paused = true)]
async fn no_more_tokens_are_kept_than_the_limit() {
    let script = Script::new();
    let source = script.source(Some(script.mint())).await;
    for number in 0..=MAX_CACHED_TOKENS {
        assert!(script.jwt(&source, &format!("a{number}"), 300).await.unwrap().fresh);
        script.later(1);
    }
    let asked = script.jwt_asked.load(Ordering::SeqCst);
    assert!(!script.jwt(&source, &format!("a{MAX_CACHED_TOKENS}"), 300).await.unwrap().fresh);
    assert_eq!(script.jwt_asked.load(Ordering::SeqCst), asked);
    script.jwt(&source, "a0", 300).await.unwrap();
    assert_eq!(script.jwt_asked.load(Ordering::SeqCst), asked + 1, "the first had made room");
}

#[test]
fn what_an_upstream_says_is_escaped_and_cut() {
    let status = Status::unavailable(format!("a\nb{}", "x".repeat(MAX_UPSTREAM_PROBLEM_CHARS)));
    let story = whole_story(&status);
    assert!(story.starts_with("a\\nb") && story.len() == MAX_UPSTREAM_PROBLEM_CHARS);
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_held_are_found_by_the_scan_and_gone_with_the_instance() {
    let script = Script::new();
    let Ok(minted) = script.mint() else { panic!("an SVID") };
    let scalar = crate::pkcs8::p256_scalar(&minted[0].1).unwrap();
    let source = script.source(Some(Ok(minted))).await;
    script.x509(&source, 3600).await.unwrap();
    assert_eq!(source.key_scan().count(scalar.as_slice()), 1);
    assert!(source.stop(&"cart".parse().unwrap()));
    assert_eq!(source.key_scan().count(scalar.as_slice()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_key_left_the_bundle_is_not_given_out_again() {
    let script = Script::new();
    let source = script.source(Some(script.mint())).await;
    assert!(script.jwt(&source, "vault", 300).await.unwrap().fresh);
    let held = script.jwt(&source, "vault", 300).await.unwrap();
    assert!(!held.fresh);
    let authority =
        script.issuer.lock().unwrap().authorities().into_iter().find(|one| one.kind.name() == "jwt").unwrap();
    script.issuer.lock().unwrap().taint(&authority.id, script.now()).unwrap();
    script.bundles.send_modify(|version| *version += 1);
    settle().await;
    let renewed = script.jwt(&source, "vault", 300).await.unwrap();
    assert!(renewed.fresh && renewed.svid.token() != held.svid.token());
    // Nor in an outage, which else lets what is held serve to its end.
    let authority = script
        .issuer
        .lock()
        .unwrap()
        .authorities()
        .into_iter()
        .find(|one| one.kind.name() == "jwt" && one.state.name() == "active")
        .unwrap();
    script.issuer.lock().unwrap().taint(&authority.id, script.now()).unwrap();
    script.bundles.send_modify(|version| *version += 1);
    settle().await;
    *script.jwt.lock().unwrap() = Some(Code::Unavailable);
    assert_eq!(script.jwt(&source, "vault", 300).await.unwrap_err(), "source-unavailable");
}

#[tokio::test(start_paused = true)]
async fn bundles_of_a_silent_upstream_verify_nobody_once_they_are_too_old_and_are_back_with_it() {
    let script = Script::new();
    let source = script.source(Some(script.mint())).await;
    // As long as the stream is open it says whatever changes: silence is no age.
    let age = i64::try_from(UPSTREAM_BUNDLE_AGE.as_secs()).unwrap();
    script.later(2 * age);
    settle().await;
    assert!(source.published().borrow().bundles.is_some());
    script.away.store(true, Ordering::SeqCst);
    script.bundles.send_modify(|version| *version += 1);
    tokio::time::sleep(Duration::from_secs(120)).await;
    script.later(age - 1);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(source.published().borrow().bundles.is_some(), "an outage changes nothing for a while");
    script.later(1);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(source.published().borrow().bundles.is_none(), "too old");
    script.away.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(source.published().borrow().bundles.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_upstream_does_not_answer_ends_at_its_limit() {
    let script = Script::new();
    let source = script.source(Some(script.mint())).await;
    script.jwt_hangs.store(true, Ordering::SeqCst);
    let before = tokio::time::Instant::now();
    assert_eq!(script.jwt(&source, "vault", 300).await.unwrap_err(), "source-unavailable");
    assert_eq!(before.elapsed().as_secs(), UPSTREAM_CALL.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_key_no_bundle_brings_is_waited_for_to_a_limit_and_refused() {
    let script = Script::new();
    let source = script.source(Some(script.mint())).await;
    script.issuer.lock().unwrap().rotate(crate::authority::AuthorityKind::Jwt, script.now()).unwrap();
    let before = tokio::time::Instant::now();
    assert_eq!(script.jwt(&source, "vault", 300).await.unwrap_err(), "source-invalid");
    assert_eq!(before.elapsed().as_secs(), crate::limits::UPSTREAM_BUNDLE_WAIT.as_secs());
    script.bundles.send_modify(|version| *version += 1);
    settle().await;
    assert!(script.jwt(&source, "vault", 300).await.is_ok());
}
