//! What holds for every token that can be made, tried with many: random, from a seed that is printed where it fails.

use std::time::Duration;

use portcullis_nkey::{KeyPair, Kind};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    AccountName, AccountSigner, Outcome, Permissions, Response, Responses, Rights, Subject, SubjectTemplate,
    Subscription, Tag, TokenType, UserName, UserToken, Verified,
};

/// xorshift64*: the same sequence for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % end
    }

    fn text(&mut self, alphabet: &[char], most: usize) -> String {
        (0..self.below(most + 1)).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

/// What a server would take for a subject with other rights than the text shows, said in other words than the parser's.
fn is_harmless(text: &str) -> bool {
    let tokens: Vec<&str> = text.split('.').collect();
    let last = tokens.len() - 1;
    !text.contains(|c: char| c.is_whitespace() || c.is_control() || !c.is_ascii())
        && tokens.iter().enumerate().all(|(at, token)| match *token {
            "" => false,
            "*" => true,
            ">" => at == last,
            other => !other.contains('*') && !other.contains('>'),
        })
}

#[test]
fn no_accepted_subject_means_more_than_it_shows() {
    let alphabet: Vec<char> = "ab.*> \n\t{}()tgä$_-\u{0}".chars().collect();
    let (mut random, mut taken) = (Random(7), 0);
    for round in 0..200_000 {
        let text = random.text(&alphabet, 8);
        if let Ok(subject) = text.parse::<Subject>() {
            taken += 1;
            assert!(is_harmless(&text) && subject.as_str() == text && !text.contains('{'), "{round}: {text:?}");
        }
        if let Ok(template) = text.parse::<SubjectTemplate>() {
            assert!(is_harmless(template.as_str()), "{round}: {text:?}");
        }
        if let Ok(tag) = Tag::new("host", &text) {
            // Filled in anywhere, it is one token or a part of one.
            let filled = format!("lat.{}.x", tag.value());
            assert!(filled.parse::<Subject>().is_ok() && filled.split('.').count() == 3, "{round}: {text:?}");
        }
        if let Ok(name) = text.parse::<AccountName>() {
            assert!(!name.as_str().starts_with('$'), "{round}");
        }
        if let Ok(name) = text.parse::<UserName>() {
            assert!(!name.as_str().contains(['%', ' ', '\n']), "{round}");
        }
    }
    assert!(taken > 1_000, "the alphabet hardly makes subjects: {taken}");
}

#[test]
fn every_users_token_ends_and_says_exactly_what_was_decided() {
    let mut random = Random(11);
    let account = KeyPair::generate(Kind::Account).unwrap();
    let (public, user) = (account.public(), KeyPair::generate(Kind::User).unwrap().public());
    let own = AccountSigner::account(account).unwrap();
    let signing = AccountSigner::signing_key(KeyPair::generate(Kind::Account).unwrap(), public).unwrap();
    for round in 0..300 {
        let subjects = |random: &mut Random| -> Vec<Subject> {
            (0..random.below(4))
                .map(|index| format!("s{index}.{}", ["a", "*", ">"][random.below(3)]).parse().unwrap())
                .collect()
        };
        let (publish, subscribe) = (subjects(&mut random), subjects(&mut random));
        let subscriptions: Vec<Subscription> = subscribe
            .iter()
            .map(|subject| Subscription {
                subject: subject.clone(),
                queue: (random.below(2) == 0).then(|| "q".parse().unwrap()),
            })
            .collect();
        let responses = (random.below(2) == 0).then(|| Responses::new(1, Duration::from_secs(1)));
        let permissions = Permissions::new(publish.clone(), subscriptions.clone(), responses).unwrap();
        let signer = if random.below(2) == 0 { &own } else { &signing };
        let life = 1 + random.below(100_000);
        let ends = now() + Duration::from_secs(life.try_into().unwrap());
        let token = UserToken::new(user, "a".parse().unwrap(), Rights::Explicit(permissions), ends).unwrap();
        let read = Verified::parse(&token.sign(signer, now()).unwrap(), TokenType::User).unwrap();
        assert_eq!(
            (read.expires_at(), read.subject(), read.issuer_account()),
            (Some(ends), user, Ok(public)),
            "{round}"
        );
        let listed =
            |texts: Vec<String>| if texts.is_empty() { json!({"deny": [">"]}) } else { json!({"allow": texts}) };
        let publish = listed(publish.iter().map(ToString::to_string).collect());
        let subscribe = subscriptions.iter().map(|one| match &one.queue {
            Some(queue) => format!("{} {queue}", one.subject),
            None => one.subject.to_string(),
        });
        let said = |name: &str| read.nats().get(name).cloned().unwrap_or(Value::Null);
        assert_eq!((said("pub"), said("sub")), (publish, listed(subscribe.collect())), "{round}");
        assert_eq!(said("resp").is_null(), responses.is_none(), "{round}");
        assert_eq!((said("bearer_token"), said("tags")), (Value::Null, Value::Null), "{round}");
    }
}

#[test]
fn answers_of_one_attempt_are_not_those_of_another() {
    let signer = AccountSigner::account(KeyPair::generate(Kind::Account).unwrap()).unwrap();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        let user = KeyPair::generate(Kind::User).unwrap().public();
        let server = KeyPair::generate(Kind::Server).unwrap().public();
        let token = Outcome::User("a.b.c").sign(&signer, user, server, now()).unwrap();
        let read = Response::parse(&token).unwrap();
        assert_eq!((read.user, read.server), (user, server));
        assert!(seen.insert(token));
    }
}
