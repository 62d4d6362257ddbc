//! What a component may reach: destinations, their addresses, and whom it finds there.

use super::*;

#[test]
fn exactly_the_granted_destination_is_allowed() {
    let slice = slice(&[("a", "http = [\"https://vault.example:8443\"]")], "", "a");
    let grant = slice.http_send(&url("HTTPS://Vault.Example.:8443"), "GET").unwrap();
    assert_eq!((grant.generation(), grant.peer(), grant.method()), (41, None, "GET"));
    assert_eq!(grant.policies().collect::<Vec<_>>(), ["a-0"]);
    for other in [
        "http://vault.example:8443",
        "https://vault.example",
        "https://x.vault.example:8443",
        "https://vault.example.evil.example:8443",
    ] {
        assert_eq!(code(slice.http_send(&url(other), "GET")), "N0201", "{other}");
    }
}

#[test]
fn nobody_can_grant_metadata_link_local_multicast_or_unspecified_addresses() {
    let everything = "@id(\"all\") @reason(\"r\") @owner(\"o\")\n\
        permit (principal is Host::Component, action in Host::Action::\"network\", resource is Host::Destination);";
    let slice = slice(
        &[("a", "http = [\"http://x.example\"]\naddresses = [\"loopback\", \"private\", \"shared\", \"100.0.0.0/8\"]")],
        everything,
        "a",
    );
    let send = slice.http_send(&url("http://x.example"), "GET").unwrap();
    for (text, code_of_guard) in [
        ("169.254.169.254", "N0301"),
        ("100.100.100.200", "N0301"),
        ("::ffff:169.254.169.254", "N0301"),
        ("64:ff9b::a9fe:a9fe", "N0301"),
        ("2002:a9fe:a9fe::", "N0301"),
        ("fd00:ec2::254", "N0301"),
        ("169.254.1.1", "N0302"),
        ("fe80::1", "N0302"),
        ("224.0.0.1", "N0303"),
        ("255.255.255.255", "N0303"),
        ("ff02::1", "N0303"),
        ("0.0.0.0", "N0304"),
        ("::", "N0304"),
    ] {
        let denial = slice.http_connect(&send, address(text, 80)).unwrap_err();
        assert_eq!(denial.code().to_string(), code_of_guard, "{text}");
        assert_eq!((denial.kind(), denial.edit()), (DenialKind::Forbidden, None), "{text}: no widening fix");
        let bracketed = if text.contains(':') { format!("[{text}]") } else { text.to_owned() };
        let literal = url(&format!("http://{bracketed}"));
        assert_eq!(code(slice.http_send(&literal, "GET")), code_of_guard, "{text} in the URL");
    }
    assert_eq!(code(slice.http_connect(&send, address("10.0.0.1", 80))), "allowed");
}

#[test]
fn the_address_guards_stand_in_cedar_too() {
    let everything = "@id(\"all\") @reason(\"r\") @owner(\"o\")\n\
        permit (principal is Host::Component, action in Host::Action::\"network\", resource is Host::Destination);";
    let slice = slice(&[], everything, "a");
    let ready = slice.state.as_ref().unwrap();
    let ask = |class: &str, ip: &str| {
        let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
        let context = [("class", text(class)), ("method", text("GET")), ("ip", RestrictedExpression::new_ip(ip))];
        ready.decide_destination(Action::HttpConnect, &url("http://x.example"), context).unwrap()
    };
    let forbidden = |by: &[&str]| Verdict::Forbidden(by.iter().map(PolicyId::new).collect());
    assert_eq!(ask("public", "8.8.8.8"), Verdict::Allowed(vec![PolicyId::new("all")]));
    for (class, guard) in [
        ("metadata", "guard.metadata"),
        ("link-local", "guard.link-local"),
        ("multicast", "guard.multicast"),
        ("broadcast", "guard.multicast"),
        ("unspecified", "guard.unspecified"),
    ] {
        assert_eq!(ask(class, "8.8.8.8"), forbidden(&[guard]), "{class}");
    }
    for ip in ["169.254.169.254", "0.0.0.0", "224.0.0.1", "fe80::1", "ff02::1", "::"] {
        assert_eq!(ask("public", ip), forbidden(&["guard.address-ranges"]), "{ip}");
    }
}

#[test]
fn addresses_that_are_not_public_need_a_grant_that_names_them() {
    let lines = [
        ("a", "http = [\"http://plain.example\"]"),
        ("a", "http = [\"http://named.example\"]\naddresses = [\"loopback\", \"10.1.0.0/16\", \"fd12::/16\"]"),
    ];
    let slice = slice(&lines, "", "a");
    let ask = |host: &str, ip: &str| {
        let send = slice.http_send(&url(&format!("http://{host}")), "GET").unwrap();
        code(slice.http_connect(&send, address(ip, 80)))
    };
    for (ip, named) in [
        ("8.8.8.8", "allowed"),
        ("127.0.0.1", "allowed"),
        ("::1", "allowed"),
        ("::ffff:127.0.0.1", "allowed"),
        ("64:ff9b::7f00:1", "allowed"),
        ("10.1.2.3", "allowed"),
        ("fd12::1", "allowed"),
        ("10.2.0.1", "N0202"),
        ("192.168.0.1", "N0202"),
        ("fd13::1", "N0202"),
        ("100.64.0.1", "N0202"),
        ("203.0.113.1", "N0202"),
    ] {
        assert_eq!(ask("named.example", ip), named, "{ip}");
        assert_eq!(ask("plain.example", ip), if ip == "8.8.8.8" { "allowed" } else { "N0202" }, "{ip}");
    }
}

#[test]
fn the_grant_to_connect_carries_the_address_that_was_decided_on() {
    let slice = slice(
        &[("a", "http = [\"http://x.example:81\", \"http://127.0.0.1:82\"]\naddresses = [\"loopback\"]")],
        "",
        "a",
    );
    let send = slice.http_send(&url("http://x.example:81"), "GET").unwrap();
    let connect = slice.http_connect(&send, address("::ffff:127.0.0.1", 81)).unwrap();
    assert_eq!(connect.address(), address("127.0.0.1", 81));
    assert_eq!(connect.destination(), send.destination());
    assert_eq!(code(slice.http_connect(&send, address("127.0.0.1", 82))), "N0306", "another port");
    let literal = slice.http_send(&url("http://127.1:82"), "GET").unwrap();
    assert_eq!(code(slice.http_connect(&literal, address("127.0.0.2", 82))), "N0306", "another address than the URL's");
}

#[test]
fn a_peer_is_carried_along_and_lets_the_host_have_an_svid() {
    let peer = "spiffe://demo.example/ns/demo/sa/vault";
    let lines = [
        ("a", format!("http = [\"https://vault.example\"]\npeer = \"{peer}\"\naddresses = [\"private\"]")),
        ("a", "http = [\"https://vault.example\"]".to_owned()),
    ];
    let lines: Vec<(&str, &str)> = lines.iter().map(|(name, rest)| (*name, rest.as_str())).collect();
    let slice = slice(&lines, "", "a");
    let send = slice.http_send(&url("https://vault.example"), "GET").unwrap();
    assert_eq!(send.peer(), Some(peer), "a second grant without a peer takes no pin away");
    assert_eq!(slice.http_connect(&send, address("10.0.0.1", 443)).unwrap().peer(), Some(peer));
    assert_eq!(slice.svid_x509(86_400).unwrap().ttl_secs(), 3_600);
    assert_eq!(code(slice.svid_jwt("vault", 60)), "I0201");
}

#[test]
fn peers_that_contradict_each_other_are_not_decided_on() {
    let raw = |peer: &str, id: &str| {
        format!(
            "@id(\"{id}\") @reason(\"r\") @owner(\"o\") @peer(\"spiffe://demo.example/{peer}\")\npermit (principal is Host::Component, action == Host::Action::\"http.send\", resource is Host::Destination);\n"
        )
    };
    let one = slice(&[], &raw("a", "p"), "a");
    assert_eq!(one.http_send(&url("https://x.example"), "GET").unwrap().peer(), Some("spiffe://demo.example/a"));
    assert_eq!(code(one.http_send(&url("http://x.example"), "GET")), "N0104", "no mTLS over plain http");
    let two = slice(&[], &format!("{}{}", raw("a", "p"), raw("b", "q")), "a");
    assert_eq!(code(two.http_send(&url("https://x.example"), "GET")), "N0104");
}

#[test]
fn what_is_remembered_of_a_request_is_for_its_method_and_its_destination_alone() {
    let raw = "@id(\"reads\") @reason(\"r\") @owner(\"o\")\n\
        permit (principal is Host::Component, action == Host::Action::\"http.send\", resource in Host::DnsZone::\"pay.example\") \
        when { context.method == \"GET\" };";
    let slice = slice(&[], raw, "a");
    for _ in 0..3 {
        assert_eq!(code(slice.http_send(&url("https://a.pay.example"), "GET")), "allowed");
        assert_eq!(code(slice.http_send(&url("https://a.pay.example"), "DELETE")), "N0201");
        assert_eq!(code(slice.http_send(&url("http://a.pay.example"), "get")), "N0201");
        assert_eq!(code(slice.http_send(&url("https://a.pay.example.evil.example"), "GET")), "N0201");
    }
    for n in 0..crate::limits::REMEMBERED_SENDS * 4 {
        for _ in 0..2 {
            assert_eq!(code(slice.http_send(&url(&format!("https://h{n}.pay.example")), "GET")), "allowed");
            assert_eq!(code(slice.http_send(&url(&format!("https://h{n}.other.example")), "GET")), "N0201");
        }
    }
}

#[test]
fn a_dns_zone_is_a_parent_and_not_a_suffix() {
    let raw = "@id(\"p\") @reason(\"r\") @owner(\"o\")\n\
        permit (principal == Host::Component::\"demo:a\", action in Host::Action::\"network\", resource in Host::DnsZone::\"pay.example\");";
    let slice = slice(&[], raw, "a");
    for (host, expected) in [
        ("pay.example", "allowed"),
        ("a.b.pay.example", "allowed"),
        ("evilpay.example", "N0201"),
        ("pay.example.evil.example", "N0201"),
    ] {
        assert_eq!(code(slice.http_send(&url(&format!("https://{host}")), "GET")), expected, "{host}");
    }
}

#[test]
fn a_grant_to_send_is_good_for_its_instance_and_is_decided_again_after_a_reload() {
    let compile = |lines: &[(&str, &str)], generation: u64| {
        let source = Source { name: "g".to_owned(), text: grants(lines), kind: SourceKind::Grants };
        PolicySet::compile(&[source], generation).unwrap()
    };
    let granted = [("a", "http = [\"https://x.example\"]"), ("b", "http = [\"https://x.example\"]")];
    let old = compile(&granted, 1);
    let send = old.slice(&facts("a")).http_send(&url("https://x.example"), "GET").unwrap();
    let to = address("8.8.8.8", 443);
    assert_eq!(code(old.slice(&facts("b")).http_connect(&send, to)), "N0105");
    assert_eq!(code(compile(&granted, 2).slice(&facts("a")).http_connect(&send, to)), "allowed");
    assert_eq!(code(compile(&[("a", "load = true")], 2).slice(&facts("a")).http_connect(&send, to)), "N0201");
    let pinned = [("a", "http = [\"https://x.example\"]\npeer = \"spiffe://demo.example/v\"")];
    assert_eq!(code(compile(&pinned, 2).slice(&facts("a")).http_connect(&send, to)), "N0105");
}
