//! What a real nats-server does with the answers of an auth callout: the rules that the product leans on, and the holes that it
//! closes itself because the server leaves them open. Answers are put together by hand here, as an attacker or a careless
//! callout would; beside each hole stands what the product's own codec makes of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use futures::StreamExt as _;
use nkeys::KeyPair;
use portcullis_identity::callout::{Answers, Received, Request, Requests};
use portcullis_identity::nats_jwt::{
    AccountSigner, AccountToken, CalloutBlock, Creds, OperatorToken, Permissions, Rights, SigningKey, Subscription,
    Tag, UserToken,
};
use portcullis_tests::nats::NatsServer;
use portcullis_tests::nats::operator::token;
use serde_json::{Value, json};
use time::OffsetDateTime;

/// Makes the answer to a request.
type Answering = Arc<Mutex<Box<dyn FnMut(&Request) -> String + Send>>>;

/// A server in accounts mode with a callout that answers as the test says.
struct Rig {
    server: NatsServer,
    issuer: KeyPair,
    answering: Answering,
}

impl Rig {
    async fn start(test: &str) -> Option<Self> {
        let (issuer, callout) = (KeyPair::new_account(), KeyPair::new_user());
        let config = format!(
            "accounts {{\n AUTH {{ users: [ {{ nkey: {user} }} ] }}\n APP {{}}\n OTHER {{}}\n SYS {{}}\n}}\nsystem_account: SYS\n\
             authorization {{\n timeout: 1.5\n auth_callout {{\n issuer: {issuer}\n account: AUTH\n auth_users: [ {user} ]\n }}\n}}\n",
            user = callout.public_key(),
            issuer = issuer.public_key(),
        );
        let server = NatsServer::start(test, &config)?;
        let answering: Answering = Arc::new(Mutex::new(Box::new(|_| String::new())));
        let login = ConnectOptions::with_nkey(callout.seed().unwrap());
        answer(login.connect(server.url()).await.unwrap(), &issuer.public_key(), Arc::clone(&answering)).await;
        Some(Self { server, issuer, answering })
    }

    fn answers(&self, with: impl FnMut(&Request) -> String + Send + 'static) {
        *self.answering.lock().unwrap() = Box::new(with);
    }

    /// The answer of the issuer, changed: first the claims of the user, then those of the answer.
    fn changed(&self, user: impl Fn(&mut Value) + Send + 'static, response: impl Fn(&mut Value) + Send + 'static) {
        let issuer = KeyPair::from_seed(&self.issuer.seed().unwrap()).unwrap();
        self.answers(move |request| {
            let mut claims = user_claims(&issuer, request);
            user(&mut claims);
            signed(&issuer, request, &token(&issuer, claims), &response)
        });
    }

    async fn connect(&self) -> Result<Client, async_nats::ConnectError> {
        self.connect_with(ConnectOptions::with_token("a token".to_owned())).await
    }

    async fn connect_with(&self, options: ConnectOptions) -> Result<Client, async_nats::ConnectError> {
        options.connection_timeout(Duration::from_secs(30)).connect(self.server.url()).await
    }
}

/// A user that may ask who it is, and hear the answer.
fn user_claims(issuer: &KeyPair, request: &Request) -> Value {
    json!({
        "iss": issuer.public_key(), "sub": request.user_nkey().to_string(), "aud": "APP", "name": "somebody", "exp": now() + 60,
        "nats": {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
            "pub": {"allow": ["$SYS.REQ.USER.INFO", "allowed"]}, "sub": {"allow": ["_INBOX.>", "allowed"]}},
    })
}

fn signed(issuer: &KeyPair, request: &Request, user: &str, change: &impl Fn(&mut Value)) -> String {
    let mut claims = json!({
        "iss": issuer.public_key(), "sub": request.user_nkey().to_string(), "aud": request.server_id().to_string(),
        "nats": {"type": "authorization_response", "version": 2, "jwt": user},
    });
    change(&mut claims);
    token(issuer, claims)
}

/// Reads requests with the product's codec, and answers with whatever the test makes.
async fn answer(client: Client, account: &str, answering: Answering) {
    let requests = Requests::new(account.parse().unwrap(), None).unwrap();
    let mut messages = client.subscribe("$SYS.REQ.USER.AUTH").await.unwrap();
    client.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            let request =
                requests.check(&Received { payload: &message.payload, xkeys: &[] }, OffsetDateTime::now_utc());
            let reply = (answering.lock().unwrap())(&request.unwrap());
            client.publish(message.reply.unwrap(), reply.into()).await.unwrap();
        }
    });
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// What the server says that this client is.
async fn info(client: &Client) -> Value {
    let answer = tokio::time::timeout(Duration::from_secs(60), client.request("$SYS.REQ.USER.INFO", "".into())).await;
    serde_json::from_slice(&answer.unwrap().unwrap().payload).unwrap()
}

/// Whether what the one publishes reaches the other.
async fn reaches(from: &Client, to: &Client, subject: &'static str) -> bool {
    let mut heard = to.subscribe(subject).await.unwrap();
    to.flush().await.unwrap();
    // What was flushed is on its way, not yet with the server: so more than once.
    for _ in 0..10 {
        from.publish(subject, "x".into()).await.unwrap();
        from.flush().await.unwrap();
        if let Ok(message) = tokio::time::timeout(Duration::from_millis(200), heard.next()).await {
            return message.is_some();
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_for_another_attempt_server_or_account_lets_nobody_in() {
    let Some(rig) = Rig::start("callout_rules::answers").await else { return };
    rig.changed(|_| (), |_| ());
    let client = rig.connect().await.unwrap();
    assert_eq!(info(&client).await.pointer("/data/account"), Some(&json!("APP")), "an answer as it should be");
    let other = |make: fn() -> KeyPair| make().public_key();
    type Change = Box<dyn Fn(&mut Value) + Send>;
    let unchanged = || -> Change { Box::new(|_| ()) };
    let set = |place: &'static str, value: Value| -> Change {
        Box::new(move |claims| *claims.pointer_mut(place).unwrap() = value.clone())
    };
    let insert = |name: &'static str, value: Value| -> Change {
        Box::new(move |claims| drop(claims["nats"].as_object_mut().unwrap().insert(name.to_owned(), value.clone())))
    };
    for (what, user, response) in [
        ("a token for another key", set("/sub", json!(other(KeyPair::new_user))), unchanged()),
        ("an answer to another attempt", unchanged(), set("/sub", json!(other(KeyPair::new_user)))),
        ("an answer to another server", unchanged(), set("/aud", json!(other(KeyPair::new_server)))),
        ("an account that there is not", set("/aud", json!("NOWHERE")), unchanged()),
        ("no account", set("/aud", json!("")), unchanged()),
        ("a token that is over", set("/exp", json!(now() - 5)), unchanged()),
        ("a signing key", insert("issuer_account", json!(other(KeyPair::new_account))), unchanged()),
        ("neither token nor error", unchanged(), set("/nats/jwt", json!(""))),
    ] {
        rig.changed(user, response);
        assert!(rig.connect().await.is_err(), "{what} was let in");
    }
    let stranger = KeyPair::new_account();
    rig.answers(move |request| signed(&stranger, request, &token(&stranger, user_claims(&stranger, request)), &|_| ()));
    assert!(rig.connect().await.is_err(), "another issuer was let in");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_given_before_lets_nobody_in() {
    let Some(rig) = Rig::start("callout_rules::replay").await else { return };
    let issuer = KeyPair::from_seed(&rig.issuer.seed().unwrap()).unwrap();
    let mut first = None;
    rig.answers(move |request| {
        let made = signed(&issuer, request, &token(&issuer, user_claims(&issuer, request)), &|_| ());
        first.get_or_insert(made).clone()
    });
    assert!(rig.connect().await.is_ok());
    assert!(rig.connect().await.is_err(), "the answer to the first attempt let a second in");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_issuer_key_opens_the_system_account_so_the_product_lists_accounts() {
    let Some(rig) = Rig::start("callout_rules::system").await else { return };
    rig.changed(|claims| claims["aud"] = json!("SYS"), |_| ());
    let client = rig.connect().await.unwrap();
    assert_eq!(info(&client).await.pointer("/data/account"), Some(&json!("SYS")), "the server places into it");
    // The product: not even in the list.
    let key = portcullis_nkey_pair(&rig.issuer);
    let accounts = BTreeSet::from(["APP".parse().unwrap(), "SYS".parse().unwrap()]);
    let made =
        Answers::accounts_mode(AccountSigner::account(key).unwrap(), None, accounts, &["SYS".parse().unwrap()].into());
    assert!(made.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_lists_may_do_everything_and_the_products_without_rights_nothing() {
    let Some(rig) = Rig::start("callout_rules::lists").await else { return };
    rig.changed(
        |claims| {
            let nats = claims["nats"].as_object_mut().unwrap();
            nats.remove("pub");
            nats.remove("sub");
        },
        |_| (),
    );
    let (open, other) = (rig.connect().await.unwrap(), rig.connect().await.unwrap());
    assert!(reaches(&open, &other, "anything.at.all").await, "the server takes absent lists for everything");
    rig.changed(|claims| drop(claims["nats"].as_object_mut().unwrap().remove("sub")), |_| ());
    let half = rig.connect().await.unwrap();
    assert!(reaches(&open, &half, "anything.else").await, "one list leaves the other open");
    // The product: a list that is empty is a denial.
    let key = rig.issuer.seed().unwrap();
    rig.answers(move |request| {
        let issuer = KeyPair::from_seed(&key).unwrap();
        let signer = AccountSigner::account(portcullis_nkey_pair(&issuer)).unwrap();
        let rights = Rights::Explicit(Permissions::none());
        let ends = OffsetDateTime::now_utc() + Duration::from_secs(60);
        let user = UserToken::new(request.user_nkey(), "nobody".parse().unwrap(), rights, ends).unwrap();
        let user = user.in_account("APP".parse().unwrap()).sign(&signer, OffsetDateTime::now_utc()).unwrap();
        signed(&issuer, request, &user, &|_| ())
    });
    let nothing = rig.connect().await.unwrap();
    assert!(!reaches(&open, &nothing, "anything").await, "it subscribed");
    assert!(!reaches(&nothing, &open, "anything").await, "it published");
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_kinds_of_connection_and_limits_in_a_token_are_not_enforced_so_the_product_decides_them_before() {
    let Some(rig) = Rig::start("callout_rules::limits").await else { return };
    rig.changed(
        |claims| {
            claims["nats"]["src"] = json!(["10.9.9.0/24"]);
            claims["nats"]["allowed_connection_types"] = json!(["WEBSOCKET"]);
            claims["nats"]["subs"] = json!(1);
        },
        |_| (),
    );
    let client = rig.connect().await.unwrap();
    assert_eq!(info(&client).await.pointer("/data/account"), Some(&json!("APP")));
    let _one = client.subscribe("allowed").await.unwrap();
    let other = rig.connect().await.unwrap();
    assert!(reaches(&other, &client, "allowed").await, "a second subscription beside one and its inbox");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_jwt_of_a_client_and_its_password_reach_nobody_who_would_believe_them() {
    let Some(rig) = Rig::start("callout_rules::credentials").await else { return };
    // Whoever the product would let in for this would be let in here.
    let (bundles, audience) = (nobody(), "spiffe://td-a.test/callout".parse().unwrap());
    let issuer = KeyPair::from_seed(&rig.issuer.seed().unwrap()).unwrap();
    let codes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&codes);
    rig.answers(move |request| {
        let proven = request.prove(&bundles, &audience, OffsetDateTime::now_utc());
        seen.lock().unwrap().push(proven.map_or_else(|error| error.code(), |_| "proven"));
        signed(&issuer, request, "", &|claims| {
            claims["nats"] = json!({"type": "authorization_response", "version": 2, "error": "no"})
        })
    });
    let options = [
        ConnectOptions::with_user_and_password("spiffe://td-a.test/host/h1".to_owned(), "secret".to_owned()),
        ConnectOptions::with_token("eyJhbGciOiJub25lIn0.e30.".to_owned()),
        ConnectOptions::with_nkey(KeyPair::new_user().seed().unwrap()),
    ];
    for options in options {
        assert!(rig.connect_with(options).await.is_err());
    }
    assert_eq!(*codes.lock().unwrap(), ["none", "token", "none"]);
}

fn nobody() -> portcullis_identity::BundleSet {
    let domain = "td-a.test".parse().unwrap();
    let empty = portcullis_identity::BundleDocument::parse(&domain, br#"{"keys":[]}"#).unwrap();
    portcullis_identity::BundleSet::new(Arc::new(empty))
}

/// The same key in the product's hands.
fn portcullis_nkey_pair(pair: &KeyPair) -> portcullis_nkey::KeyPair {
    portcullis_nkey::KeyPair::from_seed(&pair.seed().unwrap()).unwrap()
}

/// A server in operator mode: operator, accounts, sentinel and callout all made by the product's codec.
struct Operated {
    server: NatsServer,
    sentinel: String,
    app: portcullis_nkey::PublicKey,
    scoped: String,
    auth: String,
    answering: Answering,
}

async fn operated(test: &str) -> Option<Operated> {
    use portcullis_nkey::{KeyPair, Kind};
    let pair = |kind| KeyPair::generate(kind).unwrap();
    let [operator, system, auth, app, scoped] =
        [Kind::Operator, Kind::Account, Kind::Account, Kind::Account, Kind::Account].map(pair);
    let (callout, sentinel, now) = (pair(Kind::User), pair(Kind::User), OffsetDateTime::now_utc());
    let account = |key: &KeyPair, name: &str| AccountToken::new(key.public(), name.parse().unwrap()).unwrap();
    let signed = |token: AccountToken| token.sign(&operator, now).unwrap();
    let template = Permissions::new(
        vec!["$SYS.REQ.USER.INFO".parse().unwrap(), "lat.evt.{{tag(host)}}".parse().unwrap()],
        vec![Subscription { subject: "_INBOX.>".parse().unwrap(), queue: None }],
        None,
    );
    let host = SigningKey::Scoped { key: scoped.public(), role: "host".to_owned(), template: template.unwrap() };
    let block = CalloutBlock { auth_users: vec![callout.public()], allowed_accounts: vec![app.public()], xkey: None };
    let preload = [
        (system.public(), signed(account(&system, "SYS"))),
        (auth.public(), signed(account(&auth, "AUTH").callout(block).unwrap())),
        (app.public(), signed(account(&app, "APP").signing_keys(vec![host]).unwrap())),
    ];
    let operator = OperatorToken::new("site".parse().unwrap(), system.public()).unwrap().sign(&operator, false, now);
    let preload: String = preload.iter().map(|(key, token)| format!(" {key}: {token}\n")).collect();
    let config = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{\n{preload}}}\nauthorization {{ timeout: 1.5 }}\n",
        operator.unwrap(),
        system.public(),
    );
    let server = NatsServer::start(test, &config)?;
    let (account, auth_seed, scoped_seed) =
        (auth.public().to_string(), auth.seed().to_string(), scoped.seed().to_string());
    let signer = AccountSigner::account(auth).unwrap();
    let creds = |key: KeyPair, name: &str, permissions, bearer| {
        let ends = now + Duration::from_secs(3600);
        let user = UserToken::new(key.public(), name.parse().unwrap(), Rights::Explicit(permissions), ends).unwrap();
        let user = if bearer { user.danger_bearer() } else { user };
        Creds::new(&user.sign(&signer, now).unwrap(), key).unwrap().to_text().to_string()
    };
    let listens = Subscription { subject: "$SYS.REQ.USER.AUTH".parse().unwrap(), queue: None };
    let answers = portcullis_identity::nats_jwt::Responses::new(1, Duration::from_secs(3));
    let login = creds(callout, "callout", Permissions::new(vec![], vec![listens], Some(answers)).unwrap(), false);
    let sentinel = creds(sentinel, "sentinel", Permissions::none(), true);
    let answering: Answering = Arc::new(Mutex::new(Box::new(|_| String::new())));
    let client = ConnectOptions::with_credentials(&login).unwrap().connect(server.url()).await.unwrap();
    answer(client, &account, Arc::clone(&answering)).await;
    Some(Operated { server, sentinel, app: app.public(), scoped: scoped_seed, auth: auth_seed, answering })
}

impl Operated {
    async fn connect(&self) -> Result<Client, async_nats::ConnectError> {
        let options = ConnectOptions::with_credentials(&self.sentinel).unwrap().token("a token".to_owned());
        options.connection_timeout(Duration::from_secs(30)).connect(self.server.url()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_accounts_and_credentials_of_the_products_codec_are_taken_and_tags_fill_a_scoped_keys_template() {
    let Some(rig) = operated("callout_rules::scoped").await else { return };
    let (scoped, auth, app) = (rig.scoped.clone(), rig.auth.clone(), rig.app);
    *rig.answering.lock().unwrap() = Box::new(move |request| {
        let now = OffsetDateTime::now_utc();
        let signing = AccountSigner::signing_key(portcullis_nkey::KeyPair::from_seed(&scoped).unwrap(), app).unwrap();
        let rights = Rights::Scoped(vec![Tag::new("host", "h1").unwrap()]);
        let ends = now + Duration::from_secs(60);
        let user = UserToken::new(request.user_nkey(), "spiffe://td-a.test/h1".parse().unwrap(), rights, ends).unwrap();
        signed(&KeyPair::from_seed(&auth).unwrap(), request, &user.sign(&signing, now).unwrap(), &|_| ())
    });
    let client = rig.connect().await.unwrap();
    let who = info(&client).await;
    assert_eq!(who.pointer("/data/account"), Some(&json!(rig.app.to_string())), "{who}");
    let publish = who.pointer("/data/permissions/publish/allow").unwrap().to_string();
    assert!(publish.contains("lat.evt.h1") && !publish.contains("{{"), "{who}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scoped_key_makes_no_user_with_rights_of_its_own() {
    let Some(rig) = operated("callout_rules::widened").await else { return };
    let (scoped, auth, app) = (rig.scoped.clone(), rig.auth.clone(), rig.app.to_string());
    *rig.answering.lock().unwrap() = Box::new(move |request| {
        let scoped = KeyPair::from_seed(&scoped).unwrap();
        let mut claims = user_claims(&scoped, request);
        claims.as_object_mut().unwrap().remove("aud");
        claims["nats"]["issuer_account"] = json!(app);
        claims["nats"]["pub"] = json!({"allow": [">"]});
        signed(&KeyPair::from_seed(&auth).unwrap(), request, &token(&scoped, claims), &|_| ())
    });
    assert!(rig.connect().await.is_err(), "the server let a widened user in");
}
