//! `portcullis policy explain`: a recorded refusal as the operator sees it, or a request put to the policy now.

use std::path::PathBuf;

use portcullis_policies::{Answer, Asker, ComponentFacts, Fact, FixContext, Known, Outcome, Question, Sure, not_known};
use serde_json::{Value, json};

use super::sources::{self, Read};
use crate::cli::block_on;
use crate::cli::error::{CliError, exit};
use crate::cli::locate;
use crate::cli::output::Output;
use crate::cli::remote::{self, TargetArgs};
use crate::rpc::control::{ExplainRequest, ListRequest};

/// Arguments of `portcullis policy explain`.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The reference that the guest, the log or `x-portcullis-refusal` named; or a request as JSON, such as
    /// '{"action": "http.send", "destination": "https://pay.internal"}', which goes with --component.
    what: String,
    /// Whose request it is (its claimed name).
    #[arg(long)]
    component: Option<String>,
    /// Of a request: the group that the trust policy puts its signer in. What is not given is asked of the running host.
    #[arg(long, value_name = "GROUP")]
    signer_group: Option<String>,
    /// Of a request: the key that signed it, as `portcullis list --json` shows it.
    #[arg(long, value_name = "KEY")]
    signer: Option<String>,
    /// Of a request: the digest of its bytes.
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
    /// Ask the recorded question again, of the policy that the configuration names now.
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    target: TargetArgs,
}

pub(super) fn run(args: ExplainArgs, out: &mut Output) -> Result<(), CliError> {
    if args.what.trim_start().starts_with('{') {
        return request(&args, out);
    }
    let described = [&args.component, &args.signer_group, &args.signer, &args.digest];
    if described.into_iter().any(Option::is_some) {
        return Err(CliError::usage("what describes a component goes with a request, not with a reference")
            .with_hint("a reference says itself who asked"));
    }
    let record = recorded(&args, out)?;
    if args.again {
        return again(&args, &record, out);
    }
    let text = match record.get("text").and_then(Value::as_str) {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => format!("{record:#}"),
    };
    out.result(text.trim_end(), &record)
}

/// The record: from the running host, or, where none answers, from the audit log that it left.
fn recorded(args: &ExplainArgs, out: &mut Output) -> Result<Value, CliError> {
    let socket = args.target.socket()?;
    let reply = block_on(async {
        let request = ExplainRequest { reference: args.what.clone() };
        let reply = remote::connect(&socket).await?.explain(request).await;
        Ok(reply.map_err(|error| remote::failed(&error))?.into_inner())
    });
    let found = match reply {
        Ok(reply) if reply.found => Some(serde_json::from_str(&reply.json).map_err(CliError::internal)?),
        Ok(_) => None,
        Err(error) if error.exit() == exit::TRANSPORT => Some(left(args, out)?.ok_or(error)?),
        Err(error) => return Err(error),
    };
    found.ok_or_else(|| {
        CliError::usage(format!("there is no record {}", args.what))
            .with_hint("a reference has 26 letters and digits; the record follows the refusal by a moment")
    })
}

/// The record in the audit log of a host that does not answer; nothing where it cannot be read or has none.
fn left(args: &ExplainArgs, out: &mut Output) -> Result<Option<Value>, CliError> {
    let Ok(config) = locate::config(args.target.config()) else { return Ok(None) };
    let log = config.state_dir.join("audit").join("audit.jsonl");
    let Ok(Some(record)) = crate::audit::find(&log, &args.what) else { return Ok(None) };
    out.note(format!("no host answers; this is from {}, whose chain `portcullis audit verify` checks", log.display()));
    Ok(Some(Value::Object(record)))
}

/// The recorded questions, put to the policy of the configuration as it is now.
fn again(args: &ExplainArgs, record: &Value, out: &mut Output) -> Result<(), CliError> {
    let questions = sources::of_record(record);
    if questions.is_empty() {
        return Err(CliError::usage("this record is not a refusal by policy, so there is nothing to ask again"));
    }
    let read = Read::of_config(args.target.config())?;
    let mut answers = Vec::new();
    for one in questions {
        let answer =
            one.question.ask(&read.set.slice(&one.facts)).map_err(|error| CliError::usage(error.to_string()))?;
        answers.push((one.facts.name, one.question, answer));
    }
    show(args, answers, out)
}

fn request(args: &ExplainArgs, out: &mut Output) -> Result<(), CliError> {
    let Some(component) = &args.component else {
        return Err(CliError::usage("a request is somebody's").with_hint("name the component with --component"));
    };
    let question: Question = serde_json::from_str(&args.what).map_err(|error| {
        CliError::usage(format!("not a request: {error}")).with_hint(
            r#"for instance {"action": "svid.jwt", "audience": "vault"}; the actions are those of `policy matrix`"#,
        )
    })?;
    let read = Read::of_config(args.target.config())?;
    let known = known(args, &read, component);
    let sure = Asker::new(&read.set, &known).ask(&question);
    match sure.map_err(|error| CliError::usage(error.to_string()).with_hint(error.hint()))? {
        Sure::Answered(answer) => show(args, vec![(component.clone(), question, answer)], out),
        Sure::NotKnown(facts) => {
            let why = not_known(&facts);
            out.line(format!("{why}: {component} {} {}", question.action(), question.resource()))?;
            out.value(&json!([{
                "component": component, "question": question, "outcome": Outcome::CannotDecide, "why": why, "not_known": facts,
            }]))?;
            Err(CliError::new(
                exit::DENIED,
                "policy.not-known",
                format!("the answer rests on what is not known of {component}"),
            )
            .with_hint("start the component, or say it: --signer-group, --signer, --digest"))
        }
    }
}

/// What is known of the component: what the command line says, then what the running host knows.
fn known(args: &ExplainArgs, read: &Read, component: &str) -> Known {
    let mut known = running(args, component).unwrap_or_else(|| read.known(component, None));
    let said = [(Fact::SignerGroup, &args.signer_group), (Fact::Signer, &args.signer), (Fact::Digest, &args.digest)];
    for (fact, value) in said {
        known = value.iter().fold(known, |known, value| known.with(fact, value));
    }
    known
}

/// The facts of the component as it runs on this host; nothing where no host answers, or where it does not run.
fn running(args: &ExplainArgs, component: &str) -> Option<Known> {
    let socket = args.target.socket().ok().filter(|socket| socket.exists())?;
    let list = async { Ok(remote::connect(&socket).await?.list(ListRequest {}).await) };
    let list = block_on(list).ok()?.ok()?.into_inner();
    let mut of_name = list.components.into_iter().filter(|one| one.name == component && one.state == "running");
    let first = of_name.next()?;
    // Replicas are the same but for the instance. Where they are not, nobody was named.
    if of_name.any(|other| other.digest != first.digest || other.signer != first.signer) {
        return None;
    }
    Some(Known::whole(ComponentFacts {
        name: first.name,
        digest: first.digest,
        spiffe_id: first.spiffe_id,
        signer: first.signer,
        signer_group: first.signer_group,
        instance: first.instance,
    }))
}

/// Says how each came out; ends with 20 where one is refused.
fn show(args: &ExplainArgs, answers: Vec<(String, Question, Answer)>, out: &mut Output) -> Result<(), CliError> {
    let fix = FixContext { program: "portcullis".to_owned(), config: args.target.config().map(PathBuf::from) };
    let mut values = Vec::new();
    for (component, question, answer) in &answers {
        let text = match answer {
            Answer::Allowed(by) => {
                format!("allowed: {component} {} {}\n  by   {}", question.action(), question.resource(), by.join(", "))
            }
            Answer::Denied(denial) => denial.render(&fix),
        };
        out.line(text)?;
        let denial = match answer {
            Answer::Denied(denial) => json!(denial),
            Answer::Allowed(_) => Value::Null,
        };
        values.push(json!({
            "component": component, "question": question, "outcome": answer.outcome(), "why": answer.why(), "denial": denial,
        }));
    }
    let refused = answers.iter().filter(|(_, _, answer)| answer.outcome() != Outcome::Allow).count();
    out.value(&Value::Array(values))?;
    match refused {
        0 => Ok(()),
        _ => Err(CliError::new(exit::DENIED, "policy.denied", format!("{refused} of {} are refused", answers.len()))),
    }
}
