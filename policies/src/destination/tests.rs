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
