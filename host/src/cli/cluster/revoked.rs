//! What `cluster revoke` names: instances and signers of the forms that hosts know them by, for nothing else can ever match; what
//! is lifted must be on the list, in whatever form it came there.

use std::collections::BTreeSet;

use portcullis_cluster::{RevocationEdit, RevocationList};
use portcullis_signing::{SignerId, SignerKey};

use super::RevokeArgs;
use crate::cli::error::CliError;

/// What is to be revoked.
pub fn added(args: &RevokeArgs) -> Result<RevocationEdit, CliError> {
    Ok(RevocationEdit {
        instances: args.instance.iter().map(|text| instance(text)).collect::<Result<_, _>>()?,
        spiffe_ids: args.spiffe_id.iter().cloned().collect(),
        digests: args.digest.iter().copied().collect(),
        signers: args.signer.iter().map(|text| signer(text)).collect::<Result<_, _>>()?,
    })
}

/// What is to be lifted from a list.
pub fn lifted(args: &RevokeArgs, list: &RevocationList) -> Result<RevocationEdit, CliError> {
    let on = |listed: &BTreeSet<String>, text: &String, form: fn(&str) -> Result<String, CliError>| {
        let other = || form(text).ok().filter(|other| listed.contains(other));
        if listed.contains(text) { text.clone() } else { other().unwrap_or_else(|| text.clone()) }
    };
    let edit = RevocationEdit {
        instances: args.instance.iter().map(|text| on(list.instances(), text, instance)).collect(),
        spiffe_ids: args.spiffe_id.iter().cloned().collect(),
        digests: args.digest.iter().copied().collect(),
        signers: args.signer.iter().map(|text| on(list.signers(), text, signer)).collect(),
    };
    let missing = list.missing(&edit);
    if missing.is_empty() {
        return Ok(edit);
    }
    let named: Vec<_> = list.entries().take(SHOWN).collect();
    let more = if list.len() > SHOWN { ", ..." } else { "" };
    let hint = match named.is_empty() {
        true => "nothing is revoked in this cluster".to_owned(),
        false => format!("the list has {}: {}{more}", list.len(), named.join(", ")),
    };
    Err(CliError::usage(format!("not revoked, so nothing was lifted: {}", missing.join(", "))).with_hint(hint))
}

/// As hosts mint them: a ULID in small letters.
fn instance(text: &str) -> Result<String, CliError> {
    match ulid::Ulid::from_string(text) {
        Ok(_) => Ok(text.to_ascii_lowercase()),
        Err(_) => Err(CliError::usage(format!("--instance: `{}` is no instance id", text.escape_debug()))
            .with_hint("26 letters and digits, as `portcullis list` shows them")),
    }
}

/// As hosts name those whose signatures they verified: one signer, never a pattern.
fn signer(text: &str) -> Result<String, CliError> {
    let hint = "as `portcullis list --json` shows it: A..., p256:..., oidc:ISSUER#IDENTITY or spiffe://DOMAIN/PATH";
    let id: SignerId = text.parse().map_err(|error| CliError::usage(format!("--signer: {error}")).with_hint(hint))?;
    if text.starts_with("spiffe://") && text.ends_with('*') {
        return Err(CliError::usage("--signer: a pattern matches nobody here").with_hint("name each signer by its ID"));
    }
    Ok(text.parse::<SignerKey>().map_or_else(|_| id.to_string(), |key| key.to_string()))
}

/// Entries that a hint names.
const SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: RevokeArgs,
    }

    const INSTANCE: &str = "01jd3z8y6e5t4r3w2q1a0s9d8f";

    fn args(line: &[&str]) -> RevokeArgs {
        Line::try_parse_from(["revoke", "--operator", "o.toml"].iter().chain(line)).unwrap().args
    }

    fn list(edit: &RevocationEdit) -> RevocationList {
        RevocationList::empty(0).at(1, edit, &RevocationEdit::default()).unwrap()
    }

    #[test]
    fn what_no_host_could_match_is_not_revoked() {
        for line in [
            ["--instance", "foo"],
            ["--instance", ""],
            ["--instance", "01jd3z8y6e5t4r3w2q1a0s9d8"],
            ["--signer", "foo"],
            ["--signer", "spiffe://td/ci/*"],
            ["--signer", "oidc:https://issuer.example"],
        ] {
            let error = added(&args(&line)).unwrap_err();
            assert!(error.exit() == crate::cli::error::exit::USAGE && error.hint().is_some(), "{line:?}: {error}");
        }
        let upper = INSTANCE.to_ascii_uppercase();
        let good = added(&args(&["--instance", &upper, "--signer", "spiffe://td/ci/a"])).unwrap();
        assert_eq!(good.instances, [INSTANCE.to_owned()].into());
        assert_eq!(good.signers, ["spiffe://td/ci/a".to_owned()].into());
    }

    #[test]
    fn what_is_not_on_the_list_cannot_be_lifted_and_whatever_is_can() {
        let edit = RevocationEdit {
            instances: [INSTANCE.to_owned()].into(),
            signers: ["foo".to_owned()].into(),
            ..RevocationEdit::default()
        };
        let list = list(&edit);
        let error = lifted(&args(&["--lift", "--signer", "bar"]), &list).unwrap_err();
        assert!(error.message().contains("bar") && error.hint().unwrap().contains("foo"), "{error}");
        let upper = INSTANCE.to_ascii_uppercase();
        let lift = lifted(&args(&["--lift", "--signer", "foo", "--instance", &upper]), &list).unwrap();
        assert_eq!(lift, edit);
        let spiffe = ["--lift", "--signer", "foo", "--spiffe-id", "spiffe://td/a"];
        assert!(lifted(&args(&spiffe), &list).unwrap_err().message().contains("spiffe://td/a"));
    }
}
