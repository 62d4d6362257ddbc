//! A site with the Workload API, and entries for processes of this test.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::Host;
use crate::site::Site;

/// A host that serves the Workload API to what `entries` (TOML) names.
pub fn host(entries: &str) -> Host {
    host_with("", entries)
}

/// The same with more settings (TOML) of `[workload_api]`, before the entries.
pub fn host_with(settings: &str, entries: &str) -> Host {
    Host::ready(site(settings, entries))
}

/// The site of such a host.
pub fn site(settings: &str, entries: &str) -> Site {
    let mut site = Site::new();
    site.config(&format!("[workload_api]\nsocket = \"workload.sock\"\n{settings}\n{entries}"));
    site
}

/// An entry `NAME` for an executable of this user, with the SPIFFE ID `spiffe://test.example/ns/test/sa/NAME`.
pub fn entry(name: &str, executable: &Path, more: &str) -> String {
    let executable = executable.canonicalize().expect("an executable");
    let uid = uid_of_tests();
    format!(
        "[[workload]]\nname = \"{name}\"\nspiffe_path = \"/ns/test/sa/{name}\"\nuid = {uid}\nexecutable = \"{}\"\n{more}\n\n",
        executable.display()
    )
}

/// An entry for this very test.
pub fn own_entry(name: &str, more: &str) -> String {
    entry(name, &std::env::current_exe().expect("a test knows its own path"), more)
}

/// The user that the tests run as.
pub fn uid_of_tests() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").expect("/proc is mounted").uid()
}

/// SHA-256 of a file, by coreutils.
pub fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum of coreutils starts");
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().expect("a digest").to_owned()
}

/// The socket of a host.
pub fn socket(host: &Host) -> PathBuf {
    host.site().file("workload.sock")
}

/// `SPIFFE_ENDPOINT_SOCKET` of a host.
pub fn endpoint(host: &Host) -> String {
    format!("unix://{}", socket(host).display())
}
