//! Whether an operator may do what is asked, decided by policy; a refusal is recorded before it is told.

use std::sync::Arc;

use portcullis_policies::{ControlAction, ControlDenial, ControlQuestion, Operator};

use crate::audit::Record;
use crate::cli::error::exit;
use crate::control::LOCAL;
use crate::supervisor::Host;
use crate::supervisor::refused::Refused;

impl Host {
    /// The host's name in its cluster, as policy and operators call it.
    pub fn node(&self) -> String {
        let membership = self.config.membership.as_ref();
        let name = membership.and_then(crate::config::cluster::Cluster::host_id);
        name.map_or_else(|| LOCAL.to_owned(), |name| name.to_string())
    }

    /// Whether this operator may do this here; nothing is recorded.
    pub fn may(&self, who: &Operator, action: ControlAction, component: Option<&str>) -> Result<(), ControlDenial> {
        let component = component.map(ToOwned::to_owned);
        let question = ControlQuestion { who: who.clone(), action, host: self.node(), component };
        self.policy().set().control(&question).map(|_| ())
    }

    /// The same, with a refusal that is on disk.
    pub fn allow(&self, who: &Operator, action: ControlAction, component: Option<&str>) -> Result<(), Refused> {
        self.may(who, action, component).map_err(|denial| self.deny_operator(&denial))
    }

    /// The refusal of an operator, on disk.
    pub fn deny_operator(&self, denial: &ControlDenial) -> Refused {
        let (reference, context) = (ulid::Ulid::generate().to_string(), self.fix_context());
        let fix = denial.fix(&context).unwrap_or_default();
        let text = denial.render(&context);
        let record = Record::new("denial")
            .reference(&reference)
            .field("by", "supervisor")
            .field("action", "control")
            .field("code", denial.code())
            .field("text", text.clone())
            .field("fix", fix.clone())
            .field("details", serde_json::to_value(denial).unwrap_or_default());
        if let Err(error) = self.record(record) {
            tracing::error!(%error, "a refusal could not be recorded");
            self.audit_failed();
        }
        Refused { reference, ..self.refusal_of_operator(denial) }
    }

    /// The same without a record.
    pub fn refusal_of_operator(&self, denial: &ControlDenial) -> Refused {
        let context = self.fix_context();
        let fix = denial.fix(&context).unwrap_or_default();
        let hint = match fix.is_empty() {
            true => "no entry can allow this".to_owned(),
            false => shell_words::join(&fix),
        };
        let (code, message) = (denial.code().to_owned(), denial.render(&context));
        Refused { exit: exit::DENIED, code, message, hint, fix, ..Refused::internal("") }
    }

    /// What an operator has done is on disk before it is done.
    pub fn record_control(&self, fields: &[(&'static str, String)]) -> Result<(), Refused> {
        let record = fields.iter().fold(Record::new("control").field("by", "supervisor"), |record, (name, value)| {
            record.field(name, value.clone())
        });
        self.record(record).map(|_| ()).map_err(|error| {
            self.audit_failed();
            Refused::internal(format!("it cannot be recorded, so it is not done: {error}"))
        })
    }
}

/// Which components an operator sees with an action.
pub fn seen<'a>(host: &'a Arc<Host>, who: &'a Operator, action: ControlAction) -> impl Fn(&str) -> bool + 'a {
    move |name| {
        let named = portcullis_policies::is_component_name(name).then_some(name);
        match named {
            Some(name) => host.may(who, action, Some(name)).is_ok(),
            // The path of a file that was refused: for whoever may see everything.
            None => host.may(who, action, Some(NOBODY)).is_ok(),
        }
    }
}

/// A name that no component has: only an entry for all of them covers it.
const NOBODY: &str = "portcullis:nobody";
