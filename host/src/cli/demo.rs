//! `portcullis demo`: the whole chain on one machine. Every step says what is tried, what must come out, and what did.
//!
//! Nothing is faked: the host is this binary with its real processes, keys and policy engine, on loopback; the checks of
//! SVIDs use other code than the one that issued them. Exit 0 only if every step came out as expected.

mod bad;
mod check;
mod http;
mod memory;
mod site;
mod steps;

use super::error::CliError;
use super::output::Output;

/// Arguments of `portcullis demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Leave the host up at the end and print commands to try.
    #[arg(long)]
    serve: bool,
}

/// What one check came to.
#[derive(Debug, Clone, serde::Serialize)]
struct Line {
    step: u8,
    what: String,
    expected: String,
    got: String,
    verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Failed,
    Skipped,
}

/// Prints each line as it comes and remembers them all.
#[derive(Debug)]
struct Report<'a> {
    out: &'a mut Output,
    lines: Vec<Line>,
}

impl Report<'_> {
    fn heading(&mut self, step: u8, text: &str) -> Result<(), CliError> {
        self.out.line(format!("\n{step}. {text}"))
    }

    /// A check: `got` must be what was expected.
    fn check(&mut self, step: u8, what: &str, expected: &str, got: &str, ok: bool) -> Result<(), CliError> {
        self.push(step, what, expected, got, if ok { Verdict::Ok } else { Verdict::Failed })
    }

    /// A check that this machine does not allow.
    fn skip(&mut self, step: u8, what: &str, expected: &str, why: &str) -> Result<(), CliError> {
        self.push(step, what, expected, why, Verdict::Skipped)
    }

    /// Text that belongs to the last check: a refusal, a next step.
    fn note(&mut self, text: &str) -> Result<(), CliError> {
        let indented: Vec<String> = text.lines().map(|line| format!("       {line}")).collect();
        if let Some(line) = self.lines.last_mut() {
            line.note = Some(text.to_owned());
        }
        self.out.line(indented.join("\n"))
    }

    fn push(&mut self, step: u8, what: &str, expected: &str, got: &str, verdict: Verdict) -> Result<(), CliError> {
        let mark = match verdict {
            Verdict::Ok => "ok  ",
            Verdict::Failed => "FAIL",
            Verdict::Skipped => "skip",
        };
        let text =
            if got == expected { format!("{what}: {got}") } else { format!("{what}: expected {expected}; got {got}") };
        let owned = |text: &str| text.to_owned();
        self.lines.push(Line {
            step,
            what: owned(what),
            expected: owned(expected),
            got: owned(got),
            verdict,
            note: None,
        });
        self.out.line(format!("  {mark} {text}"))
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.lines.iter().filter(|line| line.verdict == verdict).count()
    }
}

/// Runs the demo.
pub fn run(args: DemoArgs, out: &mut Output) -> Result<(), CliError> {
    out.line("Portcullis demo: everything below happens on this machine, with throw-away keys, over loopback.")?;
    let mut report = Report { out, lines: Vec::new() };
    // Ended from outside, the future is dropped, and with it the host and the folder with the keys.
    let (site, mut host) = super::block_on(async {
        tokio::select! {
            biased;
            signal = ended_from_outside() => Err(signal),
            done = steps::all(&mut report) => done,
        }
    })?;
    let (ok, failed, skipped) =
        (report.count(Verdict::Ok), report.count(Verdict::Failed), report.count(Verdict::Skipped));
    let lines = serde_json::to_value(&report.lines).map_err(CliError::internal)?;
    out.value(&serde_json::json!({
        "ok": ok, "failed": failed, "skipped": skipped, "state": site.root(), "audit": site.audit_log(), "steps": lines,
    }))?;
    out.line(format!("\n{ok} as expected, {failed} not, {skipped} skipped."))?;
    if args.serve && failed == 0 {
        out.line(format!(
            "\nThe host is up. State, keys and the audit log: {}\nTry:\n{}",
            site.root().display(),
            site.commands()
        ))?;
        out.line("\nCtrl-C ends it and removes everything.")?;
        super::block_on(async { wait(&mut host).await })?;
    }
    host.stop();
    drop(site);
    match failed {
        0 => Ok(()),
        _ => Err(CliError::internal(format!(
            "{failed} of {} checks did not come out as expected",
            report_total(ok, failed, skipped)
        ))),
    }
}

/// Resolves when somebody wants this process to end.
async fn ended_from_outside() -> CliError {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        return CliError::internal("signals cannot be received");
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        _ = hup.recv() => {}
    }
    CliError::internal("ended from outside")
}

/// Waits until somebody ends this process, or the host ends.
async fn wait(host: &mut site::HostProcess) -> Result<(), CliError> {
    let outside = ended_from_outside();
    tokio::pin!(outside);
    loop {
        tokio::select! {
            _ = &mut outside => return Ok(()),
            () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {
                if host.has_ended() {
                    return Ok(());
                }
            }
        }
    }
}

fn report_total(ok: usize, failed: usize, skipped: usize) -> usize {
    ok + failed + skipped
}
