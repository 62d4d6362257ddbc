//! JWT-SVIDs that the identity process gave and that are good for another while: a guest that asks again need not wait for it.
//!
//! A token is given out again only under the very generation of policy that granted it, in the epoch of SVIDs that it was made in,
//! to the instance and for the audiences that it was made for, until half of the life that it came with. Whatever changes any
//! of that forgets it. Nothing here grants anything.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;

use time::OffsetDateTime;

use crate::limits::TOKENS_EACH;

/// A token as it was given.
#[derive(Clone)]
pub struct Token {
    /// JWS compact serialization.
    pub token: String,
    /// The `sub` claim.
    pub spiffe_id: String,
    /// The `exp` claim, Unix seconds.
    pub expires_at: i64,
    /// The generation of policy that granted it.
    pub generation: u64,
    /// The epoch of SVIDs that it belongs to.
    pub epoch: u64,
}

/// All tokens that are kept, by instance and audiences.
#[derive(Default)]
pub struct Tokens {
    kept: Mutex<HashMap<String, HashMap<Vec<String>, (Token, OffsetDateTime)>>>,
}

/// Audiences as a key: order and repetition do not matter.
pub fn key(audiences: &[String]) -> Vec<String> {
    let mut key = audiences.to_vec();
    key.sort_unstable();
    key.dedup();
    key
}

impl Tokens {
    /// The token for these audiences, if there is one that may be given out again.
    pub fn get(
        &self,
        instance: &str,
        key: &[String],
        generation: u64,
        epoch: u64,
        now: OffsetDateTime,
    ) -> Option<Token> {
        let kept = self.kept.lock().ok()?;
        let (token, until) = kept.get(instance)?.get(key)?;
        let good = token.generation == generation && token.epoch == epoch && now < *until;
        good.then(|| token.clone())
    }

    /// Keeps a token.
    pub fn put(&self, instance: &str, key: Vec<String>, token: Token, now: OffsetDateTime) {
        let Ok(end) = OffsetDateTime::from_unix_timestamp(token.expires_at) else { return };
        let until = now + (end - now) / 2;
        let Ok(mut kept) = self.kept.lock() else { return };
        let own = kept.entry(instance.to_owned()).or_default();
        if own.len() >= TOKENS_EACH && !own.contains_key(&key) {
            own.retain(|_, (_, until)| now < *until);
            if own.len() >= TOKENS_EACH {
                own.clear();
            }
        }
        own.insert(key, (token, until));
    }

    /// Forgets those of an instance.
    pub fn forget(&self, instance: &str) {
        if let Ok(mut kept) = self.kept.lock() {
            kept.remove(instance);
        }
    }

    /// Forgets all.
    pub fn clear(&self) {
        if let Ok(mut kept) = self.kept.lock() {
            kept.clear();
        }
    }

    fn len(&self) -> usize {
        self.kept.lock().map(|kept| kept.values().map(HashMap::len).sum()).unwrap_or_default()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("kept", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_000_000 + seconds).unwrap()
    }

    fn token(text: &str) -> Token {
        Token {
            token: text.to_owned(),
            spiffe_id: "spiffe://example.org/a".to_owned(),
            expires_at: 1_000_300,
            generation: 7,
            epoch: 3,
        }
    }

    fn audiences(names: &[&str]) -> Vec<String> {
        key(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_token_is_given_again_for_the_same_audiences_in_any_order_until_half_its_life() {
        let tokens = Tokens::default();
        tokens.put("i", audiences(&["b", "a", "a"]), token("t"), at(0));
        let get = |instance: &str, names: &[&str], generation, epoch, now| {
            tokens.get(instance, &audiences(names), generation, epoch, now).map(|token| token.token)
        };
        assert_eq!(get("i", &["a", "b"], 7, 3, at(149)).as_deref(), Some("t"));
        assert_eq!(get("i", &["a", "b"], 7, 3, at(150)), None, "half its life");
        assert_eq!(get("i", &["a"], 7, 3, at(0)), None, "fewer audiences");
        assert_eq!(get("i", &["a", "b", "c"], 7, 3, at(0)), None, "more audiences");
        assert_eq!(get("j", &["a", "b"], 7, 3, at(0)), None, "another instance");
        assert_eq!(get("i", &["a", "b"], 8, 3, at(0)), None, "another generation of policy");
        assert_eq!(get("i", &["a", "b"], 6, 3, at(0)), None, "an older generation of policy");
        assert_eq!(get("i", &["a", "b"], 7, 4, at(0)), None, "another epoch");
    }

    #[test]
    fn what_is_forgotten_is_gone() {
        let tokens = Tokens::default();
        for instance in ["i", "j"] {
            tokens.put(instance, audiences(&["a"]), token(instance), at(0));
        }
        tokens.forget("i");
        assert!(tokens.get("i", &audiences(&["a"]), 7, 3, at(0)).is_none());
        assert!(tokens.get("j", &audiences(&["a"]), 7, 3, at(0)).is_some());
        tokens.clear();
        assert_eq!(tokens.len(), 0);
    }

    #[test]
    fn one_instance_keeps_a_bounded_number_and_takes_no_room_of_others() {
        let tokens = Tokens::default();
        tokens.put("other", audiences(&["a"]), token("other"), at(0));
        for n in 0..TOKENS_EACH * 3 {
            tokens.put("i", audiences(&[&n.to_string()]), token(&n.to_string()), at(0));
            assert!(tokens.len() <= TOKENS_EACH + 1, "{}", tokens.len());
            let kept = tokens.get("i", &audiences(&[&n.to_string()]), 7, 3, at(0));
            assert_eq!(kept.unwrap().token, n.to_string(), "the newest is kept");
        }
        assert!(tokens.get("other", &audiences(&["a"]), 7, 3, at(0)).is_some());
    }

    #[test]
    fn no_token_is_ever_printed() {
        let tokens = Tokens::default();
        tokens.put("i", audiences(&["a"]), token("secret"), at(0));
        assert_eq!(format!("{tokens:?}"), "Tokens { kept: 1 }");
    }
}
