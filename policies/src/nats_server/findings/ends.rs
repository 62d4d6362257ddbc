//! What stops working by itself: JWTs of the file that end.

use serde_json::Value;

use super::super::preload;
use super::super::value::Entry;
use super::{Level, Look};
use crate::limits::SERVER_END_DAYS;

impl Look<'_> {
    /// Says that a JWT has ended, or ends soon.
    pub(super) fn end(&mut self, what: &str, entry: &Entry, claims: &Value, hint: &'static str) {
        let Some((now, end)) =
            self.context.now.zip(claims.get("exp").and_then(Value::as_i64)).filter(|(_, end)| *end > 0)
        else {
            return;
        };
        let days = end.saturating_sub(now).div_euclid(86_400);
        if end <= now {
            let reason = format!("{what} has ended: nobody gets in by it");
            self.danger("jwt.ended", Some(entry), reason, hint);
        } else if days < SERVER_END_DAYS {
            let reason = format!("{what} ends in {days} days");
            self.add(Level::Note, "jwt.ends", Some(entry), reason, hint);
        }
    }

    /// The user whom everybody is who shows no JWT, until the callout has decided.
    pub(super) fn sentinel(&mut self, callouts: &[String]) {
        let Some(entry) = self.config.entry(&["default_sentinel"]) else { return };
        let Some(claims) = entry.value.as_text().and_then(preload::claims) else {
            let reason = "default_sentinel is no user's JWT that can be read";
            self.danger("operator.sentinel", Some(entry), reason, "give it the JWT of a user of the callout account");
            return;
        };
        let hint = "make a user of the callout account that is denied everything (`portcullis callout init` does)";
        let text = |pointer: &str| claims.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        let account = text("/nats/issuer_account").or_else(|| text("/iss")).unwrap_or_default();
        if !callouts.is_empty() && !callouts.iter().any(|callout| callout == account) {
            let reason =
                "default_sentinel is a user of an account without a callout: whoever shows nothing becomes this user";
            self.danger("operator.sentinel", Some(entry), reason, hint);
        }
        let denied = |direction: &str| {
            let list = claims.pointer(&format!("/nats/{direction}/deny")).and_then(Value::as_array);
            list.is_some_and(|list| list.iter().any(|subject| subject.as_str() == Some(">")))
        };
        if !denied("pub") || !denied("sub") {
            let reason = "default_sentinel may do something: everybody has its JWT";
            self.danger("operator.sentinel", Some(entry), reason, hint);
        }
        self.end("default_sentinel", entry, &claims, "make a new one, and reload the server");
    }
}
