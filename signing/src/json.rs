//! Strict JSON: no key twice in one object, no deep nesting, no endless lists, nothing after the end.
//!
//! Two readers of the same bytes must never see different values; lenient parsers differ exactly at duplicate keys.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, Serialize};
use serde_json::{Map, Number, Value};

use crate::excerpt::Excerpt;
use crate::limits::{JSON_DEPTH, JSON_VALUES};

/// Why bytes are not JSON that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// No bytes, or white space only.
    #[error("it is empty")]
    Empty,
    /// Larger than allowed.
    #[error("it is larger than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// Not JSON, or JSON of a form that is refused. Says where.
    #[error("it is not valid JSON: {0}")]
    Syntax(String),
}

/// Parses at most `max` bytes.
pub(crate) fn parse(bytes: &[u8], max: usize) -> Result<Value, JsonError> {
    if bytes.len() > max {
        return Err(JsonError::TooLarge { max });
    }
    if bytes.trim_ascii().is_empty() {
        return Err(JsonError::Empty);
    }
    let syntax = |error: serde_json::Error| JsonError::Syntax(Excerpt(&error.to_string()).to_string());
    let mut left = JSON_VALUES;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0, left: &mut left }.deserialize(&mut deserializer).map_err(syntax)?;
    deserializer.end().map_err(syntax)?;
    Ok(value)
}

/// Indented, with a line end: what people edit and keep in version control.
pub(crate) fn pretty<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

struct Strict<'a> {
    depth: usize,
    left: &'a mut usize,
}

impl Strict<'_> {
    fn check_depth<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.depth < JSON_DEPTH {
            Ok(())
        } else {
            Err(E::custom(format!("it is nested deeper than {JSON_DEPTH} levels")))
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        *self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| D::Error::custom(format!("it has more than {JSON_VALUES} values")))?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut values = Vec::new();
        while let Some(value) = access.next_element_seed(Strict { depth: self.depth + 1, left: self.left })? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{}` is there twice", Excerpt(&key))));
            }
            let value = access.next_value_seed(Strict { depth: self.depth + 1, left: self.left })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> String {
        parse(text.as_bytes(), 1 << 20).unwrap_err().to_string()
    }

    #[test]
    fn plain_json_is_what_serde_json_reads() {
        let text = r#"{"a":[1,-2,1.5,true,null,"\u00e9"],"b":{"c":{}}}"#;
        assert_eq!(parse(text.as_bytes(), 100).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn a_key_twice_is_refused_at_any_depth_and_in_any_spelling() {
        assert!(why(r#"{"a":1,"a":1}"#).contains("`a` is there twice"));
        assert!(why(r#"[{"b":{"a":1,"\u0061":2}}]"#).contains("`a` is there twice"));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(JSON_DEPTH).as_bytes(), 1 << 20).is_ok());
        assert!(why(&nested(JSON_DEPTH + 1)).contains("deeper"));
        assert!(why(&nested(100_000)).contains("deeper"));
    }

    #[test]
    fn too_many_values_are_refused() {
        let list = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert!(parse(list(JSON_VALUES - 1).as_bytes(), 1 << 20).is_ok());
        assert!(why(&list(JSON_VALUES)).contains("more than"));
    }

    #[test]
    fn size_emptiness_and_rubbish_are_told_apart() {
        assert_eq!(parse(b"[1]", 2), Err(JsonError::TooLarge { max: 2 }));
        assert_eq!(parse(b" \n", 9), Err(JsonError::Empty));
        for text in ["{", "[1,]", "{} {}", "\u{feff}{}", "nul", "{\"a\":1e999}"] {
            assert!(why(text).contains("not valid JSON"), "{text}");
        }
        assert!(matches!(parse(b"\"\xff\"", 9), Err(JsonError::Syntax(_))));
    }
}
