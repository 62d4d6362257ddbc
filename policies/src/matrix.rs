//! The matrix: what each component may do, as a table of every question that the grants give rise to.
//!
//! The questions are those that any grant answers for anybody, put to every component: what one was granted is asked for all
//! the others, so that a grant that reaches too far shows as a row. Raw policies show through the answers, not as questions of
//! their own. Decides nothing: each cell is a decision of the component's own slice.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Serialize;

use crate::component::ComponentFacts;
use crate::engine::PolicySet;
use crate::grants::{CallerPattern, IdentityRight, cedar};
use crate::interface::LinkPattern;
use crate::question::{Answer, Outcome, Question};
use crate::subject::SubjectPattern;

/// Rows of questions, columns of components.
#[derive(Debug, Clone, Serialize)]
pub struct Matrix {
    /// The generation of policy.
    pub generation: u64,
    /// Names of the components.
    pub components: Vec<String>,
    /// One row for each question.
    pub rows: Vec<Row>,
}

/// One question, put to every component.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The question.
    pub question: Question,
    /// The answers, in the order of the components.
    pub cells: Vec<Cell>,
}

/// One answer.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// Allow, or the kind of refusal.
    pub outcome: Outcome,
    /// The policies that allow it, or the code and reason of the refusal.
    pub why: String,
}

/// Every question that the grants of a set give rise to.
pub fn questions(set: &PolicySet) -> BTreeSet<Asking> {
    let mut all = BTreeSet::new();
    let mut add = |question: Question| {
        all.insert(Asking::new(question));
    };
    add(Question::Load { imports: Vec::new(), expired: false });
    add(Question::Call { caller: crate::component::ANONYMOUS.to_owned() });
    add(Question::SvidX509 { ttl: 1 });
    for grant in set.grants() {
        for link in cedar::links(grant) {
            add(Question::Link {
                interface: match link {
                    LinkPattern::Interface(name) => name.name().to_owned(),
                    // One that stands for the package: no component has an interface of this name.
                    LinkPattern::Package(package) => format!("{package}/any"),
                },
            });
        }
        for destination in &grant.http {
            let url = format!("{}://{}", destination.scheme().as_str(), destination.authority());
            add(Question::HttpSend { destination: url, method: "GET".to_owned() });
        }
        for right in &grant.identity {
            match right {
                IdentityRight::Read => add(Question::IdentityRead {}),
                IdentityRight::Bundles => add(Question::BundleRead {}),
                IdentityRight::Peer => add(Question::PeerRead {}),
                IdentityRight::Validate => add(Question::SvidValidate {}),
                IdentityRight::Export => add(Question::SvidExport {}),
                IdentityRight::X509 => {}
            }
        }
        for purpose in &grant.purposes {
            add(Question::SvidSign { purpose: purpose.clone() });
        }
        for audience in &grant.audiences {
            add(Question::SvidJwt { audience: audience.clone(), ttl: 1 });
        }
        for pattern in &grant.publish {
            add(Question::Publish { subject: within(pattern) });
        }
        for pattern in &grant.request {
            add(Question::Request { subject: within(pattern) });
        }
        for pattern in &grant.subscribe {
            add(Question::Subscribe { subject: pattern.to_string(), queue: String::new() });
        }
        for caller in &grant.callers {
            if let CallerPattern::Workload(id) = caller {
                add(Question::Call { caller: id.to_string() });
            }
        }
    }
    all
}

/// A subject that stands for a pattern: messages have no wildcards.
fn within(pattern: &SubjectPattern) -> String {
    let literal = |token| if matches!(token, "*" | ">") { "any" } else { token };
    pattern.as_str().split('.').map(literal).collect::<Vec<_>>().join(".")
}

/// A question in the order of a table: by action, then by resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking(Question);

impl Asking {
    fn new(question: Question) -> Self {
        Self(question)
    }

    /// The question.
    pub fn question(&self) -> &Question {
        &self.0
    }

    fn rank(&self) -> (usize, String) {
        let order = ["load", "link", "call", "http.send", "http.connect", "svid.jwt"];
        let place = order.iter().position(|action| *action == self.0.action()).unwrap_or(order.len());
        (place, format!("{} {}", self.0.action(), self.0.resource()))
    }
}

impl PartialOrd for Asking {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Asking {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl Matrix {
    /// Asks everything of everybody.
    pub fn new(set: &PolicySet, components: &[ComponentFacts]) -> Self {
        let slices: Vec<_> = components.iter().map(|facts| set.slice(facts)).collect();
        let rows = questions(set).into_iter().filter_map(|asking| {
            let question = asking.0;
            let cells: Result<Vec<Cell>, _> = slices.iter().map(|slice| question.ask(slice).map(Cell::of)).collect();
            cells.ok().map(|cells| Row { question, cells })
        });
        Self {
            generation: set.generation(),
            components: components.iter().map(|facts| facts.name.clone()).collect(),
            rows: rows.collect(),
        }
    }

    /// Comma-separated values (RFC 4180): component, action, resource, outcome, why; a line for each cell.
    pub fn to_csv(&self) -> String {
        let mut text = String::from("component,action,resource,outcome,why\r\n");
        for (component, row, cell) in self.cells() {
            let fields = [component, row.question.action(), &row.question.resource(), cell.outcome.name(), &cell.why]
                .map(csv_field);
            let _ = write!(text, "{}\r\n", fields.join(","));
        }
        text
    }

    /// What is allowed, a line for each component and question: a file to commit and to compare.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (n, component) in self.components.iter().enumerate() {
            let _ = writeln!(text, "{component}");
            let allowed = self.rows.iter().filter_map(|row| Some((row, row.cells.get(n)?)));
            let mut lines = 0;
            for (row, cell) in allowed.filter(|(_, cell)| cell.outcome == Outcome::Allow) {
                let _ = writeln!(text, "  {:<14}{}  [{}]", row.question.action(), row.question.resource(), cell.why);
                lines += 1;
            }
            if lines == 0 {
                text.push_str("  nothing\n");
            }
        }
        text
    }

    /// A page to look at: one file, nothing loaded from elsewhere.
    pub fn to_html(&self) -> String {
        let mut page = String::from(PAGE_HEAD);
        let _ = write!(
            page,
            "<p>Generation {}, {} components, {} questions.</p>\n<table>\n<thead><tr><th>action</th><th>resource</th>",
            self.generation,
            self.components.len(),
            self.rows.len()
        );
        for component in &self.components {
            let _ = write!(page, "<th class=\"c\"><span>{}</span></th>", escape(component));
        }
        page.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.rows {
            let _ = write!(
                page,
                "<tr><th>{}</th><td class=\"r\">{}</td>",
                escape(row.question.action()),
                escape(&row.question.resource())
            );
            for (component, cell) in self.components.iter().zip(&row.cells) {
                let _ = write!(
                    page,
                    "<td class=\"{}\" title=\"{}\">{}</td>",
                    cell.outcome.name(),
                    escape(&format!("{component}: {}", cell.why)),
                    sign(cell.outcome)
                );
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</tbody>\n</table>\n</body>\n</html>\n");
        page
    }

    fn cells(&self) -> impl Iterator<Item = (&str, &Row, &Cell)> {
        self.rows.iter().flat_map(|row| {
            self.components.iter().zip(&row.cells).map(move |(component, cell)| (component.as_str(), row, cell))
        })
    }
}

impl Cell {
    fn of(answer: Answer) -> Self {
        Self { outcome: answer.outcome(), why: answer.why() }
    }
}

fn sign(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allow => "&#10003;",
        Outcome::NoGrant => "&middot;",
        Outcome::Forbidden => "&#10007;",
        Outcome::CannotDecide => "?",
    }
}

/// A field of RFC 4180. One that a spreadsheet would take for a formula is quoted with an apostrophe in front.
fn csv_field(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@', '\t']) { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
        escaped
    })
}

const PAGE_HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Portcullis: what each component may do</title>
<style>
:root { color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif; }
body { margin: 2rem; }
table { border-collapse: separate; border-spacing: 2px; }
thead th { position: sticky; top: 0; background: Canvas; vertical-align: bottom; }
th { text-align: left; font-weight: 500; white-space: nowrap; padding: 2px 8px; }
th.c span { writing-mode: vertical-rl; transform: rotate(180deg); }
td { text-align: center; min-width: 1.6rem; padding: 2px 4px; border-radius: 3px; }
td.r { text-align: left; font-family: ui-monospace, monospace; }
td.allow { background: #2e7d32; color: #fff; }
td.no-grant { background: #8882; color: #888; }
td.forbidden { background: #b71c1c; color: #fff; }
td.cannot-decide { background: #f9a825; color: #000; }
ul { list-style: none; padding: 0; display: flex; gap: 1rem; }
li span { display: inline-block; width: 1.6rem; text-align: center; border-radius: 3px; margin-right: .3rem; }
</style>
</head>
<body>
<h1>What each component may do</h1>
<p>Every question that a grant answers for anybody, put to every component. Hold the pointer over a cell for the policy or the reason.</p>
<table><tr><td class="allow">&#10003;</td><td class="r">allowed</td><td class="no-grant">&middot;</td><td class="r">nobody granted it</td><td class="forbidden">&#10007;</td><td class="r">a guard forbids it</td><td class="cannot-decide">?</td><td class="r">cannot be decided, so it is refused</td></tr></table>
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{facts, set};

    fn matrix() -> Matrix {
        let lines = [
            ("a", "load = true\nhttp = [\"https://api.example\"]\naudiences = [\"vault\"]"),
            ("b", "callers = [\"spiffe://demo.example/ns/demo/sa/a\"]\nidentity = [\"read\"]"),
        ];
        let raw = "@id(\"no-call\") @reason(\"closed\") @owner(\"o\")\nforbid (principal, action == Host::Action::\"call\", resource == Host::Component::\"demo:b\");";
        Matrix::new(&set(&lines, raw), &[facts("a"), facts("b"), facts("c")])
    }

    fn cell<'a>(matrix: &'a Matrix, action: &str, resource: &str, component: usize) -> &'a Cell {
        let row = matrix.rows.iter().find(|row| row.question.action() == action && row.question.resource() == resource);
        &row.unwrap_or_else(|| panic!("no row {action} {resource}")).cells[component]
    }

    #[test]
    fn what_one_was_granted_is_asked_for_everybody() {
        let matrix = matrix();
        assert_eq!(cell(&matrix, "http.send", "https://api.example", 0).why, "a-0");
        assert_eq!(cell(&matrix, "http.send", "https://api.example", 1).outcome, Outcome::NoGrant);
        assert_eq!(cell(&matrix, "svid.jwt", "vault", 2).outcome, Outcome::NoGrant);
        assert_eq!(cell(&matrix, "identity.read", "", 1).outcome, Outcome::Allow);
        // A `forbid` of the operator shows where a grant alone would allow.
        assert_eq!(cell(&matrix, "call", "spiffe://demo.example/ns/demo/sa/a", 1).outcome, Outcome::Forbidden);
        assert_eq!(matrix.to_text().matches("nothing").count(), 1, "{}", matrix.to_text());
    }

    #[test]
    fn tables_are_the_same_each_time_and_hold_every_cell() {
        let (one, two) = (matrix(), matrix());
        assert_eq!(one.to_csv(), two.to_csv());
        assert_eq!(one.to_csv().lines().count(), 1 + one.rows.len() * 3);
        assert_eq!(one.to_html(), two.to_html());
        let sorted: Vec<_> = one.rows.iter().map(|row| Asking::new(row.question.clone())).collect();
        assert!(sorted.is_sorted());
    }

    #[test]
    fn text_from_outside_is_escaped_on_the_page_and_in_fields() {
        assert_eq!(escape("<a b=\"'&\">"), "&lt;a b=&quot;&#39;&amp;&quot;&gt;");
        assert_eq!(csv_field("=cmd()"), "'=cmd()");
        assert_eq!(csv_field("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
