use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::testing::{Random, facts, grants, set};
use crate::{Caller, Denial, DenialKind, Destination, Grant, IdentityAction, ImageFacts};

fn source(name: &str, kind: SourceKind, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned(), kind }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const HOSTS: [&str; 6] = [
    "https://x.example",
    "http://x.example",
    "https://x.example:8443",
    "https://a.pay.example",
    "http://127.0.0.1:9",
    "http://169.254.169.254",
];
const ADDRESSES: [&str; 8] =
    ["8.8.8.8", "127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:10.1.2.3", "ff02::1", "2606:4700::1"];
const INTERFACES: [&str; 6] = [
    "wasi:io/poll@0.2.3",
    "wasi:http/outgoing-handler@0.2.3",
    "wasi:keyvalue/store",
    "portcullis:identity/jwt@0.1.0",
    "wasi:sockets/tcp@0.2.3",
    "nonsense",
];
const AUDIENCES: [&str; 4] = ["vault", "bank", "", "a b"];
const CALLERS: [&str; 5] = [
    "",
    "spiffe://demo.example/ns/demo/sa/a",
    "spiffe://demo.example/ns/demo/sa/b",
    "spiffe://partner.example/x",
    "nonsense",
];
const METHODS: [&str; 4] = ["GET", "DELETE", "", "\u{1b}"];

/// Raw policies with every kind of scope, and some that fail at some requests.
const RAW: &str = r#"
@id("r1") @reason("r") @owner("o")
permit (principal in Host::SignerGroup::"team-demo", action == Host::Action::"link", resource in Host::WitPackage::"wasi:sockets");
@id("r2") @reason("r") @owner("o")
permit (principal == Host::Component::"demo:b", action in Host::Action::"network", resource in Host::DnsZone::"pay.example");
@id("r3") @reason("r") @owner("o")
permit (principal in Host::TrustDomain::"partner.example", action == Host::Action::"call", resource == Host::Component::"demo:c");
@id("r4") @reason("r") @owner("o")
permit (principal is Host::Workload, action == Host::Action::"call", resource is Host::Component) when { principal == resource.workload };
@id("r5") @reason("r") @owner("o")
forbid (principal == Host::Component::"demo:a", action, resource) when { principal.signer == "nobody" };
@id("r6") @reason("r") @owner("o")
forbid (principal, action == Host::Action::"http.send", resource) when { context.method == "DELETE" && resource.port * 2000000000000000 > 0 };
@id("r7") @reason("r") @owner("o")
permit (principal is Host::Component, action in [Host::Action::"svid.jwt"], resource is Host::Audience) when { context.ttl + 9223372036854775000 > 0 };
@id("r8") @reason("r") @owner("o")
permit (principal is Host::Component, action == Host::Action::"load", resource is Host::Image) when { resource.imports.contains("wasi:io/poll") };
"#;

fn random_grants(random: &mut Random) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    for _ in 0..random.below(6) {
        let mut grant = String::new();
        if random.below(2) == 0 {
            grant += "load = true\n";
        }
        if random.below(2) == 0 {
            let host = random.pick(&HOSTS[..5]);
            grant += &format!("http = [\"{host}\"]\n");
            if host.starts_with("https") && random.below(3) == 0 {
                grant += "peer = \"spiffe://demo.example/p\"\n";
            }
            grant += *random.pick(&[
                "",
                "addresses = [\"loopback\"]\n",
                "addresses = [\"private\", \"127.0.0.0/8\"]\n",
                "addresses = [\"10.1.0.0/16\"]\n",
            ]);
        }
        grant += *random.pick(&["", "link = [\"wasi:keyvalue/store\"]\n", "link = [\"portcullis:identity/*\"]\n"]);
        grant += *random.pick(&["", "identity = [\"read\"]\n", "identity = [\"x509\", \"validate\"]\n"]);
        grant += *random.pick(&["", "purposes = [\"receipts\"]\n"]);
        grant += *random.pick(&["", "audiences = [\"vault\"]\n", "audiences = [\"bank\"]\nmax_ttl = \"1m\"\n"]);
        grant +=
            *random.pick(&["", "callers = [\"anonymous\"]\n", "callers = [\"spiffe://demo.example/ns/demo/sa/a\"]\n"]);
        if !grant.is_empty() {
            lines.push((*random.pick(&NAMES), grant));
        }
    }
    lines
}

/// What a decision comes down to: the policies that allowed it and what the grant says, or the code.
fn outcome<A: std::fmt::Debug>(result: Result<Grant<A>, Denial>) -> Result<String, (DenialKind, String)> {
    let sorted = |grant: &Grant<A>| {
        let mut by: Vec<String> = grant.policies().map(ToOwned::to_owned).collect();
        by.sort();
        by
    };
    result.map(|grant| format!("{:?}", sorted(&grant))).map_err(|denial| (denial.kind(), denial.code().to_string()))
}

/// One random question.
fn ask(slice: &Slice, random: &mut Random) -> (String, Result<String, (DenialKind, String)>) {
    match random.below(10) {
        0 => {
            let image = ImageFacts {
                imports: vec![(*random.pick(&["wasi:io/poll", "x"])).to_owned()],
                expired: random.below(4) == 0,
            };
            (format!("load {image:?}"), outcome(slice.load(&image)))
        }
        1 => {
            let interface = random.pick(&INTERFACES);
            (format!("link {interface}"), outcome(slice.link(interface)))
        }
        2 | 3 => {
            let (host, method) = (random.pick(&HOSTS), random.pick(&METHODS));
            (format!("send {host} {method}"), outcome(slice.http_send(&Destination::parse_url(host).unwrap(), method)))
        }
        4 => {
            let (host, ip) = (random.pick(&HOSTS), random.pick(&ADDRESSES).parse::<IpAddr>().unwrap());
            let destination = Destination::parse_url(host).unwrap();
            let port = if random.below(8) == 0 { 1 } else { destination.port() };
            let connected = slice
                .http_send(&destination, "GET")
                .and_then(|send| slice.http_connect(&send, SocketAddr::new(ip, port)));
            (format!("connect {host} {ip} {port}"), outcome(connected))
        }
        5 => {
            let (audience, ttl) = (random.pick(&AUDIENCES), *random.pick(&[0, 1, 300, 900, u64::MAX]));
            (format!("jwt {audience} {ttl}"), outcome(slice.svid_jwt(audience, ttl)))
        }
        6 => {
            let ttl = *random.pick(&[0, 1, 3_600, u64::MAX]);
            (format!("x509 {ttl}"), outcome(slice.svid_x509(ttl)))
        }
        7 => {
            let action = *random.pick(&IdentityAction::ALL);
            (format!("{action:?}"), outcome(slice.identity(action)))
        }
        8 => {
            let purpose = random.pick(&["receipts", "orders", "", "Receipts"]);
            (format!("sign {purpose}"), outcome(slice.svid_sign(purpose)))
        }
        _ => {
            let caller = match *random.pick(&CALLERS) {
                "" => Caller::Anonymous,
                id => Caller::Workload(id.to_owned()),
            };
            (format!("{caller:?}"), outcome(slice.call(&caller)))
        }
    }
}

#[test]
fn a_slice_decides_as_the_full_set_does() {
    let mut random = Random::new(5);
    let (mut allowed, mut denied) = (0, 0);
    for round in 0..100 {
        let lines = random_grants(&mut random);
        let lines: Vec<(&str, &str)> = lines.iter().map(|(name, rest)| (*name, rest.as_str())).collect();
        let set = set(&lines, if round % 2 == 0 { RAW } else { "" });
        for name in NAMES {
            let facts = facts(name);
            let (slice, full) = (set.slice(&facts), set.full_slice(&facts));
            for _ in 0..100 {
                let seed = random.next();
                let (question, of_slice) = ask(&slice, &mut Random::new(seed));
                let (_, of_full) = ask(&full, &mut Random::new(seed));
                assert_eq!(of_slice, of_full, "{question} by {name} under {lines:#?}");
                match of_slice {
                    Ok(_) => allowed += 1,
                    Err(_) => denied += 1,
                }
            }
        }
    }
    assert!(allowed > 5_000 && denied > 5_000, "the questions are worth asking: {allowed} allowed, {denied} denied");
}

/// Sets in which for some requests a policy fails, contradicts another, or the facts are unusable; a permit for all else.
#[test]
fn no_error_ever_allows() {
    const PERMIT_ALL: &str = r#"
@id("all-component") @reason("r") @owner("o")
permit (principal is Host::Component, action in Host::Action::"network", resource is Host::Destination);
@id("all-identity") @reason("r") @owner("o")
permit (principal is Host::Component, action in [Host::Action::"svid.jwt"], resource is Host::Audience);
@id("all-own") @reason("r") @owner("o")
permit (principal is Host::Component, action in [Host::Action::"svid.x509", Host::Action::"identity.read", Host::Action::"svid.validate", Host::Action::"svid.export", Host::Action::"bundle.read", Host::Action::"peer.read"], resource is Host::TrustDomain);
@id("all-purposes") @reason("r") @owner("o")
permit (principal is Host::Component, action == Host::Action::"svid.sign", resource is Host::Purpose);
@id("all-link") @reason("r") @owner("o")
permit (principal is Host::Component, action == Host::Action::"link", resource is Host::WitInterface);
@id("all-load") @reason("r") @owner("o")
permit (principal is Host::Component, action == Host::Action::"load", resource is Host::Image);
@id("all-call") @reason("r") @owner("o")
permit (principal is Host::Workload, action == Host::Action::"call", resource is Host::Component);
"#;
    // Each fails for every request of its actions, by overflow; a forbid and a permit of each.
    let broken = |effect: &str, scope: &str| {
        format!(
            "@id(\"broken\") @reason(\"r\") @owner(\"o\")\n{effect} ({scope}) when {{ 9223372036854775807 + (if {} then 1 else 2) > 0 }};",
            "resource == resource"
        )
    };
    let scopes = [
        ("principal is Host::Component, action in Host::Action::\"network\", resource is Host::Destination", "N"),
        ("principal is Host::Component, action == Host::Action::\"svid.jwt\", resource is Host::Audience", "I"),
        ("principal is Host::Component, action == Host::Action::\"link\", resource is Host::WitInterface", "L"),
        ("principal is Host::Component, action == Host::Action::\"load\", resource is Host::Image", "A"),
        ("principal is Host::Workload, action == Host::Action::\"call\", resource is Host::Component", "C"),
    ];
    let combinations: Vec<(&str, &str, &str)> = ["permit", "forbid"]
        .into_iter()
        .flat_map(|effect| scopes.map(|(scope, letter)| (effect, scope, letter)))
        .collect();
    let ask_all = |effect: &str, scope: &str, letter: &str, seed: u64| {
        let mut random = Random::new(seed);
        let (mut cases, mut undecided) = (0, 0);
        let set = set(&[], &format!("{PERMIT_ALL}{}", broken(effect, scope)));
        for name in NAMES {
            let mut facts = facts(name);
            let spoilt = name == "d";
            if spoilt {
                facts.digest = String::new();
            }
            let slice = set.slice(&facts);
            for _ in 0..25_000 {
                let (question, outcome) = ask(&slice, &mut random);
                cases += 1;
                match outcome {
                    Ok(_) => {
                        assert!(!spoilt, "{question}: facts that cannot be decided on");
                        let of = match question.split(' ').next().unwrap() {
                            "load" => "A",
                            "link" => "L",
                            "send" | "connect" => "N",
                            "jwt" => "I",
                            text if text.starts_with("Workload") => "C",
                            _ => "another",
                        };
                        assert_ne!(of, letter, "{question}: a policy for this action fails, yet it was allowed");
                    }
                    Err((DenialKind::CannotDecide, _)) => undecided += 1,
                    Err((DenialKind::NoGrant | DenialKind::Forbidden, _)) => {}
                }
            }
        }
        (cases, undecided)
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let counted: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let worker = || {
            let mut counted = Vec::new();
            loop {
                let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some((effect, scope, letter)) = combinations.get(n) else { return counted };
                counted.push(ask_all(effect, scope, letter, 7 + n as u64));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let (cases, undecided) = counted.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(cases >= 1_000_000 && undecided > 200_000, "{cases} cases, {undecided} undecided");
}

#[test]
fn one_problem_anywhere_refuses_the_whole_set_and_all_are_listed() {
    let sources = [
        source("good.toml", SourceKind::Grants, &grants(&[("a", "load = true")])),
        source("bad.toml", SourceKind::Grants, "version = 1\nx = 1\ny = 2\n"),
        source("bad.cedar", SourceKind::Cedar, "permit (principal, action, resource);"),
    ];
    let errors = PolicySet::compile(&sources, 1).unwrap_err();
    let text = errors.to_string();
    for expected in
        ["bad.toml:2:1: unknown key `x`", "bad.toml:3:1: unknown key `y`", "bad.cedar:1:1: policy number 1: @id"]
    {
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn ids_are_unique_over_all_files() {
    let one = grants(&[("a", "load = true")]);
    let raw =
        "@id(\"a-0\") @reason(\"r\") @owner(\"o\")\nforbid (principal, action == Host::Action::\"load\", resource);";
    for other in [source("b", SourceKind::Grants, &one), source("b", SourceKind::Cedar, raw)] {
        let errors = PolicySet::compile(&[source("a", SourceKind::Grants, &one), other], 1).unwrap_err();
        assert!(errors.to_string().contains("the id `a-0` is used already, at a:3"), "{errors}");
    }
}

#[test]
fn two_peers_for_one_destination_are_a_contradiction() {
    let pinned = |peer: &str| format!("http = [\"https://x.example\"]\npeer = \"spiffe://demo.example/{peer}\"");
    let (one, two) = (pinned("one"), pinned("two"));
    let compile = |lines: &[(&str, &str)]| PolicySet::compile(&[source("g", SourceKind::Grants, &grants(lines))], 1);
    assert!(compile(&[("a", &one), ("a", &one), ("b", &two), ("a", "http = [\"https://x.example\"]")]).is_ok());
    let errors = compile(&[("a", &one), ("a", &two)]).unwrap_err();
    assert!(errors.to_string().contains("to another peer than grant `a-0`"), "{errors}");
}

#[test]
fn limits_of_sources_hold() {
    let empty = |n: usize| (0..n).map(|_| source("g", SourceKind::Grants, "")).collect::<Vec<_>>();
    assert!(PolicySet::compile(&empty(SOURCES), 1).is_ok());
    assert!(PolicySet::compile(&empty(SOURCES + 1), 1).is_err());
    let sized =
        |n: usize| PolicySet::compile(&[source("g", SourceKind::Grants, &format!("#{}", "x".repeat(n - 1)))], 1);
    assert!(sized(SOURCE_BYTES).is_ok());
    assert!(sized(SOURCE_BYTES + 1).unwrap_err().to_string().contains("larger than 8 MiB"));
}

#[test]
fn the_summary_counts_what_is_there() {
    let raw =
        "@id(\"r\") @reason(\"r\") @owner(\"o\")\nforbid (principal, action == Host::Action::\"load\", resource);";
    let summary = set(&[("a", "load = true\ncallers = [\"anonymous\"]"), ("b", "load = true")], raw).summary();
    assert_eq!(
        (summary.generation, summary.grants, summary.raw_policies, summary.guards, summary.policies),
        (41, 2, 1, 8, 13)
    );
    assert_eq!(summary.components, ["demo:a", "demo:b"]);
}

#[test]
fn a_set_and_its_slices_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<PolicySet>();
    shared::<Slice>();
    shared::<Denial>();
}

/// Fifty reloads in a second under more than a thousand decisions: each is of the one generation that it names, whether it
/// allows or refuses, and generations only rise. A grant to send under one is dialled under the next only as that says.
#[test]
fn each_decision_is_of_exactly_one_generation_while_policies_change() {
    use std::time::{Duration, Instant};
    // What one generation grants, the next does not.
    let host =
        |generation: u64| format!("https://{}.example", if generation.is_multiple_of(2) { "even" } else { "odd" });
    let of = |generation: u64| {
        let text = format!(
            "version = 1\n[[grant]]\nid = \"of-{generation}\"\nreason = \"r\"\nowner = \"o\"\ncomponent = \"demo:a\"\n\
             audiences = [\"vault\"]\nhttp = [\"{}\"]\n",
            host(generation)
        );
        let sources = [Source { name: "g".to_owned(), text, kind: SourceKind::Grants }];
        PolicySet::compile(&sources, generation).unwrap().slice(&facts("a"))
    };
    let in_force = std::sync::Mutex::new(of(1));
    // What each reader has seen last, and how much it has decided: on a busy machine the next one comes when both have.
    let progress = [(); 2].map(|()| (std::sync::atomic::AtomicU64::new(0), std::sync::atomic::AtomicUsize::new(0)));
    let done = std::sync::atomic::AtomicBool::new(false);
    let current = || std::sync::Arc::clone(&in_force.lock().unwrap());
    let by = |policies: Vec<&str>, generation: u64| assert_eq!(policies, [format!("of-{generation}")]);
    let decide = |(saw, decided): &(std::sync::atomic::AtomicU64, std::sync::atomic::AtomicUsize)| {
        let mut seen = std::collections::BTreeSet::new();
        let (mut decisions, mut newest, mut overtaken) = (0, 0, 0);
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            let slice = current();
            let generation = slice.generation();
            assert!(generation >= newest, "generations only rise");
            newest = generation;
            let grant = slice.svid_jwt("vault", 60).unwrap();
            by(grant.policies().collect(), generation);
            let here = Destination::parse_url(&host(generation)).unwrap();
            let send = slice.http_send(&here, "GET").unwrap();
            by(send.policies().collect(), generation);
            let denial = slice.http_send(&Destination::parse_url(&host(generation + 1)).unwrap(), "GET").unwrap_err();
            assert_eq!((denial.kind(), denial.generation()), (DenialKind::NoGrant, generation));
            // By the time that its name is resolved, another generation may be in force.
            let later = current();
            let connect = later.http_connect(&send, "8.8.8.8:443".parse().unwrap());
            assert_eq!(connect.is_ok(), (later.generation() - generation).is_multiple_of(2));
            match connect {
                Ok(connect) => by(connect.policies().collect(), later.generation()),
                Err(denial) => assert_eq!(denial.generation(), later.generation()),
            }
            overtaken += usize::from(later.generation() != generation);
            seen.insert(generation);
            decisions += 4;
            saw.store(generation, std::sync::atomic::Ordering::Release);
            decided.store(decisions, std::sync::atomic::Ordering::Release);
        }
        (decisions, seen.len(), overtaken)
    };
    std::thread::scope(|scope| {
        let decide = &decide;
        let readers: Vec<_> = progress.iter().map(|mine| scope.spawn(move || decide(mine))).collect();
        let began = Instant::now();
        for generation in 2..=51 {
            *in_force.lock().unwrap() = of(generation);
            let next = began + Duration::from_millis(20) * u32::try_from(generation - 1).unwrap();
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            let enough = 22 * usize::try_from(generation).unwrap();
            let keeps_up = |(saw, decided): &(std::sync::atomic::AtomicU64, std::sync::atomic::AtomicUsize)| {
                saw.load(std::sync::atomic::Ordering::Acquire) == generation
                    && decided.load(std::sync::atomic::Ordering::Acquire) >= enough
            };
            while !progress.iter().all(keeps_up) && began.elapsed() < Duration::from_secs(90) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        done.store(true, std::sync::atomic::Ordering::Release);
        for reader in readers {
            let (decisions, generations, overtaken) = reader.join().unwrap();
            eprintln!(
                "{decisions} decisions under {generations} generations, {overtaken} overtaken, {:?}",
                began.elapsed()
            );
            assert!(decisions > 1_000 && generations > 20, "{decisions} decisions under {generations} generations");
        }
    });
}
