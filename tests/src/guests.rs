//! The guests: our own, committed as small files, and those of others, which cargo's own client brings.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The bytes of one of our guests.
pub fn ours(name: &str) -> Vec<u8> {
    let path = crate::root().join("tests/guests/wasm").join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file out of a published crate, unpacked by `cargo info` into cargo's own registry cache. `None` where that cannot be had.
pub fn of_crate(name: &str, version: &str, file: &str) -> Option<PathBuf> {
    let find = || {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
        let sources = std::fs::read_dir(home.join("registry/src")).ok()?;
        let at = |entry: std::fs::DirEntry| entry.path().join(format!("{name}-{version}")).join(file);
        sources.filter_map(|entry| Some(at(entry.ok()?))).find(|path| path.exists())
    };
    if let Some(path) = find() {
        return Some(path);
    }
    // Outside of any project, so that the lock file of this one is not asked.
    let elsewhere = tempfile::tempdir().ok()?;
    let asked =
        Command::new(env!("CARGO")).args(["info", &format!("{name}@{version}")]).current_dir(elsewhere.path()).output();
    asked.ok().filter(|output| output.status.success())?;
    find()
}

/// Writes bytes to a file in a folder and gives its path.
pub fn put(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("a test folder can be written");
    path
}
