//! What no request may be, each shown by one that is.

use serde_json::{Value, json};

use super::*;
use crate::callout::forge::{Forge, NOW, at, key, now};

fn opened(forge: &Forge, payload: &[u8], xkeys: &[&str]) -> Result<Request, RequestError> {
    forge.requests().open(&Received { payload, xkeys }, &mut Replays::new(), now())
}

#[test]
fn what_a_server_asks_is_a_request() {
    let forge = Forge::new();
    let request = forge.changed(|_| ()).unwrap();
    assert_eq!((request.server_id(), request.user_nkey()), (forge.server.public(), forge.user));
    assert_eq!((request.kind(), request.protocol()), (ConnectionKind::Client, Protocol::Nats));
    assert_eq!((request.ip().to_string().as_str(), request.client_id()), ("192.0.2.7", 9));
    assert_eq!((request.server().name.as_str(), request.tls()), ("n1", None));
    assert_eq!(request.expires_at(), at(2));
}

#[test]
fn members_that_are_not_known_are_left_out_and_empty_ones_may_be_missing() {
    let forge = Forge::new();
    let more = forge.changed(|claims| {
        claims["later"] = json!({"a": [1]});
        claims["nats"]["client_info"]["later"] = json!(true);
        claims["nats"]["client_info"]["tags"] = json!(null);
        claims["nats"]["server_id"]["tags"] = json!(null);
        claims["nats"]["client_tls"] = json!({"version": "1.3", "verified_chains": null, "certs": null});
        claims["nats"].as_object_mut().unwrap().remove("connect_opts");
    });
    assert_eq!(more.unwrap().tls(), Some(("1.3", "")));
    for change in [json!({"nonce": 1}), json!({"id": "9"}), json!({"id": -1}), json!([])] {
        let refused = forge.changed(|claims| claims["nats"]["client_info"] = change);
        assert!(matches!(refused, Err(RequestError::Token(NatsJwtError::Claims(_)))));
    }
}

#[test]
fn a_header_without_an_xkey_and_an_xkey_without_a_header_are_refused() {
    let forge = Forge::new();
    let token = forge.sign(&forge.claims());
    let header = forge.server_xkey.public().to_string();
    assert_eq!(opened(&forge, token.as_bytes(), &[]).err(), Some(RequestError::Plain));
    assert_eq!(opened(&forge, &forge.sealed(&token), &[]).err(), Some(RequestError::Plain));
    let version = Some(RequestError::Box(XKeyError::Version));
    assert_eq!(opened(&forge, token.as_bytes(), &[&header]).err(), version);
    let plain = Requests::new(forge.account, None).unwrap();
    let open = |payload: &[u8], xkeys: &[&str]| plain.check(&Received { payload, xkeys }, now());
    assert_eq!(open(&forge.sealed(&token), &[&header]).err(), Some(RequestError::Encrypted));
    assert_eq!(open(token.as_bytes(), &[&header]).err(), Some(RequestError::Encrypted));
    assert!(open(token.as_bytes(), &[]).is_ok());
}

#[test]
fn one_header_names_the_key_that_sealed_and_that_the_server_says_is_its_own() {
    let forge = Forge::new();
    let (payload, header) = (forge.sealed(&forge.sign(&forge.claims())), forge.server_xkey.public().to_string());
    assert_eq!(opened(&forge, &payload, &[&header, &header]).err(), Some(RequestError::Headers));
    let other = Forge::new();
    let theirs = other.server_xkey.public().to_string();
    assert_eq!(opened(&forge, &payload, &[&theirs]).err(), Some(RequestError::Box(XKeyError::Closed)));
    for wrong in ["", "X", &forge.user.to_string(), &forge.server_xkey.seed()] {
        assert!(matches!(opened(&forge, &payload, &[wrong]), Err(RequestError::Header(_))));
    }
    // Sealed with a key of its own by somebody who has a server's request.
    let resealed = other.server_xkey.seal(&forge.ours.public(), forge.sign(&forge.claims()).as_bytes()).unwrap();
    assert_eq!(opened(&forge, &resealed, &[&theirs]).err(), Some(RequestError::ServerXkey));
    let silent = forge.changed(|claims| drop(claims["nats"]["server_id"].as_object_mut().unwrap().remove("xkey")));
    assert_eq!(silent.err(), Some(RequestError::ServerXkey));
}

#[test]
fn the_server_that_signs_is_the_server_that_asks() {
    let forge = Forge::new();
    let other = key(Kind::Server).to_string();
    let refused = forge.changed(|claims| claims["nats"]["server_id"]["id"] = json!(other));
    assert_eq!(refused.err(), Some(RequestError::ServerId));
    let refused = forge.changed(|claims| claims["iss"] = json!(other));
    assert_eq!(refused.err(), Some(RequestError::Token(NatsJwtError::Signature)));
    for kind in [Kind::Account, Kind::User, Kind::Cluster] {
        let mut user = Forge::new();
        user.server = portcullis_nkey::KeyPair::generate(kind).unwrap();
        assert_eq!(user.changed(|_| ()).err(), Some(RequestError::Token(NatsJwtError::Issuer)), "{kind}");
    }
}

#[test]
fn audience_account_type_version_and_header_are_those_of_a_request() {
    let forge = Forge::new();
    for audience in [json!("APP"), json!(""), json!(forge.account.to_string()), json!(null)] {
        let refused = forge.changed(|claims| claims["aud"] = audience);
        assert_eq!(refused.err(), Some(RequestError::Audience));
    }
    let other = key(Kind::Account).to_string();
    assert_eq!(forge.changed(|claims| claims["sub"] = json!(other)).err(), Some(RequestError::Account));
    for (member, value) in
        [("type", json!("user")), ("type", json!(null)), ("version", json!(1)), ("version", json!(3))]
    {
        let refused = forge.changed(|claims| claims["nats"][member] = value);
        assert!(matches!(refused, Err(RequestError::Token(NatsJwtError::Type(_)))), "{member}");
    }
    let claims = forge.claims().to_string();
    for header in [r#"{"typ":"JWT","alg":"ed25519"}"#, r#"{"typ":"JWT","alg":"none"}"#, r#"{"alg":"ed25519-nkey"}"#] {
        let refused = forge.send(&forge.sign_text(header, &claims));
        assert_eq!(refused.err(), Some(RequestError::Token(NatsJwtError::Header)), "{header}");
    }
}

#[test]
fn a_request_is_from_now_and_ends_soon() {
    let forge = Forge::new();
    let skew = i64::try_from(CALLOUT_CLOCK_SKEW.as_secs()).unwrap();
    let life = i64::try_from(MAX_CALLOUT_REQUEST_LIFE.as_secs()).unwrap();
    let times = |iat: i64, exp: i64| {
        forge.changed(|claims| (claims["iat"], claims["exp"]) = (json!(NOW + iat), json!(NOW + exp))).map(|_| ())
    };
    assert_eq!(times(-skew, 1 - skew), Ok(()));
    assert_eq!(times(-skew, -skew), Err(RequestError::Expired));
    assert_eq!(times(skew, skew + 1), Ok(()));
    assert_eq!(times(skew + 1, skew + 2), Err(RequestError::NotYet));
    assert_eq!(times(0, life), Ok(()));
    assert_eq!(times(0, life + 1), Err(RequestError::LongLived));
    for (member, error) in [("exp", RequestError::Expired), ("iat", RequestError::NotYet)] {
        let refused = forge.changed(|claims| drop(claims.as_object_mut().unwrap().remove(member)));
        assert_eq!(refused.err(), Some(error), "{member}");
    }
    assert_eq!(forge.changed(|claims| claims["nbf"] = json!(NOW + skew + 1)).err(), Some(RequestError::NotYet));
}

#[test]
fn only_kinds_that_are_meant_are_let_in() {
    let forge = Forge::new();
    let connects = |requests: &Requests, kind: &str, protocol: &str| {
        let mut claims = forge.claims();
        claims["nats"]["client_info"]["kind"] = json!(kind);
        claims["nats"]["client_info"]["type"] = json!(protocol);
        let (payload, header) = (forge.sealed(&forge.sign(&claims)), forge.server_xkey.public().to_string());
        requests.check(&Received { payload: &payload, xkeys: &[&header] }, now()).map(|_| ())
    };
    let (usual, leaf) = (forge.requests(), forge.requests().about([(ConnectionKind::Leafnode, Protocol::Nats)]));
    assert_eq!(connects(&usual, "Client", "nats"), Ok(()));
    assert_eq!(connects(&usual, "Client", "websocket"), Ok(()));
    assert_eq!(connects(&leaf, "Leafnode", ""), Ok(()));
    for (kind, protocol) in
        [("Leafnode", ""), ("Client", "mqtt"), ("Client", ""), ("Router", "nats"), ("client", "nats"), ("", "nats")]
    {
        assert_eq!(connects(&usual, kind, protocol), Err(RequestError::Kind), "{kind} {protocol}");
    }
    assert_eq!(connects(&leaf, "Client", "nats"), Err(RequestError::Kind));
}

#[test]
fn a_connection_from_nowhere_and_a_user_key_of_another_kind_are_refused() {
    let forge = Forge::new();
    for host in ["", "localhost", "192.0.2.7:1", "192.0.2"] {
        let refused = forge.changed(|claims| claims["nats"]["client_info"]["host"] = json!(host));
        assert_eq!(refused.err(), Some(RequestError::Source), "{host}");
    }
    for user in [key(Kind::Account).to_string(), "U".to_owned(), String::new()] {
        let refused = forge.changed(|claims| claims["nats"]["user_nkey"] = json!(user));
        assert!(matches!(refused, Err(RequestError::Token(NatsJwtError::Claims(_)))), "{user}");
    }
}

#[test]
fn a_request_is_taken_once() {
    let forge = Forge::new();
    let (payload, header) = (forge.sealed(&forge.sign(&forge.claims())), forge.server_xkey.public().to_string());
    let message = Received { payload: &payload, xkeys: &[&header] };
    let (requests, mut replays) = (forge.requests(), Replays::new());
    assert!(requests.open(&message, &mut replays, now()).is_ok());
    let again = Some(RequestError::Replay(ReplayError::Again));
    assert_eq!(requests.open(&message, &mut replays, now()).err(), again);
    // The same attempt in another box, signed again.
    let mut claims = forge.claims();
    claims["jti"] = json!("K");
    let payload = forge.sealed(&forge.sign(&claims));
    let message = Received { payload: &payload, xkeys: &[&header] };
    assert_eq!(requests.open(&message, &mut replays, now()).err(), again);
    assert_eq!(requests.check(&message, now()).unwrap().once(&mut replays, now()).err(), again);
    assert_eq!(replays.len(), 1);
}

#[test]
fn what_is_refused_is_not_remembered() {
    let forge = Forge::new();
    let mut replays = Replays::new();
    let mut claims = forge.claims();
    claims["exp"] = json!(NOW - 100);
    let (payload, header) = (forge.sealed(&forge.sign(&claims)), forge.server_xkey.public().to_string());
    let message = Received { payload: &payload, xkeys: &[&header] };
    assert!(forge.requests().open(&message, &mut replays, now()).is_err());
    assert!(replays.is_empty());
}

#[test]
fn the_largest_message_is_looked_at_and_one_more_byte_is_not() {
    let forge = Forge::new();
    let header = forge.server_xkey.public().to_string();
    let largest = vec![b'x'; MAX_NATS_JWT_BYTES + BOX_BYTES];
    let looked_at = Some(RequestError::Box(XKeyError::Version));
    assert_eq!(opened(&forge, &largest, &[&header]).err(), looked_at);
    let more = [largest.as_slice(), b"x"].concat();
    assert_eq!(opened(&forge, &more, &[&header]).err(), Some(RequestError::TooLarge));
}

#[test]
fn no_change_of_a_byte_passes_in_plain_text() {
    let forge = Forge::new();
    let requests = Requests::new(forge.account, None).unwrap();
    let token = forge.sign(&forge.claims());
    for position in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[position] ^= 1;
        let message = Received { payload: &changed, xkeys: &[] };
        assert!(requests.check(&message, now()).is_err(), "at {position}");
    }
}

/// Every place in a value.
fn places(value: &Value, at: &str, into: &mut Vec<String>) {
    let members: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => vec![],
    };
    for (name, value) in members {
        let at = format!("{at}/{name}");
        places(value, &at, into);
        into.push(at);
    }
}

#[test]
fn whatever_is_put_in_whatever_place_a_request_stays_what_it_must_be_or_is_refused() {
    let forge = Forge::new();
    let nobody = crate::callout::forge::trusting(&crate::callout::forge::Domain::new("td-a.test"), &[]);
    let mut places_of = Vec::new();
    let mut whole = forge.claims();
    whole["nats"]["client_tls"] = json!({"version": "1.3", "verified_chains": [["x"]]});
    whole["nats"]["connect_opts"] = json!({"protocol": 1, "auth_token": "x", "nkey": "x", "sig": "x"});
    whole["nats"]["client_info"]["nonce"] = json!("n");
    places(&whole, "", &mut places_of);
    let values = [
        json!(null),
        json!(""),
        json!("x"),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(true),
        json!([]),
        json!({}),
        json!([[]]),
        json!("spiffe://td-a.test/a"),
        json!(key(Kind::Account).to_string()),
        json!(key(Kind::Server).to_string()),
    ];
    let (mut taken, mut refused) = (0, 0);
    for place in &places_of {
        for value in &values {
            let mut claims = whole.clone();
            *claims.pointer_mut(place).unwrap() = value.clone();
            match forge.send(&forge.sign(&claims)) {
                Err(_) => refused += 1,
                Ok(request) => {
                    taken += 1;
                    assert_eq!(
                        (request.server_id(), request.user_nkey()),
                        (forge.server.public(), forge.user),
                        "{place} {value}"
                    );
                    assert_eq!(request.server().id, forge.server.public().to_string(), "{place} {value}");
                    assert!(request.expires_at() > now() - CALLOUT_CLOCK_SKEW, "{place} {value}");
                    let proven = request.prove(&nobody, &"callout".parse().unwrap(), now());
                    assert!(proven.is_err(), "{place} {value}: {proven:?}");
                }
            }
        }
    }
    assert!(taken > 50 && refused > 100, "{taken} {refused}");
}
