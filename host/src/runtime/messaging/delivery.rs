//! One message that a component handles: what it may answer, and how often.
//!
//! An answer goes to the subject that came with the message, once, and needs no grant, if that subject is an inbox: whoever asks
//! makes one for the answer. Any other subject is the sender's choice, and a component is not to be talked into publishing where
//! it may not: there it needs a grant like any other message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_policies::{Grant, Subject, Subscribe};

/// A message at work.
#[derive(Debug)]
pub struct Delivery {
    under: Arc<Grant<Subscribe>>,
    inbox: Option<Subject>,
    answered: AtomicBool,
}

/// The right to answer, once.
#[derive(Debug)]
pub struct Answer(Subject);

impl Delivery {
    /// Delivered under a grant, with the subject for answers that it came with.
    pub fn new(under: Arc<Grant<Subscribe>>, reply: Option<&Subject>) -> Self {
        let inbox = reply.filter(|reply| reply.is_inbox()).cloned();
        Self { under, inbox, answered: AtomicBool::new(false) }
    }

    /// The grant that it was delivered under.
    pub fn under(&self) -> &Grant<Subscribe> {
        &self.under
    }

    /// The right to answer there; the first time, and only if there is where the answer goes.
    pub fn answer(&self, subject: &str) -> Option<Answer> {
        let inbox = self.inbox.as_ref().filter(|inbox| inbox.as_str() == subject)?;
        (!self.answered.swap(true, Ordering::AcqRel)).then(|| Answer(inbox.clone()))
    }
}

impl Answer {
    /// Where it goes.
    pub fn subject(&self) -> &Subject {
        &self.0
    }
}

/// The subject for answers, as a component is told: none where it could never answer there.
pub fn reply_of(text: Option<&str>) -> Option<Subject> {
    let reply: Subject = text?.parse().ok()?;
    (reply.is_inbox() || !reply.is_reserved()).then_some(reply)
}

#[cfg(test)]
mod tests {
    use portcullis_policies::{ComponentFacts, PolicySet, Source, SourceKind};

    use super::*;

    fn grant() -> Arc<Grant<Subscribe>> {
        let text = "version = 1\n[[grant]]\nid = \"g\"\nreason = \"r\"\nowner = \"o\"\ncomponent = \"demo:a\"\nsubscribe = [\"a\"]\n";
        let source = Source { name: "g".to_owned(), text: text.to_owned(), kind: SourceKind::Grants };
        let set = PolicySet::compile(&[source], 1).unwrap();
        let text = |text: &str| text.to_owned();
        let facts = ComponentFacts {
            name: text("demo:a"),
            digest: text("sha256:00"),
            spiffe_id: text("spiffe://demo.example/a"),
            signer: text("k"),
            signer_group: text("g"),
            instance: text("i"),
        };
        Arc::new(set.slice(&facts).subscribe("a", "").unwrap())
    }

    #[test]
    fn a_message_is_answered_once_and_only_where_it_came_from() {
        let reply: Subject = "_INBOX.abc.1".parse().unwrap();
        let delivery = Delivery::new(grant(), Some(&reply));
        assert!(delivery.answer("_INBOX.abc.2").is_none());
        assert_eq!(delivery.answer("_INBOX.abc.1").unwrap().subject(), &reply);
        assert!(delivery.answer("_INBOX.abc.1").is_none());
        assert!(Delivery::new(grant(), None).answer("").is_none());
    }

    #[test]
    fn the_senders_choice_of_another_subject_gives_no_right_to_it() {
        for text in ["orders.paid", "$JS.API.STREAM.DELETE.x", "portcullis.test.ctl.h1.start"] {
            let reply: Subject = text.parse().unwrap();
            assert!(Delivery::new(grant(), Some(&reply)).answer(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_subject_that_is_nobodys_is_not_even_told() {
        for text in ["$JS.ACK.a.b", "portcullis.x", "a b", "a.*", ">", "", "a..b", "_INBOX.a.>"] {
            assert_eq!(reply_of(Some(text)), None, "{text:?}");
        }
        assert_eq!(reply_of(None), None);
        for text in ["_INBOX.a.b", "_INBOX_x.y", "orders.paid"] {
            assert_eq!(reply_of(Some(text)).unwrap().as_str(), text);
        }
    }
}
