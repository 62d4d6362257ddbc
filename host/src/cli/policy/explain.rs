//! `portcullis policy explain`: a recorded refusal as the operator sees it, or a request put to the policy now.

use std::path::PathBuf;

use portcullis_policies::{Answer, FixContext, Outcome, Question};
use serde_json::{Value, json};

use super::sources::{self, Read};
use crate::cli::block_on;
use crate::cli::error::{CliError, exit};
use crate::cli::output::Output;
use crate::cli::remote::{self, TargetArgs};
use crate::rpc::control::ExplainRequest;

/// Arguments of `portcullis policy explain`.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The reference that the guest, the log or `x-portcullis-refusal` named; or a request as JSON, such as
    /// '{"action": "http.send", "destination": "https://pay.internal"}', which goes with --component.
    what: String,
    /// Whose request it is (its claimed name).
    #[arg(long)]
    component: Option<String>,
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
    if args.component.is_some() {
        return Err(CliError::usage("--component goes with a request, not with a reference")
            .with_hint("a reference says itself who asked"));
    }
    let record = recorded(&args)?;
    if args.again {
        return again(&args, &record, out);
    }
    let text = match record.get("text").and_then(Value::as_str) {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => format!("{record:#}"),
    };
    out.result(text.trim_end(), &record)
}

/// The record, from the running host.
fn recorded(args: &ExplainArgs) -> Result<Value, CliError> {
    let socket = args.target.socket()?;
    let reply = block_on(async {
        let request = ExplainRequest { reference: args.what.clone() };
        let reply = remote::connect(&socket).await?.explain(request).await;
        Ok(reply.map_err(|error| remote::failed(&error))?.into_inner())
    })?;
    if !reply.found {
        return Err(CliError::usage(format!("there is no record {}", args.what))
            .with_hint("a reference has 26 letters and digits; the record follows the refusal by a moment"));
    }
    serde_json::from_str(&reply.json).map_err(CliError::internal)
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
    let answer = question.ask(&read.set.slice(&read.facts(component)));
    let answer = answer.map_err(|error| CliError::usage(error.to_string()).with_hint(error.hint()))?;
    show(args, vec![(component.clone(), question, answer)], out)
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
