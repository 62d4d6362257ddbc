//! Cleans up behind a test process that ends without dropping its hosts: statics are never dropped.
//!
//! A shell waits at the other end of a pipe. When the test process is gone, however it ended, it kills the host, if that
//! process still works in the site's folder, and removes the folder.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Stands by as long as it lives; dismissed when dropped.
#[derive(Debug)]
pub(crate) struct Janitor(Child);

impl Janitor {
    pub(crate) fn new(host: u32, folder: &Path) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "janitor", &host.to_string()]).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("a shell starts"))
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const SCRIPT: &str = r#"
trap '' INT TERM HUP
read -r _
[ "$(readlink "/proc/$1/cwd")" = "$(realpath "$2")" ] && kill -9 "$1"
n=0
while [ -e "/proc/$1/cwd" ] && [ $n -lt 50 ]; do n=$((n + 1)); sleep 0.1; done
rm -rf "$2"
"#;
