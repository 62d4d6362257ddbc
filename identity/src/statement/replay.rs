//! What was used already: each statement is good once, and those that change something only in their order.
//!
//! A window of what was accepted, until it expires by itself. It begins when the process does: what could have been accepted
//! before that is refused where it would change something. Bounded for each signer and in all; when it is full, nothing more is
//! accepted, because nothing more could be told apart from a replay.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use time::OffsetDateTime;

use super::check::Statement;
use super::error::StatementError;
use super::jti::Jti;
use super::signers::Signer;
use crate::limits::{LONGEST_REQUEST, MAX_REPLAY, MAX_REPLAY_PER_SIGNER, MAX_REPLAY_SIGNERS, STATEMENT_CLOCK_SKEW};

/// What a statement is to be accepted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It asks only: good once, in any order.
    Any,
    /// It changes something: good once, and only after all that were accepted of this signer before.
    Newest,
}

/// The window.
#[derive(Debug)]
pub struct Replay {
    since: i64,
    /// The latest time that was seen: a clock that is set back makes nothing valid again.
    latest: i64,
    signers: HashMap<Signer, Used>,
    /// When each ends, so that it is forgotten then.
    ends: BTreeMap<i64, Vec<(Signer, Jti)>>,
    held: usize,
}

#[derive(Debug, Default)]
struct Used {
    names: BTreeSet<Jti>,
    newest: Option<Jti>,
}

impl Replay {
    /// An empty window that begins now.
    pub fn new(now: OffsetDateTime) -> Self {
        let since = now.unix_timestamp();
        Self { since, latest: since, signers: HashMap::new(), ends: BTreeMap::new(), held: 0 }
    }

    /// Accepts a statement, once.
    pub fn accept(&mut self, statement: &Statement, order: Order, now: OffsetDateTime) -> Result<(), StatementError> {
        self.latest = self.latest.max(now.unix_timestamp());
        self.forget();
        let skew = seconds(STATEMENT_CLOCK_SKEW);
        if statement.expires_at().saturating_add(skew) <= self.latest {
            return Err(StatementError::Expired);
        }
        // A clock that was ahead by the skew could have had this accepted before the window was opened.
        if order == Order::Newest && statement.issued_at() <= self.since.saturating_add(skew) {
            return Err(StatementError::BeforeWindow);
        }
        let (signer, jti) = (statement.signer(), statement.jti());
        if let Some(used) = self.signers.get(signer) {
            if used.names.contains(&jti) {
                return Err(StatementError::Replayed);
            }
            if order == Order::Newest && used.newest.is_some_and(|newest| jti < newest) {
                return Err(StatementError::Reordered);
            }
            if used.names.len() >= MAX_REPLAY_PER_SIGNER {
                return Err(StatementError::WindowFull);
            }
        } else if self.signers.len() >= MAX_REPLAY_SIGNERS {
            return Err(StatementError::WindowFull);
        }
        if self.held >= MAX_REPLAY {
            return Err(StatementError::WindowFull);
        }
        let used = self.signers.entry(signer.clone()).or_default();
        used.names.insert(jti);
        if order == Order::Newest {
            used.newest = Some(jti);
        }
        // As long as anything that is older than this one could still be valid.
        let longest = statement.issued_at().saturating_add(seconds(LONGEST_REQUEST));
        let end = statement.expires_at().max(longest).saturating_add(skew);
        self.ends.entry(end).or_default().push((signer.clone(), jti));
        self.held += 1;
        Ok(())
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Forgets what would be refused as expired anyway.
    fn forget(&mut self) {
        let latest = self.latest;
        while let Some(first) = self.ends.first_entry().filter(|first| *first.key() <= latest) {
            for (signer, jti) in first.remove() {
                self.held = self.held.saturating_sub(1);
                let Some(used) = self.signers.get_mut(&signer) else { continue };
                used.names.remove(&jti);
                // None that is older than what is forgotten is valid any more, so its place in the order is not needed either.
                if used.names.is_empty() {
                    self.signers.remove(&signer);
                }
            }
        }
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
