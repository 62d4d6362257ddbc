//! SPIRE's two programs, built from the Go module proxy into the test cache, once for all tests.
//!
//! `go install ...@version` asks the proxy for lists of versions, which not every proxy serves. A module of our own that takes
//! over SPIRE's requirements and sums asks for nothing but exact versions, each checked against SPIRE's own `go.sum`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version that the tests are written for.
pub const VERSION: &str = "v1.15.3";

/// Where the programs are, built if need be, or why they are not to be had.
pub(super) fn programs() -> Result<PathBuf, String> {
    if let Some(given) = std::env::var_os("PORTCULLIS_SPIRE_BIN").map(PathBuf::from) {
        let complete = PROGRAMS.iter().all(|program| given.join(program).exists());
        return complete.then_some(given).ok_or_else(|| "PORTCULLIS_SPIRE_BIN lacks a program of SPIRE".to_owned());
    }
    let folder = super::cache().join(format!("spire-{VERSION}"));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let lock = File::create(folder.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let bin = folder.join("bin");
    for program in PROGRAMS {
        if !bin.join(program).exists() {
            eprintln!("building {program} {VERSION} with Go, once: this takes minutes");
            build(&folder, &bin, &format!("github.com/spiffe/spire/cmd/{program}"), program)?;
        }
    }
    Ok(bin)
}

/// The workload attestor for components, built against the same modules. Rebuilt where its source changed.
pub(super) fn attestor() -> Result<PathBuf, String> {
    let folder = super::cache().join(format!("spire-{VERSION}"));
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let lock = File::create(folder.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let source = crate::root().join("deploy/spire/portcullis-attestor/main.go");
    let text = std::fs::read(&source).map_err(|error| format!("{}: {error}", source.display()))?;
    let (copy, program) = (folder.join("module/attestor/main.go"), folder.join("bin/portcullis-attestor"));
    if !program.exists() || std::fs::read(&copy).ok().as_ref() != Some(&text) {
        let _ = std::fs::remove_file(&program);
        std::fs::create_dir_all(folder.join("module/attestor")).map_err(|error| error.to_string())?;
        std::fs::write(&copy, text).map_err(|error| error.to_string())?;
        build(&folder, &folder.join("bin"), "./attestor", "portcullis-attestor")?;
    }
    Ok(program)
}

fn build(folder: &Path, bin: &Path, package: &str, program: &str) -> Result<(), String> {
    let module = module(folder)?;
    std::fs::create_dir_all(bin).map_err(|error| error.to_string())?;
    // Built beside and moved, so that a build that is cut short leaves nothing that looks finished.
    let beside = bin.join(format!("{program}.new"));
    let beside_text = beside.to_string_lossy().into_owned();
    go(&module, &["build", "-ldflags", "-s -w", "-o", &beside_text, package])?;
    std::fs::rename(&beside, bin.join(program)).map_err(|error| error.to_string())
}

/// The module that takes over SPIRE's requirements.
fn module(folder: &Path) -> Result<PathBuf, String> {
    let module = folder.join("module");
    if module.join("go.mod.done").exists() {
        return Ok(module);
    }
    std::fs::create_dir_all(&module).map_err(|error| error.to_string())?;
    std::fs::write(module.join("go.mod"), "module spirebuild\n\ngo 1.24\n").map_err(|error| error.to_string())?;
    std::fs::write(module.join("go.sum"), SUMS).map_err(|error| error.to_string())?;
    let told = go(&module, &["mod", "download", "-json", &format!("github.com/spiffe/spire@{VERSION}")])?;
    let told: serde_json::Value = serde_json::from_str(&told).map_err(|error| error.to_string())?;
    let path = told.get("Dir").and_then(serde_json::Value::as_str).ok_or("`go mod download` names no folder")?;
    let read = |name: &str| std::fs::read_to_string(Path::new(path).join(name)).map_err(|error| error.to_string());
    let theirs = read("go.mod")?;
    let rest: Vec<&str> = theirs.lines().filter(|line| !line.starts_with("module ")).collect();
    let ours =
        format!("module spirebuild\n{}\nrequire github.com/spiffe/spire {VERSION}\n{REPLACED}\n", rest.join("\n"));
    std::fs::write(module.join("go.mod"), ours).map_err(|error| error.to_string())?;
    std::fs::write(module.join("go.sum"), read("go.sum")? + SUMS).map_err(|error| error.to_string())?;
    std::fs::write(module.join("go.mod.done"), "").map_err(|error| error.to_string())?;
    Ok(module)
}

fn go(module: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("go");
    command.args(arguments).current_dir(module).env("GOFLAGS", "-mod=mod -buildvcs=false").env("GOWORK", "off");
    let output = command.output().map_err(|error| format!("Go does not start: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(5).collect();
    Err(format!("`go {}` failed: {}", arguments.join(" "), last.into_iter().rev().collect::<Vec<_>>().join(" / ")))
}

const PROGRAMS: [&str; 2] = ["spire-server", "spire-agent"];

/// One dependency of a plugin that the tests do not use: this version is the one that the public proxy serves.
const REPLACED: &str =
    "replace github.com/Keyfactor/ejbca-go-client-sdk => github.com/Keyfactor/ejbca-go-client-sdk v1.0.2";

/// What SPIRE's own `go.sum` cannot have: SPIRE itself and the replaced module.
const SUMS: &str = "\
github.com/Keyfactor/ejbca-go-client-sdk v1.0.2 h1:pPnXCFfIFAwCjJrg1BtYlzoF8oHQ52sPOMs/uZ9uvZA=
github.com/Keyfactor/ejbca-go-client-sdk v1.0.2/go.mod h1:4Sv/KGVgRV4VXKko1ajfTaJwqJ5Aiw0VrDI9S7IcQ1g=
github.com/spiffe/spire v1.15.3 h1:z1h9DOYWtPdPQiKL2F+BShzfTq0k235tdROg0WRo8S8=
github.com/spiffe/spire v1.15.3/go.mod h1:la74DxcqcRc33ICmerqPN7K4g03DOqYydYe5bdAWkXo=
";
