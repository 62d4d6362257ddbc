//! The SPIFFE checklist as a suite, run against any Workload API socket: our own host, SPIRE as the control that tells a wrong
//! test from a wrong server, and whatever `SPIFFE_CONFORMANCE_SOCKET` names.
//!
//! Each item of the standard is a test with its number as its name. What is asked is asked once for each server; the items
//! are judged from that. `docs/spiffe-conformance.md` is the table that comes out, made anew and compared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    reason = "a broken test must stop"
)]

mod checks;
mod clients;
mod evidence;
mod foreign;
mod item;
mod items;
mod subjects;
mod table;
mod wire;

use evidence::Evidence;
use item::Outcome;
use items::ITEMS;

/// The host under test.
mod portcullis {
    crate::items::tests_of!(crate::subjects::portcullis);
}

/// SPIRE, where it can be had: the control.
mod spire {
    crate::items::tests_of!(crate::subjects::spire);
}

/// The socket that the environment names, if it does.
mod elsewhere {
    crate::items::tests_of!(crate::subjects::elsewhere);
}

/// Judges one item; without a subject there is nothing to judge, and the subject has said why.
fn judge(subject: Option<&'static Evidence>, id: &str) {
    let Some(evidence) = subject else { return };
    let item = ITEMS.iter().find(|item| item.id == id).expect("an item has a line in the checklist");
    match (item.check)(evidence) {
        Outcome::Pass | Outcome::Elsewhere(_) => {}
        Outcome::NotApplicable(why) => eprintln!("{} {id}: not applicable: {why}", evidence.name),
        Outcome::Fail(why) => match subjects::known(evidence.name, id) {
            Some(known) => eprintln!("{} {id}: {why}\nknown: {known}", evidence.name),
            None => panic!("{} {id} ({}): {}: {why}", evidence.name, item.clause, item.what),
        },
    }
}
