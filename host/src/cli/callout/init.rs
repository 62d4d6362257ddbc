//! `portcullis callout init DIR`.

use std::fmt::Write as _;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::material;
use crate::callout::init::{self, InitError, Shown, Wanted, make};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::{examples, files};
use crate::config::callout::Mode;
use crate::limits::CONFIG_BYTES;

/// Arguments of `portcullis callout init`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::CALLOUT_INIT)]
pub struct InitArgs {
    /// The folder to write to. Nothing in it is replaced.
    pub(super) dir: PathBuf,
    /// How the server keeps accounts: `accounts` in its file, `operator` as JWTs with a key confined to each role.
    #[arg(long, value_parser = mode, default_value = "accounts")]
    mode: Mode,
    /// A trust domain and its bundle (a SPIFFE bundle document), NAME=FILE. Again for each.
    #[arg(long = "trust-domain", value_name = "NAME=FILE", required = true)]
    trust_domains: Vec<String>,
    /// The SPIFFE ID of the callout: the audience of JWT-SVIDs. Otherwise spiffe://FIRST TRUST DOMAIN/callout.
    #[arg(long, value_name = "SPIFFE_ID")]
    id: Option<String>,
    /// The account of the workloads.
    #[arg(long, default_value = "APP")]
    account: String,
    /// The cluster whose hosts the first role is for.
    #[arg(long, default_value = "main")]
    cluster: String,
    /// What hosts show: `x509`, their X.509-SVID in the handshake; `jwt`, a JWT-SVID bound to their nkey, where a mesh ends TLS in
    /// front of the server. With `jwt` the server asks nobody for a certificate.
    #[arg(long, value_parser = ["x509", "jwt"], default_value = "x509")]
    credential: String,
    /// The SPIFFE ID of an operator of that cluster: a second role. Otherwise there is none.
    #[arg(long, value_name = "SPIFFE_ID")]
    operator: Option<String>,
    /// Where the server listens, HOST:PORT; written into server.conf.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4222")]
    listen: String,
    /// Where the callout finds the server, tls://HOST:PORT; written into callout.toml. Again for each server of a cluster. Otherwise
    /// tls://localhost with the port of --listen.
    #[arg(long = "server", value_name = "tls://HOST:PORT")]
    servers: Vec<String>,
    /// With JetStream, which hosts of a cluster need: a store in DIR/jetstream, and limits for the workloads' account.
    #[arg(long)]
    jetstream: bool,
    /// Operator mode: days that the credentials of the callout's logins are good for, 1 to 3650. Otherwise 365.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    valid: Option<u32>,
    /// The authorities of clients' certificates, PEM; of the server's too, where --server-ca does not name another.
    #[arg(long, value_name = "FILE")]
    pub(super) ca: PathBuf,
    /// The authority of the server's certificate, PEM: whoever is in --ca, hosts that issue for themselves for one, could else
    /// pass for the server.
    #[arg(long, value_name = "FILE")]
    pub(super) server_ca: Option<PathBuf>,
    /// The server's certificate, PEM.
    #[arg(long, value_name = "FILE")]
    pub(super) server_certificate: PathBuf,
    /// The server's key, PEM.
    #[arg(long, value_name = "FILE")]
    pub(super) server_key: PathBuf,
    /// The callout's own certificate, PEM: its X.509-SVID. Not with --credential jwt.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
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
    let (mut trust_domains, mut bundles) = (Vec::new(), Vec::new());
    for text in &args.trust_domains {
        let hint = "write --trust-domain prod.example=bundle.json";
        let (name, path) = text.split_once('=').ok_or_else(|| CliError::usage("no NAME=FILE").with_hint(hint))?;
        let domain: portcullis_identity::TrustDomain =
            name.parse().map_err(|error| CliError::usage(format!("{name}: {error}")).with_hint(hint))?;
        let bundle = files::read_text(Path::new(path), CONFIG_BYTES, "bundle")?;
        let document = portcullis_identity::BundleDocument::parse(&domain, bundle.as_bytes())
            .map_err(|error| CliError::usage(format!("{path}: {error}")).with_hint(error.hint()))?;
        bundles.push(document);
        trust_domains.push((name.to_owned(), bundle));
    }
    let first = trust_domains.first().map(|(name, _)| name.clone()).unwrap_or_default();
    let id = args.id.clone().unwrap_or_else(|| format!("spiffe://{first}/callout"));
    if id.parse::<portcullis_policies::WorkloadId>().is_err() {
        return Err(CliError::usage(format!("{id} is no SPIFFE ID")).with_hint("such as spiffe://prod.example/callout"));
    }
    if let Some(operator) = &args.operator {
        let hint = "such as spiffe://prod.example/operator/ann";
        let id = operator.parse::<portcullis_policies::WorkloadId>();
        let id = id.map_err(|_| CliError::usage(format!("{operator} is no SPIFFE ID")).with_hint(hint))?;
        let domain = id.trust_domain();
        if !trust_domains.iter().any(|(name, _)| name == domain) {
            let message =
                format!("--operator {operator}: no --trust-domain {domain} was named, so nobody of it gets in");
            let hint = format!("name its bundle too, --trust-domain {domain}=FILE, or an operator of {first}");
            return Err(CliError::usage(message).with_hint(hint));
        }
    }
    let shown_by_hosts = shown_by_hosts(args)?;
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(CliError::internal);
    if args.valid.is_some() && args.mode == Mode::Accounts {
        let hint = "in accounts mode the callout logs in with nkeys, which have no end";
        return Err(CliError::usage("--valid is of operator mode").with_hint(hint));
    }
    let servers = addresses(args)?;
    let now = now();
    let material = material::check(args, &shown_by_hosts, &servers, &bundles, now)?;
    let wanted = Wanted {
        mode: args.mode,
        id,
        account: args.account.clone(),
        cluster: args.cluster.clone(),
        operator: args.operator.clone(),
        listen: args.listen.clone(),
        servers,
        store: args.jetstream.then(|| absolute(&args.dir).map(|dir| dir.join("jetstream"))).transpose()?,
        days: args.valid.unwrap_or(VALID_DAYS),
        trust_domains,
        ca: absolute(&args.ca)?,
        server_ca: absolute(args.server_ca.as_ref().unwrap_or(&args.ca))?,
        server_certificate: (absolute(&args.server_certificate)?, absolute(&args.server_key)?),
        shown: match shown_by_hosts {
            Shown::X509(certificate, key) => Shown::X509(absolute(&certificate)?, absolute(&key)?),
            Shown::Jwt => Shown::Jwt,
        },
    };
    let files = make(&wanted, now).map_err(|error| match error {
        InitError::Keys(_) => CliError::internal(error),
        InitError::Character(_) | InitError::Name { .. } => CliError::usage(error.to_string()),
    })?;
    // All of it or nothing: half a set of keys that belongs to another half would be a puzzle.
    if let Some(file) = files.iter().map(|file| args.dir.join(&file.path)).find(|path| path.symlink_metadata().is_ok())
    {
        let message = format!("{} is there already: nothing was written", file.display());
        return Err(CliError::usage(message).with_hint("name a new folder; keys are never replaced"));
    }
    for folder in ["", "keys", "policy", "login", "offline"] {
        if ["login", "offline"].contains(&folder) && args.mode == Mode::Accounts {
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
    let mut ends = vec![("the server's certificate", material.server)];
    ends.extend(material.callout.map(|end| ("the callout's certificate", end)));
    let mut more = String::new();
    if args.mode == Mode::Operator {
        ends.push(("the JWTs of the callout's logins", init::ends(&wanted, now)));
        more.push_str("\ntake offline/ away from this machine; `portcullis callout renew` needs it before that end");
    }
    let mut said = String::from("\nends:");
    for (what, at) in &ends {
        let _ = write!(said, "\n  {what}  {}", shown(*at));
    }
    for note in &material.notes {
        let _ = write!(more, "\nnote: {note}");
    }
    let ends: serde_json::Map<_, _> =
        ends.into_iter().map(|(what, at)| (what.to_owned(), serde_json::Value::from(shown(at)))).collect();
    let json = serde_json::json!({ "dir": args.dir, "files": names, "ends": ends, "notes": material.notes });
    out.result(format!("{text}{said}{more}"), &json)
}

/// What hosts show, with the callout's own certificate where the server will ask for one.
fn shown_by_hosts(args: &InitArgs) -> Result<Shown, CliError> {
    let is_jwt = args.credential == "jwt";
    match (&args.certificate, &args.key) {
        (None, None) if is_jwt && args.operator.is_some() => {
            let hint = "operators log in with a certificate: give them a server or a listener with verify: true, and a role of their own";
            Err(CliError::usage("--operator: with --credential jwt the server asks for no certificate").with_hint(hint))
        }
        (None, None) if is_jwt => Ok(Shown::Jwt),
        (Some(certificate), Some(key)) if !is_jwt => Ok(Shown::X509(certificate.clone(), key.clone())),
        _ if is_jwt => {
            Err(CliError::usage("--certificate and --key: with --credential jwt the server asks nobody for one")
                .with_hint("leave them out"))
        }
        _ => Err(CliError::usage("--certificate and --key are missing")
            .with_hint("the server asks everybody for a certificate: give the callout's own")),
    }
}

/// Where the callout finds its servers.
fn addresses(args: &InitArgs) -> Result<Vec<String>, CliError> {
    let port = |address: &str| {
        let (host, port) = address.rsplit_once(':')?;
        let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
        (!host.is_empty() && !host.contains(['/', '@', '?', '#', ' '])).then_some(port)
    };
    let listen = port(&args.listen).ok_or_else(|| {
        CliError::usage(format!("--listen {} is not HOST:PORT", args.listen)).with_hint("such as 0.0.0.0:4222")
    })?;
    if args.servers.is_empty() {
        return Ok(vec![format!("tls://localhost:{listen}")]);
    }
    for server in &args.servers {
        if server.strip_prefix("tls://").and_then(port).is_none() {
            let message = format!("--server {server} is not tls://HOST:PORT");
            return Err(CliError::usage(message).with_hint("such as tls://nats.example:4222"));
        }
    }
    Ok(args.servers.clone())
}

pub(super) fn shown(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

fn now() -> OffsetDateTime {
    crate::clock::now()
}

/// Days that credentials are good for where nothing else is asked for.
pub(super) const VALID_DAYS: u32 = 365;
