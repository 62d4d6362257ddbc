//! The command line's one printer.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::error::CliError;

/// Writes results to standard output and everything else to standard error; text, or JSON where asked for.
#[derive(Debug)]
pub struct Output {
    json: bool,
    terminal: bool,
    /// Whether a document is on standard output already.
    told: bool,
}

impl Output {
    /// A printer; `json` turns results into JSON and silences text.
    pub fn new(json: bool) -> Self {
        Self { json, terminal: io::stderr().is_terminal(), told: false }
    }

    /// A line of text for a person; silent under JSON.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), CliError> {
        if self.json { Ok(()) } else { self.raw(format!("{}\n", super::error::shown(text.as_ref())).as_bytes()) }
    }

    /// A result for a program; silent under text.
    pub fn value(&mut self, value: &serde_json::Value) -> Result<(), CliError> {
        if !self.json {
            return Ok(());
        }
        self.told = true;
        self.raw(format!("{value:#}\n").as_bytes())
    }

    /// One of the two, by what was asked for.
    pub fn result(&mut self, text: impl AsRef<str>, value: &serde_json::Value) -> Result<(), CliError> {
        self.line(text)?;
        self.value(value)
    }

    /// Bytes as they are, to standard output. A reader that went away ends the command quietly.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(CliError::internal(format!("standard output cannot be written: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// A remark on standard error.
    pub fn note(&mut self, text: impl AsRef<str>) {
        let _ = writeln!(io::stderr(), "{}", super::error::shown(text.as_ref()));
    }

    /// A failed command. Where its result is on standard output already, that is the one document there: the error goes to standard
    /// error alone.
    pub fn error(&mut self, error: &CliError) {
        if self.json && !self.told {
            let _ = self.raw(format!("{:#}\n", error.to_json()).as_bytes());
        }
        let _ = writeln!(io::stderr(), "{error}");
    }

    /// A spinner on standard error while something runs; nothing where that is not a terminal.
    pub fn spinner(&self, text: &str) -> ProgressBar {
        if !self.terminal {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    /// A bar on standard error that shows bytes; nothing where that is not a terminal. Its length is set by whoever knows it.
    pub fn bar(&self, text: &str) -> ProgressBar {
        if !self.terminal {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}") {
            bar.set_style(style);
        }
        bar.set_message(text.to_owned());
        bar
    }
}

/// Rows as an aligned table; the last column is not padded.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', (width + 2).saturating_sub(cell.chars().count())));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_blanks() {
        let cell = |text: &str| text.to_owned();
        let text = table(&[vec![cell("a"), cell("bb"), cell("")], vec![cell("ccc"), cell("d"), cell("e")]]);
        assert_eq!(text, "a    bb\nccc  d   e\n");
    }
}
