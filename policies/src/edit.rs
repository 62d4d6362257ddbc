//! Adding to a grants file: exactly what was asked for, nothing broader, with the operator's comments kept.
//!
//! Decides: whether the file grants it already (then the text stays as it is), and otherwise which new `[[grant]]` does.
//! Never adds to an existing grant: its conditions would spread to what it grants already, or the other way round.

use std::path::Path;

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use crate::address::AddressRange;
use crate::destination::Destination;
use crate::grants::{self, GrantEntry};
use crate::interface::InterfaceName;
use crate::source::{LoadErrors, Source, SourceKind};
use crate::subject::SubjectPattern;

/// What to add for one component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantEdit {
    /// The component's name.
    pub component: String,
    /// It may be admitted.
    pub load: bool,
    /// Interfaces it may link, without version, or `namespace:package/*`.
    pub link: Vec<String>,
    /// A destination it may send to.
    pub http: Option<Destination>,
    /// The SPIFFE ID that this destination must prove.
    pub peer: Option<String>,
    /// Addresses beyond public ones that this destination may have.
    pub addresses: Vec<AddressRange>,
    /// Identity rights: read, bundles, peer, x509, validate, export.
    pub identity: Vec<String>,
    /// Audiences of JWT-SVIDs.
    pub audiences: Vec<String>,
    /// Purposes that it may sign data for.
    pub purposes: Vec<String>,
    /// Who may call it: `anonymous` or a SPIFFE ID.
    pub callers: Vec<String>,
    /// Subjects that it may publish to.
    pub publish: Vec<String>,
    /// Subjects that it may send requests to.
    pub request: Vec<String>,
    /// Subjects whose messages it gets.
    pub subscribe: Vec<String>,
    /// Why, for the file.
    pub reason: String,
    /// Who answers for it, for the file.
    pub owner: String,
}

/// Why nothing was added. The operator erred, in the file or in the addition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The file is not valid as it is.
    #[error("the grants file has errors already:\n{0}")]
    Existing(#[source] LoadErrors),
    /// The addition is not valid.
    #[error("this cannot be granted:\n{0}")]
    Addition(#[source] LoadErrors),
    /// The document has a shape that cannot be added to.
    #[error("`grant` is not written as [[grant]] tables")]
    Shape,
}

impl EditError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Existing(_) => "correct the file first",
            Self::Addition(_) => "correct the arguments",
            Self::Shape => "write each grant as a table under [[grant]]",
        }
    }
}

/// Adds to the text of a grants file. Doing it twice changes nothing the second time.
pub fn add_grant(existing_toml: &str, edit: &GrantEdit) -> Result<String, EditError> {
    let parse = |text: &str| {
        let source = Source { name: "grants".to_owned(), text: text.to_owned(), kind: SourceKind::Grants };
        grants::parse(&source).map_err(LoadErrors::new)
    };
    let existing = parse(existing_toml).map_err(EditError::Existing)?;
    let Some(missing) = edit.missing_from(&existing) else { return Ok(existing_toml.to_owned()) };
    let mut document: DocumentMut = existing_toml.parse().map_err(|_| EditError::Shape)?;
    if document.get("version").is_none() {
        document.insert("version", value(1));
    }
    let list = document.entry("grant").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    let list = list.as_array_of_tables_mut().ok_or(EditError::Shape)?;
    let mut table = missing.table(&free_id(&existing, &missing));
    // Tables are written in the order of their positions: this one comes last.
    table.set_position(None);
    table.decor_mut().set_prefix("\n");
    list.push(table);
    let text = document.to_string();
    parse(&text).map_err(EditError::Addition)?;
    Ok(text)
}

impl GrantEdit {
    /// The command line that makes this addition, as an argument vector.
    pub fn command(&self, program: &str, config: Option<&Path>) -> Vec<String> {
        let mut argv = vec![program.to_owned(), "grants".to_owned(), "add".to_owned()];
        if let Some(config) = config {
            push(&mut argv, "--config", &config.display().to_string());
        }
        argv.push(self.component.clone());
        argv.extend(self.arguments());
        argv
    }

    /// The arguments of `grants add` that follow the component.
    pub fn arguments(&self) -> Vec<String> {
        let mut argv = Vec::new();
        if self.load {
            argv.push("--load".to_owned());
        }
        let lists = [
            ("--link", &self.link),
            ("--identity", &self.identity),
            ("--audience", &self.audiences),
            ("--purpose", &self.purposes),
            ("--caller", &self.callers),
            ("--publish", &self.publish),
            ("--request", &self.request),
            ("--subscribe", &self.subscribe),
        ];
        for (flag, values) in lists {
            for value in values {
                push(&mut argv, flag, value);
            }
        }
        if let Some(destination) = &self.http {
            push(&mut argv, "--http", &format!("{}://{}", destination.scheme().as_str(), destination.authority()));
        }
        if let Some(peer) = &self.peer {
            push(&mut argv, "--peer", peer);
        }
        for range in &self.addresses {
            push(&mut argv, "--addresses", &range.to_string());
        }
        argv
    }

    /// The part that no grant has yet.
    fn missing_from(&self, existing: &[GrantEntry]) -> Option<Self> {
        let own: Vec<&GrantEntry> = existing.iter().filter(|grant| grant.component == self.component).collect();
        let mut missing = self.clone();
        missing.load &= !own.iter().any(|grant| grant.load);
        missing.link.retain(|link| !own.iter().any(|grant| links(grant, link)));
        missing.identity.retain(|right| !own.iter().any(|grant| grant.identity.iter().any(|own| own.name() == right)));
        missing.audiences.retain(|audience| !own.iter().any(|grant| grant.audiences.contains(audience)));
        missing.purposes.retain(|purpose| !own.iter().any(|grant| grant.purposes.contains(purpose)));
        missing.callers.retain(|caller| !own.iter().any(|grant| grant.callers.iter().any(|own| own.name() == caller)));
        for (wanted, granted) in [
            (&mut missing.publish, (|grant| &grant.publish) as fn(&GrantEntry) -> &Vec<SubjectPattern>),
            (&mut missing.request, |grant| &grant.request),
            (&mut missing.subscribe, |grant| &grant.subscribe),
        ] {
            wanted.retain(|text| !own.iter().any(|grant| granted(grant).iter().any(|own| covers(own, text))));
        }
        if let Some(destination) = &self.http {
            let same: Vec<&&GrantEntry> = own.iter().filter(|grant| grant.http.contains(destination)).collect();
            let pinned = |grant: &GrantEntry| grant.peer.as_ref().map(|peer| peer.as_str()) == self.peer.as_deref();
            missing.addresses.retain(|range| !same.iter().any(|grant| grant.addresses.contains(range)));
            let covered = !same.is_empty() && (self.peer.is_none() || same.iter().any(|grant| pinned(grant)));
            if covered && missing.addresses.is_empty() {
                missing.http = None;
                missing.peer = None;
            }
        }
        let nothing = Self {
            component: self.component.clone(),
            reason: self.reason.clone(),
            owner: self.owner.clone(),
            ..Self::default()
        };
        (missing != nothing).then_some(missing)
    }

    fn table(&self, id: &str) -> Table {
        let mut table = Table::new();
        let mut set = |key: &str, item: Item| {
            table.insert(key, item);
        };
        set("id", value(id));
        set("reason", value(&self.reason));
        set("owner", value(&self.owner));
        set("component", value(&self.component));
        if self.load {
            set("load", value(true));
        }
        let http = self
            .http
            .as_ref()
            .map(|destination| format!("{}://{}", destination.scheme().as_str(), destination.authority()));
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        for (key, values) in [
            ("link", self.link.as_slice()),
            ("http", http.as_slice()),
            ("addresses", addresses.as_slice()),
            ("identity", self.identity.as_slice()),
            ("audiences", self.audiences.as_slice()),
            ("purposes", self.purposes.as_slice()),
            ("callers", self.callers.as_slice()),
            ("publish", self.publish.as_slice()),
            ("request", self.request.as_slice()),
            ("subscribe", self.subscribe.as_slice()),
        ] {
            if !values.is_empty() {
                set(key, value(Array::from_iter(values)));
            }
        }
        if let Some(peer) = &self.peer {
            set("peer", value(peer));
        }
        table
    }
}

fn links(grant: &GrantEntry, link: &str) -> bool {
    let implied = grants::cedar::links(grant);
    let by_interface = link.parse::<InterfaceName>().is_ok_and(|name| implied.iter().any(|own| own.matches(&name)));
    by_interface || implied.iter().any(|own| own.to_string() == link)
}

/// Whether a granted pattern covers a subject or another pattern.
fn covers(own: &SubjectPattern, text: &str) -> bool {
    text.parse::<SubjectPattern>().is_ok_and(|wanted| own.covers_all_of(&wanted))
}

/// `demo-greeter-http`, or the first of `demo-greeter-http-2`, `-3`, .. that no grant has.
fn free_id(existing: &[GrantEntry], edit: &GrantEdit) -> String {
    let what = match edit {
        _ if edit.http.is_some() => "http",
        _ if edit.load => "load",
        _ if !edit.link.is_empty() => "link",
        _ if !edit.callers.is_empty() => "callers",
        _ if [&edit.publish, &edit.request, &edit.subscribe].iter().any(|list| !list.is_empty()) => "messages",
        _ => "identity",
    };
    // Names of components may be longer than ids.
    let stem: String = edit.component.chars().map(|c| if c == ':' { '-' } else { c }).take(40).collect();
    let taken = |id: &str| existing.iter().any(|grant| grant.id == id);
    let first = format!("{stem}-{what}");
    (2_u64..).map(|n| format!("{first}-{n}")).find(|id| !taken(id)).filter(|_| taken(&first)).unwrap_or(first)
}

fn push(argv: &mut Vec<String>, flag: &str, value: &str) {
    // A value that looks like a flag must not become one.
    match value.starts_with('-') {
        true => argv.push(format!("{flag}={value}")),
        false => argv.extend([flag.to_owned(), value.to_owned()]),
    }
}

#[cfg(test)]
mod tests;
