//! The claims of a JWT-SVID as a `google.protobuf.Struct`, for the answer of `ValidateJWTSVID`. Only for tokens whose signature
//! was verified. `aud` is a list there, however the token has it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::Value as Json;

use super::refusal::Refusal;
use crate::jwt_check::TokenError;

/// The claims of a compact JWS.
pub(super) fn claims_of(token: &str) -> Result<Struct, Refusal> {
    let malformed = || Refusal::Token(TokenError::Malformed("its claims"));
    let payload = token.split('.').nth(1).ok_or_else(malformed)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| malformed())?;
    // Bounded by the size of a token and the parser's own limit of depth.
    let Json::Object(claims) = serde_json::from_slice(&payload).map_err(|_| malformed())? else {
        return Err(malformed());
    };
    let fields = claims.into_iter().map(|(name, value)| {
        let value = match (name.as_str(), value) {
            ("aud", Json::String(one)) => Json::Array(vec![Json::String(one)]),
            (_, value) => value,
        };
        (name, converted(value))
    });
    Ok(Struct { fields: fields.collect() })
}

fn converted(value: Json) -> Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(bool) => Kind::BoolValue(bool),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.into_iter().map(converted).collect() }),
        Json::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, converted(value)));
            Kind::StructValue(Struct { fields: fields.collect() })
        }
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(claims: &Json) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn every_claim_is_there_and_aud_is_a_list() {
        let claims = claims_of(&token(&json!({"aud": "a", "exp": 12, "x": {"y": [null, true, 1.5]}}))).unwrap();
        let list = |values| Value { kind: Some(Kind::ListValue(ListValue { values })) };
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        assert_eq!(claims.fields.get("aud"), Some(&list(vec![text("a")])));
        assert_eq!(claims.fields.get("exp"), Some(&Value { kind: Some(Kind::NumberValue(12.0)) }));
        assert!(matches!(claims.fields.get("x"), Some(Value { kind: Some(Kind::StructValue(_)) })));
        let both = claims_of(&token(&json!({"aud": ["a", "b"]}))).unwrap();
        assert_eq!(both.fields.get("aud"), Some(&list(vec![text("a"), text("b")])));
    }

    #[test]
    fn what_is_no_token_has_no_claims() {
        for text in ["", "a", "a.%%.c", "a.e30x.c", &token(&json!([1]))] {
            assert!(claims_of(text).is_err(), "{text}");
        }
    }
}
