//! Commands that talk to a running host over its control socket. They hold no decisions: the host decides and refuses.

use std::path::{Path, PathBuf};

use tonic::transport::Channel;

use super::error::{CliError, exit};
use super::located::{self, Located, RegistryArgs};
use super::output::{Output, table};
use super::{block_on, files, kept, locate};
use crate::limits::{KEPT_BYTES, KEPT_COMPONENTS};
use crate::rpc::control::control_client::ControlClient;
use crate::rpc::control::{
    Component, ReloadPolicyRequest, StartRequest, StatusReply, StatusRequest, StopRequest, start_reply,
};

/// Which host.
#[derive(Debug, clap::Args)]
pub struct TargetArgs {
    /// The configuration file of the host.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The control socket, instead of the one that the configuration gives.
    #[arg(long)]
    socket: Option<PathBuf>,
}

/// Arguments of `portcullis status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Wait up to this many seconds for the host to be ready.
    #[arg(long, default_value_t = 0)]
    wait: u64,
}

/// Arguments of `portcullis start`.
#[derive(Debug, clap::Args)]
pub struct StartArgs {
    /// The component: a file, or oci://HOST/REPOSITORY:TAG, which is fetched to the host's state directory.
    component: Located,
    /// Its evidence, instead of COMPONENT.sigstore.json.
    #[arg(long = "bundle")]
    evidence: Vec<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Route it: a path prefix, or HOST/PATH.
    #[arg(long)]
    route: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
}

/// Arguments of `portcullis stop`.
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// Name of a component, or an instance id.
    component: String,
    #[command(flatten)]
    target: TargetArgs,
}

/// A client of the control socket.
pub type Control = ControlClient<Channel>;

impl TargetArgs {
    /// The configuration file given.
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The control socket that is meant.
    pub fn socket(&self) -> Result<PathBuf, CliError> {
        match &self.socket {
            Some(socket) => Ok(socket.clone()),
            None => Ok(locate::config(self.config.as_deref())?.control_socket()),
        }
    }
}

/// Connects to a host.
pub async fn connect(socket: &Path) -> Result<Control, CliError> {
    let channel = crate::rpc::client_at(socket).await.map_err(|error| {
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            let message = format!("{} may not be used by this user", socket.display());
            return CliError::new(exit::TRANSPORT, "host.unreachable", message)
                .with_hint("only the user whom the host runs as, and root, may control it");
        }
        CliError::new(exit::TRANSPORT, "host.unreachable", format!("no host answers at {}: {error}", socket.display()))
            .with_hint("start it with `portcullis host --config FILE`; one that was given --state-dir DIR answers at --socket DIR/run/control.sock")
    })?;
    Ok(ControlClient::new(channel).max_decoding_message_size(MESSAGE_BYTES))
}

/// A failed call as an error of the command.
pub fn failed(status: &tonic::Status) -> CliError {
    match status.code() {
        tonic::Code::InvalidArgument => CliError::usage(status.message()),
        _ => {
            CliError::new(exit::TRANSPORT, "host.call-failed", format!("the host did not answer: {}", status.message()))
                .with_hint("look at the log of the host")
        }
    }
}

/// `portcullis status`: exit 0 if the host is ready, else 1.
pub fn status(args: StatusArgs, out: &mut Output) -> Result<(), CliError> {
    let socket = args.target.socket()?;
    let reply = block_on(async {
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(args.wait);
        // A host that was just started has no socket yet.
        let mut control = loop {
            match connect(&socket).await {
                Ok(control) => break control,
                Err(error) if tokio::time::Instant::now() >= until => return Err(error),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        };
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let wait_ready_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let reply = control.status(StatusRequest { wait_ready_ms }).await;
        Ok(reply.map_err(|error| failed(&error))?.into_inner())
    })?;
    out.result(status_text(&reply), &status_json(&reply))?;
    if reply.ready {
        return Ok(());
    }
    Err(CliError::new(exit::INTERNAL, "host.not-ready", "the host is up and not ready")
        .with_hint("the lines `problem` say why, and what to do"))
}

/// `portcullis list`.
pub fn list(args: TargetArgs, out: &mut Output) -> Result<(), CliError> {
    let socket = args.socket()?;
    let reply = block_on(async {
        let reply = connect(&socket).await?.status(StatusRequest { wait_ready_ms: 0 }).await;
        Ok(reply.map_err(|error| failed(&error))?.into_inner())
    })?;
    let json = reply.components.iter().map(component_json).collect::<Vec<_>>();
    out.result(components_text(&reply.components), &json.into())
}

/// `portcullis start`: the exit code of a refusal is the refusal's.
pub fn start(args: StartArgs, out: &mut Output) -> Result<(), CliError> {
    let socket = args.target.socket()?;
    let absolute =
        |path: PathBuf| std::path::absolute(&path).map(|path| path.display().to_string()).map_err(CliError::internal);
    let (route_host, route_path) = match args.route {
        None => (String::new(), String::new()),
        Some(route) => match route.split_once('/') {
            Some((host, path)) => (host.to_owned(), format!("/{path}")),
            None => {
                return Err(CliError::usage("a route is /PATH or HOST/PATH").with_hint("for instance --route /orders"));
            }
        },
    };
    let (component, about) = match &args.component {
        Located::File(path) => (path.clone(), files::with_evidence(path, &args.evidence)),
        Located::Registry(text) => fetched(&socket, text, &args.registry, out)?,
    };
    let request = StartRequest {
        component_path: absolute(component)?,
        evidence_paths: args.evidence.into_iter().map(absolute).collect::<Result<_, _>>()?,
        route_host,
        route_path,
    };
    let spinner = out.spinner("verifying and compiling");
    let reply = block_on(async {
        let reply = connect(&socket).await?.start(request).await;
        Ok(reply.map_err(|error| failed(&error))?.into_inner())
    });
    spinner.finish_and_clear();
    match reply?.result {
        Some(start_reply::Result::Started(component)) => {
            out.result(components_text(std::slice::from_ref(&component)), &component_json(&component))
        }
        Some(start_reply::Result::Refused(refused)) => {
            let exit = u8::try_from(refused.exit_code).unwrap_or(exit::INTERNAL);
            let details = serde_json::json!({ "reference": refused.reference });
            Err(CliError::new(exit, &refused.code, format!("{}: {}", refused.code, refused.message))
                .about(about)
                .with_hint(refused.hint)
                .with_details(details))
        }
        None => Err(CliError::internal("the host gave an empty answer")),
    }
}

/// Fetches a component to where the host keeps what was started from a registry: `components` in its state directory, by digest.
fn fetched(
    socket: &Path,
    text: &str,
    registry: &RegistryArgs,
    out: &mut Output,
) -> Result<(PathBuf, String), CliError> {
    let reference = located::reference(text)?;
    let Some(state) = socket.parent().and_then(Path::parent) else {
        return Err(CliError::usage(format!("{} is in no state directory", socket.display()))
            .with_hint("fetch the component with `portcullis pull` and start the file"));
    };
    let fetched = located::fetch(&reference, registry, None, out)?;
    let store = state.join("components");
    let folder = store.join(fetched.component.digest().hex());
    std::fs::create_dir_all(&folder).map_err(|error| {
        CliError::usage(format!("{} cannot be made: {error}", folder.display()))
            .with_hint("run as the user whom the host runs as, or fetch the component with `portcullis pull`")
    })?;
    let path = folder.join("component.wasm");
    super::pull::write(&fetched, &path, true)?;
    if let Err(error) = kept::make_room(&store, &folder, KEPT_COMPONENTS, KEPT_BYTES) {
        out.note(format!(
            "components that were started before could not be cleared away in {}: {error}",
            store.display()
        ));
    }
    Ok((path, fetched.reference.to_string()))
}

/// `portcullis stop`.
pub fn stop(args: StopArgs, out: &mut Output) -> Result<(), CliError> {
    let socket = args.target.socket()?;
    let stopped = block_on(async {
        let reply = connect(&socket).await?.stop(StopRequest { target: args.component.clone() }).await;
        Ok(reply.map_err(|error| failed(&error))?.into_inner().stopped)
    })?;
    if stopped == 0 {
        return Err(CliError::usage(format!("nothing called {} runs", args.component))
            .with_hint("`portcullis list` shows what runs"));
    }
    out.result(format!("stopped {stopped}"), &serde_json::json!({ "stopped": stopped }))
}

/// `portcullis reload`.
pub fn reload(args: TargetArgs, out: &mut Output) -> Result<(), CliError> {
    let socket = args.socket()?;
    let reply = block_on(async {
        let reply = connect(&socket).await?.reload_policy(ReloadPolicyRequest {}).await;
        Ok(reply.map_err(|error| failed(&error))?.into_inner())
    })?;
    if !reply.errors.is_empty() {
        return Err(CliError::new(exit::CONFIG, "reload.refused", reply.errors.join("\n"))
            .with_hint("the host keeps the policy it had until these are mended")
            .with_details(reply.errors.into()));
    }
    let text = format!("trust policy and grants are read; policy generation {}", reply.generation);
    out.result(text, &serde_json::json!({ "policy_generation": reply.generation }))
}

fn status_text(reply: &StatusReply) -> String {
    let mut rows = vec![
        vec!["ready".to_owned(), if reply.ready { "yes" } else { "no" }.to_owned()],
        vec!["http".to_owned(), reply.http_address.clone()],
        vec!["mtls".to_owned(), reply.mtls_address.clone()],
        vec!["policy".to_owned(), format!("generation {}", reply.policy_generation)],
        vec!["trust".to_owned(), format!("version {}", reply.trust_version)],
        vec!["audit".to_owned(), reply.audit_path.clone()],
        vec!["requests".to_owned(), format!("{}, spoilt by guests {}", reply.requests, reply.guest_failures)],
    ];
    rows.extend(reply.listening.iter().map(|socket| vec![socket.name.clone(), socket.address.clone()]));
    rows.extend(reply.processes.iter().map(|process| {
        let up = if process.up { format!("pid {}", process.pid) } else { "down".to_owned() };
        vec![process.role.clone(), format!("{up}, {} restarts", process.restarts)]
    }));
    rows.extend(reply.problems.iter().map(|problem| vec!["problem".to_owned(), problem.clone()]));
    rows.extend(reply.audited.iter().map(|audited| {
        let until = super::policy::audit_mode::shown(audited.until);
        let what = format!("AUDIT MODE: {} until {until}, what nobody granted is let through", audited.component);
        vec!["warning".to_owned(), what]
    }));
    rows.extend(reply.dangers.iter().map(|danger| vec!["danger".to_owned(), danger.clone()]));
    format!("{}\n{}", table(&rows), components_text(&reply.components))
}

fn components_text(components: &[Component]) -> String {
    let head = ["COMPONENT", "VERSION", "STATE", "SPIFFE ID", "DIGEST", "INSTANCE"].map(str::to_owned).to_vec();
    let rows = components.iter().map(|component| {
        let digest: String = component.digest.chars().take(19).collect();
        let refused = component.detail.lines().next().unwrap_or_default().chars().take(REFUSAL_CHARS).collect();
        let what = if component.state == "refused" { refused } else { component.spiffe_id.clone() };
        vec![
            component.name.clone(),
            component.version.clone(),
            component.state.clone(),
            what,
            digest,
            component.instance.clone(),
        ]
    });
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()).trim_end().to_owned()
}

fn component_json(component: &Component) -> serde_json::Value {
    serde_json::json!({
        "name": component.name, "version": component.version, "digest": component.digest, "instance": component.instance,
        "spiffe_id": component.spiffe_id, "signer": component.signer, "state": component.state, "detail": component.detail,
    })
}

/// The status as JSON, for `--json` and for the demo.
pub fn status_json(reply: &StatusReply) -> serde_json::Value {
    let processes = reply.processes.iter().map(|process| {
        serde_json::json!({ "role": process.role, "pid": process.pid, "restarts": process.restarts, "up": process.up })
    });
    let audited = reply
        .audited
        .iter()
        .map(|audited| serde_json::json!({ "component": audited.component, "until": audited.until }));
    let listening: serde_json::Map<_, _> =
        reply.listening.iter().map(|socket| (socket.name.clone(), socket.address.clone().into())).collect();
    serde_json::json!({
        "ready": reply.ready, "problems": reply.problems, "policy_generation": reply.policy_generation,
        "trust_version": reply.trust_version, "processes": processes.collect::<Vec<_>>(),
        "components": reply.components.iter().map(component_json).collect::<Vec<_>>(),
        "http": reply.http_address, "mtls": reply.mtls_address, "audit": reply.audit_path, "pool_profile": reply.pool_profile,
        "requests": reply.requests, "guest_failures": reply.guest_failures, "events_lost": reply.events_lost,
        "dangers": reply.dangers, "listening": listening, "audited": audited.collect::<Vec<_>>(),
    })
}

/// How much of a refusal fits into a table; `status` has the whole.
const REFUSAL_CHARS: usize = 72;
/// Largest answer of a host.
const MESSAGE_BYTES: usize = 16 << 20;
