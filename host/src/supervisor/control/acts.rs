//! What the control plane does, whichever way a request came: the operator was proven before, and policy is asked here.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portcullis_policies::{ControlAction, Operator};
use portcullis_signing::Digest;
use portcullis_signing::oci::OciReference;

use super::allowed::seen;
use crate::cli::error::exit;
use crate::cli::files;
use crate::config::{Route, check_route};
use crate::limits::{CONTROL_EVIDENCE, CONTROL_LINES, EVIDENCE_BYTES, RPC_TIMEOUT};
use crate::rpc::control::{
    Component, ListReply, LogLine, LogsReply, LogsRequest, StartReply, StartRequest, StatusReply, StatusRequest,
    StopReply, StopRequest, start_reply,
};
use crate::rpc::runtime::LinesRequest;
use crate::supervisor::cluster::sources;
use crate::supervisor::refused::Refused;
use crate::supervisor::{Again, Expect, Host, StartSpec};

/// `status`: the components that this operator may see, and how the host is.
pub async fn status(host: &Arc<Host>, who: &Operator, request: StatusRequest) -> Result<StatusReply, Refused> {
    host.allow(who, ControlAction::Status, None)?;
    let wait = Duration::from_millis(request.wait_ready_ms.min(super::MOST_WAIT_MS));
    let until = tokio::time::Instant::now() + wait;
    let mut problems = host.problems().await;
    while !problems.is_empty() && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
        problems = host.problems().await;
    }
    let mut reply = super::reply(host, problems).await;
    let seen = seen(host, who, ControlAction::Status);
    reply.components.retain(|component| seen(&component.name));
    reply.audited.retain(|audited| seen(&audited.component));
    Ok(reply)
}

/// `list`: what runs and what was refused.
pub fn list(host: &Arc<Host>, who: &Operator) -> Result<ListReply, Refused> {
    host.allow(who, ControlAction::List, None)?;
    let seen = seen(host, who, ControlAction::List);
    let components = super::components(host).into_iter().filter(|component| seen(&component.name)).collect();
    Ok(ListReply { components })
}

/// `logs`: the last lines of the components that this operator may read, and the host's own about them.
pub async fn logs(host: &Arc<Host>, who: &Operator, request: LogsRequest) -> Result<LogsReply, Refused> {
    let target = request.target;
    let name = named(host, &target);
    host.allow(who, ControlAction::Logs, name.as_deref())?;
    let mut lines = host.notices.lines(name.as_deref().unwrap_or(&target));
    if let Some(up) = host.runtime_process.now() {
        let asked = tokio::time::timeout(RPC_TIMEOUT, async { up.client().lines(LinesRequest { target }).await }).await;
        // The runtime's word: bounded here, too.
        let written = asked.ok().and_then(Result::ok).map(|reply| reply.into_inner().lines).unwrap_or_default();
        lines.extend(written.into_iter().map(|line| LogLine {
            at_ms: line.at_ms,
            component: line.component,
            instance: line.instance,
            stream: if line.stream == "stdout" { "stdout" } else { "stderr" }.to_owned(),
            text: line.text.chars().take(crate::limits::LOG_TEXT * 8).collect(),
        }));
    }
    let seen = seen(host, who, ControlAction::Logs);
    lines.retain(|line| seen(&line.component));
    Ok(LogsReply { lines: newest(lines, request.lines) })
}

/// The newest lines, as many as are asked for and never more than one answer holds.
fn newest(mut lines: Vec<LogLine>, asked: u32) -> Vec<LogLine> {
    lines.sort_by_key(|line| line.at_ms);
    let most = if asked == 0 { UNASKED_LINES } else { asked.min(CONTROL_LINES) };
    lines.split_off(lines.len().saturating_sub(usize::try_from(most).unwrap_or_default()))
}

/// `stop`: by claimed name or instance id.
pub async fn stop(host: &Arc<Host>, who: &Operator, request: StopRequest, proof: &Proof) -> Result<StopReply, Refused> {
    let target = request.target;
    let name = named(host, &target);
    host.allow(who, ControlAction::Stop, name.as_deref())?;
    host.record_control(&proof.fields(who, "stop", &target))?;
    let host = Arc::clone(host);
    // A task of its own: a caller that goes away leaves nothing half done.
    let stopped = tokio::spawn(async move { host.stop_component(&target).await }).await;
    Ok(StopReply { stopped: stopped.map_err(Refused::internal)? })
}

/// `start`: a refusal is a value of the reply, and is remembered for `list` and `logs`.
pub async fn start(
    host: &Arc<Host>,
    who: &Operator,
    request: StartRequest,
    proof: &Proof,
) -> Result<StartReply, Refused> {
    let name = (!request.component.is_empty()).then(|| request.component.clone());
    host.allow(who, ControlAction::Start, name.as_deref())?;
    host.record_control(&proof.fields(who, "start", name.as_deref().unwrap_or(&request.component_path)))?;
    let (label, digest) = (name.unwrap_or_else(|| request.component_path.clone()), request.digest.clone());
    let (host, who, proof) = (Arc::clone(host), who.clone(), proof.clone());
    let notices = Arc::clone(&host.notices);
    // A task of its own: a caller that goes away leaves nothing half done.
    let started = tokio::spawn(async move { started(&host, &who, request, &proof).await }).await;
    let result = match started.map_err(Refused::internal)? {
        Ok(component) => {
            notices.started(&component.name);
            notices.started(&label);
            start_reply::Result::Started(component)
        }
        Err(refused) => {
            notices.refused(&label, &digest, &refused);
            start_reply::Result::Refused(refused.to_rpc())
        }
    };
    Ok(StartReply { result: Some(result) })
}

async fn started(host: &Arc<Host>, who: &Operator, request: StartRequest, proof: &Proof) -> Result<Component, Refused> {
    let route = match request.route_path.is_empty() {
        true => None,
        false => {
            let name = Some(request.route_host.clone()).filter(|host| !host.is_empty());
            let route = Route { host: name, path: request.route_path.clone(), component: "-".to_owned() };
            check_route(&route).map_err(|why| usage("route.invalid", why, "a route is /PATH or HOST/PATH"))?;
            Some((route.host, route.path))
        }
    };
    let (by, again) = (Some(who.clone()), proof.again());
    if !request.component_path.is_empty() {
        if !matches!(proof, Proof::Local) {
            let hint = "name the component by its digest: --digest sha256:.. with --component, or an oci:// reference";
            return Err(usage("start.path", "files are started by whoever is on the host's machine", hint));
        }
        let evidence = request.evidence_paths.iter().map(PathBuf::from).collect();
        let path = PathBuf::from(request.component_path);
        let spec = StartSpec { path, evidence, route, by, again, ..StartSpec::default() };
        return host.start_component(spec).await.map(|component| super::shown(&component));
    }
    let digest: Digest = request.digest.parse().map_err(|_| {
        usage("start.digest", "a component is named by the digest of its bytes", "sha256: and 64 hexadecimal digits")
    })?;
    let path = match request.reference.as_str() {
        "" => sources::stored(host, &digest),
        text => {
            let reference: OciReference = text.parse().map_err(|error: portcullis_signing::Malformed| {
                usage("start.reference", error.to_string(), "for instance oci://registry.example/acme/orders:1.4.2")
            })?;
            sources::fetched(host, &reference, &digest).await?
        }
    };
    if !path.exists() {
        let message = format!("{digest} is not in the store of this host");
        return Err(usage("start.not-stored", message, "name where to fetch it from: an oci:// reference"));
    }
    let brought = Brought::write(&path, &request.evidence)?;
    let expect = Some(Expect { name: request.component, digest: digest.to_string() });
    let spec = StartSpec { path, evidence: brought.0.clone(), route, expect, by, again, offline: false, yields: false };
    host.start_component(spec).await.map(|component| super::shown(&component))
}

/// Evidence that came with a request: files for as long as the start takes.
struct Brought(Vec<PathBuf>);

impl Brought {
    fn write(component: &std::path::Path, evidence: &[Vec<u8>]) -> Result<Self, Refused> {
        let most = usize::try_from(EVIDENCE_BYTES).unwrap_or(usize::MAX);
        if evidence.len() > CONTROL_EVIDENCE || evidence.iter().any(|piece| piece.len() > most) {
            let message = format!("more than {CONTROL_EVIDENCE} pieces of evidence, or one over {most} bytes");
            return Err(usage("start.evidence", message, "send the bundles of the signers that count"));
        }
        let mut brought = Self(Vec::new());
        for piece in evidence {
            let name = format!("request-{}.sigstore.json", ulid::Ulid::generate());
            let path = component.with_file_name(name);
            files::write(&path, piece, 0o600, false).map_err(|error| Refused::from_file(&error))?;
            brought.0.push(path);
        }
        Ok(brought)
    }
}

impl Drop for Brought {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The claimed name that a target stands for: that of an instance, or itself.
fn named(host: &Host, target: &str) -> Option<String> {
    let of_instance = host.name_of(target);
    if !of_instance.is_empty() {
        return Some(of_instance);
    }
    portcullis_policies::is_component_name(target).then(|| target.to_owned())
}

/// What is known of how a request was proven, for the record.
#[derive(Debug, Clone)]
pub enum Proof {
    /// By the kernel, over the local socket.
    Local,
    /// By a statement of this name, that came over this.
    Statement {
        /// Its `jti`.
        jti: String,
        /// `nats` or `https`.
        over: &'static str,
        /// Whether it is believed still.
        again: Again,
    },
}

impl Proof {
    fn again(&self) -> Option<Again> {
        match self {
            Self::Local => None,
            Self::Statement { again, .. } => Some(again.clone()),
        }
    }

    fn fields(&self, who: &Operator, action: &str, about: &str) -> Vec<(&'static str, String)> {
        let (over, jti) = match self {
            Self::Local => ("local", String::new()),
            Self::Statement { jti, over, .. } => (*over, jti.clone()),
        };
        vec![
            ("who", who.name()),
            ("action", action.to_owned()),
            ("about", about.escape_debug().take(256).collect()),
            ("over", over.to_owned()),
            ("statement", jti),
        ]
    }
}

fn usage(code: &str, message: impl Into<String>, hint: &str) -> Refused {
    let (code, message, hint) = (code.to_owned(), message.into(), hint.to_owned());
    Refused { exit: exit::USAGE, code, message, hint, ..Refused::internal("") }
}

/// Lines of an answer, where the request says none.
const UNASKED_LINES: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_the_newest_lines_and_no_more_than_its_limit_whatever_is_asked() {
        let lines: Vec<_> = (0..i64::from(CONTROL_LINES) + 7)
            .rev()
            .map(|at_ms| LogLine { at_ms, text: "x".to_owned(), ..LogLine::default() })
            .collect();
        for (asked, most) in [(0, UNASKED_LINES), (1, 1), (CONTROL_LINES, CONTROL_LINES), (u32::MAX, CONTROL_LINES)] {
            let shown = newest(lines.clone(), asked);
            assert_eq!(shown.len(), usize::try_from(most).unwrap(), "{asked}");
            assert_eq!(shown.last().unwrap().at_ms, i64::from(CONTROL_LINES) + 6, "the newest is the last");
            assert!(shown.is_sorted_by_key(|line| line.at_ms));
        }
    }
}
