//! What a configuration says: maps with places, lists, scalars.

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `{ .. }`.
    Map(Map),
    /// `[ .. ]`.
    List(Vec<Value>),
    /// Text, quoted or not; numbers and words too, as they were written.
    Text(String),
    /// A variable that the file does not define: it comes from the environment of the server.
    Unknown(String),
}

/// A map, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Map {
    /// Its entries. A later one of the same key takes the place of an earlier one.
    pub entries: Vec<Entry>,
}

/// An entry of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key, as written.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// The file, as an index into those that were read.
    pub file: usize,
    /// The line, from 1.
    pub line: usize,
}

impl Map {
    /// The last entry of one of these keys; servers read keys without regard to case.
    pub fn entry(&self, keys: &[&str]) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| keys.iter().any(|key| entry.key.eq_ignore_ascii_case(key)))
    }

    /// The value of one of these keys.
    pub fn get(&self, keys: &[&str]) -> Option<&Value> {
        self.entry(keys).map(|entry| &entry.value)
    }

    /// The value of one of these keys, unless it is an empty text: servers take that for nothing.
    pub fn filled(&self, keys: &[&str]) -> Option<&Value> {
        self.get(keys).filter(|value| value.as_text() != Some(""))
    }

    /// A map of one of these keys.
    pub fn map(&self, keys: &[&str]) -> Option<&Map> {
        self.get(keys).and_then(Value::as_map)
    }

    /// The text of one of these keys.
    pub fn text(&self, keys: &[&str]) -> Option<&str> {
        self.get(keys).and_then(Value::as_text)
    }

    /// Whether one of these keys is switched on.
    pub fn is_on(&self, keys: &[&str]) -> bool {
        self.get(keys).is_some_and(Value::is_on)
    }
}

impl Value {
    /// The map that it is.
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The text that it is.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Its elements: of a list all, of another value itself.
    pub fn elements(&self) -> &[Value] {
        match self {
            Self::List(list) => list,
            other => std::slice::from_ref(other),
        }
    }

    /// How many values stand within one another, itself included.
    pub(super) fn depth(&self) -> usize {
        let deepest = match self {
            Self::Map(map) => map.entries.iter().map(|entry| entry.value.depth()).max(),
            Self::List(list) => list.iter().map(Self::depth).max(),
            Self::Text(_) | Self::Unknown(_) => None,
        };
        1 + deepest.unwrap_or(0)
    }

    /// How many values it is, and how many bytes of text. As deep as what was read, which is bounded.
    pub(super) fn weight(&self) -> (usize, usize) {
        let sum = |(values, bytes): (usize, usize), (more, text): (usize, usize)| (values + more, bytes + text);
        match self {
            Self::Map(map) => {
                let all = map.entries.iter().map(|entry| sum(entry.value.weight(), (0, entry.key.len())));
                all.fold((1, 0), sum)
            }
            Self::List(list) => list.iter().map(Self::weight).fold((1, 0), sum),
            Self::Text(text) | Self::Unknown(text) => (1, text.len()),
        }
    }

    /// Whether it is a word for yes.
    pub fn is_on(&self) -> bool {
        self.as_text().is_some_and(|text| ["true", "yes", "on"].iter().any(|word| text.eq_ignore_ascii_case(word)))
    }

    /// Seconds: a number, or text such as `1.5s`, `1500ms`, `2m`.
    pub fn seconds(&self) -> Option<f64> {
        let text = self.as_text()?;
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = text.get(digits.len()..)?;
        let factor = match unit {
            "" | "s" => 1.0,
            "ms" => 0.001,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        digits.parse::<f64>().ok().map(|number| number * factor).filter(|seconds| seconds.is_finite())
    }
}
