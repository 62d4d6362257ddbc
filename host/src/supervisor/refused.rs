//! A refusal as the command line and the audit log show it: exit code, stable code, text, next step, reference.

use portcullis_identity::SpiffeId;
use portcullis_policies::{Denial, FixContext};
use portcullis_signing::Refusal;

use super::admission::{HANDLER, MESSAGE_HANDLER, NotAdmitted};
use super::code::CodeError;
use crate::cli::error::{CliError, exit};
use crate::rpc::control;

/// A refused start.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Exit code of DESIGN section 8.
    pub exit: u8,
    /// Stable code.
    pub code: String,
    /// What happened.
    pub message: String,
    /// The next step.
    pub hint: String,
    /// Reference of the audit record; empty until it is written.
    pub reference: String,
    /// The fix as an argument vector, where there is one.
    pub fix: Vec<String>,
    /// More, for the audit record.
    pub details: serde_json::Value,
    /// What may change so that it would not be refused any more.
    pub mended_by: Option<MendedBy>,
    /// Whether its text is that of refusals by policy, which ends with how to replay them.
    pub replays: bool,
}

/// What a component of the configuration is tried again after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MendedBy {
    /// The next policy; this is the component's name, which was verified.
    Policy(String),
    /// A trust policy or a deny list that says something else.
    Trust,
}

impl Refused {
    /// A failure that is ours or the machine's.
    pub fn internal(message: impl ToString) -> Self {
        Self {
            exit: exit::INTERNAL,
            code: "host.internal".to_owned(),
            message: message.to_string(),
            hint: "look at the log of the host".to_owned(),
            reference: String::new(),
            fix: Vec::new(),
            details: serde_json::Value::Null,
            mended_by: None,
            replays: false,
        }
    }

    /// Code, text and reference, as `status`, `list` and the log show it.
    pub fn shown(&self) -> String {
        let said = format!("{}: {}", self.code, self.message);
        match self.reference.is_empty() || self.message.contains(&self.reference) {
            true => said,
            false => format!("{said} (reference {})", self.reference),
        }
    }

    /// The same with its reference; the text of what policy refused says how to replay it.
    #[must_use]
    pub fn with_reference(mut self, reference: String, fix: &FixContext) -> Self {
        if self.replays {
            let config = fix.config.as_ref().map(|path| vec!["--config".to_owned(), path.display().to_string()]);
            let argv = [fix.program.clone(), "policy".to_owned(), "explain".to_owned()];
            let argv = argv.into_iter().chain(config.into_iter().flatten()).chain([reference.clone()]);
            self.message.push_str(&format!("\n  replay   {}", shell_words::join(argv)));
        }
        Self { reference, ..self }
    }

    /// An operator revoked the SPIFFE ID.
    pub fn revoked(spiffe_id: &SpiffeId) -> Self {
        Self {
            exit: exit::REVOKED,
            code: "identity.revoked".to_owned(),
            message: format!("{spiffe_id} is revoked on this host"),
            hint: format!("portcullis identity revoke --lift {spiffe_id}"),
            ..Self::internal("")
        }
    }

    /// From a file that could not be read.
    pub fn from_file(error: &CliError) -> Self {
        Self {
            exit: error.exit(),
            code: "file.unusable".to_owned(),
            message: error.message().to_owned(),
            hint: error.hint().unwrap_or_default().to_owned(),
            ..Self::internal("")
        }
    }

    /// The verifier's refusal.
    pub fn from_evidence(refusal: &Refusal) -> Self {
        Self {
            exit: refusal.code().exit_code(),
            code: refusal.code().as_str().to_owned(),
            message: refusal.message().to_owned(),
            hint: refusal.hint().to_owned(),
            details: serde_json::to_value(refusal).unwrap_or_default(),
            mended_by: Some(MendedBy::Trust),
            ..Self::internal("")
        }
    }

    /// Whatever admission says.
    pub fn from_admission(refusal: &NotAdmitted, fix: &FixContext) -> Self {
        match refusal {
            NotAdmitted::Policy(denials) => Self::from_denials(denials, fix),
            NotAdmitted::NoPolicy(denial) => Self {
                exit: exit::DENIED,
                code: denial.code().to_string(),
                message: format!("{} may not be loaded: {}", denial.component(), denial.why()),
                hint: "mend the file: it is taken up by itself; `portcullis policy check` lists every problem"
                    .to_owned(),
                details: serde_json::to_value([denial]).unwrap_or_default(),
                mended_by: Some(MendedBy::Policy(denial.component().to_owned())),
                ..Self::internal("")
            },
            NotAdmitted::NotServed(imports) => Self {
                exit: exit::DENIED,
                code: "link.not-served".to_owned(),
                message: format!("this host has no implementation of {}", imports.join(", ")),
                hint: "build the component without these imports, or run it where they are served".to_owned(),
                ..Self::internal("")
            },
            NotAdmitted::NoHandler => Self {
                exit: exit::CLAIMS,
                code: "component.no-handler".to_owned(),
                message: format!(
                    "the component exports neither {HANDLER} nor {MESSAGE_HANDLER}, so nothing can call it here"
                ),
                hint: "build it for the world wasi:http/proxy, or have it export wasmcloud:messaging/handler@0.2.0"
                    .to_owned(),
                ..Self::internal("")
            },
            NotAdmitted::Identity(why) => Self {
                exit: exit::CLAIMS,
                code: "claims.identity".to_owned(),
                message: format!("the identity path in its claims makes no SPIFFE ID: {why}"),
                hint: "claim a path such as ns/<namespace>/sa/<name> and sign again".to_owned(),
                ..Self::internal("")
            },
        }
    }

    /// From the compile process or the cache.
    pub fn from_code(error: &CodeError) -> Self {
        match error {
            CodeError::Rejected(_) | CodeError::Died(_) => Self {
                exit: exit::CLAIMS,
                code: "component.does-not-compile".to_owned(),
                message: error.to_string(),
                hint: "check the component with `wasm-tools validate --features all`; it may need a feature that is off here".to_owned(),
                ..Self::internal("")
            },
            CodeError::Io(_) => Self::internal(error),
        }
    }

    fn from_denials(denials: &[Denial], fix: &FixContext) -> Self {
        let Some(first) = denials.first() else { return Self::internal("a denial without a reason") };
        let texts: Vec<String> = denials.iter().map(|denial| denial.render(fix)).collect();
        let fixes: Vec<String> =
            denials.iter().filter_map(|denial| denial.fix(fix)).map(|argv| shell_words::join(&argv)).collect();
        Self {
            exit: exit::DENIED,
            code: first.code().to_string(),
            message: texts.join("\n"),
            hint: if fixes.is_empty() { "no grant can allow this".to_owned() } else { fixes.join("\n") },
            fix: first.fix(fix).unwrap_or_default(),
            details: serde_json::to_value(denials).unwrap_or_default(),
            mended_by: Some(MendedBy::Policy(first.component().to_owned())),
            replays: true,
            ..Self::internal("")
        }
    }

    /// For the control service.
    pub fn to_rpc(&self) -> control::Refused {
        control::Refused {
            exit_code: self.exit.into(),
            code: self.code.clone(),
            message: self.message.clone(),
            hint: self.hint.clone(),
            reference: self.reference.clone(),
        }
    }
}
