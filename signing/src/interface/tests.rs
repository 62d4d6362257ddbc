use super::*;

fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

fn import(text: &str) -> ImportName {
    text.parse().unwrap()
}

fn pattern(text: &str) -> ImportPattern {
    text.parse().unwrap()
}

#[test]
fn an_interface_has_four_parts() {
    let name = name("wasi:http/outgoing-handler@0.2.3-rc.1+x");
    assert_eq!((name.namespace(), name.package(), name.interface()), ("wasi", "http", "outgoing-handler"));
    assert_eq!(name.version().unwrap().to_string(), "0.2.3-rc.1+x");
    assert_eq!(name.to_string(), "wasi:http/outgoing-handler@0.2.3-rc.1+x");
}

#[test]
fn tracks_are_those_of_the_linker() {
    for (a, b) in
        [("0.2.0", "0.2.9"), ("1.0.0", "1.7.3"), ("2.1.2", "2.1.2+abc"), ("0.0.1", "0.0.1"), ("0.1.0-rc", "0.1.0-rc")]
    {
        assert!(name(&format!("a:b/c@{a}")).same_track(&name(&format!("a:b/c@{b}"))), "{a} {b}");
    }
    for (a, b) in [
        ("0.2.0", "0.3.0"),
        ("1.0.0", "2.0.0"),
        ("0.0.1", "0.0.2"),
        ("0.1.0-rc", "0.1.0"),
        ("0.0.1", "0.0.1+x"),
        ("0.2.0", "1.2.0"),
    ] {
        assert!(!name(&format!("a:b/c@{a}")).same_track(&name(&format!("a:b/c@{b}"))), "{a} {b}");
    }
    assert!(name("a:b/c").same_track(&name("a:b/c")));
    assert!(!name("a:b/c").same_track(&name("a:b/c@1.0.0")));
    for other in ["x:b/c@1.0.0", "a:x/c@1.0.0", "a:b/x@1.0.0"] {
        assert!(!name("a:b/c@1.0.0").same_track(&name(other)));
    }
}

#[test]
fn names_of_another_form_are_refused() {
    let long = format!("a:b/{}", "c".repeat(NAME_BYTES));
    for text in [
        "",
        "a:b",
        "a:b/c@",
        "a:b/c@1",
        "a/b",
        "a:b/c/d",
        "a:b:c/d",
        "a:b/c@1.0.0@1.0.0",
        "a:b/*",
        "é:b/c",
        "a:b/c ",
        &long,
    ] {
        assert!(text.parse::<InterfaceName>().is_err(), "{text}");
    }
    assert!("some-func".parse::<InterfaceName>().is_err());
    assert_eq!(import("some-func"), ImportName::Plain("some-func".into()));
}

#[test]
fn names_that_fetch_code_are_refused() {
    for text in [
        "url=<https://x>",
        "integrity=<sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=>",
        "locked-dep=<a:b@1.0.0>",
        "unlocked-dep=<a:b>",
    ] {
        assert!(text.parse::<ImportName>().is_err(), "{text}");
    }
}

#[test]
fn patterns_cover_whole_segments_only() {
    for (pat, text) in [
        ("wasi:*", "wasi:http/types@0.2.0"),
        ("wasi:http/*", "wasi:http/types"),
        ("wasi:http/types", "wasi:http/types@0.2.0"),
        ("wasi:http/types", "wasi:http/types"),
        ("wasi:http/types@0.2.0", "wasi:http/types@0.2.9"),
        ("log", "log"),
    ] {
        assert!(pattern(pat).matches(&import(text)), "{pat} {text}");
        assert_eq!(pattern(pat).to_string(), pat);
    }
    for (pat, text) in [
        ("wasi:*", "wasix:http/types@0.2.0"),
        ("wasi:http/*", "wasi:http-proxy/types"),
        ("wasi:http/types", "wasi:http/types-more"),
        ("wasi:http/types@0.2.0", "wasi:http/types@0.3.0"),
        ("wasi:http/types@0.2.0", "wasi:http/types"),
        ("wasi:*", "wasi"),
        ("log", "logs"),
    ] {
        assert!(!pattern(pat).matches(&import(text)), "{pat} {text}");
    }
    for text in
        ["*", "*:*", "", "wasi:", "wasi:*/*", "wasi:h*", "wasi:http/t*", "wasi:http/*@0.2.0", "a:b/c/*", "url=*"]
    {
        assert!(text.parse::<ImportPattern>().is_err(), "{text}");
    }
}

#[test]
fn a_plain_name_never_covers_an_interface() {
    assert!(import("log").covers(&import("log")) && import("a:b/c@1.0.0").covers(&import("a:b/c@1.2.0")));
    assert!(!import("log").covers(&import("a:b/log")) && !import("a:b/log").covers(&import("log")));
}

#[test]
fn a_pattern_includes_what_is_no_wider() {
    let all = ["wasi:*", "wasi:http/*", "wasi:http/types", "wasi:http/types@0.2.0", "log"];
    for (position, wide) in all.iter().enumerate() {
        for (other, narrow) in all.iter().enumerate() {
            let expected = position == other || (position < other && *narrow != "log");
            assert_eq!(pattern(wide).includes(&pattern(narrow)), expected, "{wide} {narrow}");
        }
    }
    assert!(pattern("wasi:http/types@0.2.9").includes(&pattern("wasi:http/types@0.2.0")));
    for (narrow, wide) in [("wasi:http/types@0.2.0", "wasi:http/types@0.3.0"), ("wasi:http/*", "wasi:http-proxy/*")] {
        assert!(!pattern(narrow).includes(&pattern(wide)), "{narrow} {wide}");
    }
}
