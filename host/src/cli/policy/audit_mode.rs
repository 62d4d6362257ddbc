//! `portcullis policy audit`: audit mode of one component on a running host. The host decides whether it may.

use portcullis_signing::Lifetime;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::block_on;
use crate::cli::error::{CliError, exit};
use crate::cli::output::Output;
use crate::cli::remote::{self, TargetArgs};
use crate::limits::AUDIT_MODE_MOST;
use crate::rpc::control::{AuditModeRequest, audit_mode_reply};

/// Arguments of `portcullis policy audit`.
#[derive(Debug, clap::Args)]
pub struct AuditModeArgs {
    /// The component, by the name in its claims; the configuration must name it in policy.audit_mode.
    component: String,
    /// How long, at most 24h: what nobody granted is let through and recorded. Guards hold.
    #[arg(long = "for", value_name = "TIME", value_parser = time, required_unless_present = "off", conflicts_with = "off")]
    how_long: Option<Lifetime>,
    /// End it now.
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// A time that audit mode may last; the host decides again.
fn time(text: &str) -> Result<Lifetime, String> {
    let most = i64::try_from(AUDIT_MODE_MOST.as_secs()).unwrap_or(i64::MAX);
    let time: Option<Lifetime> = text.parse().ok();
    let within = |time: &Lifetime| (1..=most).contains(&time.duration().whole_seconds());
    time.filter(within).ok_or_else(|| "a time such as 4h or 30m, at most 24h".to_owned())
}

pub(super) fn run(args: AuditModeArgs, out: &mut Output) -> Result<(), CliError> {
    let socket = args.target.socket()?;
    let seconds = args.how_long.map_or(0, |time| u64::try_from(time.duration().whole_seconds()).unwrap_or(u64::MAX));
    let component = args.component.clone();
    let reply = block_on(async {
        let request = AuditModeRequest { component, seconds, off: args.off };
        let reply = remote::connect(&socket).await?.audit_mode(request).await;
        Ok(reply.map_err(|error| remote::failed(&error))?.into_inner())
    })?;
    match reply.result {
        Some(audit_mode_reply::Result::Audited(audited)) if audited.until > 0 => {
            let until = shown(audited.until);
            out.note(format!("{} is in audit mode until {until}: what nobody granted is let through", args.component));
            let text = format!(
                "audit mode until {until}\nthen     portcullis policy learn writes grants from the records `let-through` of the audit log"
            );
            out.result(text, &json!({ "component": args.component, "until": audited.until }))
        }
        Some(audit_mode_reply::Result::Audited(_)) => {
            out.result("audit mode is over", &json!({ "component": args.component, "until": null }))
        }
        Some(audit_mode_reply::Result::Refused(refused)) => {
            let exit = u8::try_from(refused.exit_code).unwrap_or(exit::INTERNAL);
            Err(CliError::new(exit, &refused.code, refused.message).with_hint(refused.hint))
        }
        None => Err(CliError::internal("the host gave an empty answer")),
    }
}

/// A time for a person.
pub fn shown(unix: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(unix).ok().and_then(|at| at.format(&Rfc3339).ok());
    at.unwrap_or_else(|| unix.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_none_or_too_long_is_refused_with_what_would_do() {
        for text in ["foo", "", "25h", "30d", "-1h", "0s"] {
            assert!(time(text).unwrap_err().contains("24h"), "{text}");
        }
        assert!(time("24h").is_ok() && time("30m").is_ok());
    }
}
