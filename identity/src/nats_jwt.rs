//! NATS JWTs, version 2: what servers ask an auth callout, what it answers, and the tokens of users, accounts and operators.
//!
//! Decides whether a token is one (one form, one header, one signature by the key that it names, of the kind that its type
//! demands) and makes those of ours. Trusts nothing about who the issuer is: a valid token proves only that somebody holds the
//! key it names, and the caller compares that key. Refuses version 1, every other header, keys twice in one object, whatever
//! is too large. A token for a user cannot be made without an end, nor without saying exactly what may be published and
//! subscribed to: an absent list would mean everything.
//!
//! Written here because no published codec reads what real servers send and demands what a reader must.

mod account;
mod creds;
mod names;
mod operator;
mod permissions;
#[cfg(test)]
mod properties;
mod request;
mod response;
mod signer;
mod strict_json;
mod subject;
mod token;
mod unsigned;
mod user;
mod verified;

pub use account::{AccountToken, CalloutBlock, JetStreamLimits, SigningKey};
pub use creds::{Creds, CredsError};
pub use names::{AccountName, NameError, Tag, UserName};
pub use operator::OperatorToken;
pub use permissions::{Permissions, Responses, Subscription, TooMany};
pub use request::{Client, ConnectOptions, Request, Server, Tls};
pub use response::{Denial, Outcome, Response};
pub use signer::{AccountSigner, SignerError};
pub use subject::{Queue, Subject, SubjectError, SubjectTemplate};
pub use token::{NatsJwtError, TokenType};
pub use user::{Rights, UserToken};
pub use verified::Verified;
