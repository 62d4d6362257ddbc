//! How a NATS server is named: `tls://HOST:PORT`, without secrets in it; without TLS only on this machine.

use std::net::{IpAddr, Ipv6Addr};

/// A server's scheme, host and port.
fn parse_server(server: &str) -> Option<(&str, &str, u16)> {
    let (scheme, rest) = server.split_once("://")?;
    let (host, port) = match rest.rsplit_once(':') {
        // An address in brackets has colons of its own.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok().filter(|port| *port > 0)?),
        _ => (rest, DEFAULT_PORT),
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)),
    };
    good.then_some((scheme, host, port))
}

/// Why a server cannot be used, and what to write instead.
pub(super) fn check_server(server: &str, plaintext: bool) -> Result<(), (String, &'static str)> {
    if server.contains('@') {
        return Err(("has a secret in it".to_owned(), "secrets are files, under [nats.auth]"));
    }
    let (scheme, host, _) =
        parse_server(server).ok_or(("is no server".to_owned(), "write tls://HOST or tls://HOST:PORT"))?;
    match scheme {
        "tls" if plaintext => {
            Err(("has TLS, and danger_plaintext says otherwise".to_owned(), "leave danger_plaintext out"))
        }
        "tls" => Ok(()),
        "nats" if plaintext && is_loopback(host) => Ok(()),
        "nats" if plaintext => Err((
            "is not on this machine".to_owned(),
            "without TLS everything can be read and changed on the way: use tls://",
        )),
        "nats" => Err((
            "takes TLS only if the server asks for it, and whoever is in between can see to it that none does"
                .to_owned(),
            "write tls://, which goes on with TLS or not at all",
        )),
        "ws" | "wss" => {
            Err(("is a websocket, which is not supported".to_owned(), "name the server's client port, tls://"))
        }
        _ => Err(("is no server".to_owned(), "write tls://HOST or tls://HOST:PORT")),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Where nats-server listens unless told otherwise.
const DEFAULT_PORT: u16 = 4222;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_split_into_scheme_host_and_port() {
        assert_eq!(parse_server("tls://a.b"), Some(("tls", "a.b", 4222)));
        assert_eq!(parse_server("tls://a.b:1"), Some(("tls", "a.b", 1)));
        assert_eq!(parse_server("tls://[::1]:1"), Some(("tls", "[::1]", 1)));
        assert_eq!(parse_server("tls://[::1]"), Some(("tls", "[::1]", 4222)));
        for bad in ["", "a", "tls://", "tls://:1", "tls://a:b", "tls://a:70000", "tls://[a]", "tls://a b", "tls://::1"]
        {
            assert_eq!(parse_server(bad), None, "{bad}");
        }
    }
}
