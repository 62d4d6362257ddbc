//! `portcullis policy ...`: check, explain, test, show and compare policies, and learn grants from refusals.
//!
//! The commands decide nothing themselves: every answer is one of the same engine that the host asks. Only `audit` needs a
//! running host; `explain` asks one where it answers.

pub mod audit_mode;
mod cases;
mod check;
mod compare;
mod explain;
mod learn;
mod matrix;
mod recorded;
mod sources;

use super::error::CliError;
use super::output::Output;

/// `portcullis policy ...`.
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Check grants and policies: syntax, schema, lint, and what a change would allow. Every problem is listed.
    Check(check::CheckArgs),
    /// The operator's view of a recorded refusal, or of a request: who, what, why, nearest grant, fix.
    Explain(explain::ExplainArgs),
    /// Compare expected decisions with those that the policy makes. Ends with 20 where one differs.
    Test(cases::TestArgs),
    /// What each component may do: every question that a policy gives rise to, put to every component, and what is written.
    Matrix(matrix::MatrixArgs),
    /// What a change of policy allows and denies. Ends with 20 where it allows more or may, unless that is acknowledged.
    Diff(compare::DiffArgs),
    /// The smallest grants for what was refused (an audit log), or for what a component imports (a .wasm file).
    Learn(learn::LearnArgs),
    /// Audit mode of a running component: what nobody granted is let through and recorded, for a time. Guards hold.
    Audit(audit_mode::AuditModeArgs),
}

/// Runs the command.
pub fn run(command: PolicyCommand, out: &mut Output) -> Result<(), CliError> {
    match command {
        PolicyCommand::Check(args) => check::run(args, out),
        PolicyCommand::Explain(args) => explain::run(args, out),
        PolicyCommand::Test(args) => cases::run(args, out),
        PolicyCommand::Matrix(args) => matrix::run(args, out),
        PolicyCommand::Diff(args) => compare::run(args, out),
        PolicyCommand::Learn(args) => learn::run(args, out),
        PolicyCommand::Audit(args) => audit_mode::run(args, out),
    }
}
