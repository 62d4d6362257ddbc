//! A host whose authorities' keys lie in a PKCS#11 token (SoftHSM 2), loaded into the identity process behind its whole fence.

use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_tests::host::Host;
use portcullis_tests::patience::LONG;
use portcullis_tests::processes::holds_within;
use portcullis_tests::site::Site;
use portcullis_tests::{http, skip};

const LIBRARIES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

/// A site with a token of its own; `None` where there is no SoftHSM.
fn site(test: &str) -> Option<Site> {
    let library = LIBRARIES.iter().find(|library| Path::new(library).exists());
    let (Some(library), Ok(_)) = (library, Command::new("softhsm2-util").arg("--version").output()) else {
        skip(test, "SoftHSM 2 is not installed (Debian: apt-get install softhsm2)", false);
        return None;
    };
    let mut site = Site::new();
    let (tokens, settings) = (site.file("tokens"), site.file("softhsm2.conf"));
    std::fs::create_dir(&tokens).unwrap();
    let text = format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
    std::fs::write(&settings, text).unwrap();
    let made = Command::new("softhsm2-util")
        .env("SOFTHSM2_CONF", &settings)
        .args(["--init-token", "--free", "--label", "portcullis", "--so-pin", "123456", "--pin", "845271"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    owner_only(&site.file("pin"), "845271\n");
    site.environment("SOFTHSM2_CONF", &settings);
    site.config(&format!(
        "[identity.pkcs11]\nmodule = \"{library}\"\ntoken = \"portcullis\"\npin_file = \"pin\"\nread = [\"softhsm2.conf\"]\nwrite = [\"tokens\"]\n",
    ));
    site.guest(
        "greeter",
        "link = [\"wasi:http/outgoing-handler\"]\nidentity = [\"read\", \"x509\"]\naudiences = [\"vault\"]\n",
    );
    Some(site)
}

fn owner_only(path: &PathBuf, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn key_files(host: &Host) -> Vec<String> {
    let names = std::fs::read_dir(host.site().file("state/identity")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".key")).collect()
}

#[test]
fn keys_in_a_token_are_used_behind_the_fence_and_no_authority_key_is_on_disk() {
    let Some(site) = site("keys_in_a_token_are_used_behind_the_fence_and_no_authority_key_is_on_disk") else { return };
    let host = Host::ready(site);
    let minted = http::get(host.http(), "/greeter/mint?aud=vault", &[]);
    assert_eq!(minted.status, 200, "{}\n{}", minted.text(), host.log());
    assert_eq!(key_files(&host), ["mac.key"]);
    let shown = host.run(["identity", "show"]).ok();
    assert!(shown.out.contains("\"pkcs11\""), "{}", shown.out);
}

#[test]
fn while_the_token_is_away_no_identity_is_minted_and_when_it_comes_back_it_is() {
    let Some(site) = site("while_the_token_is_away_no_identity_is_minted_and_when_it_comes_back_it_is") else { return };
    let host = Host::ready(site);
    assert_eq!(http::get(host.http(), "/greeter/mint?aud=vault", &[]).status, 200);
    // What was minted is in caches: a forced rotation empties them.
    let (tokens, away) = (host.site().file("tokens"), host.site().file("away"));
    std::fs::create_dir(&away).unwrap();
    let inside: Vec<_> = std::fs::read_dir(&tokens).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    for name in &inside {
        std::fs::rename(tokens.join(name), away.join(name)).unwrap();
    }
    host.run(["identity", "rotate", "--svids"]);
    let denied = || http::get(host.http(), "/greeter/mint?aud=vault", &[]).status != 200;
    assert!(holds_within(LONG, denied), "minted without the key: {}", host.log());
    for name in &inside {
        std::fs::rename(away.join(name), tokens.join(name)).unwrap();
    }
    let minted = || http::get(host.http(), "/greeter/mint?aud=vault", &[]).status == 200;
    assert!(holds_within(LONG, minted), "not recovered: {}", host.log());
}
