//! Strict JSON of outside tokens: no key twice in one object, no deep nesting, no endless lists, nothing after the end. Two
//! readers of the same bytes must never see different values; lenient parsers differ exactly at duplicate keys.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::limits::{MAX_NATS_JSON_DEPTH, MAX_NATS_JSON_VALUES};

/// The one object in these bytes.
pub(super) fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    let mut left = MAX_NATS_JSON_VALUES;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0, left: &mut left }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    match value {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

struct Strict<'a> {
    depth: usize,
    left: &'a mut usize,
}

impl Strict<'_> {
    fn inner<E: serde::de::Error>(&mut self) -> Result<Strict<'_>, E> {
        if self.depth >= MAX_NATS_JSON_DEPTH {
            return Err(E::custom("nested too deep"));
        }
        Ok(Strict { depth: self.depth + 1, left: self.left })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        *self.left = self.left.checked_sub(1).ok_or_else(|| D::Error::custom("too many values"))?;
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

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = access.next_element_seed(self.inner()?)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom("a key is there twice"));
            }
            let value = access.next_value_seed(self.inner()?)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_was_written() {
        let text = r#"{"a":[1,-2,1.5,null,true,"x\u00e4"],"b":{"c":{}}}"#;
        let read = object(text.as_bytes()).unwrap();
        assert_eq!(Value::Object(read), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn a_key_twice_is_refused_at_every_depth_however_it_is_spelled() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"b":[{"a":1,"a":2}]}"#, r#"{"a":1,"\u0061":1}"#, r#"{"x":{"":0,"":0}}"#] {
            assert!(object(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn other_values_and_more_than_one_are_refused() {
        for text in ["", "[]", "1", "null", "{}{}", "{} x", "{", "{\"a\":}", "{\"a\":1e999}", "{'a':1}", "{\"a\":NaN}"]
        {
            assert!(object(text.as_bytes()).is_none(), "{text}");
        }
        assert!(object(b"\xff{}").is_none() && object(b" {} \n").is_some());
    }

    #[test]
    fn sixteen_levels_pass_and_one_more_is_refused() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        // The object is a level itself.
        assert!(object(nested(MAX_NATS_JSON_DEPTH - 1).as_bytes()).is_some());
        assert!(object(nested(MAX_NATS_JSON_DEPTH).as_bytes()).is_none());
    }

    #[test]
    fn the_most_values_pass_and_one_more_is_refused() {
        let many = |count: usize| format!("{{\"a\":[{}]}}", vec!["0"; count].join(","));
        assert!(object(many(MAX_NATS_JSON_VALUES - 2).as_bytes()).is_some());
        assert!(object(many(MAX_NATS_JSON_VALUES - 1).as_bytes()).is_none());
    }
}
