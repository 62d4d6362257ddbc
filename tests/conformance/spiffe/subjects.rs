//! The servers that the suite is run against: started once, asked once.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use portcullis_tests::host::Host;
use portcullis_tests::site::{self, Site};
use portcullis_tests::spire::{self, Spire, this_user};
use serde_json::Value;

use crate::evidence::{AUDIENCE, Evidence, OTHER_AUDIENCE, Subject};
use crate::foreign::{self, Foreign};

/// The host under test, which lives as long as the test process.
pub fn host() -> &'static Host {
    static HOST: LazyLock<Host> = LazyLock::new(|| {
        let mut site = Site::new();
        std::fs::write(site.file("partner.bundle.json"), foreign().bundle().to_string()).unwrap();
        let entry = |name: &str, executable: &std::path::Path| {
            format!(
                "[[workload]]\nname = \"{name}\"\nspiffe_path = \"/ns/test/sa/{name}\"\nuid = {uid}\nexecutable = \"{executable}\"\n\
                 audiences = [\"{AUDIENCE}\", \"{OTHER_AUDIENCE}\"]\nfederates_with = [\"{domain}\"]\n\n",
                uid = this_user().rsplit(':').next().unwrap(),
                executable = executable.display(),
                domain = foreign::TRUST_DOMAIN,
            )
        };
        site.config("[workload_api]\nsocket = \"workload.sock\"\nwit_svid = true\n\n");
        site.config(&entry("suite", &std::env::current_exe().unwrap()));
        if let Some(client) = crate::clients::program() {
            site.config(&entry("suite-go", &client));
        }
        // Nobody listens there: what is believed of the domain is the bundle that was brought along.
        site.config(&format!(
            "[[federation.peer]]\ntrust_domain = \"{domain}\"\nurl = \"https://127.0.0.1:9/bundle\"\nprofile = \"https_spiffe\"\n\
             endpoint_spiffe_id = \"spiffe://{domain}/bundle\"\nbootstrap = \"partner.bundle.json\"\n\n",
            domain = foreign::TRUST_DOMAIN,
        ));
        Host::ready(site)
    });
    &HOST
}

/// The socket of the host under test.
pub fn socket() -> PathBuf {
    host().site().file("workload.sock")
}

/// The federated domain, one for all subjects.
fn foreign() -> Foreign {
    static DOCUMENT: LazyLock<Mutex<Option<Foreign>>> = LazyLock::new(|| Mutex::new(None));
    let mut held = DOCUMENT.lock().unwrap();
    held.get_or_insert_with(Foreign::new).clone()
}

/// What the host under test was seen to do.
pub fn portcullis() -> Option<&'static Evidence> {
    static SEEN: LazyLock<Evidence> = LazyLock::new(|| {
        wait_for(&socket(), || host().log());
        let bundle = host().run(["identity", "bundle"]).ok().json();
        Evidence::gather(Subject {
            name: "portcullis",
            socket: socket(),
            trust_domain: site::TRUST_DOMAIN.to_owned(),
            bundle_document: Some(bundle),
            foreign: Some(foreign()),
        })
    });
    Some(&SEEN)
}

/// What SPIRE was seen to do; `None` after a loud skip.
pub fn spire() -> Option<&'static Evidence> {
    static SEEN: LazyLock<Option<Evidence>> = LazyLock::new(|| {
        let spire = Spire::start("the SPIFFE checklist against SPIRE")?;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("partner.json");
        std::fs::write(&file, foreign().bundle().to_string()).unwrap();
        let domain = format!("spiffe://{}", foreign::TRUST_DOMAIN);
        spire.server_says(["bundle", "set", "-format", "spiffe", "-id", &domain, "-path", file.to_str().unwrap()]);
        spire.register_with("/ns/test/sa/suite", &[&this_user()], &["-federatesWith", &domain]);
        let bundle = spire.server_says(["bundle", "show", "-format", "spiffe"]);
        wait_for(&spire.workload_socket(), || spire.log());
        let seen = Evidence::gather(Subject {
            name: "spire",
            socket: spire.workload_socket(),
            trust_domain: spire::TRUST_DOMAIN.to_owned(),
            bundle_document: bundle.get("keys").is_some().then_some(bundle),
            foreign: Some(foreign()),
        });
        Some(seen)
    });
    SEEN.as_ref()
}

/// What the socket that the environment names was seen to do.
pub fn elsewhere() -> Option<&'static Evidence> {
    static SEEN: LazyLock<Option<Evidence>> = LazyLock::new(|| {
        let socket = std::env::var_os("SPIFFE_CONFORMANCE_SOCKET").map(PathBuf::from)?;
        let trust_domain = std::env::var("SPIFFE_CONFORMANCE_TRUST_DOMAIN").expect("the trust domain of the socket");
        let document = std::env::var_os("SPIFFE_CONFORMANCE_BUNDLE").map(|path| std::fs::read(path).unwrap());
        Some(Evidence::gather(Subject {
            name: "elsewhere",
            socket,
            trust_domain,
            bundle_document: document.map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap()),
            foreign: None,
        }))
    });
    SEEN.as_ref()
}

/// Where a server is known to decide otherwise, and why that is no defect of the test.
pub fn known(subject: &str, id: &str) -> Option<&'static str> {
    const LEFT: &str = "the standard says it to issuers; what a validator makes of it is left open";
    let known: &[(&str, &str, &str)] = &[
        ("spire", "jw_irregular", LEFT),
        ("spire", "jw_root", LEFT),
        ("spire", "tb_03", "optional, and not shown by its command line"),
    ];
    known.iter().find(|(of, item, _)| *of == subject && *item == id).map(|(_, _, why)| *why)
}

/// Waits until the server has the suite's entry, and the bundle of the federated domain with it.
fn wait_for(socket: &Path, log: impl Fn() -> String) {
    let until = Instant::now() + Duration::from_secs(180);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    while Instant::now() < until {
        let there = runtime.block_on(async {
            let client = crate::wire::Client::connect(socket).await.ok()?;
            let answer: crate::wire::JwtBundlesResponse =
                client.first("FetchJWTBundles", crate::wire::Header::Right, crate::wire::Empty {}).await.ok()?;
            (answer.bundles.len() > 1).then_some(())
        });
        if there.is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("the entry never came into force:\n{}", log());
}
