//! Reads an authority as we do, as the URL standard does (`url`) and, where it can, as std's parser of socket addresses does.
//! Input: scheme, a line feed, authority. Where we read a destination, nobody may read another one: a parser behind us that
//! did would send a request elsewhere than was decided on.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use portcullis_policies::{Destination, Host};
use url::Url;

fuzz_target!(|text: &str| {
    let Some((scheme, authority)) = text.split_once('\n') else { return };
    let ours = Destination::from_parts(scheme, authority);
    if let Ok(ours) = &ours {
        let canonical = Url::parse(&ours.to_string()).expect("the standard reads our canonical form");
        assert_eq!(read(&canonical), meant(ours), "{ours}");
        // What we take of foreign spellings, the standard takes too, and for the same.
        let theirs = Url::parse(&format!("{scheme}://{authority}/")).expect("the standard reads what we read");
        assert_eq!(read(&theirs), meant(ours), "{authority:?}");
        assert!(theirs.username().is_empty() && theirs.password().is_none() && theirs.path() == "/", "{authority:?}");
    }
    // An address with a port in the usual form is the same address to us, or nothing.
    if let (Ok(address), Ok(ours)) = (authority.parse::<SocketAddr>(), &ours) {
        assert_eq!(ours.host().address(), Some(address.ip().to_canonical()), "{authority:?}");
        assert_eq!(ours.port(), address.port(), "{authority:?}");
    }
    // And the address that we would dial is the one that std reads out of what we write.
    if let Ok(ours) = &ours
        && let Some(ip) = ours.host().address()
    {
        let written = ours.to_string();
        let authority = written.split_once("://").map_or("", |(_, authority)| authority);
        assert_eq!(authority.parse(), Ok(SocketAddr::new(ip, ours.port())), "{written}");
    }
});

/// Host and port, the dot of the root and IPv4 in IPv6's clothes taken off.
fn read(url: &Url) -> (String, u16) {
    let host = match url.host().expect("http has a host") {
        url::Host::Domain(name) => name.strip_suffix('.').unwrap_or(name).to_owned(),
        url::Host::Ipv4(address) => IpAddr::V4(address).to_string(),
        url::Host::Ipv6(address) => IpAddr::V6(address).to_canonical().to_string(),
    };
    (host, url.port_or_known_default().expect("http has a port"))
}

fn meant(ours: &Destination) -> (String, u16) {
    let host = match ours.host() {
        Host::Dns(name) => name.as_str().to_owned(),
        Host::V4(address) => address.to_string(),
        Host::V6(address) => address.to_string(),
    };
    (host, ours.port())
}
