//! Headers by which somebody says who a caller is. Nobody here may send or believe one: who calls is known from the
//! connection and from nothing else.
//!
//! They are taken out of every request before policy or a guest sees it, and guests cannot send them. The list has what proxies
//! and load balancers write. An underscore counts as a dash: a guest's framework may make no difference between them.

use http::header::{HeaderMap, HeaderName};

/// Whether a header asserts an identity.
pub fn is_asserted_identity(name: &HeaderName) -> bool {
    let name = name.as_str();
    let own;
    let name = match name.contains('_') {
        true => {
            own = name.replace('_', "-");
            own.as_str()
        }
        false => name,
    };
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Takes out every header by which a proxy would assert an identity.
pub fn strip_asserted_identity(headers: &mut HeaderMap) {
    if headers.keys().any(is_asserted_identity) {
        let names: Vec<_> = headers.keys().filter(|name| is_asserted_identity(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// Exact names: Envoy and Istio, RFC 9440, Linkerd, nginx, HAProxy and Traefik recipes.
const NAMES: &[&str] = &["x-forwarded-client-cert", "client-cert", "client-cert-chain", "l5d-client-id"];
/// Beginnings of names: ours, SPIFFE's, and the families in which TLS terminators hand on what a certificate said.
const PREFIXES: &[&str] = &[
    "x-portcullis-",
    "x-spiffe-",
    "spiffe-",
    "x-forwarded-client-cert-",
    "x-forwarded-tls-client-cert",
    "x-client-cert",
    "x-ssl-",
    "ssl-client-",
    "x-tls-client-",
    "x-amzn-mtls-",
    "x-arr-clientcert",
];

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;

    const ASSERTED: &[&str] = &[
        "x-forwarded-client-cert",
        "X-Forwarded-Client-Cert",
        "x_forwarded_client_cert",
        "x-forwarded-client-cert-chain",
        "x-portcullis-caller",
        "x-spiffe-id",
        "x_spiffe_id",
        "spiffe-id",
        "client-cert",
        "client-cert-chain",
        "l5d-client-id",
        "ssl-client-verify",
        "x-ssl-client-s-dn",
        "x-forwarded-tls-client-cert-info",
        "x-amzn-mtls-clientcert-leaf",
        "x-arr-clientcert",
    ];
    const OTHERS: &[&str] =
        &["accept", "authorization", "x-client-id", "x-request-id", "client", "x-forwarded-for", "x-vault-url", "host"];

    #[test]
    fn headers_that_assert_an_identity_are_known_by_name_and_others_pass() {
        for name in ASSERTED {
            assert!(is_asserted_identity(&name.parse().unwrap()), "{name}");
        }
        for name in OTHERS {
            assert!(!is_asserted_identity(&name.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn headers_that_assert_an_identity_are_stripped_each_time_they_are_there() {
        let mut headers = HeaderMap::new();
        for name in ASSERTED.iter().chain(OTHERS).chain(ASSERTED) {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("x"));
        }
        strip_asserted_identity(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let mut wanted = OTHERS.to_vec();
        wanted.sort_unstable();
        assert_eq!(left, wanted);
    }
}
