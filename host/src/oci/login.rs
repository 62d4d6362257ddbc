//! The rights to a repository, as a registry wants them shown: a token from the place that its challenge names, a user and a
//! password, or nothing (distribution specification, "token authentication").
//!
//! What a challenge and a token server say is read up to a limit. Credentials go where the challenge says, over TLS; over plain
//! HTTP on this machine alone, they stay on this machine.

use oci_client::secrets::RegistryAuth;
use portcullis_signing::oci::OciReference;
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, StatusCode, Url};
use serde_json::Value;

use super::error::reason;
use super::{Options, RegistryError};
use crate::limits::{REGISTRY_CALL, REGISTRY_TOKEN_BYTES};

/// What a registry wants to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Challenge {
    /// A token from there, for this service.
    Bearer { realm: String, service: Option<String> },
    /// A user and a password, or something that is not known here.
    Other,
}

/// Asks the registry what it wants, and gets that: [`RegistryAuth::Bearer`] with a token, [`RegistryAuth::Basic`], or nothing.
pub(super) async fn rights(
    client: &Client,
    reference: &OciReference,
    auth: &RegistryAuth,
    options: &Options,
) -> Result<RegistryAuth, RegistryError> {
    let (registry, plain) = (reference.registry(), options.is_plain(reference));
    let scheme = if plain { "http" } else { "https" };
    let answer = timely(registry, client.get(format!("{scheme}://{registry}/v2/")).send()).await?;
    let challenges: Vec<Challenge> = answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(challenge).collect();
    let bearer = challenges.into_iter().find_map(|challenge| match challenge {
        Challenge::Bearer { realm, service } => Some((realm, service)),
        Challenge::Other => None,
    });
    match bearer {
        None => Ok(auth.clone()),
        Some((realm, service)) => {
            let actions = if options.push { "pull,push" } else { "pull" };
            let scope = format!("repository:{}:{actions}", reference.repository());
            let place = place(registry, &realm, service.as_deref(), &scope, plain)?;
            token(client, registry, place, auth).await.map(RegistryAuth::Bearer)
        }
    }
}

async fn token(client: &Client, registry: &str, place: Url, auth: &RegistryAuth) -> Result<String, RegistryError> {
    let mut request = client.get(place);
    if let RegistryAuth::Basic(user, password) = auth {
        request = request.basic_auth(user, Some(password));
    }
    let (status, body) = timely(registry, async {
        let mut answer = request.send().await?;
        let (status, mut body) = (answer.status(), Vec::new());
        while let Some(chunk) = answer.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > REGISTRY_TOKEN_BYTES {
                break;
            }
        }
        Ok((status, body))
    })
    .await?;
    if body.len() > REGISTRY_TOKEN_BYTES {
        let what = "the token of the registry".to_owned();
        return Err(RegistryError::TooLarge { what, max: REGISTRY_TOKEN_BYTES as u64 });
    }
    let registry = registry.to_owned();
    match status {
        StatusCode::OK => {}
        status if status.is_client_error() => return Err(RegistryError::Unauthorized { registry, what: "log in" }),
        status => {
            let status = status.as_u16().to_string();
            return Err(RegistryError::Answer { registry, status, what: "log in".to_owned() });
        }
    }
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let found = ["token", "access_token"].into_iter().find_map(|name| said.get(name).and_then(Value::as_str));
    // It goes into a header.
    found.filter(|token| !token.is_empty() && HeaderValue::from_str(token).is_ok()).map(ToOwned::to_owned).ok_or_else(
        || {
            let status = "a token that is none".to_owned();
            RegistryError::Answer { registry, status, what: "log in".to_owned() }
        },
    )
}

/// Where the token is asked for.
fn place(registry: &str, realm: &str, service: Option<&str>, scope: &str, plain: bool) -> Result<Url, RegistryError> {
    let answer = |status: &str| RegistryError::Answer {
        registry: registry.to_owned(),
        status: status.to_owned(),
        what: "say where tokens come from".to_owned(),
    };
    let mut place = Url::parse(realm).map_err(|_| answer("no address"))?;
    let here = place.host_str().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    });
    if place.scheme() != "https" && !(plain && place.scheme() == "http" && here) {
        return Err(answer("an address without TLS"));
    }
    place.query_pairs_mut().append_pair("scope", scope);
    if let Some(service) = service {
        place.query_pairs_mut().append_pair("service", service);
    }
    Ok(place)
}

/// A challenge (RFC 9110 section 11.6.1); the first of a list of them.
fn challenge(header: &HeaderValue) -> Option<Challenge> {
    let text = header.to_str().ok()?;
    let (scheme, rest) = text.trim_start().split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Some(Challenge::Other);
    }
    let (mut realm, mut service) = (None, None);
    for (name, value) in parameters(rest) {
        if name.eq_ignore_ascii_case("realm") {
            realm.get_or_insert(value);
        } else if name.eq_ignore_ascii_case("service") {
            service.get_or_insert(value);
        }
    }
    Some(realm.map_or(Challenge::Other, |realm| Challenge::Bearer { realm, service }))
}

/// `name=value` and `name="value"`, separated by commas; ends where that ends.
fn parameters(text: &str) -> Vec<(String, String)> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some((name, after)) = rest.trim_start_matches([' ', '\t', ',']).split_once('=') {
        let mut value = String::new();
        rest = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut characters = quoted.chars();
                loop {
                    match characters.next() {
                        Some('\\') => value.extend(characters.next()),
                        Some('"') => break,
                        Some(other) => value.push(other),
                        None => return found,
                    }
                }
                characters.as_str()
            }
            None => {
                let (token, rest) = after.split_once(',').unwrap_or((after, ""));
                token.trim().clone_into(&mut value);
                rest
            }
        };
        found.push((name.trim().to_owned(), value));
    }
    found
}

async fn timely<T>(registry: &str, asked: impl Future<Output = reqwest::Result<T>>) -> Result<T, RegistryError> {
    let unreachable = |why: String| RegistryError::Unreachable { registry: registry.to_owned(), why };
    match tokio::time::timeout(REGISTRY_CALL, asked).await {
        Ok(answer) => answer.map_err(|error| unreachable(reason(&error))),
        Err(_) => Err(unreachable("no answer in time".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Challenge> {
        challenge(&HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(ToOwned::to_owned) })
        };
        let usual = "Bearer realm=\"https://a.example/token\",service=\"r.example\",scope=\"repository:x:pull,push\"";
        assert_eq!(read(usual), bearer("https://a.example/token", Some("r.example")));
        assert_eq!(read("bearer service=s, realm=\"a\\\"b\""), bearer("a\"b", Some("s")));
        assert_eq!(read("Bearer realm=\"one\",realm=\"two\""), bearer("one", None));
        for other in ["Basic realm=\"x\"", "Bearer", "Bearer service=\"x\"", "Bearer realm=\"x", "Negotiate"] {
            assert_eq!(read(other), Some(Challenge::Other), "{other}");
        }
    }

    #[test]
    fn credentials_go_to_no_place_without_tls_but_on_this_machine() {
        let go = |realm: &str, plain| place("r.example", realm, Some("s"), "repository:x:pull", plain).is_ok();
        assert!(go("https://a.example/token", false) && go("https://a.example/token", true));
        assert!(go("http://127.0.0.1:1/token", true) && go("http://[::1]:1/token", true));
        for (realm, plain) in [
            ("http://127.0.0.1:1/token", false),
            ("http://a.example/token", true),
            ("http://a.example/token", false),
            ("file:///etc/passwd", true),
            ("token", true),
        ] {
            assert!(!go(realm, plain), "{realm}");
        }
    }
}
