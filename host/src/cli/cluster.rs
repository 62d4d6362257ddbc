//! `portcullis cluster ...`: what a cluster of hosts is to run, who is revoked in it, and how it is. It signs and shows; each host
//! decides for itself what it believes.

mod init;
mod kept;
mod operator;
mod refusals;
mod revoked;
mod unbelieved;
mod waiting;
mod watching;

pub use init::{of_host, of_operator};
use std::path::PathBuf;
use std::time::Duration;

use portcullis_cluster::{
    DocumentError, Manifest, ManifestFile, Place, PolicyDocument, PolicyKind, PolicyText, RevocationEdit,
    RevocationList,
};
use portcullis_identity::SpiffeId;
use portcullis_signing::{ComponentName, Digest, Lifetime};
use serde_json::json;

use self::kept::{Kept, Versioned};
use self::operator::Operator;
use self::waiting::Waiting;
use super::block_on;
use super::error::{CliError, exit};
use super::output::Output;
use super::{examples, files};
use crate::limits::CONFIG_BYTES;

/// `portcullis cluster ...`.
#[derive(Debug, clap::Subcommand)]
pub enum ClusterCommand {
    /// Make the buckets of a cluster, and print the least permissions of its hosts and operators.
    Init(InitArgs),
    /// Say what a component is to be: sign its manifest and store it.
    Deploy(DeployArgs),
    /// Have a component stopped on every host.
    Undeploy(UndeployArgs),
    /// Revoke instances, SPIFFE IDs, components or signers on every host; or lift that.
    Revoke(RevokeArgs),
    /// Have every host that takes them use these policies beside its own.
    Policies(PoliciesArgs),
    /// Hosts, components, replicas.
    Status(StatusArgs),
    /// What happens, as it happens.
    Events(EventsArgs),
}

/// Which operator.
#[derive(Debug, clap::Args)]
pub struct OperatorArgs {
    /// The operator's file: who signs, and how NATS is reached.
    #[arg(long, value_name = "FILE")]
    operator: PathBuf,
}

/// Arguments of `cluster init`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::CLUSTER_INIT)]
pub struct InitArgs {
    /// The operator's file.
    #[arg(long, value_name = "FILE")]
    operator: Option<PathBuf>,
    /// Print permissions for this host; again for further ones.
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Print permissions for an operator, by whom NATS takes it for: a SPIFFE ID, the public nkey of a user, or the name of a user; again
    /// for further ones.
    #[arg(long, value_name = "WHO")]
    login: Vec<String>,
    /// Copies that JetStream keeps of each bucket.
    #[arg(long, default_value_t = 1)]
    replicas: u32,
    /// Print permissions alone, without a connection.
    #[arg(long, requires = "cluster")]
    print: bool,
    /// The cluster's name, for --print.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

/// Arguments of `cluster deploy`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::CLUSTER_DEPLOY)]
pub struct DeployArgs {
    /// The manifest (TOML, or JSON where its name ends so).
    manifest: PathBuf,
    /// Its version; by default one more than the one that is stored.
    #[arg(long)]
    version: Option<u64>,
    /// How long hosts believe it.
    #[arg(long, value_name = "TIME", default_value = "365d")]
    valid_for: Lifetime,
    /// Wait up to so many seconds until hosts run it, and say what they answer.
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Arguments of `cluster undeploy`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::CLUSTER_UNDEPLOY)]
pub struct UndeployArgs {
    /// The component's name, or its manifest.
    component: String,
    /// How long hosts believe it.
    #[arg(long, value_name = "TIME", default_value = "365d")]
    valid_for: Lifetime,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Arguments of `cluster revoke`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::CLUSTER_REVOKE)]
pub struct RevokeArgs {
    /// An instance.
    #[arg(long)]
    instance: Vec<String>,
    /// A SPIFFE ID.
    #[arg(long, value_name = "SPIFFE_ID")]
    spiffe_id: Vec<SpiffeId>,
    /// The digest of a component.
    #[arg(long)]
    digest: Vec<Digest>,
    /// A signer, as `portcullis list --json` shows it.
    #[arg(long)]
    signer: Vec<String>,
    /// Lift these instead.
    #[arg(long)]
    lift: bool,
    /// Sign the list anew as it is.
    #[arg(long)]
    refresh: bool,
    /// The epoch, where the one that is stored is not to be believed.
    #[arg(long)]
    epoch: Option<u64>,
    /// How long hosts believe it. Past that they keep to it, and start nothing until there is a newer one.
    #[arg(long, value_name = "TIME", default_value = "365d")]
    valid_for: Lifetime,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Arguments of `cluster policies`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::CLUSTER_POLICIES)]
pub struct PoliciesArgs {
    /// A grants file.
    #[arg(long, value_name = "FILE")]
    grants: Vec<PathBuf>,
    /// A Cedar file.
    #[arg(long, value_name = "FILE")]
    cedar: Vec<PathBuf>,
    /// The version; by default one more than the one that is stored.
    #[arg(long)]
    version: Option<u64>,
    /// How long hosts believe it.
    #[arg(long, value_name = "TIME", default_value = "365d")]
    valid_for: Lifetime,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Arguments of `cluster status`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::CLUSTER_STATUS)]
pub struct StatusArgs {
    /// How many seconds to listen for heartbeats.
    #[arg(long, default_value_t = 2.5)]
    listen: f64,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Arguments of `cluster events`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::CLUSTER_EVENTS)]
pub struct EventsArgs {
    /// End after so many seconds.
    #[arg(long)]
    seconds: Option<f64>,
    /// End after so many events.
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Runs the command.
pub fn run(command: ClusterCommand, out: &mut Output) -> Result<(), CliError> {
    block_on(async {
        match command {
            ClusterCommand::Init(args) => init::run(&args, out).await,
            ClusterCommand::Deploy(args) => deploy(args, out).await,
            ClusterCommand::Undeploy(args) => undeploy(args, out).await,
            ClusterCommand::Revoke(args) => revoke(args, out).await,
            ClusterCommand::Policies(args) => policies(args, out).await,
            ClusterCommand::Status(args) => watching::status(&args, out).await,
            ClusterCommand::Events(args) => watching::events(&args, out).await,
        }
    })
}

async fn deploy(args: DeployArgs, out: &mut Output) -> Result<(), CliError> {
    let file = manifest(&args.manifest)?;
    let operator = Operator::open(&args.operator.operator).await?;
    let at = Place::App(file.component.clone());
    let (kept, over) = operator.read::<Manifest>(&at).await?;
    let version = kept.next(args.version, &at)?;
    let manifest = Manifest::new(file, version).map_err(|error| document(&error))?;
    remark(&kept, &at, out);
    let waiting = match args.wait {
        Some(seconds) => Some(Waiting::begin(&operator, seconds).await?),
        None => None,
    };
    put(&operator, &at, manifest.to_json(), version, args.valid_for, over, out).await?;
    let wanted = manifest.wanted();
    let text = format!(
        "{} version {version} is deployed: {} replicas of {}",
        wanted.component, wanted.replicas, wanted.digest
    );
    out.line(text)?;
    let hosts = match waiting {
        Some(waiting) => Some(waiting.settled(&operator, &manifest, out).await?),
        None => None,
    };
    for host in hosts.iter().flatten() {
        out.line(format!("{host} runs it"))?;
    }
    out.value(&json!({
        "component": wanted.component, "version": version, "replicas": wanted.replicas, "digest": wanted.digest, "hosts": hosts,
    }))
}

async fn undeploy(args: UndeployArgs, out: &mut Output) -> Result<(), CliError> {
    let name: ComponentName = match args.component.parse() {
        Ok(name) => name,
        Err(_) => manifest(&PathBuf::from(&args.component))?.component,
    };
    let operator = Operator::open(&args.operator.operator).await?;
    let at = Place::App(name.clone());
    let (kept, over) = operator.read::<Manifest>(&at).await?;
    if matches!(kept, Kept::Nothing | Kept::Deleted) {
        return Err(
            CliError::usage(format!("{name} is not deployed")).with_hint("`portcullis cluster status` shows what is")
        );
    }
    let version = kept.next(None, &at).map_err(|error| {
        error.with_hint("deploy its manifest with `replicas = 0`, with a --version above all that hosts have seen")
    })?;
    let Some(manifest) = kept.document() else { return Err(CliError::internal("a version without a manifest")) };
    let manifest = manifest.undeployed(version);
    remark(&kept, &at, out);
    put(&operator, &at, manifest.to_json(), version, args.valid_for, over, out).await?;
    out.result(format!("{name} is undeployed by version {version}"), &json!({ "component": name, "version": version }))
}

async fn revoke(args: RevokeArgs, out: &mut Output) -> Result<(), CliError> {
    let named = args.instance.len() + args.spiffe_id.len() + args.digest.len() + args.signer.len();
    if (named == 0) != args.refresh {
        return Err(CliError::usage("nothing to revoke was named, or --refresh was given besides")
            .with_hint("--instance, --spiffe-id, --digest or --signer; or --refresh alone"));
    }
    let add = if args.lift { RevocationEdit::default() } else { revoked::added(&args)? };
    let operator = Operator::open(&args.operator.operator).await?;
    let at = Place::Revoked;
    let (kept, over) = operator.read::<RevocationList>(&at).await?;
    let epoch = kept.next(args.epoch, &at)?;
    // The list is whole in each epoch: what cannot be read would be lifted in silence.
    if kept.is_lost() && add.is_empty() {
        return Err(CliError::usage("what was revoked cannot be read: there is no list to sign anew, or to lift from")
            .with_hint("name all that is to be revoked, with a higher --epoch"));
    }
    let old = kept.document().cloned().unwrap_or_else(|| RevocationList::empty(0));
    let lift = if args.lift { revoked::lifted(&args, &old)? } else { RevocationEdit::default() };
    let list = old.at(epoch, &add, &lift).map_err(|error| document(&error))?;
    remark(&kept, &at, out);
    if kept.is_lost() {
        out.note("the list begins anew: nothing is revoked in it but what was named now");
    }
    put(&operator, &at, list.to_json(), epoch, args.valid_for, over, out).await?;
    out.result(
        format!("epoch {epoch} is published: {} revoked", list.len()),
        &json!({ "epoch": epoch, "revoked": list.len() }),
    )
}

async fn policies(args: PoliciesArgs, out: &mut Output) -> Result<(), CliError> {
    let mut texts = Vec::new();
    let files = args.grants.iter().map(|path| (path, PolicyKind::Grants));
    for (path, kind) in files.chain(args.cedar.iter().map(|path| (path, PolicyKind::Cedar))) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        texts.push(PolicyText { name, kind, text: files::read_text(path, CONFIG_BYTES, "policy file")? });
    }
    let operator = Operator::open(&args.operator.operator).await?;
    let at = Place::Policy;
    let (kept, over) = operator.read::<PolicyDocument>(&at).await?;
    let version = kept.next(args.version, &at)?;
    let set = PolicyDocument::new(version, texts).map_err(|error| document(&error))?;
    if let Some(why) = crate::supervisor::cluster::policies::names_operators(&set) {
        return Err(CliError::new(exit::CONFIG, "cluster.operators", why)
            .with_hint("leave [[operator]] to the files of each host"));
    }
    let sources = crate::supervisor::cluster::policies::sources(&set);
    portcullis_policies::PolicySet::compile(&sources, version).map_err(|errors| {
        CliError::new(exit::CONFIG, "policy.invalid", errors.lines().join("\n"))
            .with_hint("mend the files: no host would take them")
    })?;
    remark(&kept, &at, out);
    put(&operator, &at, set.to_json(), version, args.valid_for, over, out).await?;
    out.result(format!("version {version} of the cluster's policies is published"), &json!({ "version": version }))
}

fn remark<T: Versioned>(kept: &Kept<T>, at: &Place, out: &mut Output) {
    if let Some(remark) = kept.remark(at) {
        out.note(remark);
    }
}

async fn put(
    operator: &Operator,
    at: &Place,
    payload: Vec<u8>,
    version: u64,
    life: Lifetime,
    over: u64,
    out: &mut Output,
) -> Result<(), CliError> {
    if operator.signs_with_svid() {
        out.note("signed with an X.509-SVID: hosts that read it after that has ended do not believe it; sign with an nkey what is to last");
    }
    operator
        .put(at, payload, version, Duration::from_secs(life.duration().whole_seconds().unsigned_abs()), over)
        .await
        .map(drop)
}

fn manifest(path: &std::path::Path) -> Result<ManifestFile, CliError> {
    let text = files::read_text(path, CONFIG_BYTES, "manifest")?;
    let file = match path.extension().is_some_and(|extension| extension == "json") {
        true => ManifestFile::parse(text.as_bytes()).map_err(|error| document(&error)),
        false => toml::from_str::<ManifestFile>(&text)
            .map_err(|error| CliError::usage(error.message().to_owned()).with_hint("docs/cluster.md shows a manifest"))
            .and_then(|file| file.check().map(|()| file).map_err(|error| document(&error))),
    };
    file.map_err(|error| error.about(path.display()))
}

fn document(error: &DocumentError) -> CliError {
    CliError::usage(error.to_string()).with_hint(error.hint())
}
