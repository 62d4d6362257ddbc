//! What the tests share: throw-away sites made with the real command line, hosts that are started and stopped, requests
//! over real sockets. Nothing here decides whether a test passes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a broken test set-up must stop the test at once, and say so"
)]

pub mod cluster;
pub mod document;
pub mod forge;
pub mod guests;
pub mod host;
pub mod http;
mod janitor;
pub mod nats;
pub mod patience;
pub mod port;
pub mod processes;
pub mod python;
pub mod registry;
pub mod server;
pub mod site;
pub mod spire;
pub mod web_pki;
pub mod workload;

use std::path::{Path, PathBuf};

/// The project's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the project's root exists")
}

/// The binary under test, as `cargo test --workspace` builds it beside the tests.
pub fn binary() -> PathBuf {
    let me = std::env::current_exe().expect("a test knows its own path");
    let folder = me.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let binary = folder.join("portcullis");
    assert!(binary.exists(), "{} is not built: run `cargo build --workspace` first", binary.display());
    binary
}

/// Where peers that took long to get or to build are kept between runs.
pub fn cache() -> PathBuf {
    let given = std::env::var_os("PORTCULLIS_TEST_CACHE").map(PathBuf::from);
    let folder = given.unwrap_or_else(|| root().join("target/test-cache"));
    std::fs::create_dir_all(&folder).expect("a folder for the test cache");
    folder
}

/// Says loudly that a test cannot run here. Under CI that is a failure unless `allowed_in_ci`.
pub fn skip(test: &str, why: &str, allowed_in_ci: bool) {
    eprintln!("SKIPPED {test}: {why}");
    assert!(
        allowed_in_ci || std::env::var_os("PORTCULLIS_CI").is_none(),
        "{test} was skipped in CI, where it can run: {why}"
    );
}
