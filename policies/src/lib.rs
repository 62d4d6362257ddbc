//! Decides what a component may do: load, link, send, connect, get an SVID, be called. Pure: no tokio, no sockets, no clock.
//!
//! Decides: every action by Cedar, deny by default, over one slice of policies for each component; then gives a [`Grant`]
//! that only this crate can make, or a [`Denial`] that says who, what, why, the nearest grant and the fix.
//! Trusts: that [`ComponentFacts`] come from verified claims and that an address it is asked about is the one dialled.
//! Refuses: whatever is not granted, whatever a guard forbids whoever granted it, whatever it cannot decide.
//!
//! | module | noun |
//! | --- | --- |
//! | [`destination`], [`address`], [`interface`], [`workload`], [`subject`], [`resource`] | canonical types, parsed once |
//! | [`component`] | what the host knows of a component, an image, a caller |
//! | [`grants`], [`edit`] | the operator's TOML, and minimal additions to it |
//! | [`source`], [`lint`] | policy texts, and what is demanded of raw Cedar |
//! | [`shipped`] | schema, guards and baseline, as Cedar text |
//! | [`engine`], [`mod@slice`] | the compiled set, and one component's part of it |
//! | [`grant`], [`denial`] | the two outcomes |
//! | [`control`] | what operators may do to hosts |
//! | [`question`] | a question as a value, to be asked again |
//! | [`known`] | what is known of a component, and answers where not all is |
//! | [`matrix`], [`mod@compare`], [`cases`] | everybody's questions; what a change changes; expected answers |
//! | [`mod@learn`] | the grants that were missing |
//! | [`nats_server`] | what a NATS server's configuration says, and what in it is dangerous |
//! | [`callout`] | who may connect to NATS, into which account, with which subjects |

pub mod address;
mod allowed;
mod asked;
pub mod callout;
pub mod cases;
pub mod compare;
pub mod component;
pub mod control;
mod decide;
pub mod denial;
pub mod destination;
pub mod edit;
pub mod engine;
pub mod grant;
pub mod grants;
pub mod interface;
pub mod known;
pub mod learn;
pub mod limits;
pub mod lint;
pub mod matrix;
pub mod nats_server;
mod nearest;
mod nesting;
mod parts;
mod permits;
pub mod question;
mod remembered;
pub mod resource;
pub mod shipped;
mod shown;
pub mod slice;
pub mod source;
pub mod subject;
mod terms;
#[cfg(test)]
mod testing;
#[cfg(feature = "bench-ungated")]
mod ungated;
mod widening;
pub mod workload;
mod written;

pub use address::{AddressClass, AddressRange, classify};
pub use cases::{Cases, CasesError, Checked};
pub use compare::{Change, Comparison, Recorded, compare};
pub use component::{Caller, ComponentFacts, ImageFacts};
pub use control::{
    ControlDenial, ControlGrant, ControlQuestion, Operator, OperatorEdit, add_operator, permits_control,
};
pub use denial::{Code, Denial, DenialKind, FixContext};
pub use destination::{Destination, DestinationError, DnsName, Host, Scheme};
pub use edit::{EditError, GrantEdit, add_grant};
pub use engine::{PolicySet, Summary};
pub use grant::{
    AskFor, Call, Grant, HttpConnect, HttpSend, Identity, IdentityAction, Link, Load, Publish, Subscribe, SvidJwt,
    SvidSign, SvidX509,
};
pub use grants::{ControlAction, OperatorEntry, is_host_name};
pub use interface::{InterfaceName, is_component_name};
pub use known::{Asker, Fact, Known, Sure, not_known};
pub use learn::{Addition, LearnError, Learned, Left, Observed, learn, learn_imports};
pub use matrix::Matrix;
pub use question::{Answer, Outcome, Question};
pub use resource::{Bucket, FilePath, NameError, SecretName};
pub use slice::Slice;
pub use source::{LoadError, LoadErrors, Source, SourceKind};
pub use subject::{Subject, SubjectError, SubjectPattern};
pub use widening::Widening;
pub use workload::WorkloadId;
