//! The nine steps.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::memory::{Memory, Scan};
use super::site::{HostProcess, Site, TRUST_DOMAIN, program};
use super::{Report, bad, check, http};
use crate::cli::error::CliError;
use crate::cli::remote::{self, Control};
use crate::rpc::control::{BundleRequest, ExplainRequest, ScanChunk, StatusReply, StatusRequest};

/// Runs all steps; the host is still up afterwards.
pub async fn all(report: &mut Report<'_>) -> Result<(Site, HostProcess), CliError> {
    let site = one(report)?;
    two(report, &site)?;
    let (host, mut control) = three(report, &site).await?;
    four(report, &site).await?;
    five(report, &site, &mut control).await?;
    six(report, &site, &mut control).await?;
    seven(report, &site, &mut control).await?;
    eight(report, &site, &mut control).await?;
    nine(report, &site)?;
    Ok((site, host))
}

fn one(report: &mut Report<'_>) -> Result<Site, CliError> {
    report.heading(1, "A throw-away trust domain, signer key, signed trust policy and grants")?;
    let site = Site::make()?;
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(site.root()).map_err(CliError::internal)?.permissions(),
    );
    report.check(
        1,
        &format!("folder {}", site.root().display()),
        "mode 0700",
        &format!("mode {:04o}", mode & 0o777),
        mode & 0o777 == 0o700,
    )?;
    Ok(site)
}

fn two(report: &mut Report<'_>, site: &Site) -> Result<(), CliError> {
    report.heading(2, "Sign the bundled components")?;
    for (name, digest) in site.sign()? {
        let short: String = digest.chars().take(19).collect();
        report.check(2, &name, "signed", &format!("signed {short}.. by {}", site.signer().public()), true)?;
    }
    Ok(())
}

async fn three(report: &mut Report<'_>, site: &Site) -> Result<(HostProcess, Control), CliError> {
    report.heading(3, "Start the host: supervisor, identity and runtime as processes of their own")?;
    let started = Instant::now();
    let spinner = report.out.spinner("verifying, compiling native code, starting");
    let host = site.start_host()?;
    let reached = reach(site).await;
    let mut control = match reached {
        Ok(control) => control,
        Err(error) => {
            spinner.finish_and_clear();
            let log = std::fs::read_to_string(site.path("host.log")).unwrap_or_default();
            return Err(CliError::internal(format!("the host did not come up: {}\n{log}", error.message())));
        }
    };
    let status = status(&mut control, WAIT_READY_MS).await?;
    spinner.finish_and_clear();
    let took = started.elapsed();
    let got = if status.ready { format!("ready in {} ms", took.as_millis()) } else { status.problems.join("; ") };
    report.check(3, "host", "ready", &got, status.ready)?;
    let processes: Vec<String> =
        status.processes.iter().map(|process| format!("{} {}", process.role, process.pid)).collect();
    let distinct: std::collections::BTreeSet<u32> = status.processes.iter().map(|process| process.pid).collect();
    report.check(3, "processes", "three, each of its own", &processes.join(", "), distinct.len() == 3)?;
    for component in &status.components {
        let ok = component.state == "running";
        let got = if ok { &component.spiffe_id } else { &component.detail };
        report.check(3, &component.name, "a SPIFFE ID from its verified claims", got, ok)?;
    }
    Ok((host, control))
}

async fn four(report: &mut Report<'_>, site: &Site) -> Result<(), CliError> {
    report.heading(4, "Refusals first: what must not run here")?;
    for bad in bad::all(site)? {
        let (exit, answer) =
            portcullis(&["start".as_ref(), bad.path.as_os_str(), "--config".as_ref(), site.config_path().as_os_str()])
                .await?;
        let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (code, hint) = (text("/error/code"), text("/error/hint"));
        let ok = exit == Some(bad.exit.into()) && code.starts_with(bad.code) && !hint.is_empty();
        let expected = format!("exit {} {}", bad.exit, bad.code);
        let got = format!("exit {} {code}", exit.map_or("none".to_owned(), |exit| exit.to_string()));
        report.check(4, bad.what, &expected, &got, ok)?;
        let first = hint.lines().next().unwrap_or_default();
        report.note(&format!("next step: {first}"))?;
    }
    Ok(())
}

async fn five(report: &mut Report<'_>, site: &Site, control: &mut Control) -> Result<(), CliError> {
    report.heading(5, "GET /greeter: identity, token, mTLS to the vault")?;
    let (code, body) = match http::get(site.http_port(), "/greeter", &[("x-vault-url", &site.vault_url())]).await {
        Ok((status, body)) => (status.as_u16(), body),
        Err(error) => {
            return report.check(5, "answer", "200", &error, false);
        }
    };
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let shown = if code == 200 { "200".to_owned() } else { format!("{code} {}", String::from_utf8_lossy(&body)) };
    report.check(5, "answer", "200", &shown, code == 200)?;
    let greeter = format!("spiffe://{TRUST_DOMAIN}/ns/demo/sa/greeter");
    let own = text("/spiffe_id");
    report.check(5, "greeter reads its own SPIFFE ID", &greeter, &own, own == greeter)?;
    let caller = text("/vault/caller");
    report.check(5, "vault learns the caller from its certificate", &greeter, &caller, caller == greeter)?;
    let subject = text("/vault/token_subject");
    report.check(5, "vault checked the token it was sent", &greeter, &subject, subject == greeter)?;
    let second = answer.pointer("/wasmcloud_token").and_then(Value::as_bool) == Some(true);
    report.check(5, "a token through wasmcloud:identity@0.0.1", "yes", if second { "yes" } else { "no" }, second)?;
    let bundle = control
        .bundle(BundleRequest { federated: false })
        .await
        .map_err(|error| remote::failed(&error))?
        .into_inner()
        .json;
    let token = text("/token");
    let checked = check::token(&token, "vault", &bundle, TRUST_DOMAIN).unwrap_or_else(|error| error);
    report.check(5, "JWT-SVID checked here by the spiffe crate", &greeter, &checked, checked == greeter)?;
    let leaf = unhex(&text("/certificate")).ok_or_else(|| "not hexadecimal".to_owned());
    let checked = leaf.and_then(|der| check::chain(&der, &bundle, crate::clock::now())).unwrap_or_else(|error| error);
    report.check(5, "certificate chain checked here by x509-parser", &greeter, &checked, checked == greeter)
}

async fn six(report: &mut Report<'_>, site: &Site, control: &mut Control) -> Result<(), CliError> {
    report.heading(6, "A destination that nobody granted, its refusal, and the fix as printed")?;
    let port = somewhere().await?;
    let path = format!("/greeter/fetch?url=http%3A%2F%2F127.0.0.1%3A{port}%2Fhello");
    let (code, body) = http::get(site.http_port(), &path, &[]).await.map_err(CliError::internal)?;
    let answer = String::from_utf8_lossy(&body).into_owned();
    let denied = code.as_u16() == 403 && answer.to_ascii_lowercase().contains("request-denied");
    report.check(6, "the guest gets the WASI error code", "HTTP-request-denied", answer.trim(), denied)?;
    let Some(reference) = last_denial(&site.audit_log()).await? else {
        return report.check(6, "the operator's refusal", "in the audit log", "not there", false);
    };
    let refusal =
        control.explain(ExplainRequest { reference }).await.map_err(|error| remote::failed(&error))?.into_inner();
    let fields = ["who", "what", "why", "nearest", "fix"];
    let complete = fields.iter().all(|field| refusal.text.lines().any(|line| line.trim_start().starts_with(field)));
    report.check(
        6,
        "the operator's refusal",
        "who, what, why, nearest grant, fix",
        if complete { "complete" } else { "incomplete" },
        complete,
    )?;
    report.note(&refusal.text)?;
    let Some((_, arguments)) = refusal.fix_argv.split_first() else {
        return report.check(6, "the fix", "a command", "none", false);
    };
    let arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    let (exit, answer) = portcullis(&arguments).await?;
    let got = if exit == Some(0) { "exit 0".to_owned() } else { format!("exit {exit:?} {answer}") };
    report.check(6, "the fix, run exactly as printed", "exit 0", &got, exit == Some(0))?;
    let (code, body) = http::get(site.http_port(), &path, &[]).await.map_err(CliError::internal)?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let passed = code.as_u16() == 200 && answer.get("status").and_then(Value::as_u64) == Some(200);
    report.check(6, "the same call again", "passes", if passed { "passes" } else { "refused" }, passed)?;
    let other = http::get(site.http_port(), "/greeter/fetch?url=http%3A%2F%2F127.0.0.1%3A1%2F", &[])
        .await
        .map_err(CliError::internal)?;
    report.check(
        6,
        "another destination",
        "still refused",
        if other.0 == 403 { "still refused" } else { "passes" },
        other.0 == 403,
    )
}

async fn seven(report: &mut Report<'_>, site: &Site, control: &mut Control) -> Result<(), CliError> {
    report.heading(7, "Kill the runtime process")?;
    let before = status(control, 0).await?;
    let Some(pid) = pid_of(&before, "runtime").and_then(rustix::process::Pid::from_raw) else {
        return report.check(7, "runtime", "a process", "none", false);
    };
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).map_err(CliError::internal)?;
    let killed = Instant::now();
    let mut back = None;
    while killed.elapsed() < Duration::from_secs(10) {
        if let Ok((code, _)) = http::get(site.http_port(), "/greeter", &[("x-vault-url", &site.vault_url())]).await
            && code == 200
        {
            back = Some(killed.elapsed());
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let got = back.map_or("not back in 10 s".to_owned(), |took| format!("{} ms", took.as_millis()));
    report.check(
        7,
        "back, serving, mTLS and all",
        "within 2 s",
        &got,
        back.is_some_and(|took| took < Duration::from_secs(2)),
    )?;
    let after = status(control, WAIT_READY_MS).await?;
    let untouched = pid_of(&before, "identity").is_some() && pid_of(&before, "identity") == pid_of(&after, "identity");
    report.check(
        7,
        "identity process",
        "untouched",
        if untouched { "untouched" } else { "another process" },
        untouched,
    )?;
    let replaced = pid_of(&before, "runtime") != pid_of(&after, "runtime");
    report.check(7, "runtime process", "another one", if replaced { "another one" } else { "the same" }, replaced)
}

async fn eight(report: &mut Report<'_>, site: &Site, control: &mut Control) -> Result<(), CliError> {
    report.heading(8, "Look for private keys in the runtime's memory")?;
    let planted = keys_on_disk(&site.key_folder()).map_err(CliError::internal)?;
    let control_scan = control
        .scan_for_keys(futures::stream::iter([ScanChunk { data: planted, continues: false }]))
        .await
        .map_err(|error| remote::failed(&error))?
        .into_inner();
    let got = format!("finds {} keys in {} bytes", control_scan.hits, control_scan.scanned);
    report.check(8, "the scan itself, on the key files", "finds keys", &got, control_scan.hits > 0)?;
    let Some(pid) = pid_of(&status(control, 0).await?, "runtime").and_then(|pid| u32::try_from(pid).ok()) else {
        return report.check(8, "runtime", "a process", "none", false);
    };
    let memory = match Memory::open(pid, TRUST_DOMAIN) {
        Ok(memory) => memory,
        Err(error) => {
            return report.skip(
                8,
                "the runtime's memory",
                "no private key",
                &format!("this kernel does not let us read it: {error}"),
            );
        }
    };
    let seen = memory.seen();
    let spinner = report.out.spinner("scanning");
    let scanned = control.scan_for_keys(memory.chunks()).await.map_err(|error| remote::failed(&error))?.into_inner();
    spinner.finish_and_clear();
    let scan = Scan { keys: scanned.hits, bytes: scanned.scanned, marker: seen.load(Ordering::Relaxed) };
    let mib = scan.bytes / (1 << 20);
    report.check(
        8,
        "the scan really read that memory",
        "finds the trust domain's name",
        if scan.marker { "found" } else { "not found" },
        scan.marker,
    )?;
    report.check(
        8,
        "the runtime's memory",
        "no private key",
        &format!("{} private keys in {mib} MiB", scan.keys),
        scan.keys == 0,
    )
}

fn nine(report: &mut Report<'_>, site: &Site) -> Result<(), CliError> {
    report.heading(9, "The audit log")?;
    let path = site.audit_log();
    let file = std::fs::File::open(&path).map_err(CliError::internal)?;
    match crate::audit::verify(std::io::BufReader::new(file)) {
        Ok(summary) => {
            let kinds: Vec<String> = summary.by_kind.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            report.check(
                9,
                "hash chain",
                "holds",
                &format!("holds over {} records ({})", summary.records, kinds.join(", ")),
                true,
            )?;
        }
        Err(error) => report.check(9, "hash chain", "holds", &error.to_string(), false)?,
    }
    let mut bytes = std::fs::read(&path).map_err(CliError::internal)?;
    if let Some(byte) = bytes.iter_mut().find(|byte| **byte == b'a') {
        *byte = b'b';
    }
    let found = crate::audit::verify(bytes.as_slice()).is_err();
    report.check(
        9,
        "a copy with one byte changed",
        "is found out",
        if found { "is found out" } else { "passes" },
        found,
    )?;
    report.note(&format!("the log lies at {}", path.display()))
}

async fn reach(site: &Site) -> Result<Control, CliError> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match remote::connect(&site.control_socket()).await {
            Ok(control) => return Ok(control),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn status(control: &mut Control, wait_ready_ms: u64) -> Result<StatusReply, CliError> {
    let reply = control.status(StatusRequest { wait_ready_ms }).await;
    Ok(reply.map_err(|error| remote::failed(&error))?.into_inner())
}

fn pid_of(status: &StatusReply, role: &str) -> Option<i32> {
    let process = status.processes.iter().find(|process| process.role == role && process.up)?;
    i32::try_from(process.pid).ok()
}

/// Runs this program with arguments and `--json`; gives its exit code and what it printed.
async fn portcullis(arguments: &[&std::ffi::OsStr]) -> Result<(Option<i32>, Value), CliError> {
    let mut command = program();
    command.args(arguments).arg("--json");
    let output = tokio::task::spawn_blocking(move || command.output()).await.map_err(CliError::internal)?;
    let output = output.map_err(CliError::internal)?;
    let answer = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| String::from_utf8_lossy(&output.stderr).into_owned().into());
    Ok((output.status.code(), answer))
}

/// A plain HTTP server on loopback that answers `hello`; gives its port.
async fn somewhere() -> Result<u16, CliError> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.map_err(CliError::internal)?;
    let port = listener.local_addr().map_err(CliError::internal)?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = hyper::service::service_fn(|_| async {
                let body = http_body_util::Full::new(bytes::Bytes::from_static(b"hello"));
                Ok::<_, std::convert::Infallible>(::http::Response::new(body))
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, answer));
        }
    });
    Ok(port)
}

/// The reference of the last denial of the request path. The record follows the answer by a moment.
async fn last_denial(log: &Path) -> Result<Option<String>, CliError> {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let text = std::fs::read_to_string(log).map_err(CliError::internal)?;
        let records = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is = |record: &Value, name: &str, word: &str| record.get(name).and_then(Value::as_str) == Some(word);
        let mut denials = records.filter(|record| is(record, "kind", "denial") && is(record, "by", "runtime"));
        if let Some(record) = denials.next() {
            return Ok(record.get("ref").and_then(Value::as_str).map(str::to_owned));
        }
        if Instant::now() > until {
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The decoded private keys in the files of the identity process, one after the other.
fn keys_on_disk(folder: &Path) -> std::io::Result<Vec<u8>> {
    use base64::Engine;
    let mut keys = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let text = std::fs::read_to_string(entry?.path()).unwrap_or_default();
        let file: Value = text.lines().next().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        let members =
            file.as_object().into_iter().flatten().filter(|(name, _)| name.to_ascii_lowercase().contains("private"));
        for (_, value) in members {
            let decoded = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default());
            keys.extend(decoded.unwrap_or_default());
        }
    }
    Ok(keys)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    digits?.chunks(2).map(|pair| Some(pair.first()? << 4 | pair.get(1)?)).collect()
}

const WAIT_READY_MS: u64 = 60_000;
