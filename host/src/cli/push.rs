//! `portcullis push`: a component and its evidence to an OCI registry. What no host would admit is not pushed by mistake.

use std::path::{Path, PathBuf};

use portcullis_signing::bundle::MEDIA_TYPE as BUNDLE;
use portcullis_signing::limits::BUNDLE_BYTES;
use portcullis_signing::oci::{ComponentArtifact, OciReference};
use portcullis_signing::{ComponentBytes, RefusalCode};
use serde_json::json;

use super::claims::read_component;
use super::error::{CliError, exit};
use super::files;
use super::located::{self, RegistryArgs};
use super::moment::Moment;
use super::output::Output;
use super::presented::Presented;
use super::sbom::Sbom;
use crate::oci::{Attachment, Pushed, Registry};

/// `portcullis push`.
#[derive(Debug, clap::Args)]
pub struct PushArgs {
    /// The component.
    component: PathBuf,
    /// The reference: HOST/REPOSITORY:TAG.
    #[arg(value_name = "REF")]
    reference: String,
    /// Evidence; by default the files with `.sigstore.json` beside the component. May be given several times.
    #[arg(long = "bundle", value_name = "FILE")]
    bundles: Vec<PathBuf>,
    /// An SBOM (SPDX or CycloneDX, JSON) to attach. May be given several times.
    #[arg(long = "sbom", value_name = "FILE")]
    sboms: Vec<PathBuf>,
    /// Push although there is no evidence. A host refuses such a component.
    #[arg(long)]
    without_evidence: bool,
    /// The time to write into the artifact, by default SOURCE_DATE_EPOCH, else 1970: the same component is the same artifact.
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Runs the command.
pub fn run(args: &PushArgs, out: &mut Output) -> Result<(), CliError> {
    let reference = located::reference(&args.reference)?;
    if reference.tag().is_none() {
        return Err(CliError::usage(format!("{reference} names no tag to push to"))
            .with_hint("end it with a tag, such as :1.4.2"));
    }
    let (component, interfaces) = read_component(&args.component)?;
    let attachments = attachments(args, &component)?;
    let created = Moment::given_or_epoch(args.at)?;
    let artifact = ComponentArtifact::new(&component, &interfaces, created);
    let pushed = send(&reference, args, component, artifact, attachments, out)?;
    let json = json!({
        "reference": pushed.reference,
        "tag": reference,
        "attachments": pushed.attachments,
        "referrersApi": pushed.referrers_api,
    });
    let listed = if pushed.referrers_api { "by the registry" } else { "under the fallback tag" };
    let text = format!("pushed {}\n{} attached, listed {listed}", pushed.reference, pushed.attachments.len());
    out.result(text, &json)
}

fn send(
    reference: &OciReference,
    args: &PushArgs,
    component: ComponentBytes,
    artifact: ComponentArtifact,
    attachments: Vec<Attachment>,
    out: &Output,
) -> Result<Pushed, CliError> {
    let options = args.registry.options(true)?;
    let bar = out.bar("pushing");
    let (asked, shown) = (reference.clone(), bar.clone());
    let pushed = located::contained(async move {
        let registry = Registry::connect(&asked, &options).await?;
        Ok(registry.push(&component, &artifact, &attachments, &shown).await?)
    });
    bar.finish_and_clear();
    pushed
}

/// The evidence, looked at only so far that none is pushed with a component that it does not speak of; and the SBOMs.
fn attachments(args: &PushArgs, component: &ComponentBytes) -> Result<Vec<Attachment>, CliError> {
    let beside = if args.bundles.is_empty() { files::all_evidence_beside(&args.component) } else { Vec::new() };
    let (sboms, bundles): (Vec<&PathBuf>, Vec<&PathBuf>) = beside.iter().partition(|path| files::is_sbom(path));
    let bundles: Vec<&PathBuf> = bundles.into_iter().chain(&args.bundles).collect();
    if bundles.is_empty() && !args.without_evidence {
        let code = RefusalCode::EvidenceNone;
        let message = format!("{}: there is no evidence to push with it", args.component.display());
        return Err(CliError::new(code.exit_code(), code.as_str(), message).with_hint(
            "sign it first: `portcullis sign APP.wasm --claims F --key K`; --without-evidence pushes what every host refuses",
        ));
    }
    let mut attachments = Vec::new();
    for path in bundles {
        attachments.push(attachment(path, component)?);
    }
    for path in sboms.into_iter().chain(&args.sboms) {
        attachments.push(Sbom::read(path)?.into_attachment());
    }
    Ok(attachments)
}

fn attachment(path: &Path, component: &ComponentBytes) -> Result<Attachment, CliError> {
    let bytes = files::read_bytes(path, BUNDLE_BYTES as u64, "evidence")?;
    let about = path.display();
    let presented = Presented::read(&bytes).map_err(|why| {
        CliError::new(exit::EVIDENCE, "evidence.malformed", format!("{about}: {why}"))
            .with_hint("the file is damaged or no Sigstore bundle; sign again")
    })?;
    if !presented.subjects.contains(component.digest()) {
        let message = format!("{about} is for another file than this one, {}", component.digest());
        return Err(CliError::new(exit::CLAIMS, "claims.digest", message).with_hint(
            "the component was changed after it was signed: sign it again, or push the one that was signed",
        ));
    }
    Ok(Attachment { media_type: BUNDLE, bytes, predicate_type: presented.predicate_type })
}
