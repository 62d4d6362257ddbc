//! `portcullis grants add`: writes the smallest grant that allows one thing, and has the running host take it up.

use std::path::{Path, PathBuf};

use portcullis_policies::{
    AddressRange, ControlAction, Destination, EditError, GrantEdit, OperatorEdit, add_grant, add_operator, classify,
};

use super::error::{CliError, exit};
use super::output::Output;
use super::{block_on, files, locate, remote};
use crate::limits::CONFIG_BYTES;
use crate::rpc::control::ReloadPolicyRequest;

/// `portcullis grants ...`.
#[derive(Debug, clap::Subcommand)]
pub enum GrantsCommand {
    /// Add to what a component may do. The file changes only where needed; comments stay.
    Add(AddArgs),
    /// Let an operator control hosts: adds an [[operator]] to the grants file.
    Operator(OperatorArgs),
}

/// Arguments of `portcullis grants operator`.
#[derive(Debug, clap::Args)]
pub struct OperatorArgs {
    /// A SPIFFE ID, or the public nkey of a user.
    who: String,
    /// The host, or `*`.
    #[arg(long)]
    host: String,
    /// The component, or `*`.
    #[arg(long)]
    component: String,
    /// status, list, logs, start, stop, deploy or revoke.
    #[arg(long)]
    action: String,
    /// Why; kept in the file.
    #[arg(long, default_value = "added by `portcullis grants operator`")]
    reason: String,
    /// Who answers for it; kept in the file.
    #[arg(long, default_value = "operator")]
    owner: String,
    /// The configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Arguments of `portcullis grants add`.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// Claimed name of the component, `namespace:name`.
    component: String,
    /// Let it be loaded.
    #[arg(long)]
    load: bool,
    /// An interface that it may import.
    #[arg(long)]
    link: Vec<String>,
    /// A destination that it may send HTTP requests to: `http://HOST:PORT` or `https://HOST[:PORT]`.
    #[arg(long)]
    http: Option<String>,
    /// SPIFFE ID that the destination must prove by mTLS.
    #[arg(long, requires = "http")]
    peer: Option<String>,
    /// Address range beyond public ones that the destination may resolve to: loopback, private, or a network.
    #[arg(long, requires = "http")]
    addresses: Vec<String>,
    /// An audience that it may fetch JWT-SVIDs for.
    #[arg(long)]
    audience: Vec<String>,
    /// A purpose that it may sign data for, with the key of its X.509-SVID.
    #[arg(long)]
    purpose: Vec<String>,
    /// An identity action: read, bundles, peer, x509, validate, export.
    #[arg(long)]
    identity: Vec<String>,
    /// Who may call it: `anonymous`, or a SPIFFE ID.
    #[arg(long)]
    caller: Vec<String>,
    /// A NATS subject that it may publish to; `*` is one token, `>` the rest.
    #[arg(long)]
    publish: Vec<String>,
    /// A NATS subject that it may send requests to.
    #[arg(long)]
    request: Vec<String>,
    /// A NATS subject whose messages it gets.
    #[arg(long)]
    subscribe: Vec<String>,
    /// Why; kept in the file.
    #[arg(long, default_value = "added by `portcullis grants add`")]
    reason: String,
    /// Who answers for it; kept in the file.
    #[arg(long, default_value = "operator")]
    owner: String,
    /// The configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Runs the command.
pub fn run(command: GrantsCommand, out: &mut Output) -> Result<(), CliError> {
    match command {
        GrantsCommand::Add(args) => {
            let config = args.config.clone();
            let edit = edit(args)?;
            change(config.as_deref(), |old| add_grant(old, &edit), out)
        }
        GrantsCommand::Operator(args) => {
            let action = ControlAction::named(&args.action).ok_or_else(|| {
                CliError::usage(format!("`{}` is not an action", args.action.escape_default()))
                    .with_hint("status, list, logs, start, stop, deploy or revoke")
            })?;
            let OperatorArgs { who, host, component, reason, owner, config, .. } = args;
            let edit = OperatorEdit { who, host, component, action, reason, owner };
            change(config.as_deref(), |old| add_operator(old, &edit), out)
        }
    }
}

/// Changes the grants file and has the running host take it up; what the host does not take is undone.
fn change(
    config: Option<&Path>,
    add: impl Fn(&str) -> Result<String, EditError>,
    out: &mut Output,
) -> Result<(), CliError> {
    let config = locate::config(config)?;
    let path = config.grants_file().ok_or_else(|| {
        CliError::new(exit::CONFIG, "config.no-grants", "the configuration names no grants file")
            .with_hint("add [policy] grants = [\"grants.toml\"] to it")
    })?;
    // The first grant of a site makes its file.
    if std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        files::write(path, b"version = 1\n", 0o600, false)?;
    }
    let old = files::read_text(path, CONFIG_BYTES, "grants file")?;
    let new =
        add(&old).map_err(|error| CliError::usage(error.to_string()).with_hint(error.hint()).about(path.display()))?;
    if new != old {
        files::replace(path, new.as_bytes())?;
    }
    let reloaded = block_on(async {
        let Ok(mut control) = remote::connect(&config.control_socket()).await else { return Ok(None) };
        let reply = control.reload_policy(ReloadPolicyRequest {}).await.map_err(|error| remote::failed(&error))?;
        Ok(Some(reply.into_inner()))
    })?;
    let mut text = match new == old {
        true => format!("{} grants this already", path.display()),
        false => format!("written to {}", path.display()),
    };
    match &reloaded {
        Some(reply) if reply.errors.is_empty() => {
            text.push_str(&format!("; in force as generation {}", reply.generation))
        }
        Some(reply) => {
            if new != old {
                files::replace(path, old.as_bytes())?;
            }
            return Err(CliError::new(exit::CONFIG, "policy.invalid", reply.errors.join("\n"))
                .with_hint("nothing was changed: the file is as it was, and the host keeps its policy; see `portcullis policy check`"));
        }
        None => text.push_str("; no host is running, it takes effect at the next start"),
    }
    let generation = reloaded.map(|reply| reply.generation);
    out.result(text, &serde_json::json!({ "file": path, "changed": new != old, "generation": generation }))
}

fn edit(args: AddArgs) -> Result<GrantEdit, CliError> {
    let lists = [
        &args.link,
        &args.audience,
        &args.purpose,
        &args.identity,
        &args.caller,
        &args.publish,
        &args.request,
        &args.subscribe,
    ];
    if !args.load && args.http.is_none() && lists.iter().all(|list| list.is_empty()) {
        return Err(CliError::usage("there is nothing to grant")
            .with_hint("name what: --load, --link, --http, --audience, --purpose, --identity, --caller, --publish, --request or --subscribe"));
    }
    let http = args.http.as_deref().map(Destination::parse_url).transpose();
    let http = http.map_err(|error| CliError::usage(format!("--http: {error}")).with_hint(error.hint()))?;
    if let Some(address) = http.as_ref().and_then(|destination| destination.host().address())
        && let Some(guard) = classify(address).guard()
    {
        return Err(CliError::usage(format!("--http: no grant can open {address}: {guard} forbids it to everybody"))
            .with_hint("these addresses lead into the machine or its platform; name the service by another address"));
    }
    let addresses: Result<Vec<AddressRange>, _> = args.addresses.iter().map(|text| text.parse()).collect();
    let addresses = addresses.map_err(|error| {
        CliError::usage(format!("--addresses: {error}"))
            .with_hint("loopback, private, or a network such as 10.1.0.0/16")
    })?;
    Ok(GrantEdit {
        component: args.component,
        load: args.load,
        link: args.link,
        http,
        peer: args.peer,
        addresses,
        audiences: args.audience,
        purposes: args.purpose,
        identity: args.identity,
        callers: args.caller,
        publish: args.publish,
        request: args.request,
        subscribe: args.subscribe,
        reason: args.reason,
        owner: args.owner,
    })
}
