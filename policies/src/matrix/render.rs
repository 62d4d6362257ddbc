//! The matrix as text to commit, as comma-separated values, and as a page to look at.

use std::fmt::Write;

use super::{Cell, Matrix, Row, Written};
use crate::question::Outcome;

impl Matrix {
    /// Comma-separated values (RFC 4180): component, action, resource, outcome, why; a line for each cell, then one for each
    /// raw policy and operator's entry (outcome `written`; component empty where it names none).
    pub fn to_csv(&self) -> String {
        let mut text = String::from("component,action,resource,outcome,why\r\n");
        let mut line = |fields: [&str; 5]| {
            let _ = write!(text, "{}\r\n", fields.map(csv_field).join(","));
        };
        for (component, row, cell) in self.cells() {
            line([component, row.question.action(), &row.resource, cell.outcome.name(), &cell.reason()]);
        }
        for one in &self.written {
            let why = format!("{} {}", one.id, one.file);
            line([one.component.as_deref().unwrap_or_default(), one.kind, &one.text, "written", &why]);
        }
        text
    }

    /// What is or may be allowed, a line for each component and question, and what is written: a file to commit and to compare.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (n, component) in self.components.iter().enumerate() {
            let _ = writeln!(text, "{component}");
            let mut lines = String::new();
            let cells = self.rows.iter().filter_map(|row| Some((row, row.cells.get(n)?)));
            for (row, cell) in cells.filter(|(_, cell)| cell.may_be_allowed()) {
                let _ = writeln!(lines, "  {:<14}{}  [{}]", row.question.action(), row.resource, cell.reason());
            }
            self.written_about(component).for_each(|one| written_line(one, &mut lines));
            text.push_str(if lines.is_empty() { "  nothing\n" } else { &lines });
        }
        let mut lines = String::new();
        self.written_elsewhere().for_each(|one| written_line(one, &mut lines));
        if !lines.is_empty() {
            let _ = write!(text, "written about others, or about all\n{lines}");
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
                escape(&row.resource)
            );
            for (component, cell) in self.components.iter().zip(&row.cells) {
                let _ = write!(
                    page,
                    "<td class=\"{}\" title=\"{}\">{}</td>",
                    cell.outcome.name(),
                    escape(&format!("{component}: {}", cell.reason())),
                    sign(cell.outcome)
                );
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</tbody>\n</table>\n");
        if !self.written.is_empty() {
            page.push_str(
                "<h2>As it is written</h2>\n<table>\n<thead><tr><th>what</th><th>id</th><th>component</th><th>text</th><th>where</th></tr></thead>\n<tbody>\n",
            );
        }
        for one in &self.written {
            let cell = |text: &str| format!("<td class=\"r\">{}</td>", escape(text));
            let component = one.component.as_deref().unwrap_or("not named");
            let cells = [one.id.as_str(), component, &one.text, &one.file].map(cell).concat();
            let _ = writeln!(page, "<tr><th class=\"{0}\">{0}</th>{cells}</tr>", one.kind);
        }
        if !self.written.is_empty() {
            page.push_str("</tbody>\n</table>\n");
        }
        page.push_str("</body>\n</html>\n");
        page
    }

    fn cells(&self) -> impl Iterator<Item = (&str, &Row, &Cell)> {
        self.rows.iter().flat_map(|row| {
            self.components.iter().zip(&row.cells).map(move |(component, cell)| (component.as_str(), row, cell))
        })
    }
}

fn written_line(one: &Written, lines: &mut String) {
    let _ = writeln!(lines, "  {:<14}{}  [{} {}]", one.kind, one.text, one.id, one.file);
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
pub(super) fn csv_field(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@', '\t']) { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

pub(super) fn escape(text: &str) -> String {
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
<p>Every question that a grant or a policy gives rise to, put to every component; of policies written in Cedar these are examples, so each stands below as it is written. Hold the pointer over a cell for the policy or the reason.</p>
<table><tr><td class="allow">&#10003;</td><td class="r">allowed</td><td class="no-grant">&middot;</td><td class="r">nobody granted it</td><td class="forbidden">&#10007;</td><td class="r">a guard forbids it</td><td class="cannot-decide">?</td><td class="r">cannot be decided, or rests on what is not known here</td></tr></table>
"#;
