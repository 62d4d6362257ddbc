//! `portcullis identity ...`: what a running host says of its identities, and what an operator has it do. It holds no decisions.

mod fetch;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::{CliError, exit};
use super::output::{Output, table};
use super::remote::{TargetArgs, connect, failed};
use super::{block_on, pem};
use crate::identity_report::{PeerReport, Revoked, Rotated, Shown};
use crate::rpc::control::{
    BundleRequest, IdentityReply, IdentityRevokeRequest, IdentityRotateRequest, IdentityShowRequest,
    IdentityTaintRequest, identity_reply,
};

/// `portcullis identity ...`.
#[derive(Debug, clap::Subcommand)]
pub enum IdentityCommand {
    /// Authorities with their slots and ends, what rotation does next, who has an identity, federated trust domains.
    Show(TargetArgs),
    /// Force new authorities or new SVIDs now. Without a choice: X.509 and JWT authorities, and every SVID.
    Rotate(RotateArgs),
    /// Distrust an authority at once: it leaves the bundle, its key is destroyed, its SVIDs are issued anew.
    Taint(TaintArgs),
    /// Take the identity from an instance, or from whoever has a SPIFFE ID, and cut what it has open.
    Revoke(RevokeArgs),
    /// The trust bundle as the host publishes it (SPIFFE bundle document).
    Bundle(BundleArgs),
    /// Write the X.509-SVID that a Workload API gives this user and program to files: for an operator's file, or curl.
    Fetch(fetch::FetchArgs),
}

/// Arguments of `identity rotate`.
#[derive(Debug, clap::Args)]
pub struct RotateArgs {
    /// A new X.509 authority signs from now on; SVIDs of the old one stay valid until they end.
    #[arg(long)]
    x509: bool,
    /// A new JWT authority signs from now on.
    #[arg(long)]
    jwt: bool,
    /// A new WIT authority signs from now on.
    #[arg(long)]
    wit: bool,
    /// Issue every X.509-SVID anew and forget every cached token.
    #[arg(long)]
    svids: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Arguments of `identity taint`.
#[derive(Debug, clap::Args)]
pub struct TaintArgs {
    /// The authority's key id, as `identity show` lists it.
    // One in 64 begins with a hyphen.
    #[arg(allow_hyphen_values = true)]
    authority: String,
    #[command(flatten)]
    target: TargetArgs,
}

/// Arguments of `identity revoke`.
#[derive(Debug, clap::Args)]
pub struct RevokeArgs {
    /// An instance id (until that instance ends), or a SPIFFE ID (until it is lifted), of this trust domain or a peer's.
    instance_or_id: String,
    /// Lift the revocation of a SPIFFE ID. What runs with it gets its identity back when it is started again.
    #[arg(long)]
    lift: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Arguments of `identity bundle`.
#[derive(Debug, clap::Args)]
pub struct BundleArgs {
    /// The bundles of all trust domains that the host knows, as a SPIFFE bundle map.
    #[arg(long, conflicts_with = "pem")]
    federated: bool,
    /// The X.509 authorities of the host's own trust domain alone, in PEM: for `ca_file` of a nats-server, or curl --cacert.
    #[arg(long)]
    pem: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs the command.
pub fn run(command: IdentityCommand, out: &mut Output) -> Result<(), CliError> {
    match command {
        IdentityCommand::Show(target) => show(&target, out),
        IdentityCommand::Rotate(args) => rotate(&args, out),
        IdentityCommand::Taint(args) => taint(args, out),
        IdentityCommand::Revoke(args) => revoke(args, out),
        IdentityCommand::Bundle(args) => bundle(&args, out),
        IdentityCommand::Fetch(args) => fetch::run(&args, out),
    }
}

fn show(target: &TargetArgs, out: &mut Output) -> Result<(), CliError> {
    let socket = target.socket()?;
    let reply = block_on(async {
        let reply = connect(&socket).await?.identity_show(IdentityShowRequest {}).await;
        Ok(reply.map_err(|error| failed(&error))?.into_inner())
    })?;
    let shown: Shown = report(reply)?;
    out.result(shown_text(&shown), &serde_json::to_value(&shown).map_err(CliError::internal)?)
}

fn rotate(args: &RotateArgs, out: &mut Output) -> Result<(), CliError> {
    let RotateArgs { x509, jwt, wit, svids, .. } = *args;
    let all = !(x509 || jwt || wit || svids);
    let request = IdentityRotateRequest { x509: x509 || all, jwt: jwt || all, wit, svids: svids || all };
    let socket = args.target.socket()?;
    let reply = block_on(async {
        let reply = connect(&socket).await?.identity_rotate(request).await;
        Ok(reply.map_err(|error| failed(&error))?.into_inner())
    })?;
    rotated(reply, out)
}

fn taint(args: TaintArgs, out: &mut Output) -> Result<(), CliError> {
    let socket = args.target.socket()?;
    let request = IdentityTaintRequest { authority: args.authority };
    let reply = block_on(async {
        let reply = connect(&socket).await?.identity_taint(request).await;
        Ok(reply.map_err(|error| failed(&error))?.into_inner())
    })?;
    rotated(reply, out)
}

fn rotated(reply: IdentityReply, out: &mut Output) -> Result<(), CliError> {
    let rotated: Rotated = report(reply)?;
    out.result(rotated_text(&rotated), &serde_json::to_value(&rotated).map_err(CliError::internal)?)
}

fn revoke(args: RevokeArgs, out: &mut Output) -> Result<(), CliError> {
    let socket = args.target.socket()?;
    let request = IdentityRevokeRequest { target: args.instance_or_id, lift: args.lift };
    let reply = block_on(async {
        let reply = connect(&socket).await?.identity_revoke(request).await;
        Ok(reply.map_err(|error| failed(&error))?.into_inner())
    })?;
    let revoked: Revoked = report(reply)?;
    let text = match (revoked.lifted, revoked.instances.as_slice()) {
        (true, _) => format!("{} is not revoked any more; start what runs with it again", revoked.target),
        (false, []) => format!("{} is revoked; nothing that runs here has it", revoked.target),
        (false, instances) => format!("{} is revoked; cut off: {}", revoked.target, instances.join(", ")),
    };
    out.result(text, &serde_json::to_value(&revoked).map_err(CliError::internal)?)
}

fn bundle(args: &BundleArgs, out: &mut Output) -> Result<(), CliError> {
    let socket = args.target.socket()?;
    let json = block_on(async {
        let reply = connect(&socket).await?.bundle(BundleRequest { federated: args.federated }).await;
        Ok(reply.map_err(|error| failed(&error))?.into_inner().json)
    })?;
    if !args.pem {
        return out.raw(format!("{json}\n").as_bytes());
    }
    let certificates = authorities(&json)?;
    for certificate in &certificates {
        out.line(certificate.trim_end())?;
    }
    out.value(&serde_json::json!({ "pem": certificates.concat() }))
}

/// The certificates of a bundle document's X.509 authorities, in PEM.
fn authorities(json: &str) -> Result<Vec<String>, CliError> {
    let unusable = |why: &str| {
        CliError::new(exit::TRANSPORT, "host.answer", format!("the bundle of the host {why}"))
            .with_hint("look at `portcullis identity show`, and at the log of the host")
    };
    let document: serde_json::Value = serde_json::from_str(json).map_err(|_| unusable("cannot be read"))?;
    let keys = document.get("keys").and_then(serde_json::Value::as_array).into_iter().flatten();
    let x509 = keys.filter(|key| key.get("use").and_then(serde_json::Value::as_str) == Some("x509-svid"));
    let mut all = Vec::new();
    for key in x509 {
        let certificate = key.pointer("/x5c/0").and_then(serde_json::Value::as_str);
        let der = certificate.and_then(|text| STANDARD.decode(text).ok());
        let der = der.ok_or_else(|| unusable("has an authority without a certificate"))?;
        all.push(pem::block("CERTIFICATE", &der).to_string());
    }
    if all.is_empty() { Err(unusable("names no X.509 authority")) } else { Ok(all) }
}

/// The report in a reply, or the host's refusal as an error of the command.
fn report<T: serde::de::DeserializeOwned>(reply: IdentityReply) -> Result<T, CliError> {
    match reply.result {
        Some(identity_reply::Result::ReportJson(json)) => serde_json::from_str(&json).map_err(CliError::internal),
        Some(identity_reply::Result::Refused(refused)) => {
            let exit = u8::try_from(refused.exit_code).unwrap_or(exit::INTERNAL);
            Err(CliError::new(exit, &refused.code, refused.message).with_hint(refused.hint))
        }
        None => Err(CliError::internal("the host gave an empty answer")),
    }
}

fn shown_text(shown: &Shown) -> String {
    let mut rows = vec![
        vec!["trust domain".to_owned(), shown.trust_domain.clone()],
        vec!["bundle".to_owned(), format!("sequence {}", shown.bundle_sequence)],
        vec!["SVIDs".to_owned(), format!("epoch {}", shown.svid_epoch)],
        vec!["policy".to_owned(), format!("generation {}", shown.policy_generation)],
    ];
    rows.extend(shown.problems.iter().map(|problem| vec!["problem".to_owned(), problem.clone()]));
    let mut text = table(&rows);
    let authorities = shown.authorities.iter().map(|one| {
        let slot = one.slot.clone().unwrap_or_else(|| "-".to_owned());
        let key = if one.key_present || one.key_place == "none" { "" } else { " (away)" };
        let (place, until) = (format!("{}{key}", one.key_place), one.published_until.map(when).unwrap_or_default());
        let row = [&one.kind, &slot, &one.state, &one.algorithm, &place, &when(one.not_after), &until, &one.id];
        row.map(Clone::clone).to_vec()
    });
    section(
        &mut text,
        &["KIND", "SLOT", "STATE", "ALGORITHM", "KEY", "ENDS", "PUBLISHED UNTIL", "AUTHORITY"],
        authorities,
    );
    let next = shown.next.iter().map(|next| {
        vec![when(next.at), next.kind.clone(), next.action.clone(), next.authority.clone().unwrap_or_default()]
    });
    section(&mut text, &["DUE", "KIND", "ACTION", "AUTHORITY"], next);
    let identities = shown.identities.iter().map(|one| {
        let end = match (one.revoked, one.x509_not_after) {
            (true, _) => "revoked".to_owned(),
            (false, Some(end)) => when(end),
            (false, None) => "-".to_owned(),
        };
        let mints = (one.x509_minted.to_string(), one.jwt_minted.to_string());
        vec![one.component.clone(), one.spiffe_id.clone(), end, mints.0, mints.1, one.instance.clone()]
    });
    section(&mut text, &["COMPONENT", "SPIFFE ID", "X.509-SVID ENDS", "X.509", "JWT", "INSTANCE"], identities);
    section(&mut text, &["REVOKED"], shown.revoked.iter().map(|id| vec![id.clone()]));
    section(&mut text, &["PEER", "PROFILE", "SEQUENCE", "FETCHED", "NEXT", "STATE"], shown.peers.iter().map(peer));
    let source = shown.source.iter().map(|source| {
        let state =
            if source.up { "up".to_owned() } else { source.problem.clone().unwrap_or_else(|| "down".to_owned()) };
        vec![source.kind.clone(), when(source.since), state]
    });
    section(&mut text, &["SOURCE", "SINCE", "STATE"], source);
    text.trim_end().to_owned()
}

fn peer(peer: &PeerReport) -> Vec<String> {
    vec![
        peer.trust_domain.clone(),
        peer.profile.clone(),
        peer.sequence.map(|sequence| sequence.to_string()).unwrap_or_default(),
        peer.fetched_at.map(when).unwrap_or_default(),
        peer.next_at.map(when).unwrap_or_default(),
        peer.problem.clone().unwrap_or_else(|| "ok".to_owned()),
    ]
}

/// A table with a heading, after an empty line; nothing where there are no rows.
fn section(text: &mut String, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    text.push('\n');
    text.push_str(&table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
}

fn rotated_text(rotated: &Rotated) -> String {
    let mut lines: Vec<_> = rotated
        .authorities
        .iter()
        .map(|one| format!("{} authority {} {}, ends {}", one.kind, one.id, one.change, when(one.not_after)))
        .collect();
    if rotated.x509_svids > 0 || rotated.x509_failed > 0 {
        let failed = match rotated.x509_failed {
            0 => String::new(),
            failed => format!(", {failed} could not be and are when they are next asked for"),
        };
        lines.push(format!("{} X.509-SVIDs issued anew{failed}", rotated.x509_svids));
    }
    let (sequence, epoch, took) = (rotated.bundle_sequence, rotated.svid_epoch, rotated.took_ms);
    lines.push(format!("bundle sequence {sequence}, SVID epoch {epoch}, in {took} ms"));
    lines.join("\n")
}

fn when(at: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(at).ok().and_then(|time| time.format(&Rfc3339).ok());
    time.unwrap_or_else(|| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pem_of_a_bundle_is_its_x509_authorities_and_nothing_else() {
        let der = vec![7_u8; 100];
        let bundle = |keys: serde_json::Value| serde_json::json!({ "keys": keys }).to_string();
        let authority = serde_json::json!({ "use": "x509-svid", "x5c": [STANDARD.encode(&der)] });
        let jwt = serde_json::json!({ "use": "jwt-svid", "kid": "k" });
        let text = authorities(&bundle(serde_json::json!([authority, jwt, authority]))).unwrap().concat();
        let read: Vec<_> = x509_parser::pem::Pem::iter_from_buffer(text.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(read.iter().map(|pem| &pem.contents).collect::<Vec<_>>(), [&der, &der]);
        let bare = serde_json::json!({ "use": "x509-svid" });
        for none in ["", "x", "{}", &bundle(serde_json::json!([jwt])), &bundle(serde_json::json!([authority, bare]))] {
            assert_eq!(authorities(none).unwrap_err().code(), "host.answer", "{none}");
        }
    }

    fn shown() -> Shown {
        serde_json::from_str(include_str!("identity/shown.json")).unwrap()
    }

    #[test]
    fn what_show_prints_is_the_golden_text() {
        let text = shown_text(&shown()) + "\n";
        assert_eq!(text, include_str!("identity/shown.txt"), "{text}");
    }

    #[test]
    fn the_json_of_show_has_the_members_that_it_had() {
        let json: serde_json::Value = serde_json::from_str(include_str!("identity/shown.json")).unwrap();
        assert_eq!(serde_json::to_value(shown()).unwrap(), json);
    }

    #[test]
    fn a_rotation_says_what_it_did_and_what_it_could_not() {
        let mut rotated =
            Rotated { x509_svids: 999, took_ms: 412, bundle_sequence: 7, svid_epoch: 3, ..Rotated::default() };
        assert_eq!(rotated_text(&rotated), "999 X.509-SVIDs issued anew\nbundle sequence 7, SVID epoch 3, in 412 ms");
        rotated.x509_failed = 1;
        assert!(rotated_text(&rotated).contains("1 could not be"));
    }

    #[test]
    fn an_authority_whose_key_id_begins_with_a_hyphen_is_named_as_it_is_shown() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: TaintArgs,
        }
        for id in ["-q3JXk9vT0m_hW2aYc8eRzLbNf5sUo7iPgD1tKxEwHM", "--0a", "-hq1", "q-3"] {
            let line = <Line as clap::Parser>::try_parse_from(["taint", id]).unwrap();
            assert_eq!(line.args.authority, id);
        }
        assert!(<Line as clap::Parser>::try_parse_from(["taint"]).is_err());
    }
}
