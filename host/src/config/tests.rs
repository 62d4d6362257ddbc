use super::*;

const ROOT: &str = "ROOTKEY";

fn minimal() -> String {
    let root = portcullis_signing::SecretKey::generate(portcullis_signing::KeyKind::Root).unwrap().public().to_string();
    include_str!("tests/minimal.toml").replace(ROOT, &root)
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/portcullis/portcullis.toml"), Path::new("/var/lib/portcullis"))
}

#[test]
fn a_minimal_file_has_safe_defaults_and_paths_relative_to_it() {
    let config = parse(&minimal()).unwrap();
    assert_eq!(config.trust.policy, Path::new("/etc/portcullis/trust.signed.json"));
    assert!(config.listen.mtls.is_none() && !config.listen.http2);
    assert!(config.listen.http.ip().is_loopback());
    assert!(config.dangers.on().is_empty());
    assert_eq!(config.limits, Limits::default());
}

#[test]
fn every_problem_is_listed_and_not_only_the_first() {
    let text = minimal().replace("version = 1", "version = 9").replace("trust_domain = \"", "trust_domain = \"UPPER ")
        + "[limits]\ncpu_ms = 0\n[bogus]\n[listen]\nhttps = \"x\"\n[[route]]\npath = \"a\"\ncomponent = \"a:b\"\n";
    let error = parse(&text).unwrap_err();
    let shown = error.to_string();
    for key in ["version", "trust_domain", "limits", "bogus", "listen", "route"] {
        assert!(shown.contains(key), "{key} is missing in:\n{shown}");
    }
    assert_eq!(shown.lines().count(), 7, "{shown}");
}

#[test]
fn text_that_is_not_toml_names_the_line() {
    assert!(parse("version = 1\n=\n").unwrap_err().to_string().contains("line 2"));
}

#[test]
fn a_threshold_that_no_signature_can_meet_is_refused() {
    let text = minimal().replace("[trust]", "[trust]\nthreshold = 2");
    assert!(parse(&text).unwrap_err().to_string().contains("trust.threshold"));
    let text = minimal().replace("[trust]", "[trust]\nthreshold = 0");
    assert!(parse(&text).unwrap_err().to_string().contains("trust.threshold"));
}

#[test]
fn audit_mode_is_for_components_by_name_few_and_none_by_default() {
    assert!(parse(&minimal()).unwrap().policy.audit_mode.is_empty());
    let with = |names: &str| parse(&(minimal() + &format!("\n[policy]\naudit_mode = [{names}]\n")));
    assert_eq!(with("\"shop:orders\"").unwrap().policy.audit_mode, ["shop:orders"]);
    for bad in ["\"*\"", "\"shop:*\"", "\"\"", "\"orders\"", "7"] {
        assert!(with(bad).unwrap_err().to_string().contains("policy"), "{bad} passed");
    }
    let names = |count: usize| (0..count).map(|n| format!("\"a:c{n}\", ")).collect::<String>();
    assert!(with(&names(crate::limits::AUDIT_MODE_COMPONENTS)).is_ok());
    let many = with(&names(crate::limits::AUDIT_MODE_COMPONENTS + 1)).unwrap_err().to_string();
    assert!(many.contains("policy.audit_mode"), "{many}");
}

#[test]
fn routes_that_could_be_read_in_two_ways_are_refused() {
    for path in ["", "a", "/a/", "/a//b", "/a/../b", "/a%2fb", "/a?b", "/./a", "/a\\b"] {
        let route = Route { host: None, path: path.to_owned(), component: "a:b".to_owned() };
        assert!(check_route(&route).is_err(), "{path} passed");
    }
    for host in ["", "UP.example", "a:80", "a/b", "*.example"] {
        let route = Route { host: Some(host.to_owned()), path: "/".to_owned(), component: "a:b".to_owned() };
        assert!(check_route(&route).is_err(), "{host} passed");
    }
    for path in ["/", "/a", "/a/b.c-d_e~"] {
        assert!(check_route(&Route { host: None, path: path.to_owned(), component: "a:b".to_owned() }).is_ok());
    }
}

#[test]
fn keys_may_be_exported_by_components_that_are_named_and_by_no_pattern() {
    let with =
        |names: &str| minimal().replace("version = 1", &format!("version = 1\ndanger_exportable_keys = {names}"));
    let config = parse(&with("[\"shop:legacy-tls\"]")).unwrap();
    assert_eq!(config.dangers.exportable_keys, ["shop:legacy-tls"]);
    assert_eq!(config.dangers.on(), ["danger_exportable_keys"]);
    assert!(parse(&with("[]")).unwrap().dangers.on().is_empty());
    for names in ["[\"*\"]", "[\"shop:*\"]", "[\"\"]", "[\"shop\"]", "true"] {
        let error = parse(&with(names)).unwrap_err().to_string();
        assert!(error.contains("danger_exportable_keys"), "{names}: {error}");
    }
}
