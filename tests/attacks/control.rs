//! The control socket serves the host's own user and root, also where its files would let others in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use portcullis_tests::host::Host;
use portcullis_tests::site::{Site, ended};

fn open_to_all(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

// gate: Status, Start, Stop, ReloadPolicy, AuditMode, Explain, Bundle
// gate: IdentityShow, IdentityRotate, IdentityTaint, IdentityRevoke
#[test]
fn another_user_is_served_by_no_command_even_where_the_files_are_open_to_all() {
    const TEST: &str = "another_user_is_served_by_no_command_even_where_the_files_are_open_to_all";
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let may = Command::new("setpriv").args(nobody).arg("true").output();
    if !may.is_ok_and(|done| done.status.success()) {
        return portcullis_tests::skip(TEST, "only root can become another user, by setpriv of util-linux", true);
    }
    let mut site = Site::new();
    site.guest("hello", "");
    site.policy("audit_mode = [\"test:hello\"]\n");
    let host = Host::ready(site);
    let before = host.run(["list"]).ok().json();
    let folder = host.site().path().to_owned();
    let program = folder.join("portcullis");
    std::fs::copy(portcullis_tests::binary(), &program).unwrap();
    let socket = folder.join("state/run/control.sock");
    for open in [folder.clone(), folder.join("state"), folder.join("state/run"), program.clone()] {
        open_to_all(&open, 0o755);
    }
    open_to_all(&socket, 0o777);
    let component = folder.join("hello.wasm");
    let commands: &[&[&str]] = &[
        &["status"],
        &["list"],
        &["start", component.to_str().unwrap()],
        &["stop", "test:hello"],
        &["reload"],
        &["policy", "audit", "test:hello", "--for", "1h"],
        &["policy", "explain", "01JZZZZZZZZZZZZZZZZZZZZZZZ"],
        &["identity", "bundle"],
        &["identity", "show"],
        &["identity", "rotate"],
        &["identity", "taint", "nobody"],
        &["identity", "revoke", "spiffe://test.example/ns/test/sa/hello"],
    ];
    for command in commands {
        let mut other = Command::new("setpriv");
        other.current_dir(&folder).args(nobody).arg(&program).args(*command).arg("--socket").arg(&socket);
        let refused = ended(other.output().unwrap());
        assert_eq!(refused.exit, 18, "{command:?}: {}{}", refused.out, refused.err);
    }
    assert_eq!(host.run(["list"]).ok().json(), before);
    assert!(host.log().contains("somebody else tried the control socket"), "{}", host.log());
    assert_eq!(host.ask_status(0)["audited"], serde_json::json!([]));
}
