use super::*;

fn canonical(scheme: &str, authority: &str) -> Result<String, DestinationError> {
    Destination::from_parts(scheme, authority).map(|destination| destination.to_string())
}

#[test]
fn spellings_of_one_name_are_one_destination() {
    let expected = "https://bücher.pay.example:443";
    let expected = Destination::parse_url(expected).unwrap();
    assert_eq!(expected.to_string(), "https://xn--bcher-kva.pay.example:443");
    for authority in [
        "bücher.pay.example",
        "BÜCHER.pay.example",
        "bu\u{308}cher.pay.example",
        "xn--bcher-kva.pay.example",
        "XN--BCHER-KVA.PAY.EXAMPLE",
        "bücher.pay.example.",
        "bücher。pay．example",
        "ｂücher.pay.example",
        "bücher.pay.example:443",
        "bücher.pay.example:0443",
        "bücher.pay.example:",
        "bücher.pay.example.:443",
    ] {
        for scheme in ["https", "HTTPS", "HtTpS"] {
            assert_eq!(Destination::from_parts(scheme, authority), Ok(expected.clone()), "{scheme} {authority}");
        }
    }
}

#[test]
fn ipv4_in_every_base_is_one_destination() {
    for authority in [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0X7F000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "0x7f.1",
        "127.0.0x1",
        "00000000177.0.0.01",
        "１２７.0.0.1",
        "127。0。0。1",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
    ] {
        assert_eq!(canonical("http", authority).as_deref(), Ok("http://127.0.0.1:80"), "{authority}");
    }
}

#[test]
fn ipv6_is_written_in_one_way() {
    for authority in ["[2001:db8::1]", "[2001:DB8:0:0:0:0:0:1]", "[2001:0db8::0.0.0.1]", "[2001:db8::1]:443"] {
        let destination = Destination::from_parts("https", authority).unwrap();
        assert_eq!(destination.to_string(), "https://[2001:db8::1]:443", "{authority}");
        assert_eq!(destination.authority(), "[2001:db8::1]");
        assert_eq!(destination.host().to_string(), "2001:db8::1");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    use DestinationError::*;
    for (authority, why) in [
        ("", EmptyHost),
        (".", EmptyHost),
        (":443", EmptyHost),
        ("good.example@evil.example", UserInformation),
        ("user:pw@good.example", UserInformation),
        ("good.example\\.evil.example", Character),
        ("good.example%2eevil.example", Character),
        ("good.example%00", Character),
        ("good.example\0.evil.example", Character),
        ("good.example\r\nhost: evil", Character),
        ("good .example", Character),
        ("good\u{a0}.example", Character),
        ("good.example,evil.example", Character),
        ("good.example/path", NotBare),
        ("good.example#x", NotBare),
        ("good.example?x", NotBare),
        ("good..example", Name),
        ("good.example..", Name),
        (".good.example", Name),
        ("-good.example", Name),
        ("good-.example", Name),
        ("go*d.example", Name),
        ("xn--\u{fc}.example", Name),
        ("xn--999999999.example", Name),
        ("good.example:0", Port),
        ("good.example:65536", Port),
        ("good.example:+80", Port),
        ("good.example:-1", Port),
        ("good.example:80x", Port),
        ("[::1]80", Port),
        ("[::1", Ipv6),
        ("::1", Ipv6),
        ("good.example:80:80", Ipv6),
        ("[fe80::1%25eth0]", Character),
        ("[fe80::1%eth0]", Character),
        ("[127.0.0.1]", Ipv6),
        ("[good.example]", Ipv6),
        ("256.0.0.1", Ipv4),
        ("1.2.3.4.5", Ipv4),
        ("0x100000000", Ipv4),
        ("127.0.0.08", Ipv4),
        ("good.0x", Ipv4),
        ("good.1", Ipv4),
        ("+1.1.1.1", Ipv4),
    ] {
        assert_eq!(canonical("http", authority), Err(why), "{authority:?}");
    }
    for scheme in ["", "ftp", "https:", " http", "wss", "httpſ"] {
        assert_eq!(canonical(scheme, "good.example"), Err(Scheme), "{scheme:?}");
    }
}

#[test]
fn limits_of_length_hold() {
    let label = "a".repeat(63);
    assert!(canonical("http", &format!("{label}.example")).is_ok());
    assert_eq!(canonical("http", &format!("a{label}.example")), Err(DestinationError::Name));
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(longest.len(), 253);
    assert!(canonical("http", &longest).is_ok());
    assert_eq!(canonical("http", &format!("{longest}a")), Err(DestinationError::Name));
    assert_eq!(canonical("http", &"a".repeat(513)), Err(DestinationError::TooLong));
    assert_ne!(canonical("http", &"a".repeat(512)), Err(DestinationError::TooLong));
}

#[test]
fn the_canonical_form_is_its_own_canonical_form() {
    for url in ["http://a.example", "https://a_b.example:8443", "http://[2001:db8::1]:81", "http://0x7f.1:80"] {
        let destination = Destination::parse_url(url).unwrap();
        assert_eq!(Destination::parse_url(&destination.to_string()), Ok(destination.clone()));
        assert_eq!(Destination::from_parts(destination.scheme().as_str(), &destination.authority()), Ok(destination));
    }
}

#[test]
fn arbitrary_text_never_panics_and_what_passes_is_stable() {
    let alphabet: Vec<char> = "aA0x7.:[]@/%\\-_fF1 ü。１xn\u{200d}\u{0}".chars().collect();
    let mut random = crate::testing::Random::new(1);
    for _ in 0..50_000 {
        let text: String = (0..random.below(24)).map(|_| alphabet[random.below(alphabet.len())]).collect();
        if let Ok(destination) = Destination::from_parts("http", &text) {
            assert_eq!(Destination::parse_url(&destination.to_string()), Ok(destination), "{text:?}");
        }
    }
}

#[test]
fn zones_run_from_the_name_to_the_top() {
    let destination = Destination::parse_url("https://api.pay.example").unwrap();
    let Host::Dns(name) = destination.host() else { panic!("a name") };
    assert_eq!(name.zones().collect::<Vec<_>>(), ["api.pay.example", "pay.example", "example"]);
}

/// The same destination in more than 200 spellings, put to a slice: one decision.
#[test]
fn every_spelling_of_a_destination_gets_the_same_decision() {
    let grant = "http = [\"https://b\u{fc}cher.pay.example\", \"https://192.0.2.7\"]\naddresses = [\"192.0.2.0/24\"]";
    let slice = crate::testing::slice(&[("a", grant)], "", "a");
    let names = [
        "b\u{fc}cher.pay.example",
        "B\u{dc}CHER.pay.EXAMPLE",
        "bu\u{308}cher.pay.example",
        "xn--bcher-kva.pay.example",
        "XN--BCHER-KVA.PAY.EXAMPLE",
        "b\u{fc}cher\u{3002}pay\u{ff0e}example",
        "\u{ff42}\u{fc}cher.pay.example",
    ];
    let addresses = [
        "192.0.2.7",
        "192.0.519",
        "192.519",
        "3221225991",
        "0xc0000207",
        "0xC0.0.2.7",
        "0300.0.2.7",
        "030000001007",
        "0xc0.0.0x207",
        "\u{ff11}92.0.2.7",
        "192\u{3002}0.2.7",
    ];
    let bracketed = ["[::ffff:192.0.2.7]", "[::FFFF:c000:207]", "[0:0:0:0:0:ffff:192.0.2.7]"];
    let (mut asked, mut seen) = (0, std::collections::HashSet::new());
    for scheme in ["https", "HTTPS", "HtTpS"] {
        for port in ["", ":", ":443", ":0443", ":00000443"] {
            let dotted = names.iter().chain(&addresses).flat_map(|host| [(*host).to_owned(), format!("{host}.")]);
            for host in dotted.chain(bracketed.map(str::to_owned)) {
                let destination = Destination::from_parts(scheme, &format!("{host}{port}")).unwrap();
                let decided = slice.http_send(&destination, "GET");
                assert!(decided.is_ok(), "{scheme}://{host}{port}: {decided:?}");
                seen.insert(destination);
                asked += 1;
            }
        }
    }
    assert_eq!((asked, seen.len()), (585, 2));
    // And none that is nearly the same is.
    for near in [
        "https://bucher.pay.example",
        "https://b\u{fc}cher.pay.example:8443",
        "http://b\u{fc}cher.pay.example",
        "https://pay.example",
        "https://a.b\u{fc}cher.pay.example",
        "https://192.0.2.8",
        "https://192.0.2.7:444",
    ] {
        assert!(slice.http_send(&Destination::parse_url(near).unwrap(), "GET").is_err(), "{near}");
    }
}

/// Where std's parser of socket addresses and we both read an authority, we read the same address and port; and what we write
/// of an address, it reads as that address.
#[test]
fn what_is_read_is_what_stds_socket_addresses_are() {
    use std::net::SocketAddr;
    let pieces = [
        "1",
        "0",
        "10",
        "255",
        "256",
        "08",
        "0x1",
        ".",
        ".0.0.",
        "192.0.2.7",
        ":",
        "::",
        "ffff",
        "[",
        "]",
        "[::1]",
        "[::ffff:",
        "[2001:db8::",
        "%1",
        ":80",
        ":65535",
        ":0",
        "a",
        "F",
    ];
    let mut random = crate::testing::Random::new(13);
    let (mut both, mut written) = (0, 0);
    for _ in 0..300_000 {
        let authority: String = (0..random.below(6) + 1).map(|_| *random.pick(&pieces)).collect();
        let Ok(ours) = Destination::from_parts("http", &authority) else { continue };
        if let Ok(theirs) = authority.parse::<SocketAddr>() {
            let read = (ours.host().address(), ours.port());
            assert_eq!(read, (Some(theirs.ip().to_canonical()), theirs.port()), "{authority:?}");
            both += 1;
        }
        if let Some(ip) = ours.host().address() {
            let text = ours.to_string();
            let (_, authority) = text.split_once("://").unwrap();
            assert_eq!(authority.parse(), Ok(SocketAddr::new(ip, ours.port())), "{text}");
            written += 1;
        }
    }
    assert!(both > 500 && written > 2_000, "{both} were read by both, {written} are addresses");
}

/// Where `url` (the WHATWG standard) and we both read an authority, we read the same host and port.
#[test]
fn what_is_read_is_what_the_url_standard_reads() {
    let pieces = [
        "a", "B", "1", "0x1", "256", ".", "..", ":", ":80", "[", "]", "::1", "@", "%41", "-", "_", "\u{fc}",
        "\u{3002}", "xn--", "/", "\\", " ", "#", "?", "0", "7f", "%", "\u{200d}", "\u{ad}",
    ];
    let mut random = crate::testing::Random::new(11);
    let mut both = 0;
    for _ in 0..200_000 {
        let authority: String = (0..random.below(6) + 1).map(|_| *random.pick(&pieces)).collect();
        let scheme = *random.pick(&["http", "https"]);
        let Ok(ours) = Destination::from_parts(scheme, &authority) else { continue };
        let theirs = url::Url::parse(&format!("{scheme}://{authority}/"))
            .unwrap_or_else(|error| panic!("{authority:?}: {error}"));
        let host = theirs.host_str().unwrap().trim_end_matches('.').to_owned();
        let mapped = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().ok());
        let host = mapped.and_then(|ip| ip.to_ipv4_mapped()).map_or(host, |ip| ip.to_string());
        assert_eq!(
            (ours.host().bracketed(), ours.port()),
            (host, theirs.port_or_known_default().unwrap()),
            "{authority:?}"
        );
        both += 1;
    }
    assert!(both > 2_000, "{both} were read by both");
}
