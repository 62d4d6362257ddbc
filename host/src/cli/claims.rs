//! `portcullis claims init`: claims derived from a component, to be completed by hand or by options and then signed.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use portcullis_signing::{
    Audience, ClaimsDraft, ComponentBytes, ComponentError, ComponentName, ComponentVersion, IdentityPath, Interfaces,
    Lifetime, Metadata, Problem, read_interfaces, read_metadata,
};
use time::OffsetDateTime;

use super::error::{CliError, exit};
use super::files;
use super::moment::Moment;
use super::output::Output;

/// `portcullis claims ...`.
#[derive(Debug, clap::Subcommand)]
pub enum ClaimsCommand {
    /// Write claims with the component's own imports and exports, to edit and to sign.
    Init(InitArgs),
}

/// `portcullis claims init`.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The component.
    component: PathBuf,
    /// Its name, `namespace:name`; by default what the component says of itself.
    #[arg(long)]
    name: Option<ComponentName>,
    /// Its version; by default what the component says of itself, else 0.1.0.
    #[arg(long)]
    version: Option<ComponentVersion>,
    /// Its revision: grows with every release, never falls.
    #[arg(long)]
    revision: Option<u64>,
    /// A cluster that may run it; may be given several times.
    #[arg(long = "audience", value_name = "CLUSTER")]
    audiences: Vec<Audience>,
    /// Path of its SPIFFE ID; by default ns/NAMESPACE/sa/NAME of the name.
    #[arg(long, value_name = "PATH")]
    identity_path: Option<IdentityPath>,
    /// How long the claims hold, from now.
    #[arg(long, default_value = "30d", value_name = "TIME")]
    valid_for: Lifetime,
    /// The time now, for the same output every time; by default SOURCE_DATE_EPOCH, else the clock.
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,
    /// The file to write; by default standard output.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Replace a file that exists.
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub fn run(command: ClaimsCommand, out: &mut Output) -> Result<(), CliError> {
    match command {
        ClaimsCommand::Init(args) => init(&args, out),
    }
}

fn init(args: &InitArgs, out: &mut Output) -> Result<(), CliError> {
    let (component, interfaces) = read_component(&args.component)?;
    let metadata = read_metadata(component.bytes(), &interfaces);
    let draft = draft(args, &interfaces, metadata, Moment::given_or_now(args.at)?);
    let json = draft.to_json().map_err(CliError::internal)?;
    let open: Vec<Problem> = draft.build().err().map(|error| error.problems()).unwrap_or_default();
    match &args.out {
        None => out.raw(&json)?,
        Some(path) => {
            files::write(path, &json, 0o644, args.force)?;
            let result = serde_json::json!({ "file": path, "toFillIn": open });
            out.result(format!("wrote {}", path.display()), &result)?;
        }
    }
    if !open.is_empty() {
        let list: Vec<&str> = open.iter().map(|problem| problem.at.as_str()).collect();
        out.note(format!("still to be filled in: {}", list.join(", ")));
    }
    Ok(())
}

fn draft(args: &InitArgs, interfaces: &Interfaces, metadata: Metadata, now: OffsetDateTime) -> ClaimsDraft {
    let mut draft = ClaimsDraft::new(interfaces, now, args.valid_for);
    // A name without a namespace is not half of one: who may use which namespace is the trust policy's.
    let own_name = || metadata.name.as_deref().and_then(|name| name.parse().ok());
    if let Some(name) = &args.name.clone().or_else(own_name) {
        draft.name = name.to_string();
        draft.identity_path = format!("ns/{}/sa/{}", name.namespace(), name.name());
    }
    if let Some(version) = args.version.as_ref().or(metadata.version.as_ref()) {
        draft.version = version.to_string();
    }
    if let Some(revision) = args.revision {
        draft.revision = revision;
    }
    if let Some(path) = &args.identity_path {
        draft.identity_path = path.to_string();
    }
    draft.audience = args.audiences.iter().map(ToString::to_string).collect();
    draft
}

/// Reads a component of the user's own and what it imports and exports.
pub fn read_component(path: &Path) -> Result<(ComponentBytes, Interfaces), CliError> {
    let component = files::read_component(path)?;
    let interfaces = read_interfaces(component.bytes()).map_err(|error| not_a_component(path.display(), &error))?;
    Ok((component, interfaces))
}

/// A file that is not a component that can be admitted.
pub fn not_a_component(what: impl Display, error: &ComponentError) -> CliError {
    CliError::new(exit::CLAIMS, "claims.not-component", format!("{what}: {error}")).with_hint(error.hint())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(component: PathBuf, out: Option<PathBuf>) -> InitArgs {
        InitArgs {
            component,
            name: Some("acme:orders".parse().unwrap()),
            version: Some("1.4.2".parse().unwrap()),
            revision: Some(142),
            audiences: vec!["prod-eu".parse().unwrap()],
            identity_path: None,
            valid_for: "30d".parse().unwrap(),
            at: None,
            out,
            force: false,
        }
    }

    #[test]
    fn claims_are_derived_from_the_component_and_the_options() {
        let interfaces = Interfaces { imports: vec!["log".parse().unwrap()], exports: Vec::new() };
        let own = Metadata { name: Some("other:name".to_owned()), version: Some("9.9.9".parse().unwrap()) };
        let now = OffsetDateTime::UNIX_EPOCH;
        let claims = draft(&args(PathBuf::new(), None), &interfaces, own.clone(), now).build().unwrap();
        assert_eq!((claims.name().as_str(), claims.revision()), ("acme:orders", 142));
        assert_eq!(claims.identity_path().as_str(), "ns/acme/sa/orders");
        assert_eq!(claims.imports(), interfaces.imports());
        // What was not said comes from the component.
        let bare = InitArgs { name: None, version: None, ..args(PathBuf::new(), None) };
        let claims = draft(&bare, &interfaces, own, now).build().unwrap();
        assert_eq!((claims.name().as_str(), claims.version().to_string().as_str()), ("other:name", "9.9.9"));
        assert_eq!(claims.identity_path().as_str(), "ns/other/sa/name");
        let half = Metadata { name: Some("orders".to_owned()), version: None };
        assert!(draft(&bare, &interfaces, half, now).name.is_empty());
    }

    #[test]
    fn what_is_not_a_component_is_an_error_and_leaves_nothing_behind() {
        let temp = tempfile::tempdir().unwrap();
        let (wasm, out) = (temp.path().join("x.wasm"), temp.path().join("claims.json"));
        for bytes in [&b"\0asm\x01\0\0\0"[..], b"\x7fELF", b"\0asm", b"text", &[0xff; 64]] {
            std::fs::write(&wasm, bytes).unwrap();
            let error = init(&args(wasm.clone(), Some(out.clone())), &mut Output::new(true)).unwrap_err();
            assert_eq!(error.exit(), exit::CLAIMS);
            assert!(error.message().contains("x.wasm") && error.hint().is_some());
            assert!(!out.exists());
        }
    }
}
