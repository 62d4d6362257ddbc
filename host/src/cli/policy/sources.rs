//! Policies for the commands that look at them: from a configuration, a folder or a single file.

use std::path::{Path, PathBuf};

use portcullis_policies::{ComponentFacts, Known, PolicySet, Recorded, Source, SourceKind};
use serde_json::Value;

use crate::cli::error::{CliError, exit};
use crate::cli::{files, locate};
use crate::config::Config;
use crate::limits::CONFIG_BYTES;
use crate::supervisor::policy::Policy;

/// Policy texts, compiled, and what is known of the site.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) sources: Vec<Source>,
    pub(super) set: PolicySet,
    /// Remarks that do not refuse the policy.
    pub(super) problems: Vec<String>,
    /// What the configuration leaves open beside the policy; none where there is no configuration.
    pub(super) knobs: Option<Vec<Knob>>,
    /// Where it was read from.
    pub(super) name: String,
    trust_domain: String,
}

/// A key of the configuration, and what it names, that leaves something open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Knob {
    pub(super) key: &'static str,
    pub(super) value: String,
}

impl Read {
    /// The policy of a configuration: the one given, else the first that exists.
    pub(super) fn of_config(given: Option<&Path>) -> Result<Self, CliError> {
        Self::configured(&locate::config(given)?)
    }

    /// The policy at a path: a configuration, a folder of `*.toml` grants and `*.cedar` policies, or one such file.
    pub(super) fn at(path: &Path) -> Result<Self, CliError> {
        if path.is_dir() {
            let mut paths: Vec<PathBuf> = std::fs::read_dir(path)
                .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
                .map_err(|error| CliError::usage(format!("{}: {error}", path.display())))?;
            paths.retain(|path| matches!(path.extension().and_then(|e| e.to_str()), Some("toml" | "cedar")));
            paths.sort();
            if paths.is_empty() {
                return Err(CliError::usage(format!("{} holds no *.toml and no *.cedar", path.display()))
                    .with_hint("name a folder of grants and policies, one such file, or a configuration"));
            }
            return Self::files(&paths);
        }
        let text = files::read_text(path, CONFIG_BYTES, "policy")?;
        let is_config = text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("trust_domain"));
        if is_config { Self::configured(&locate::config(Some(path))?) } else { Self::files(&[path.to_path_buf()]) }
    }

    /// What is known of a component by its name: what follows from that, and nothing else.
    pub(super) fn known(&self, name: &str, spiffe_id: Option<&str>) -> Known {
        let facts = self.facts(name);
        Known::named(name, spiffe_id.unwrap_or(&facts.spiffe_id))
    }

    /// The same with stand-ins for what is not known: for commands that ask for examples.
    pub(super) fn facts(&self, name: &str) -> ComponentFacts {
        let (namespace, short) = name.split_once(':').unwrap_or((name, name));
        ComponentFacts {
            name: name.to_owned(),
            digest: format!("sha256:{}", "0".repeat(64)),
            spiffe_id: format!("spiffe://{}/ns/{namespace}/sa/{short}", self.trust_domain),
            signer: "unknown".to_owned(),
            signer_group: "unknown".to_owned(),
            instance: "offline".to_owned(),
        }
    }

    /// The components that anything is granted to.
    pub(super) fn components(&self) -> Vec<ComponentFacts> {
        self.set.summary().components.iter().map(|name| self.facts(name)).collect()
    }

    fn configured(config: &Config) -> Result<Self, CliError> {
        let policy = Policy::read(&config.policy, 1).map_err(invalid)?;
        Ok(Self {
            sources: policy.sources().to_vec(),
            set: (**policy.set()).clone(),
            problems: policy.problems().to_vec(),
            knobs: Some(knobs(config)),
            name: "configuration".to_owned(),
            trust_domain: config.trust_domain.to_string(),
        })
    }

    fn files(paths: &[PathBuf]) -> Result<Self, CliError> {
        let mut sources = Vec::new();
        for path in paths {
            let is_cedar = path.extension().is_some_and(|extension| extension == "cedar");
            let kind = if is_cedar { SourceKind::Cedar } else { SourceKind::Grants };
            let text = files::read_text(path, CONFIG_BYTES, "policy")?;
            sources.push(Source { name: path.display().to_string(), text, kind });
        }
        let set = PolicySet::compile(&sources, 1).map_err(|errors| invalid(errors.lines()))?;
        Ok(Self {
            sources,
            set,
            problems: Vec::new(),
            knobs: None,
            name: String::new(),
            trust_domain: "example.org".to_owned(),
        })
    }
}

/// Names that may be put into audit mode, names that may have a key, and dangers that are on.
fn knobs(config: &Config) -> Vec<Knob> {
    let audited = config.policy.audit_mode.iter().map(|name| ("policy.audit_mode", name.clone()));
    let exportable = config.dangers.exportable_keys.iter().map(|name| ("danger_exportable_keys", name.clone()));
    let on = config.dangers.on().into_iter().filter(|key| *key != "danger_exportable_keys");
    let on = on.map(|key| (key, "true".to_owned()));
    audited.chain(exportable).chain(on).map(|(key, value)| Knob { key, value }).collect()
}

/// The questions of one record: an admission that was refused lists its denials, a denial on the way is one.
pub(super) fn of_record(record: &Value) -> Vec<Recorded> {
    read_record(record).0
}

/// The same, with how many refusals by policy were not understood.
pub(super) fn read_record(record: &Value) -> (Vec<Recorded>, u64) {
    let values = ["/denial", "/details"].into_iter().filter_map(|pointer| record.pointer(pointer));
    let denials = values.flat_map(|value| value.as_array().map_or_else(|| vec![value], |list| list.iter().collect()));
    let (mut found, mut not_understood) = (Vec::new(), 0);
    // Others, such as those of evidence and of operators, have no component with a digest.
    for denial in denials.filter(|denial| denial.get("component").is_some() && denial.get("digest").is_some()) {
        match recorded(denial) {
            Some(one) => found.push(one),
            None => not_understood += 1,
        }
    }
    (found, not_understood)
}

fn recorded(denial: &Value) -> Option<Recorded> {
    let text = |name: &str| denial.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(Recorded {
        facts: ComponentFacts {
            name: text("component")?,
            digest: text("digest")?,
            spiffe_id: text("spiffe_id")?,
            signer: text("signer")?,
            signer_group: text("signer_group")?,
            instance: text("instance")?,
        },
        question: serde_json::from_value(denial.get("question")?.clone()).ok()?,
    })
}

fn invalid(problems: Vec<String>) -> CliError {
    CliError::new(exit::CONFIG, "policy.invalid", problems.join("\n"))
        .with_hint("a running host keeps the policy it has until these are mended")
        .with_details(problems.into())
}
