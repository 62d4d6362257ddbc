//! Python with packages of PyPI in a virtual environment of the test cache, made once for all tests.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The interpreter of an environment with exactly these packages (`NAME==VERSION`); `None`, said loudly, where there is none.
pub fn with(test: &str, packages: &[&str]) -> Option<PathBuf> {
    let name = packages.join("-").replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-");
    let folder = crate::cache().join(format!("python-{name}"));
    let python = folder.join("bin/python");
    std::fs::create_dir_all(crate::cache()).expect("the test cache can be written");
    // One makes it, the others wait.
    let lock = File::create(crate::cache().join(format!("python-{name}.lock"))).expect("the test cache can be written");
    lock.lock().expect("a file can be locked");
    if !folder.join("complete").exists()
        && let Err(why) = make(&folder, &python, packages)
    {
        crate::skip(test, &why, false);
        return None;
    }
    Some(python)
}

fn make(folder: &Path, python: &Path, packages: &[&str]) -> Result<(), String> {
    let _ = std::fs::remove_dir_all(folder);
    run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    run(Command::new(python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages))?;
    std::fs::write(folder.join("complete"), "").map_err(|error| error.to_string())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("python3 does not start: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}
