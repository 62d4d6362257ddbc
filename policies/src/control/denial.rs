//! A refusal of an operator: who, what, where, why, the nearest entry, the fix. A value; its text is made here.
//!
//! Codes are those of refusals everywhere: C0102 could not be decided, C0202 nobody granted it, C0309 malformed, C0390 an
//! operator's own `forbid`.

use serde::{Serialize, Serializer};
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::nearest::{Nearest, nearest};
use super::{Control, ControlQuestion, Operator, Why};
use crate::denial::FixContext;
use crate::edit::EditError;
use crate::grants::{self, ControlAction};
use crate::limits::DENIAL_BYTES;
use crate::shown;
use crate::source::{LoadErrors, Source, SourceKind};

/// Why an operator may not do something.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct ControlDenial(Box<Core>);

#[derive(Debug, Clone, Serialize)]
struct Core {
    code: &'static str,
    who: String,
    action: &'static str,
    host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<String>,
    why: String,
    generation: u64,
    operators: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest: Option<Box<Nearest>>,
    #[serde(rename = "fix", skip_serializing_if = "Option::is_none", serialize_with = "arguments")]
    edit: Option<OperatorEdit>,
}

/// An entry to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorEdit {
    /// A SPIFFE ID or a public nkey.
    pub who: String,
    /// The host.
    pub host: String,
    /// The component, or `*`.
    pub component: String,
    /// What.
    pub action: ControlAction,
    /// Why, for the file.
    pub reason: String,
    /// Who answers for it, for the file.
    pub owner: String,
}

impl ControlDenial {
    pub(crate) fn new(control: Option<&Control>, question: &ControlQuestion, why: Why, generation: u64) -> Self {
        let operators = control.map_or(&[][..], Control::operators);
        let (code, why, near) = match why {
            Why::NoGrant => {
                (NO_GRANT, "no [[operator]] allows it (default deny)".to_owned(), nearest(operators, question))
            }
            Why::Forbidden(meta) => {
                let why = format!("{} forbids it: {} (owner {})", meta.id, meta.reason, meta.owner);
                (FORBIDDEN, why, None)
            }
            Why::Malformed => (MALFORMED, "a name in the request is none".to_owned(), None),
            Why::Failed(errors) => {
                let errors = shown::inside(&errors.join("; "), 300);
                (FAILED, format!("cannot decide: policies failed, so none is believed: {errors}"), None)
            }
            Why::Unfit(why) => (FAILED, format!("cannot decide: {}", shown::inside(&why, 300)), None),
        };
        let edit = match (&question.who, code) {
            (Operator::Signer(who), NO_GRANT) => Some(OperatorEdit {
                who: who.clone(),
                host: question.host.clone(),
                component: question.component.clone().unwrap_or_else(|| "*".to_owned()),
                action: question.action,
                reason: String::new(),
                owner: String::new(),
            }),
            _ => None,
        };
        Self(Box::new(Core {
            code,
            who: shown::outside(&question.who.name(), 256),
            action: question.action.name(),
            host: shown::outside(&question.host, 64),
            component: question.component.as_deref().map(|name| shown::outside(name, 128)),
            why,
            generation,
            operators: operators.len(),
            nearest: near.map(Box::new),
            edit,
        }))
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// Why, in one line.
    pub fn why(&self) -> &str {
        &self.0.why
    }

    /// The entry that would allow it, where one could.
    pub fn edit(&self) -> Option<&OperatorEdit> {
        self.0.edit.as_ref()
    }

    /// The fix as an argument vector: a command that works as it stands.
    pub fn fix(&self, context: &FixContext) -> Option<Vec<String>> {
        let edit = self.0.edit.as_ref()?;
        let mut argv = vec![context.program.clone(), "grants".to_owned(), "operator".to_owned()];
        if let Some(config) = &context.config {
            argv.extend(["--config".to_owned(), config.display().to_string()]);
        }
        argv.extend(edit.arguments());
        Some(argv)
    }

    /// The whole refusal in plain text, without a newline at the end.
    pub fn render(&self, context: &FixContext) -> String {
        let about = self.0.component.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        let mut lines = vec![
            format!(
                "denied {}: operator {} may not {}{about} on host {}",
                self.0.code, self.0.who, self.0.action, self.0.host
            ),
            format!(
                "  why      {}; policy generation {}, {} operators",
                self.0.why, self.0.generation, self.0.operators
            ),
        ];
        if let Some(nearest) = &self.0.nearest {
            lines.push(format!("  nearest  {}  {}  {}", nearest.id, nearest.place, nearest.differs));
        }
        lines.push(match (self.fix(context), self.0.code) {
            (Some(argv), _) => format!("  fix      {}", crate::denial::shell_line(&argv)),
            (None, FAILED) => "  fix      look at the policy and at the host's log".to_owned(),
            (None, _) => "  fix      none: no entry can allow this".to_owned(),
        });
        let mut text = lines.join("\n");
        if text.len() > DENIAL_BYTES {
            let end = (0..=DENIAL_BYTES - 2).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.push_str("..");
        }
        text
    }
}

impl OperatorEdit {
    /// The arguments of `grants operator`.
    pub fn arguments(&self) -> Vec<String> {
        let mut argv = vec![self.who.clone()];
        for (flag, value) in [("--host", &self.host), ("--component", &self.component)] {
            match value.starts_with('-') {
                true => argv.push(format!("{flag}={value}")),
                false => argv.extend([flag.to_owned(), value.clone()]),
            }
        }
        argv.extend(["--action".to_owned(), self.action.name().to_owned()]);
        argv
    }
}

/// Adds an entry to the text of a grants file, unless one says as much already.
pub fn add_operator(existing_toml: &str, edit: &OperatorEdit) -> Result<String, EditError> {
    let parse = |text: &str| {
        let source = Source { name: "grants".to_owned(), text: text.to_owned(), kind: SourceKind::Grants };
        let grants = grants::parse(&source).map_err(LoadErrors::new)?;
        Ok((grants, grants::operators(&source).map_err(LoadErrors::new)?))
    };
    let (granted, existing) = parse(existing_toml).map_err(EditError::Existing)?;
    let holds = |list: &[String], one: &String| list.iter().any(|own| own == "*" || own == one);
    let says = |entry: &grants::OperatorEntry| {
        entry.who == edit.who
            && holds(&entry.hosts, &edit.host)
            && holds(&entry.components, &edit.component)
            && entry.actions.contains(&edit.action)
    };
    if existing.iter().any(says) {
        return Ok(existing_toml.to_owned());
    }
    let mut document: DocumentMut = existing_toml.parse().map_err(|_| EditError::Shape)?;
    if document.get("version").is_none() {
        document.insert("version", value(1));
    }
    let list = document.entry("operator").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    let list = list.as_array_of_tables_mut().ok_or(EditError::Shape)?;
    let taken = |id: &str| existing.iter().any(|one| one.id == id) || granted.iter().any(|one| one.id() == id);
    let first = format!("operator-{}-{}", edit.host.replace('*', "all"), edit.action.name());
    let id = (2_u64..).map(|n| format!("{first}-{n}")).find(|id| !taken(id)).filter(|_| taken(&first)).unwrap_or(first);
    let mut table = Table::new();
    for (key, text) in [("id", &id), ("reason", &edit.reason), ("owner", &edit.owner), ("who", &edit.who)] {
        table.insert(key, value(text));
    }
    for (key, text) in [("hosts", edit.host.as_str()), ("components", &edit.component), ("actions", edit.action.name())]
    {
        table.insert(key, value(Array::from_iter([text])));
    }
    table.set_position(None);
    table.decor_mut().set_prefix("\n");
    list.push(table);
    let text = document.to_string();
    parse(&text).map_err(EditError::Addition)?;
    Ok(text)
}

#[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
fn arguments<S: Serializer>(edit: &Option<OperatorEdit>, serializer: S) -> Result<S::Ok, S::Error> {
    let words = ["grants".to_owned(), "operator".to_owned()];
    serializer.collect_seq(edit.iter().flat_map(|edit| words.iter().cloned().chain(edit.arguments())))
}

const NO_GRANT: &str = "C0202";
const MALFORMED: &str = "C0309";
const FORBIDDEN: &str = "C0390";
const FAILED: &str = "C0102";
