//! SPIFFE-ID: the IDs that were handed out, read without the parser of the server.

use portcullis_identity::{SpiffeId, TrustDomain};

use crate::evidence::Evidence;
use crate::item::Outcome;

/// What a socket says nothing about.
const PARSER: Outcome = Outcome::NotApplicable("a rule for parsers");

/// Scheme, trust domain, path of an ID as it stands.
fn parts(id: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = id.split_once("://")?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    Some((scheme, authority, path))
}

fn every(evidence: &Evidence, wrong: impl Fn(&str, &str, &str) -> Option<&'static str>) -> Outcome {
    let ids = evidence.ids();
    if ids.is_empty() {
        return Outcome::Fail("no SPIFFE ID was handed out".to_owned());
    }
    let against = ids.iter().filter_map(|id| match parts(id) {
        None => Some(format!("{id}: no URI")),
        Some((scheme, authority, path)) => wrong(scheme, authority, path).map(|why| format!("{id}: {why}")),
    });
    Outcome::unless(against.collect())
}

pub fn id_01(evidence: &Evidence) -> Outcome {
    every(evidence, |scheme, authority, path| {
        if scheme != "spiffe" {
            Some("another scheme")
        } else if authority.is_empty() {
            Some("no trust domain")
        } else if path.contains(['?', '#']) || authority.contains(['?', '#']) {
            Some("a query or fragment")
        } else {
            None
        }
    })
}

pub fn id_02(evidence: &Evidence) -> Outcome {
    every(evidence, |_, authority, _| {
        let fine = authority.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b));
        (!fine).then_some("characters that a trust domain does not have")
    })
}

pub fn id_03(evidence: &Evidence) -> Outcome {
    if !evidence.is_ours {
        return PARSER;
    }
    let like = ["spiffe://10.0.0.1/a", "spiffe://localhost/a", "spiffe://example.com/a", "spiffe://1.2.3/a"];
    Outcome::unless(
        like.iter().filter(|id| id.parse::<SpiffeId>().is_err()).map(|id| format!("{id} is refused")).collect(),
    )
}

pub fn id_04(evidence: &Evidence) -> Outcome {
    let issued = every(evidence, |_, _, path| {
        let segments = path.split('/').skip(1);
        let fine = segments.clone().all(|segment| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
        });
        (!fine).then_some("a path that is not allowed")
    });
    if issued != Outcome::Pass || !evidence.is_ours {
        return issued;
    }
    let bad = ["//a", "/a/", "/a//b", "/a/./b", "/a/../b", "/a%20b", "/a b", "/ä", "/a?b", "/a#b", "/a:b", "/"];
    let domain: TrustDomain = "test.example".parse().unwrap();
    let taken = bad.iter().filter(|path| {
        SpiffeId::new(&domain, path).is_ok() || format!("spiffe://test.example{path}").parse::<SpiffeId>().is_ok()
    });
    Outcome::unless(taken.map(|path| format!("the path {path:?} is taken")).collect())
}

pub fn id_05(evidence: &Evidence) -> Outcome {
    if !evidence.is_ours {
        return PARSER;
    }
    let long = format!("spiffe://test.example/{}", "a".repeat(2048 - 22));
    let longer = format!("{long}a");
    let domain = format!("spiffe://{}/a", "d".repeat(256));
    let mut against = Vec::new();
    if long.parse::<SpiffeId>().is_err() {
        against.push(format!("an ID of {} bytes is refused", long.len()));
    }
    if longer.parse::<SpiffeId>().is_ok() {
        against.push(format!("an ID of {} bytes is taken", longer.len()));
    }
    if domain.parse::<SpiffeId>().is_ok() {
        against.push("a trust domain of 256 bytes is taken".to_owned());
    }
    against.extend(evidence.ids().into_iter().filter(|id| id.len() > 2048).map(|id| format!("issued: {id}")));
    Outcome::unless(against)
}

pub fn id_06(evidence: &Evidence) -> Outcome {
    if !evidence.is_ours {
        return PARSER;
    }
    let upper: Result<SpiffeId, _> = "SPIFFE://Test.Example/Path".parse();
    match upper {
        Ok(id) if id.to_string() == "spiffe://test.example/Path" => Outcome::Pass,
        Ok(id) => Outcome::Fail(format!("read as {id}")),
        Err(error) => Outcome::Fail(format!("refused: {error}")),
    }
}

pub fn id_07(evidence: &Evidence) -> Outcome {
    let own = format!("spiffe://{}", evidence.trust_domain);
    let names: Vec<Vec<String>> = evidence.authorities().iter().map(|der| super::x509::uris(der)).collect();
    if names.is_empty() {
        return Outcome::Fail("no signing authority was shown".to_owned());
    }
    Outcome::unless(
        names
            .into_iter()
            .filter(|uris| uris.as_slice() != std::slice::from_ref(&own))
            .map(|uris| format!("a signing authority with the IDs {uris:?}"))
            .collect(),
    )
}
