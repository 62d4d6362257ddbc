//! `portcullis host` and `portcullis run`: a host in the foreground, until SIGTERM or SIGINT.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::error::{CliError, exit};
use super::output::{Output, table};
use super::{block_on, locate};
use crate::config::{Component, Config};
use crate::supervisor::{Host, HostError};

/// Arguments of `portcullis host`.
#[derive(Debug, clap::Args)]
pub struct HostArgs {
    /// The configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where state is kept, instead of what the configuration says.
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// End when the process that started this one does.
    #[arg(long, hide = true)]
    die_with_parent: bool,
}

/// Arguments of `portcullis run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The component.
    component: PathBuf,
    /// Its evidence, instead of COMPONENT.sigstore.json.
    #[arg(long = "bundle")]
    evidence: Vec<PathBuf>,
    /// The configuration file: trust, grants, limits. Its components and routes are left out.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where state is kept, instead of what the configuration says.
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// Address to listen on, instead of what the configuration says.
    #[arg(long)]
    http: Option<SocketAddr>,
}

/// Runs a host until it is told to stop.
pub fn run(args: HostArgs, out: &mut Output) -> Result<(), CliError> {
    if args.die_with_parent {
        let kill = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(kill).map_err(CliError::internal)?;
    }
    let mut config = locate::config(args.config.as_deref())?;
    if let Some(state_dir) = args.state_dir {
        config.state_dir = std::path::absolute(state_dir).map_err(CliError::internal)?;
    }
    crate::logging::start("supervisor");
    block_on(async {
        let host = start(config).await?;
        let host = bring_up(host, out).await;
        serve(&host, out).await
    })
}

/// Runs one component until it is told to stop. A refusal ends it with the refusal's exit code.
pub fn run_one(args: RunArgs, out: &mut Output) -> Result<(), CliError> {
    let mut config = locate::config(args.config.as_deref())?;
    if let Some(state_dir) = args.state_dir {
        config.state_dir = std::path::absolute(state_dir).map_err(CliError::internal)?;
    }
    if let Some(http) = args.http {
        config.listen.http = http;
    }
    config.components = vec![Component { path: args.component, evidence: args.evidence }];
    config.routes = Vec::new();
    crate::logging::start("supervisor");
    block_on(async {
        let component = config.components.pop().ok_or_else(|| CliError::internal("no component"))?;
        let about = super::files::with_evidence(&component.path, &component.evidence);
        let host = start(config).await?;
        let spinner = out.spinner("verifying and compiling");
        let spec = crate::supervisor::StartSpec {
            path: component.path,
            evidence: component.evidence,
            route: Some((None, "/".to_owned())),
            ..crate::supervisor::StartSpec::default()
        };
        let started = host.start_component(spec).await;
        host.start_configured(&|_| {}).await;
        spinner.finish_and_clear();
        match started {
            Ok(_) => serve(&host, out).await,
            Err(refused) => {
                host.shut_down().await;
                Err(CliError::new(refused.exit, &refused.code, refused.message).with_hint(refused.hint).about(about))
            }
        }
    })
}

async fn start(config: Config) -> Result<Arc<Host>, CliError> {
    Host::start(config).await.map_err(|error| match error {
        HostError::State(_) | HostError::Listen(..) => with_hint(exit::CONFIG, "host.cannot-start", &error.to_string()),
        HostError::Audit { .. } => with_hint(exit::INTERNAL, "audit.broken", &error.to_string()),
        HostError::Revocations(_) => with_hint(exit::INTERNAL, "identity.revocations", &error.to_string()),
        HostError::Io(_) => CliError::internal(error),
    })
}

/// What a host says that it cannot start for ends with its hint.
fn with_hint(exit: u8, code: &str, text: &str) -> CliError {
    let (message, hint) = text.split_once("; hint: ").unwrap_or((text, ""));
    CliError::new(exit, code, message).with_hint(hint)
}

async fn bring_up(host: Arc<Host>, out: &mut Output) -> Arc<Host> {
    let spinner = out.spinner("starting components");
    host.start_configured(&|path| spinner.set_message(format!("verifying and compiling {}", path.display()))).await;
    spinner.finish_and_clear();
    host
}

async fn serve(host: &Arc<Host>, out: &mut Output) -> Result<(), CliError> {
    let (http, mtls) = host.addresses();
    let shown = |address: Option<SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    let or_off = |address: Option<SocketAddr>| address.map_or_else(|| "off".to_owned(), |address| address.to_string());
    let mut rows = vec![vec!["http".to_owned(), or_off(http)], vec!["mtls".to_owned(), or_off(mtls)]];
    rows.extend(host.running().iter().map(|component| {
        let facts = component.admitted.facts();
        vec![facts.name.clone(), facts.spiffe_id.clone()]
    }));
    let problems = host.problems().await;
    rows.extend(problems.iter().map(|problem| vec!["not ready".to_owned(), problem.clone()]));
    out.line(table(&rows).trim_end())?;
    out.value(&serde_json::json!({ "http": shown(http), "mtls": shown(mtls), "problems": problems }))?;
    let listen = |kind| signal(kind).map_err(CliError::internal);
    let (mut term, mut int, mut hup) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?);
    loop {
        tokio::select! {
            biased;
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hup.recv() => reload(host).await,
        }
    }
    host.shut_down().await;
    Ok(())
}

async fn reload(host: &Arc<Host>) {
    match host.reload().await {
        Ok(generation) => tracing::info!(generation, "policy reloaded"),
        Err(problems) => tracing::error!("the new policy cannot be used, the old one stays: {}", problems.join("; ")),
    }
}
