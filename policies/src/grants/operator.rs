//! `[[operator]]`: who may control hosts, and what for. Never "anybody": each entry names one signer.
//!
//! ```toml
//! [[operator]]
//! id = "ann"
//! reason = "runs the shop"
//! owner = "team-shop"
//! who = "spiffe://prod.example/ops/ann"         # or the public nkey of a user, U...
//! hosts = ["h1"]                                # names of hosts, or ["*"]
//! components = ["shop:cart"]                    # claimed names, or ["*"]
//! actions = ["status", "list", "start", "stop", "logs"]   # or deploy, revoke
//! ```

use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::Reader;
use super::{explain, is_id, is_line, list};
use crate::interface::is_component_name;
use crate::limits::{GRANTS, HOST_NAME_BYTES, OWNER_BYTES, REASON_BYTES};
use crate::source::{LoadError, Source};
use crate::workload::WorkloadId;

/// What an operator may do to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlAction {
    /// See how a host is.
    Status,
    /// See what runs.
    List,
    /// Read what components wrote and why they did not start.
    Logs,
    /// Start a component.
    Start,
    /// Stop one.
    Stop,
    /// Say what is to run in a cluster.
    Deploy,
    /// Take identities or components out of a cluster.
    Revoke,
}

/// One `[[operator]]`.
#[derive(Debug, Clone)]
pub struct OperatorEntry {
    pub(crate) id: String,
    pub(crate) reason: String,
    pub(crate) owner: String,
    pub(crate) who: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) components: Vec<String>,
    pub(crate) actions: Vec<ControlAction>,
    pub(crate) source: String,
    pub(crate) line: usize,
}

impl ControlAction {
    /// All of them, in the order of the schema.
    pub const ALL: [Self; 7] =
        [Self::Status, Self::List, Self::Logs, Self::Start, Self::Stop, Self::Deploy, Self::Revoke];

    /// The word in grants and in the schema.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::List => "list",
            Self::Logs => "logs",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Deploy => "deploy",
            Self::Revoke => "revoke",
        }
    }

    /// The action of this word.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }

    /// Whether it shows something and changes nothing.
    pub fn only_shows(self) -> bool {
        match self {
            Self::Status | Self::List | Self::Logs => true,
            Self::Start | Self::Stop | Self::Deploy | Self::Revoke => false,
        }
    }
}

impl OperatorEntry {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who it is for: a SPIFFE ID or a public nkey.
    pub fn who(&self) -> &str {
        &self.who
    }

    /// The hosts.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// The components.
    pub fn components(&self) -> &[String] {
        &self.components
    }

    /// The actions.
    pub fn actions(&self) -> &[ControlAction] {
        &self.actions
    }

    /// The source and the line that it begins at.
    pub fn place(&self) -> (&str, usize) {
        (&self.source, self.line)
    }
}

/// All operators of a source. The rest of the file is read elsewhere.
pub(crate) fn parse(source: &Source) -> Result<Vec<OperatorEntry>, Vec<LoadError>> {
    let (document, syntax) = DeTable::parse_recoverable(&source.text);
    if !syntax.is_empty() {
        // Reported with the grants.
        return Ok(Vec::new());
    }
    let mut reader = Reader::new(source);
    let mut operators = Vec::new();
    for (key, value) in document.get_ref().iter().filter(|(key, _)| key.get_ref() == "operator") {
        match value.get_ref().as_array() {
            Some(tables) if tables.len() <= GRANTS => {
                operators.extend(tables.iter().filter_map(|table| entry(&mut reader, table)));
            }
            Some(_) => {
                reader.problem(&key.span(), format!("more than {GRANTS} operators in one file"), "split the file")
            }
            None => reader.problem(
                &value.span(),
                "`operator` is not an array of tables",
                "begin each operator with [[operator]]",
            ),
        }
    }
    reader.finish(operators)
}

fn entry(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<OperatorEntry> {
    let before = reader.problems();
    let Some(table) = value.get_ref().as_table() else {
        reader.problem(&value.span(), "an operator is not a table", "begin each operator with [[operator]]");
        return None;
    };
    let mut operator = OperatorEntry {
        id: String::new(),
        reason: String::new(),
        owner: String::new(),
        who: String::new(),
        hosts: Vec::new(),
        components: Vec::new(),
        actions: Vec::new(),
        source: reader.places().source().name.clone(),
        line: reader.places().line(value.span().start),
    };
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "id" => {
                operator.id =
                    reader.text(value, is_id, "1 to 64 lower-case letters, digits, dots, dashes, underscores");
            }
            "reason" => {
                operator.reason = reader.text(value, |text| is_line(text, REASON_BYTES), "one line of up to 512 bytes");
            }
            "owner" => {
                operator.owner = reader.text(value, |text| is_line(text, OWNER_BYTES), "one line of up to 128 bytes");
            }
            "who" => operator.who = reader.parsed(value, who).unwrap_or_default(),
            "hosts" => operator.hosts = list(reader, value, host),
            "components" => operator.components = list(reader, value, component),
            "actions" => operator.actions = list(reader, value, action),
            other => reader.unknown(key.span(), other, KEYS),
        }
    }
    for key in REQUIRED {
        if !table.iter().any(|(own, _)| own.get_ref() == *key) {
            let hint = "every operator has id, reason, owner, who, hosts, components and actions";
            reader.problem(&value.span(), format!("`{key}` is missing"), hint);
        }
    }
    for (name, values) in [("hosts", &operator.hosts), ("components", &operator.components)] {
        if values.len() > 1 && values.iter().any(|value| value == "*") {
            reader.problem(&value.span(), format!("`{name}` names \"*\" and others"), "drop the others, or the \"*\"");
        }
    }
    (reader.problems() == before).then_some(operator)
}

fn who(text: &str) -> Result<String, (String, String)> {
    if text.starts_with("spiffe://") {
        return text.parse::<WorkloadId>().map(|id| id.as_str().to_owned()).map_err(explain(""));
    }
    match is_nkey(text) {
        true => Ok(text.to_owned()),
        false => Err((
            "neither a SPIFFE ID nor the public nkey of a user".to_owned(),
            "spiffe://TRUST-DOMAIN/PATH, or U and 55 further characters; the local user of the host needs no entry"
                .to_owned(),
        )),
    }
}

fn host(text: &str) -> Result<String, (String, String)> {
    match text == "*" || is_host_name(text) {
        true => Ok(text.to_owned()),
        false => Err((
            "not the name of a host".to_owned(),
            "1 to 63 lower-case letters, digits and dashes, as in [cluster] host, or \"*\"".to_owned(),
        )),
    }
}

fn component(text: &str) -> Result<String, (String, String)> {
    match text == "*" || is_component_name(text) {
        true => Ok(text.to_owned()),
        false => Err(("not the name of a component".to_owned(), "such as shop:cart, or \"*\"".to_owned())),
    }
}

fn action(text: &str) -> Result<ControlAction, (String, String)> {
    ControlAction::named(text).ok_or_else(|| {
        ("not an action".to_owned(), "one of status, list, logs, start, stop, deploy, revoke".to_owned())
    })
}

/// The form of a user's public nkey. Its checksum is looked at where it is used.
pub(crate) fn is_nkey(text: &str) -> bool {
    text.len() == NKEY_BYTES && text.starts_with('U') && text.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'))
}

/// The name of a host in its cluster.
pub fn is_host_name(text: &str) -> bool {
    (1..=HOST_NAME_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

const NKEY_BYTES: usize = 56;
const REQUIRED: &[&str] = &["id", "reason", "owner", "who", "hosts", "components", "actions"];
const KEYS: &str = "id, reason, owner, who, hosts, components, actions";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceKind;

    fn read(text: &str) -> Result<Vec<OperatorEntry>, String> {
        let source = Source { name: "g".to_owned(), text: text.to_owned(), kind: SourceKind::Grants };
        parse(&source).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    fn with(line: &str) -> String {
        let key = line.split(' ').next().unwrap_or_default();
        let all = [
            "id = \"ann\"",
            "reason = \"r\"",
            "owner = \"o\"",
            "who = \"spiffe://prod.example/ops/ann\"",
            "hosts = [\"h1\"]",
            "components = [\"shop:cart\"]",
            "actions = [\"start\"]",
        ];
        let kept = all.iter().filter(|one| one.split(' ').next() != Some(key));
        let lines: Vec<&str> = kept.copied().chain([line]).collect();
        format!("version = 1\n[[operator]]\n{}\n", lines.join("\n"))
    }

    #[test]
    fn an_entry_names_who_where_what_and_about_what() {
        let read = read(&with("actions = [\"start\", \"logs\"]")).unwrap();
        let ann = &read[0];
        assert_eq!((ann.id(), ann.who(), ann.place()), ("ann", "spiffe://prod.example/ops/ann", ("g", 2)));
        assert_eq!(ann.actions(), [ControlAction::Start, ControlAction::Logs]);
        assert!(self::read(&with("hosts = [\"*\"]")).is_ok());
        assert!(self::read(&with(&format!("who = \"U{}\"", "A".repeat(55)))).is_ok());
    }

    #[test]
    fn wildcards_beside_others_missing_keys_and_malformed_values_are_refused() {
        for (line, why) in [
            ("who = \"*\"", "neither a SPIFFE ID"),
            ("who = \"local:0\"", "neither a SPIFFE ID"),
            ("who = \"spiffe://prod.example\"", "SPIFFE ID"),
            ("who = \"spiffe://prod.example/*\"", "SPIFFE ID"),
            ("who = \"ABC\"", "neither a SPIFFE ID"),
            ("hosts = []", "1 to 256 entries"),
            ("hosts = [\"*\", \"h1\"]", "and others"),
            ("hosts = [\"H1\"]", "not the name of a host"),
            ("hosts = [\"h1.*\"]", "not the name of a host"),
            ("components = [\"shop:*\"]", "not the name of a component"),
            ("actions = [\"control\"]", "not an action"),
            ("actions = [\"start\", \"start\"]", "twice"),
            ("other = 1", "unknown key"),
        ] {
            let problems = read(&with(line)).unwrap_err();
            assert!(problems.contains(why), "{line}: {problems}");
        }
        let problems = read("[[operator]]\nid = \"ann\"").unwrap_err();
        for key in ["reason", "owner", "who", "hosts", "components", "actions"] {
            assert!(problems.contains(&format!("`{key}` is missing")), "{key}: {problems}");
        }
        assert!(read("operator = 1").unwrap_err().contains("array of tables"));
    }

    #[test]
    fn the_longest_name_of_a_host_is_taken_and_one_more_byte_is_not() {
        assert!(is_host_name(&"h".repeat(HOST_NAME_BYTES)) && !is_host_name(&"h".repeat(HOST_NAME_BYTES + 1)));
        assert!(!is_host_name(""));
    }
}
