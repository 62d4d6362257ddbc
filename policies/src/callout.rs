//! Decides who may connect to NATS, into which account, with which subjects and for how long.
//!
//! Decides: by Cedar over checked facts, deny by default. The operator's roles are a short TOML form that is compiled to Cedar;
//! a role says *who* by an exact SPIFFE ID or by a template whose parts in braces become tokens of subjects.
//! Trusts: that [`ConnectFacts`] hold credentials that were checked, and an address that the server saw.
//! Refuses: whoever no role names, or two do; the default account always and the system account unless told; a part of a SPIFFE
//! ID that is no plain token (`[a-z0-9-]`) where a subject would get it; roles that open more than they say.
//!
//! | module | noun |
//! | --- | --- |
//! | [`who`](Who) | SPIFFE IDs and templates of them |
//! | [`subjects`](SubjectTemplate) | subjects with places to fill in |
//! | [`role`](Role) | `[[role]]`, read and linted |
//! | [`roles`](Roles) | the compiled set, and its decision |
//! | [`denial`](ConnectDenial) | why not, for the operator |

mod cedar;
mod denial;
mod facts;
mod role;
mod role_lint;
mod roles;
mod subjects;
mod who;

pub use denial::{ConnectCode, ConnectDenial};
pub use facts::{
    AccountName, AccountNameError, Accounts, ConnectFacts, ConnectionKind, ConnectionType, CredentialKind,
};
pub use role::{Responses, Role};
pub use roles::{Placement, Roles, SubscribeRight};
pub use subjects::{QueueName, SubjectTemplate, TemplateError};
pub use who::{Captures, Who, WhoError};
