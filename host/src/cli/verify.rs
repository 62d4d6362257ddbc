//! `portcullis verify`: the host's own verdict on a component, by the host's own code.
//!
//! Trust starts at root keys that the caller names, on the command line or in the configuration. Without them there is no
//! verdict: nothing is trusted on first use.

use std::path::{Path, PathBuf};

use portcullis_signing::trust::Roots;
use portcullis_signing::{
    Audience, Claims, ComponentBytes, Context, DecisionRecord, DenyList, Examination, HighWaterError, KeyKind, Refusal,
    TrustPolicy, Verified, timestamp,
};
use time::OffsetDateTime;

use super::error::{CliError, exit};
use super::files;
use super::host_side::{HighWater, HostSide};
use super::keys::PublicKeyArg;
use super::located::{Located, RegistryArgs};
use super::output::{Output, table};
use crate::clock;
use crate::limits::CONFIG_BYTES;

/// `portcullis verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The component: a file, or oci://HOST/REPOSITORY:TAG.
    component: Located,
    /// Evidence; by default the files with `.sigstore.json` beside the component, or what refers to it. May be given several times.
    #[arg(long = "bundle", value_name = "FILE")]
    bundles: Vec<PathBuf>,
    /// Decide as the host of --config would: also its grants, and what it serves.
    #[arg(long, requires = "config", conflicts_with_all = ["roots", "root_threshold", "audience"])]
    as_host: bool,
    /// List everything that would be denied, not what decides alone.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Where a verdict takes its trust from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TrustArgs {
    /// The signed trust policy.
    #[arg(long = "trust", value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// A root key that you trust, O...; may be given several times.
    #[arg(long = "root", value_name = "KEY")]
    pub roots: Vec<PublicKeyArg>,
    /// How many of them must have signed the trust policy.
    #[arg(long, value_name = "N", requires = "roots")]
    pub root_threshold: Option<usize>,
    /// The cluster for which to decide.
    #[arg(long, value_name = "CLUSTER")]
    pub audience: Option<Audience>,
    /// The signed deny list, where the trust policy demands one.
    #[arg(long, value_name = "FILE")]
    pub deny_list: Option<PathBuf>,
    /// Take all of these, and the revisions seen, from a host's configuration.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// A trust policy in force and what else a verdict depends on.
#[derive(Debug)]
pub struct Trusted {
    policy: TrustPolicy,
    deny_list: Option<DenyList>,
    file: PathBuf,
    audience: String,
    seen: Option<HighWater>,
    seen_error: Option<String>,
    /// A deny list that was named and that nobody may sign.
    unread: Option<PathBuf>,
    now: OffsetDateTime,
}

/// Runs the command.
pub fn run(args: VerifyArgs, out: &mut Output) -> Result<(), CliError> {
    let trusted = args.trust.read(clock::now())?;
    let found = args.component.read(&args.bundles, &args.registry, out)?;
    // Fetching may have taken a while.
    let trusted = Trusted { now: clock::now(), ..trusted };
    let evidence: Vec<&[u8]> = found.evidence.iter().map(Vec::as_slice).collect();
    let verdict = if args.dry_run {
        let examined = trusted.examine(&found.component, &evidence);
        let host = match &examined.verdict {
            Ok(verified) if args.as_host => admit(args.trust.config.as_deref(), verified).err(),
            _ => None,
        };
        dry_run(examined.refusals, host, out);
        examined.verdict
    } else {
        trusted.verify(&found.component, &evidence)
    };
    let verified = verdict.map_err(|refusal| CliError::from(refusal).about(&found.label))?;
    let mut rows = rows(&found.label, &verified, &trusted);
    let mut json = serde_json::to_value(DecisionRecord::new(Ok(&verified))).map_err(CliError::internal)?;
    if args.as_host {
        let id = admit(args.trust.config.as_deref(), &verified).map_err(|error| error.about(&found.label))?;
        rows.push(vec!["  admitted as".to_owned(), id.clone()]);
        if let Some(record) = json.as_object_mut() {
            record.insert("admittedAs".to_owned(), id.into());
        }
    }
    out.result(format!("verified\n{}", table(&rows).trim_end()), &json)?;
    if let Some(unread) = &trusted.unread {
        out.note(format!("{} was not read: the trust policy demands no deny list", unread.display()));
    }
    if trusted.seen.is_none() {
        out.note(
            "rollback was checked against the floors of the trust policy only; --config adds what a host has seen",
        );
    }
    Ok(())
}

/// What the host of a configuration would do next; the SPIFFE ID that it would give.
#[cfg(feature = "host")]
fn admit(config: Option<&Path>, verified: &Verified<Claims>) -> Result<String, CliError> {
    let config = config.ok_or_else(|| CliError::usage("--as-host needs --config"))?;
    super::as_host::admit(config, verified)
}

/// A build of the signing commands alone knows no grants: it does not guess.
#[cfg(not(feature = "host"))]
fn admit(_: Option<&Path>, _: &Verified<Claims>) -> Result<String, CliError> {
    Err(CliError::usage("this build has the signing commands alone and cannot decide as a host")
        .with_hint("run `portcullis verify --as-host` with the build of the host"))
}

/// Lists all that would be denied, each on a line of its own.
fn dry_run(refusals: Vec<Refusal>, host: Option<CliError>, out: &mut Output) {
    let evidence = refusals.into_iter().map(CliError::from);
    for error in evidence.chain(host) {
        out.note(format!("would be denied: {} {}", error.stable_code(), error.message()));
    }
}

impl TrustArgs {
    /// Whether anything was said about trust.
    pub fn is_given(&self) -> bool {
        self.policy.is_some() || !self.roots.is_empty() || self.config.is_some()
    }

    /// Reads and verifies the trust policy.
    pub fn read(&self, now: OffsetDateTime) -> Result<Trusted, CliError> {
        let config = self.config.as_deref().map(HostSide::read).transpose()?;
        let trust = config.as_ref().map(|config| &config.trust);
        let roots = if self.roots.is_empty() {
            trust.map(|trust| trust.roots.clone()).unwrap_or_default()
        } else {
            self.roots.iter().map(|key| key.read(KeyKind::Root, "--root")).collect::<Result<_, _>>()?
        };
        if roots.is_empty() {
            return Err(Refusal::no_trust().into());
        }
        let threshold = match (self.root_threshold, trust) {
            (Some(threshold), _) => threshold,
            // Other keys than the host's, but no fewer of them.
            (None, Some(trust)) => trust.threshold,
            (None, None) => 1,
        };
        let Some(file) = self.policy.clone().or_else(|| trust.map(|trust| trust.policy.clone())) else {
            return Err(CliError::new(exit::TRUST, "trust.missing", "there is no trust policy")
                .with_hint("name the signed trust policy: --trust FILE, or --config with the host's configuration"));
        };
        let given = self.audience.as_ref().map(ToString::to_string);
        let Some(audience) = given.or_else(|| config.as_ref().map(|config| config.cluster.clone())) else {
            return Err(CliError::usage("there is no cluster to decide for")
                .with_hint("name it: --audience CLUSTER, or --config with the host's configuration"));
        };
        let bytes = files::read_bytes(&file, CONFIG_BYTES, "trust policy").map_err(|error| {
            CliError::new(exit::TRUST, "trust.unreadable", error.message()).with_hint(error.hint().unwrap_or_default())
        })?;
        let (seen, seen_error) = match config.as_ref().map(HostSide::marks) {
            None => (None, None),
            Some(Ok(marks)) => (Some(marks), None),
            Some(Err(error)) => (None, Some(error)),
        };
        let version = seen.as_ref().and_then(HighWater::trust_policy);
        let pinned = Roots { roots, threshold };
        // Root keys that replaced the pinned ones are known to the host from its last policy.
        let known = seen.as_ref().and_then(|seen| seen.roots(&pinned)).unwrap_or(&pinned);
        let policy = TrustPolicy::verify(&bytes, &known.roots, known.threshold, now, version)
            .map_err(|error| trust_error(&file, Refusal::from(error)))?;
        let list = self.deny_list.clone().or_else(|| trust.and_then(|trust| trust.deny_list.clone()));
        let version = seen.as_ref().and_then(HighWater::deny_list);
        let deny_list = deny_list(&policy, list.as_deref(), version)?;
        let unread = list.filter(|_| policy.deny_list().is_none());
        Ok(Trusted { policy, deny_list, file, audience, seen, seen_error, unread, now })
    }
}

/// The deny list that the trust policy demands; what is not demanded is not read.
fn deny_list(policy: &TrustPolicy, path: Option<&Path>, seen: Option<u64>) -> Result<Option<DenyList>, CliError> {
    let Some((rule, path)) = policy.deny_list().zip(path) else { return Ok(None) };
    let bytes = files::read_bytes(path, CONFIG_BYTES, "deny list").map_err(|error| {
        CliError::new(exit::TRUST, "deny-list.missing", error.message()).with_hint(error.hint().unwrap_or_default())
    })?;
    DenyList::verify(&bytes, rule, seen).map(Some).map_err(|error| trust_error(path, Refusal::from(error)))
}

fn trust_error(file: &Path, refusal: Refusal) -> CliError {
    let message = format!("{}: {}", file.display(), refusal.message());
    CliError::new(refusal.code().exit_code(), refusal.code().as_str(), message).with_hint(refusal.hint())
}

impl Trusted {
    /// The verdict on a component and its evidence.
    pub fn verify(&self, component: &ComponentBytes, evidence: &[&[u8]]) -> Result<Verified<Claims>, Refusal> {
        self.with_context(|context| portcullis_signing::verify(component, evidence, context))
    }

    /// The verdict, and everything that would be refused.
    pub fn examine(&self, component: &ComponentBytes, evidence: &[&[u8]]) -> Examination {
        self.with_context(|context| portcullis_signing::examine(component, evidence, context))
    }

    fn with_context<T>(&self, decide: impl FnOnce(&Context<'_>) -> T) -> T {
        let highest_seen = |name: &portcullis_signing::ComponentName, audience: &str| match &self.seen_error {
            Some(error) => Err(HighWaterError(error.clone())),
            None => Ok(self.seen.as_ref().and_then(|marks| marks.revision(name.as_str(), audience))),
        };
        decide(&Context {
            trust: &self.policy,
            deny_list: self.deny_list.as_ref(),
            audience: &self.audience,
            now: self.now,
            highest_seen: &highest_seen,
        })
    }
}

fn rows(label: &str, verified: &Verified<Claims>, trusted: &Trusted) -> Vec<Vec<String>> {
    let (claims, signer) = (verified.claims(), verified.signer());
    let interfaces = verified.interfaces();
    let row = |name: &str, value: String| vec![format!("  {name}"), value];
    vec![
        row("file", label.to_owned()),
        row("digest", verified.digest().to_string()),
        row("component", format!("{} {}, revision {}", claims.name(), claims.version(), claims.revision())),
        row("signer", format!("{} ({}), group {}", signer.name(), signer.id(), signer.group())),
        row("identity", verified.spiffe_path().to_owned()),
        row("cluster", trusted.audience.clone()),
        row("expires", timestamp::format(claims.expires_at())),
        row("imports", format!("{}, all of them claimed", interfaces.imports().len())),
        row("trust", format!("{}, version {}", trusted.file.display(), verified.policy_version())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_signing::{
        ClaimsDraft, Delegation, Interfaces, SecretKey, SignerEntry, TrustDocument, sign_component, sign_trust,
    };

    const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    /// A folder with `app.wasm`, its evidence, a signed trust policy and a configuration; and the root key.
    fn site(revision: u64) -> (tempfile::TempDir, PublicKeyArg) {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let (root, signer) =
            (SecretKey::generate(KeyKind::Root).unwrap(), SecretKey::generate(KeyKind::Signer).unwrap());
        let now = clock::now();
        let mut document = TrustDocument::new(3, now, now + time::Duration::days(1), vec![root.public()], 1).unwrap();
        let delegation = Delegation {
            names: vec!["demo:*".parse().unwrap()],
            identity_paths: vec!["ns/demo/*".parse().unwrap()],
            audiences: vec!["demo".parse().unwrap()],
            imports: Vec::new(),
            max_lifetime: "1d".parse().unwrap(),
            not_after: None,
            onward: None,
        };
        let entry = SignerEntry {
            name: "ci".to_owned(),
            identity: signer.public().into(),
            group: None,
            roles: Vec::new(),
            parent: None,
            delegation,
        };
        document.add_signer(entry).unwrap();
        let mut draft = ClaimsDraft::new(&Interfaces::default(), now, "1d".parse().unwrap());
        draft.name = "demo:app".to_owned();
        draft.identity_path = "ns/demo/sa/app".to_owned();
        draft.audience = vec!["demo".to_owned()];
        draft.revision = revision;
        let component = ComponentBytes::from_vec(EMPTY_COMPONENT.to_vec());
        let bundle = sign_component(&component, &draft.build().unwrap(), &signer, now).unwrap();
        let config = format!(
            "version = 1\ntrust_domain = \"demo.internal\"\ncluster = \"demo\"\nstate_dir = \"state\"\n[trust]\npolicy = \"trust.json\"\nroots = [\"{}\"]\n",
            root.public()
        );
        std::fs::create_dir(at("state")).unwrap();
        for (name, bytes) in [
            ("app.wasm", EMPTY_COMPONENT.to_vec()),
            ("app.wasm.sigstore.json", bundle),
            ("trust.json", sign_trust(&document, None, &root).unwrap()),
            ("portcullis.toml", config.into_bytes()),
        ] {
            std::fs::write(at(name), bytes).unwrap();
        }
        (temp, root.public().to_string().parse().unwrap())
    }

    fn verdict(temp: &tempfile::TempDir, trust: TrustArgs) -> Result<(), CliError> {
        let component = Located::File(temp.path().join("app.wasm"));
        let registry = RegistryArgs::default();
        let args = VerifyArgs { component, bundles: Vec::new(), as_host: false, dry_run: false, trust, registry };
        run(args, &mut Output::new(true))
    }

    fn configured(temp: &tempfile::TempDir) -> TrustArgs {
        TrustArgs { config: Some(temp.path().join("portcullis.toml")), ..TrustArgs::default() }
    }

    #[test]
    fn trust_comes_from_options_or_from_the_configuration_and_never_from_nowhere() {
        let (temp, root) = site(5);
        let policy = Some(temp.path().join("trust.json"));
        let audience = Some("demo".parse().unwrap());
        verdict(&temp, configured(&temp)).unwrap();
        verdict(
            &temp,
            TrustArgs {
                policy: policy.clone(),
                roots: vec![root.clone()],
                audience: audience.clone(),
                ..TrustArgs::default()
            },
        )
        .unwrap();
        let missing = |trust: TrustArgs| verdict(&temp, trust).unwrap_err().exit();
        assert_eq!(
            missing(TrustArgs { policy: policy.clone(), audience: audience.clone(), ..TrustArgs::default() }),
            exit::TRUST
        );
        assert_eq!(missing(TrustArgs { roots: vec![root.clone()], audience, ..TrustArgs::default() }), exit::TRUST);
        assert_eq!(missing(TrustArgs { policy, roots: vec![root], ..TrustArgs::default() }), exit::USAGE);
        assert_eq!(missing(TrustArgs::default()), exit::TRUST);
    }

    #[test]
    fn a_root_on_the_command_line_replaces_those_of_the_configuration() {
        let (temp, _) = site(5);
        let (_other, stranger) = site(5);
        let error = verdict(&temp, TrustArgs { roots: vec![stranger], ..configured(&temp) }).unwrap_err();
        assert_eq!((error.exit(), error.code()), (exit::TRUST, "trust.unsigned"));
    }

    #[test]
    fn what_the_host_has_seen_counts() {
        let (temp, _) = site(5);
        let marks = temp.path().join("state/high-water.json");
        let write = |version: u64, revision: u64| {
            let json = serde_json::json!({ "version": 1, "trust_policy": version, "revisions": { "demo": { "demo:app": revision } } });
            std::fs::write(&marks, json.to_string()).unwrap();
        };
        write(3, 5);
        verdict(&temp, configured(&temp)).unwrap();
        write(3, 6);
        assert_eq!(verdict(&temp, configured(&temp)).unwrap_err().code(), "revision.rolled-back");
        write(4, 5);
        assert_eq!(verdict(&temp, configured(&temp)).unwrap_err().code(), "trust.rolled-back");
        std::fs::write(&marks, "{").unwrap();
        assert_eq!(verdict(&temp, configured(&temp)).unwrap_err().code(), "revision.unknown");
    }

    #[test]
    fn a_refusal_ends_the_command_with_its_exit_code() {
        let (temp, _) = site(5);
        std::fs::remove_file(temp.path().join("app.wasm.sigstore.json")).unwrap();
        let error = verdict(&temp, configured(&temp)).unwrap_err();
        assert_eq!((error.exit(), error.code()), (10, "evidence.none"));
    }
}
