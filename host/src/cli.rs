//! The command line: which commands there are, and how each ends.

#[cfg(feature = "host")]
pub mod as_host;
#[cfg(feature = "host")]
pub mod audit;
#[cfg(feature = "host")]
pub mod callout;
pub mod claims;
#[cfg(feature = "host")]
pub mod cluster;
#[cfg(feature = "host")]
pub mod config;
#[cfg(feature = "host")]
pub mod demo;
pub mod error;
#[cfg(feature = "host")]
mod examples;
pub mod files;
#[cfg(feature = "host")]
pub mod grants;
#[cfg(feature = "host")]
pub mod host;
pub mod host_side;
#[cfg(feature = "host")]
pub mod identity;
pub mod inspect;
#[cfg(feature = "host")]
pub mod kept;
pub mod keys;
#[cfg(feature = "host")]
pub mod locate;
pub mod located;
pub mod moment;
pub mod output;
#[cfg(feature = "host")]
pub mod pem;
#[cfg(feature = "host")]
pub mod policy;
pub mod presented;
pub mod provenance;
pub mod pull;
pub mod push;
#[cfg(feature = "host")]
pub mod remote;
pub mod sbom;
pub mod sign;
pub mod trust;
pub mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[cfg(feature = "host")]
use crate::process::Role;
use error::CliError;
use output::Output;

/// Runs WebAssembly components only when it knows who made them, gives each one a SPIFFE identity, and lets it do only what
/// its operator granted. Everything else is refused, with the reason and the fix.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, max_term_width = 120, after_help = AFTER_HELP)]
struct Cli {
    /// Print results as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[cfg(feature = "host")]
    /// The whole chain on this machine, with nothing to configure.
    Demo(demo::DemoArgs),
    /// Make and show signing keys.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Claims of a component, to edit and to sign.
    #[command(subcommand)]
    Claims(claims::ClaimsCommand),
    /// Sign a component's claims.
    Sign(sign::SignArgs),
    /// The host's own verdict on a component.
    Verify(verify::VerifyArgs),
    /// Claims, signers, verdict and imports of a component.
    Inspect(inspect::InspectArgs),
    /// Push a component and its evidence to an OCI registry.
    Push(push::PushArgs),
    /// Fetch a component and its evidence from an OCI registry.
    Pull(pull::PullArgs),
    /// The signed trust policy: who may sign what.
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    #[cfg(feature = "host")]
    /// Run one component in the foreground, with every check of a host.
    Run(host::RunArgs),
    #[cfg(feature = "host")]
    /// Run the host.
    Host(host::HostArgs),
    #[cfg(feature = "host")]
    /// Answer the auth callout of NATS servers: SPIFFE identity in, account and least permissions out.
    Callout(callout::CalloutArgs),
    #[cfg(feature = "host")]
    /// What a running host is doing.
    Status(remote::StatusArgs),
    #[cfg(feature = "host")]
    /// The components of a running host.
    List(remote::ListArgs),
    #[cfg(feature = "host")]
    /// What components wrote lately, and why starts failed.
    Logs(remote::LogsArgs),
    #[cfg(feature = "host")]
    /// Start a component on a running host.
    Start(remote::StartArgs),
    #[cfg(feature = "host")]
    /// Stop a component on a running host.
    Stop(remote::StopArgs),
    #[cfg(feature = "host")]
    /// Have a running host read its trust policy, grants and policies again.
    Reload(remote::TargetArgs),
    #[cfg(feature = "host")]
    /// Grants: what components may do.
    #[command(subcommand)]
    Grants(grants::GrantsCommand),
    #[cfg(feature = "host")]
    /// Check policies, and explain refusals.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    #[cfg(feature = "host")]
    /// Authorities, identities and the trust bundle of a running host: show, rotate, taint, revoke.
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
    #[cfg(feature = "host")]
    /// A cluster of hosts: what it is to run, who is revoked in it, how it is.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    #[cfg(feature = "host")]
    /// The audit log.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    #[cfg(feature = "host")]
    /// The configuration file.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    #[cfg(feature = "host")]
    /// A process of a host, started by its supervisor.
    #[command(hide = true)]
    Role {
        /// Which.
        role: Role,
    },
}

const AFTER_HELP: &str =
    "Exit codes: 0 done or verified, 1 internal, 2 usage, 10 no evidence, 11 bad signature, 12 untrusted signer,
13 claims do not match, 14 expired or not yet valid, 15 rolled back, 16 revoked, 17 trust policy invalid or stale,
18 transport, 20 denied by policy, 64 bad configuration or a host that cannot start with it.
`status` ends with 1 while a host is not ready, `audit verify` with 13 where a chain is broken.";

/// Runs the command of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { error::exit::USAGE } else { 0 });
        }
    };
    let mut out = Output::new(cli.json);
    match run(cli.command, &mut out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out.error(&error);
            ExitCode::from(error.exit())
        }
    }
}

fn run(command: Command, out: &mut Output) -> Result<(), CliError> {
    match command {
        #[cfg(feature = "host")]
        Command::Demo(args) => demo::run(args, out),
        Command::Keys(command) => keys::run(command, out),
        Command::Claims(command) => claims::run(command, out),
        Command::Sign(args) => sign::run(args, out),
        Command::Verify(args) => verify::run(args, out),
        Command::Inspect(args) => inspect::run(args, out),
        Command::Push(args) => push::run(&args, out),
        Command::Pull(args) => pull::run(&args, out),
        Command::Trust(command) => trust::run(command, out),
        #[cfg(feature = "host")]
        Command::Run(args) => host::run_one(args, out),
        #[cfg(feature = "host")]
        Command::Host(args) => host::run(args, out),
        #[cfg(feature = "host")]
        Command::Callout(args) => callout::run(args, out),
        #[cfg(feature = "host")]
        Command::Status(args) => remote::status(args, out),
        #[cfg(feature = "host")]
        Command::List(args) => remote::list(args, out),
        #[cfg(feature = "host")]
        Command::Logs(args) => remote::logs(args, out),
        #[cfg(feature = "host")]
        Command::Start(args) => remote::start(args, out),
        #[cfg(feature = "host")]
        Command::Stop(args) => remote::stop(args, out),
        #[cfg(feature = "host")]
        Command::Reload(args) => remote::reload(args, out),
        #[cfg(feature = "host")]
        Command::Grants(command) => grants::run(command, out),
        #[cfg(feature = "host")]
        Command::Policy(command) => policy::run(command, out),
        #[cfg(feature = "host")]
        Command::Identity(command) => identity::run(command, out),
        #[cfg(feature = "host")]
        Command::Cluster(command) => cluster::run(command, out),
        #[cfg(feature = "host")]
        Command::Audit(command) => audit::run(command, out),
        #[cfg(feature = "host")]
        Command::Config(command) => config::run(command, out),
        #[cfg(feature = "host")]
        Command::Role { role } => {
            crate::roles::run(role).map_err(|error| CliError::internal(format!("the {role} process ended: {error}")))
        }
    }
}

/// Runs a future of a command to its end.
fn block_on<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(CliError::internal)?;
    let done = runtime.block_on(future);
    runtime.shutdown_background();
    done
}
