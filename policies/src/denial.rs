//! A refusal: who, what, why, the nearest grant, the fix. A value; its text is made here and nowhere else.
//!
//! Codes are a letter (A admission, L link, N network, I identity, C call and control, M messaging) and four digits: 01xx could
//! not be decided (an operator should look), 02xx nobody granted it (the fix grants exactly this), 03xx a guard forbids it
//! (there is no fix).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::asked::Asked;
use crate::component::ComponentFacts;
use crate::edit::GrantEdit;
use crate::nearest::Nearest;
use crate::question::Question;

mod render;

pub(crate) use self::render::shell_line;

/// A refusal. Cheap to clone.
#[derive(Debug, Clone, Serialize)]
pub struct Denial {
    #[serde(flatten)]
    core: Arc<Core>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

/// Why it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DenialKind {
    /// Nothing grants it.
    NoGrant,
    /// A guard or an operator's `forbid` forbids it.
    Forbidden,
    /// It could not be decided: policy or host are at fault.
    CannotDecide,
}

/// A stable code, such as `N0201`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    letter: char,
    number: u16,
}

/// What the text of a fix needs to know of the machine it will run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixContext {
    /// How the program is called.
    pub program: String,
    /// The configuration in use, if it is not found by itself.
    pub config: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Core {
    code: Code,
    kind: DenialKind,
    action: &'static str,
    component: String,
    spiffe_id: String,
    digest: String,
    signer: String,
    signer_group: String,
    instance: String,
    resource: String,
    details: String,
    why: String,
    generation: u64,
    policies: usize,
    errors: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<Guard>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest: Option<Nearest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<Question>,
    #[serde(rename = "fix", skip_serializing_if = "Option::is_none", serialize_with = "arguments")]
    edit: Option<GrantEdit>,
    #[serde(skip)]
    phrase: String,
}

/// What forbade it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Guard {
    pub(crate) id: String,
    pub(crate) reason: String,
    pub(crate) owner: String,
}

/// The cause of a refusal, before it is put into words.
#[derive(Debug)]
pub(crate) enum Cause {
    NoGrant { nearest: Option<Nearest> },
    Forbidden { number: u16, guard: Guard },
    CannotDecide { number: u16, why: String, errors: Vec<String> },
}

impl Denial {
    pub(crate) fn new(facts: &ComponentFacts, generation: u64, policies: usize, asked: &Asked, cause: Cause) -> Self {
        let (kind, number, why, errors, guard, nearest) = match cause {
            Cause::NoGrant { nearest } => {
                let why = "no grant matches (default deny)".to_owned();
                (DenialKind::NoGrant, asked.no_grant(), why, Vec::new(), None, nearest)
            }
            Cause::Forbidden { number, guard } => {
                let why = format!("{} forbids it: {} (owner {})", guard.id, guard.reason, guard.owner);
                (DenialKind::Forbidden, number, why, Vec::new(), Some(guard), None)
            }
            Cause::CannotDecide { number, why, errors } => {
                (DenialKind::CannotDecide, number, format!("cannot decide: {why}"), errors, None, None)
            }
        };
        let edit = (kind == DenialKind::NoGrant).then(|| asked.edit(&facts.name)).flatten();
        Self {
            core: Arc::new(Core {
                code: Code { letter: asked.letter(), number },
                kind,
                action: asked.action().name(),
                component: facts.name.clone(),
                spiffe_id: facts.spiffe_id.clone(),
                digest: facts.digest.clone(),
                signer: facts.signer.clone(),
                signer_group: facts.signer_group.clone(),
                instance: facts.instance.clone(),
                resource: asked.resource(),
                details: asked.details(),
                why,
                generation,
                policies,
                errors,
                guard,
                nearest,
                question: Question::of(asked),
                edit,
                phrase: asked.phrase(),
            }),
            reference: None,
        }
    }

    /// The same with the reference of its audit record, a ULID.
    #[must_use]
    pub fn with_reference(self, reference: String) -> Self {
        Self { reference: Some(reference), ..self }
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.core.code
    }

    /// Which of the three kinds.
    pub fn kind(&self) -> DenialKind {
        self.core.kind
    }

    /// The policy action, such as `http.send`.
    pub fn action(&self) -> &'static str {
        self.core.action
    }

    /// The component that was refused something.
    pub fn component(&self) -> &str {
        &self.core.component
    }

    /// What it was refused, escaped and cut; empty where the action says it all.
    pub fn resource(&self) -> &str {
        &self.core.resource
    }

    /// Why, in one line.
    pub fn why(&self) -> &str {
        &self.core.why
    }

    /// What was asked, to be asked again; none where it was too long to be asked in earnest.
    pub fn question(&self) -> Option<&Question> {
        self.core.question.as_ref()
    }

    /// The generation of policy.
    pub fn generation(&self) -> u64 {
        self.core.generation
    }

    /// The guard that forbade it, where one did.
    pub fn guard(&self) -> Option<&str> {
        self.core.guard.as_ref().map(|guard| guard.id.as_str())
    }

    /// The nearest grant, where there is one.
    pub fn nearest(&self) -> Option<&str> {
        self.core.nearest.as_ref().map(|nearest| nearest.id.as_str())
    }

    /// The reference of the audit record, where it is known.
    pub fn reference(&self) -> Option<&str> {
        self.reference.as_deref()
    }

    /// The smallest addition to the grants that allows this. None for guards and for what cannot be decided.
    pub fn edit(&self) -> Option<&GrantEdit> {
        self.core.edit.as_ref()
    }

    /// The fix as an argument vector: a command that works as it stands.
    pub fn fix(&self, context: &FixContext) -> Option<Vec<String>> {
        self.edit().map(|edit| edit.command(&context.program, context.config.as_deref()))
    }

    /// The fix as a line for a POSIX shell.
    pub fn fix_line(&self, context: &FixContext) -> Option<String> {
        self.fix(context).map(|argv| render::shell_line(&argv))
    }

    /// The whole refusal in plain text, at most 2 KiB, without a newline at the end.
    pub fn render(&self, context: &FixContext) -> String {
        render::render(self, context)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:04}", self.letter, self.number)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Default for FixContext {
    fn default() -> Self {
        Self { program: "portcullis".to_owned(), config: None }
    }
}

#[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
fn arguments<S: Serializer>(edit: &Option<GrantEdit>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(edit.iter().flat_map(|edit| {
        ["grants".to_owned(), "add".to_owned(), edit.component.clone()].into_iter().chain(edit.arguments())
    }))
}

/// The request could not be made, or does not fit the schema.
pub(crate) const UNFIT: u16 = 101;
/// Policies failed.
pub(crate) const FAILED: u16 = 102;
/// The facts about the component are not usable, or the set is not.
pub(crate) const NO_SLICE: u16 = 103;
/// Policies that allow it contradict each other.
pub(crate) const CONTRADICTION: u16 = 104;
/// A grant of another instance or another generation was shown.
pub(crate) const STALE: u16 = 105;
/// An operator's own `forbid`.
const OPERATORS_FORBID: u16 = 390;
/// What is asked for is malformed.
const MALFORMED: u16 = 309;

/// The guard of subjects that are nobody's.
pub(crate) const RESERVED_SUBJECT: &str = "guard.reserved-subject";

/// The number of a guard.
pub(crate) fn guard_number(id: &str) -> u16 {
    match id {
        "guard.metadata" => 301,
        "guard.link-local" => 302,
        "guard.multicast" => 303,
        "guard.unspecified" => 304,
        "guard.address-ranges" => 305,
        "guard.dialled" => 306,
        "guard.ttl" => 307,
        "guard.expired-claims" => 308,
        "guard.malformed" => MALFORMED,
        RESERVED_SUBJECT => 320,
        _ => OPERATORS_FORBID,
    }
}

/// A guard that stands in code alone.
pub(crate) fn code_guard(id: &'static str) -> Guard {
    let reason = match id {
        "guard.dialled" => "only an address of the destination that was decided on may be dialled",
        _ => "what is malformed or over its limit cannot be granted",
    };
    Guard { id: id.to_owned(), reason: reason.to_owned(), owner: "portcullis".to_owned() }
}

#[cfg(test)]
mod tests;
