//! `portcullis callout init DIR`.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use crate::callout::init::{InitError, Wanted, make};
use crate::cli::error::CliError;
use crate::cli::files;
use crate::cli::output::Output;
use crate::config::callout::Mode;
use crate::limits::CONFIG_BYTES;

/// Arguments of `portcullis callout init`.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The folder to write to. Nothing in it is replaced.
    dir: PathBuf,
    /// How the server keeps accounts: `accounts` in its file, `operator` as JWTs with a key confined to each role.
    #[arg(long, value_parser = mode, default_value = "accounts")]
    mode: Mode,
    /// A trust domain and its bundle (a SPIFFE bundle document), NAME=FILE. Again for each.
    #[arg(long = "trust-domain", required = true)]
    trust_domains: Vec<String>,
    /// The SPIFFE ID of the callout: the audience of JWT-SVIDs. Otherwise spiffe://FIRST TRUST DOMAIN/callout.
    #[arg(long)]
    id: Option<String>,
    /// The account of the workloads.
    #[arg(long, default_value = "APP")]
    account: String,
    /// The cluster whose hosts the first role is for.
    #[arg(long, default_value = "main")]
    cluster: String,
    /// The SPIFFE ID of an operator of that cluster: a second role. Otherwise there is none.
    #[arg(long)]
    operator: Option<String>,
    /// Where the server listens.
    #[arg(long, default_value = "127.0.0.1:4222")]
    listen: String,
    /// Where the callout finds it.
    #[arg(long, default_value = "tls://localhost:4222")]
    server: String,
    /// The authorities of clients' certificates, PEM; of the server's too, where --server-ca does not name another.
    #[arg(long)]
    ca: PathBuf,
    /// The authority of the server's certificate, PEM: whoever is in --ca, hosts that issue for themselves for one, could else
    /// pass for the server.
    #[arg(long)]
    server_ca: Option<PathBuf>,
    /// The server's certificate, PEM.
    #[arg(long)]
    server_certificate: PathBuf,
    /// The server's key, PEM.
    #[arg(long)]
    server_key: PathBuf,
    /// The callout's own certificate, PEM: its X.509-SVID.
    #[arg(long)]
    certificate: PathBuf,
    /// Its key, PEM.
    #[arg(long)]
    key: PathBuf,
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "accounts" => Ok(Mode::Accounts),
        "operator" => Ok(Mode::Operator),
        _ => Err("accounts or operator".to_owned()),
    }
}

/// Runs the command.
pub fn run(args: &InitArgs, out: &mut Output) -> Result<(), CliError> {
    let mut trust_domains = Vec::new();
    for text in &args.trust_domains {
        let hint = "write --trust-domain prod.example=bundle.json";
        let (name, path) = text.split_once('=').ok_or_else(|| CliError::usage("no NAME=FILE").with_hint(hint))?;
        let domain: portcullis_identity::TrustDomain =
            name.parse().map_err(|error| CliError::usage(format!("{name}: {error}")).with_hint(hint))?;
        let bundle = files::read_text(Path::new(path), CONFIG_BYTES, "bundle")?;
        portcullis_identity::BundleDocument::parse(&domain, bundle.as_bytes())
            .map_err(|error| CliError::usage(format!("{path}: {error}")).with_hint(error.hint()))?;
        trust_domains.push((name.to_owned(), bundle));
    }
    let first = trust_domains.first().map(|(name, _)| name.clone()).unwrap_or_default();
    let id = args.id.clone().unwrap_or_else(|| format!("spiffe://{first}/callout"));
    if id.parse::<portcullis_policies::WorkloadId>().is_err() {
        return Err(CliError::usage(format!("{id} is no SPIFFE ID")).with_hint("such as spiffe://prod.example/callout"));
    }
    if let Some(operator) = &args.operator
        && operator.parse::<portcullis_policies::WorkloadId>().is_err()
    {
        let hint = "such as spiffe://prod.example/operator/ann";
        return Err(CliError::usage(format!("{operator} is no SPIFFE ID")).with_hint(hint));
    }
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(CliError::internal);
    let server_ca = args.server_ca.as_ref().unwrap_or(&args.ca);
    let there = [&args.ca, server_ca, &args.server_certificate, &args.server_key, &args.certificate, &args.key];
    for path in there {
        files::read_bytes(path, CONFIG_BYTES, "PEM file")?;
    }
    let wanted = Wanted {
        mode: args.mode,
        id,
        account: args.account.clone(),
        cluster: args.cluster.clone(),
        operator: args.operator.clone(),
        listen: args.listen.clone(),
        server: args.server.clone(),
        trust_domains,
        ca: absolute(&args.ca)?,
        server_ca: absolute(server_ca)?,
        store: absolute(&args.dir)?.join("jetstream"),
        server_certificate: (absolute(&args.server_certificate)?, absolute(&args.server_key)?),
        certificate: (absolute(&args.certificate)?, absolute(&args.key)?),
    };
    let files = make(&wanted, now()).map_err(|error| match error {
        InitError::Keys(_) => CliError::internal(error),
        InitError::Character(_) | InitError::Name { .. } => CliError::usage(error.to_string()),
    })?;
    // All of it or nothing: half a set of keys that belongs to another half would be a puzzle.
    if let Some(file) = files.iter().map(|file| args.dir.join(&file.path)).find(|path| path.symlink_metadata().is_ok())
    {
        let message = format!("{} is there already: nothing was written", file.display());
        return Err(CliError::usage(message).with_hint("name a new folder; keys are never replaced"));
    }
    for folder in ["", "keys", "policy", "offline"] {
        if folder == "offline" && args.mode == Mode::Accounts {
            continue;
        }
        let path = args.dir.join(folder);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| CliError::usage(format!("{}: {error}", path.display())))?;
    }
    for file in &files {
        files::write(&args.dir.join(&file.path), file.text.as_bytes(), 0o600, false)?;
    }
    let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let dir = args.dir.display();
    let text = format!(
        "wrote to {dir}:\n  {}\n\nnext:\n  nats-server -c {dir}/server.conf\n  portcullis callout --config {dir}/callout.toml\n  \
         portcullis callout check {dir}/server.conf\nevery choice is explained where it stands in server.conf and callout.toml",
        names.join("\n  ")
    );
    let offline = if args.mode == Mode::Operator { "\ntake offline/ away from this machine" } else { "" };
    out.result(format!("{text}{offline}"), &serde_json::json!({ "dir": args.dir, "files": names }))
}

fn now() -> OffsetDateTime {
    crate::clock::now()
}
