//! Requests and the decisions that are expected of them: tests of a policy, in TOML.
//!
//! ```toml
//! version = 1
//!
//! [[component]]                     # only where a policy looks at more than the name
//! name = "shop:orders"
//! signer_group = "team-shop"
//!
//! [[case]]
//! component = "shop:orders"
//! ask = { action = "http.send", destination = "https://pay.internal:8443" }
//! expect = "allow"                  # allow, no-grant, forbidden, cannot-decide
//! by = ["orders"]                   # or code = "N0201"; both may be left out
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::PolicySet;
use crate::known::{Asker, Fact, Known, Sure, not_known};
use crate::limits::CASES;
use crate::question::{Answer, Outcome, Question};

/// A file of cases.
#[derive(Debug, Clone)]
pub struct Cases {
    components: BTreeMap<String, RawComponent>,
    cases: Vec<Case>,
}

/// One case.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    component: String,
    ask: Question,
    expect: Outcome,
    #[serde(default)]
    by: Option<Vec<String>>,
    #[serde(default)]
    code: Option<String>,
}

/// How a case came out.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// Whose question.
    pub component: String,
    /// The question.
    pub question: Question,
    /// What was expected.
    pub expected: Outcome,
    /// What came.
    pub outcome: Outcome,
    /// The policies that allow it, or the code and reason of the refusal.
    pub why: String,
    /// What is not as expected; absent: all is.
    pub failure: Option<String>,
}

/// Why a file holds no cases. Whoever wrote it erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CasesError {
    message: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: i64,
    #[serde(default)]
    component: Vec<RawComponent>,
    #[serde(default)]
    case: Vec<Case>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawComponent {
    name: String,
    digest: Option<String>,
    spiffe_id: Option<String>,
    signer: Option<String>,
    signer_group: Option<String>,
}

impl Cases {
    /// Reads a file. Unknown keys, actions and outcomes are refused, and so is a file without a case: it would pass always.
    pub fn parse(text: &str) -> Result<Self, CasesError> {
        let refused = |message: String| CasesError { message };
        let document: Document =
            toml::from_str(text).map_err(|error| refused(error.to_string().trim_end().to_owned()))?;
        if document.version != 1 {
            return Err(refused(format!(
                "version {} of the format is not known, this build reads 1",
                document.version
            )));
        }
        if document.case.is_empty() {
            return Err(refused("there is no [[case]], so nothing would be tested".to_owned()));
        }
        if document.case.len() > CASES {
            return Err(refused(format!("more than {CASES} cases in one file")));
        }
        for case in &document.case {
            if case.by.is_some() && case.expect != Outcome::Allow {
                return Err(refused("`by` names the policies that allow: it goes with expect = \"allow\"".to_owned()));
            }
            if case.code.is_some() && case.expect == Outcome::Allow {
                return Err(refused("`code` is that of a refusal: it does not go with expect = \"allow\"".to_owned()));
            }
        }
        let mut components = BTreeMap::new();
        for component in document.component {
            if let Some(twice) = components.insert(component.name.clone(), component) {
                return Err(refused(format!("the component `{}` is there twice", twice.name.escape_default())));
            }
        }
        Ok(Self { components, cases: document.case })
    }

    /// Asks each of a set. What the file does not say of a component is taken from `known`; a case that rests on what nobody
    /// says fails.
    pub fn check(&self, set: &PolicySet, known: impl Fn(&str, Option<&str>) -> Known) -> Vec<Checked> {
        self.cases.iter().map(|case| self.check_one(case, set, &known)).collect()
    }

    fn check_one(&self, case: &Case, set: &PolicySet, known: &impl Fn(&str, Option<&str>) -> Known) -> Checked {
        let own = self.components.get(&case.component);
        let mut known = known(&case.component, own.and_then(|own| own.spiffe_id.as_deref()));
        if let Some(own) = own {
            let said =
                [(Fact::Digest, &own.digest), (Fact::Signer, &own.signer), (Fact::SignerGroup, &own.signer_group)];
            for (fact, value) in said {
                known = value.iter().fold(known, |known, value| known.with(fact, value));
            }
        }
        let checked = |outcome, why: String, failure| Checked {
            component: case.component.clone(),
            question: case.ask.clone(),
            expected: case.expect,
            outcome,
            why,
            failure,
        };
        let answer = match Asker::new(set, &known).ask(&case.ask) {
            Ok(Sure::Answered(answer)) => answer,
            Ok(Sure::NotKnown(facts)) => {
                let why = not_known(&facts);
                let failure = format!("{why}; say it under [[component]]");
                return checked(Outcome::CannotDecide, why, Some(failure));
            }
            Err(error) => {
                let why = format!("the destination is none: {error}");
                return checked(Outcome::CannotDecide, why.clone(), Some(why));
            }
        };
        let failure = self.failure(case, &answer);
        checked(answer.outcome(), answer.why(), failure)
    }

    fn failure(&self, case: &Case, answer: &Answer) -> Option<String> {
        if answer.outcome() != case.expect {
            return Some(format!("expected {}, got {}", case.expect.name(), answer.outcome().name()));
        }
        match answer {
            Answer::Allowed(by) => {
                let mut wanted = case.by.clone()?;
                wanted.sort_unstable();
                (wanted != *by)
                    .then(|| format!("expected to be allowed by {}, it is by {}", wanted.join(", "), by.join(", ")))
            }
            Answer::Denied(denial) => {
                let (wanted, code) = (case.code.as_ref()?, denial.code().to_string());
                (*wanted != code).then(|| format!("expected the code {}, got {code}", wanted.escape_default()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{facts, set};

    /// Nobody says of which group `demo:a` is, and a policy forbids it to one.
    fn run(text: &str) -> Vec<Checked> {
        let raw = "@id(\"team\") @reason(\"r\") @owner(\"o\")\nforbid (principal in Host::SignerGroup::\"bad\", action == Host::Action::\"svid.jwt\", resource);";
        let set = set(&[("a", "load = true\naudiences = [\"vault\"]")], raw);
        Cases::parse(text).unwrap().check(&set, |name, id| {
            Known::named(name, id.unwrap_or(&facts(name.strip_prefix("demo:").unwrap()).spiffe_id))
        })
    }

    fn case(ask: &str, rest: &str) -> String {
        format!("{}{COMPONENT}", bare(ask, rest))
    }

    const COMPONENT: &str = "[[component]]\nname = \"demo:a\"\nsigner_group = \"good\"\n";

    fn bare(ask: &str, rest: &str) -> String {
        format!("version = 1\n[[case]]\ncomponent = \"demo:a\"\nask = {ask}\n{rest}\n")
    }

    #[test]
    fn cases_pass_and_fail_by_outcome_policy_and_code() {
        let vault = "{ action = \"svid.jwt\", audience = \"vault\" }";
        let other = "{ action = \"svid.jwt\", audience = \"other\" }";
        for (ask, rest, passes) in [
            (vault, "expect = \"allow\"", true),
            (vault, "expect = \"allow\"\nby = [\"a-0\"]", true),
            (vault, "expect = \"allow\"\nby = [\"a-1\"]", false),
            (vault, "expect = \"no-grant\"", false),
            (other, "expect = \"no-grant\"\ncode = \"I0201\"", true),
            (other, "expect = \"no-grant\"\ncode = \"I0202\"", false),
            (other, "expect = \"allow\"", false),
            ("{ action = \"http.send\", destination = \"ftp://x\" }", "expect = \"cannot-decide\"", false),
        ] {
            let checked = run(&case(ask, rest));
            assert_eq!(checked[0].failure.is_none(), passes, "{ask} {rest}: {checked:?}");
        }
    }

    #[test]
    fn a_component_can_be_described() {
        let asked = bare("{ action = \"svid.jwt\", audience = \"vault\" }", "expect = \"forbidden\"");
        let described = format!("{asked}\n[[component]]\nname = \"demo:a\"\nsigner_group = \"bad\"\n");
        assert_eq!(run(&described)[0].failure, None);
        for expect in ["allow", "forbidden", "cannot-decide"] {
            let nobody_says = run(&asked.replace("forbidden", expect)).remove(0).failure.unwrap();
            assert_eq!(nobody_says, "not known: signer group; say it under [[component]]");
        }
    }

    #[test]
    fn files_that_test_nothing_or_something_else_are_refused() {
        let allow = case("{ action = \"load\" }", "expect = \"allow\"");
        for (text, why) in [
            ("version = 1", "no [[case]]"),
            (
                "version = 2\n[[case]]\ncomponent = \"a:b\"\nask = { action = \"load\" }\nexpect = \"allow\"",
                "version 2",
            ),
            (&allow.replace("expect", "expects"), "unknown field"),
            (&allow.replace("\"load\"", "\"fly\""), "unknown variant"),
            (&allow.replace("\"allow\"", "\"maybe\""), "unknown variant"),
            (&allow.replace("[[component]]", "code = \"A0201\"\n[[component]]"), "does not go with"),
            (&allow.replace("\"allow\"", "\"no-grant\"\nby = []"), "goes with"),
            ("x", "expected"),
        ] {
            let error = Cases::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let many = format!(
            "version = 1\n{}",
            "[[case]]\ncomponent = \"a:b\"\nask = { action = \"load\" }\nexpect = \"allow\"\n".repeat(CASES + 1)
        );
        assert!(Cases::parse(&many).unwrap_err().to_string().contains("more than"));
    }
}
