//! What goes with an allow besides being allowed: the peer that must answer, how long a token may live.

use crate::destination::Destination;
use crate::limits::JWT_TTL_MOST;
use crate::question::Question;
use crate::slice::Slice;

/// The demands of the policies that allow something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    peer: Option<String>,
    ttl: Option<u64>,
}

impl Terms {
    /// Those of a question that a slice allows.
    pub(crate) fn of(question: &Question, slice: &Slice) -> Self {
        match question {
            Question::HttpSend { destination, method } | Question::HttpConnect { destination, method, .. } => {
                let send = Destination::parse_url(destination).ok().and_then(|to| slice.http_send(&to, method).ok());
                Self { peer: send.and_then(|send| send.peer().map(ToOwned::to_owned)), ttl: None }
            }
            Question::SvidJwt { audience, .. } => {
                let most = slice.svid_jwt(audience, JWT_TTL_MOST).ok().map(|grant| grant.ttl_secs());
                Self { peer: None, ttl: most }
            }
            _ => Self::default(),
        }
    }

    /// In words, none where nothing is demanded.
    pub(crate) fn text(&self) -> Option<String> {
        match (&self.peer, self.ttl) {
            (Some(peer), _) => Some(format!("peer {peer}")),
            (None, Some(ttl)) => Some(format!("up to {ttl} s")),
            (None, None) => None,
        }
    }

    /// What allows more than before, in words.
    pub(crate) fn wider_than(&self, before: &Self) -> Option<String> {
        let text = |terms: &Self| terms.text().unwrap_or_else(|| "no peer demanded".to_owned());
        let peer = before.peer.is_some() && self.peer != before.peer;
        let ttl = self.ttl.is_some_and(|now| before.ttl.is_none_or(|then| now > then));
        (peer || ttl).then(|| format!("{}, before: {}", text(self), text(before)))
    }
}
