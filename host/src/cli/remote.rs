//! Commands that talk to a running host: over its control socket, or, with an operator file, signed, over NATS or HTTPS. They
//! hold no decisions: the host decides and refuses.

use std::path::{Path, PathBuf};

use tonic::transport::Channel;

use super::error::{CliError, exit};
use super::located::{self, Located, RegistryArgs};
use super::output::{Output, table};
use super::{block_on, examples, files, kept, locate};
use crate::control::Method;
use crate::control::client::Client;
use crate::limits::{EVIDENCE_BYTES, KEPT_BYTES, KEPT_COMPONENTS};
use crate::rpc::control::control_client::ControlClient;
use crate::rpc::control::{
    Component, ListReply, ListRequest, LogsReply, LogsRequest, ReloadPolicyRequest, StartReply, StartRequest,
    StatusReply, StatusRequest, StopReply, StopRequest, start_reply,
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

/// A host elsewhere.
#[derive(Debug, Default, clap::Args)]
pub struct ElsewhereArgs {
    /// The operator file: who signs, whom to believe, the way to hosts. Without it the command is for the host of this machine.
    #[arg(long, value_name = "FILE", requires = "host", conflicts_with_all = ["config", "socket"])]
    operator: Option<PathBuf>,
    /// The name of the host.
    #[arg(long, value_name = "NAME", requires = "operator")]
    host: Option<String>,
}

impl ElsewhereArgs {
    /// The operator file and the host, where both are named.
    fn named(&self) -> Option<(&Path, &str)> {
        Some((self.operator.as_deref()?, self.host.as_deref()?))
    }
}

/// Asks a host: the local one, or another one as an operator.
macro_rules! ask {
    ($target:expr, $elsewhere:expr, $method:expr, $call:ident, $request:expr) => {
        match $elsewhere.named() {
            Some((file, host)) => block_on(async { Client::open(file, host).await?.call($method, &$request).await }),
            None => {
                let socket = $target.socket()?;
                block_on(async {
                    let reply = connect(&socket).await?.$call($request).await;
                    Ok(reply.map_err(|error| failed(&error))?.into_inner())
                })
            }
        }
    };
}

/// Arguments of `portcullis list`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::ONE_HOST)]
pub struct ListArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
}

/// Arguments of `portcullis logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::ONE_HOST)]
pub struct LogsArgs {
    /// Name of a component, or an instance id; without it, all.
    component: Option<String>,
    /// At most so many lines, the newest.
    #[arg(long, default_value_t = 100)]
    lines: u32,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
}

/// Arguments of `portcullis status`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::STATUS)]
pub struct StatusArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
    /// Wait up to this many seconds for the host to be ready.
    #[arg(long, default_value_t = 0)]
    wait: u64,
}

/// Arguments of `portcullis start`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::START)]
pub struct StartArgs {
    /// The component: a file, or oci://HOST/REPOSITORY:TAG, which is fetched to the host's state directory. On a host elsewhere:
    /// oci://, or nothing for what is in its store; --name and --digest say what it must be.
    #[arg(required_unless_present = "digest")]
    component: Option<Located>,
    /// The claimed name that it must have.
    #[arg(long, value_name = "NAMESPACE:NAME", requires = "digest")]
    name: Option<String>,
    /// The digest that its bytes must have: `sha256:` and hexadecimal digits. The host verifies it with everything else.
    #[arg(long, value_name = "DIGEST", requires = "name")]
    digest: Option<String>,
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
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
}

/// Arguments of `portcullis stop`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::ONE_HOST)]
pub struct StopArgs {
    /// Name of a component, or an instance id.
    component: String,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
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
        tonic::Code::PermissionDenied => CliError::new(exit::DENIED, "control.denied", status.message())
            .with_hint("the text above says what would allow it"),
        _ => {
            CliError::new(exit::TRANSPORT, "host.call-failed", format!("the host did not answer: {}", status.message()))
                .with_hint("look at the log of the host")
        }
    }
}

/// `portcullis status`: exit 0 if the host is ready, else 1.
pub fn status(args: StatusArgs, out: &mut Output) -> Result<(), CliError> {
    if let Some((file, host)) = args.elsewhere.named() {
        let request = StatusRequest { wait_ready_ms: args.wait.saturating_mul(1_000) };
        let reply: StatusReply =
            block_on(async { Client::open(file, host).await?.call(Method::Status, &request).await })?;
        return shown(&reply, out);
    }
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
    shown(&reply, out)
}

fn shown(reply: &StatusReply, out: &mut Output) -> Result<(), CliError> {
    out.result(status_text(reply), &status_json(reply))?;
    if reply.ready {
        return Ok(());
    }
    Err(CliError::new(exit::INTERNAL, "host.not-ready", "the host is up and not ready")
        .with_hint("the lines `problem` say why, and what to do"))
}

/// `portcullis list`.
pub fn list(args: ListArgs, out: &mut Output) -> Result<(), CliError> {
    let reply: ListReply = ask!(args.target, args.elsewhere, Method::List, list, ListRequest {})?;
    let json = reply.components.iter().map(component_json).collect::<Vec<_>>();
    out.result(components_text(&reply.components), &json.into())
}

/// `portcullis logs`.
pub fn logs(args: LogsArgs, out: &mut Output) -> Result<(), CliError> {
    let request = LogsRequest { target: args.component.clone().unwrap_or_default(), lines: args.lines };
    let reply: LogsReply = ask!(args.target, args.elsewhere, Method::Logs, logs, request)?;
    let rows = reply.lines.iter().map(|line| {
        let at = shown_ms(line.at_ms);
        vec![at, line.component.clone(), line.stream.clone(), line.text.clone()]
    });
    let json = reply.lines.iter().map(|line| {
        serde_json::json!({
            "at_ms": line.at_ms, "component": line.component, "instance": line.instance, "stream": line.stream,
            "text": line.text,
        })
    });
    let text = match reply.lines.is_empty() {
        true => "nothing was written".to_owned(),
        false => table(&rows.collect::<Vec<_>>()).trim_end().to_owned(),
    };
    out.result(text, &json.collect::<Vec<_>>().into())
}

/// `portcullis start`: the exit code of a refusal is the refusal's.
pub fn start(args: StartArgs, out: &mut Output) -> Result<(), CliError> {
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
    let route = StartRequest { route_host, route_path, ..StartRequest::default() };
    let (request, about) = match (args.elsewhere.named().is_some(), &args.component, &args.digest) {
        (_, Some(Located::File(path)), Some(_)) | (true, Some(Located::File(path)), _) => {
            let message = format!("{} is a file of this machine", path.display());
            return Err(CliError::usage(message)
                .with_hint("push it, and name it as oci://HOST/REPOSITORY:TAG with --name and --digest"));
        }
        (true, Some(Located::Registry(_)), None) => {
            return Err(CliError::usage("what a host elsewhere starts is named by its digest")
                .with_hint("add --name NAMESPACE:NAME --digest sha256:.. as `portcullis verify` prints them"));
        }
        (_, reference, Some(digest)) => {
            let text = match reference {
                Some(Located::Registry(text)) => text.clone(),
                _ => String::new(),
            };
            let about = if text.is_empty() { digest.clone() } else { text.clone() };
            let read = |path: &PathBuf| files::read_bytes(path, EVIDENCE_BYTES, "evidence");
            let request = StartRequest {
                component: args.name.clone().unwrap_or_default(),
                digest: digest.clone(),
                reference: text,
                evidence: args.evidence.iter().map(read).collect::<Result<_, _>>()?,
                ..route
            };
            (request, about)
        }
        (false, located, None) => {
            let (component, about) = match located {
                Some(Located::File(path)) => (path.clone(), files::with_evidence(path, &args.evidence)),
                Some(Located::Registry(text)) => fetched(&args.target.socket()?, text, &args.registry, out)?,
                None => return Err(CliError::usage("there is nothing to start")),
            };
            let request = StartRequest {
                component_path: absolute(component)?,
                evidence_paths: args.evidence.iter().cloned().map(absolute).collect::<Result<_, _>>()?,
                ..route
            };
            (request, about)
        }
        (true, None, None) => return Err(CliError::usage("there is nothing to start")),
    };
    let spinner = out.spinner("verifying and compiling");
    let reply: Result<StartReply, _> = ask!(args.target, args.elsewhere, Method::Start, start, request);
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
    let request = StopRequest { target: args.component.clone() };
    let reply: StopReply = ask!(args.target, args.elsewhere, Method::Stop, stop, request)?;
    let stopped = reply.stopped;
    if stopped == 0 {
        let list = match args.elsewhere.named() {
            Some((file, host)) => format!("portcullis list --operator {} --host {host}", file.display()),
            None => "portcullis list".to_owned(),
        };
        return Err(CliError::usage(format!("nothing called {} runs", args.component))
            .with_hint(format!("`{list}` shows what runs")));
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

fn ready(reply: &StatusReply) -> &'static str {
    match (reply.ready, reply.warnings.is_empty()) {
        (true, true) => "yes",
        (true, false) => "yes, with warnings",
        (false, _) => "no",
    }
}

fn status_text(reply: &StatusReply) -> String {
    let mut rows = vec![
        vec!["ready".to_owned(), ready(reply).to_owned()],
        vec!["http".to_owned(), reply.http_address.clone()],
        vec!["mtls".to_owned(), or_off(&reply.mtls_address)],
        vec!["policy".to_owned(), format!("generation {}", reply.policy_generation)],
        vec!["trust".to_owned(), format!("version {}", reply.trust_version)],
        vec!["audit".to_owned(), reply.audit_path.clone()],
        vec!["requests".to_owned(), format!("{}, spoilt by guests {}", reply.requests, reply.guest_failures)],
    ];
    if !reply.nats.is_empty() {
        rows.push(vec!["nats".to_owned(), reply.nats.clone()]);
    }
    rows.extend(reply.listening.iter().map(|socket| vec![socket.name.clone(), socket.address.clone()]));
    rows.extend(reply.processes.iter().map(|process| {
        let up = if process.up { format!("pid {}", process.pid) } else { "down".to_owned() };
        vec![process.role.clone(), format!("{up}, {} restarts", process.restarts)]
    }));
    rows.extend(reply.problems.iter().map(|problem| vec!["problem".to_owned(), problem.clone()]));
    rows.extend(reply.warnings.iter().map(|warning| vec!["warning".to_owned(), warning.clone()]));
    rows.extend(reply.audited.iter().map(|audited| {
        let until = super::policy::audit_mode::shown(audited.until);
        let what = format!("AUDIT MODE: {} until {until}, what nobody granted is let through", audited.component);
        vec!["warning".to_owned(), what]
    }));
    rows.extend(reply.dangers.iter().map(|danger| vec!["danger".to_owned(), danger.clone()]));
    format!("{}\n{}", table(&rows), components_text(&reply.components))
}

/// An address, or that there is none: `[listen] mtls` may be left out.
fn or_off(address: &str) -> String {
    if address.is_empty() { "off".to_owned() } else { address.to_owned() }
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
        "spiffe_id": component.spiffe_id, "signer": component.signer, "signer_group": component.signer_group,
        "state": component.state, "detail": component.detail,
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
        "nats": reply.nats, "warnings": reply.warnings,
    })
}

/// How much of a refusal fits into a table; `status` has the whole.
const REFUSAL_CHARS: usize = 72;
/// Largest answer of a host.
const MESSAGE_BYTES: usize = 16 << 20;

/// Milliseconds since 1970 for people, in UTC.
fn shown_ms(at: i64) -> String {
    let moment = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000_000);
    let text = moment.ok().and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_else(|| at.to_string())
}
