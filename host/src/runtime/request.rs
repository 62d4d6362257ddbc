//! What a request says of itself: which host it is for, read in one way only.

use http::header::HOST;
use http::{Request, Uri};

/// The host that a request is for: one Host value, and no target that says otherwise.
pub fn host_of<B>(request: &Request<B>) -> Result<String, &'static str> {
    let mut values = request.headers().get_all(HOST).iter();
    let header = values.next();
    if values.next().is_some() {
        return Err("more than one Host value");
    }
    let named = match header {
        Some(value) => Some(value.to_str().ok().and_then(host_without_port).ok_or("a malformed Host value")?),
        None => None,
    };
    let target = match request.uri().authority() {
        Some(authority) => Some(host_without_port(authority.as_str()).ok_or("a malformed target")?),
        None => None,
    };
    match (named, target) {
        (Some(named), Some(target)) if named != target => Err("the target and the Host value disagree"),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err("no Host value"),
    }
}

fn host_without_port(authority: &str) -> Option<String> {
    let uri: Uri = format!("http://{authority}/").parse().ok()?;
    let parsed = uri.authority()?;
    if parsed.as_str() != authority || authority.contains('@') {
        return None;
    }
    let host = parsed.host().trim_end_matches('.');
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, hosts: &[&str]) -> Request<()> {
        let mut builder = Request::builder().uri(target);
        for host in hosts {
            builder = builder.header(HOST, *host);
        }
        builder.body(()).unwrap()
    }

    #[test]
    fn one_unambiguous_host_is_taken_in_canonical_form() {
        for (target, hosts) in
            [("/", &["A.example:80"][..]), ("http://a.example/", &[]), ("http://a.example/", &["a.example."])]
        {
            assert_eq!(host_of(&request(target, hosts)).unwrap(), "a.example");
        }
    }

    #[test]
    fn an_ambiguous_or_malformed_host_is_refused() {
        for (target, hosts) in [
            ("/", &[][..]),
            ("/", &["a", "a"]),
            ("/", &["a", "b"]),
            ("http://b/", &["a"]),
            ("/", &["u@a"]),
            ("/", &["a/b"]),
            ("/", &[""]),
            ("/", &["a b"]),
        ] {
            assert!(host_of(&request(target, hosts)).is_err(), "{target} {hosts:?} passed");
        }
    }
}
