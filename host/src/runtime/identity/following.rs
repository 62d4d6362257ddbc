//! Following what the identity process says about whom to trust, and making it so at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::trust::Unfit;
use super::{IdentityError, Renewed, unavailable};
use crate::rpc::runtime::{Failure, event::What};
use crate::runtime::component::Shared;
use crate::runtime::live::Cut;

/// Follows bundles, epoch and revocations over the present connection until that ends. After each change every live connection
/// is checked again; those that would not be made now are cut, and that is in the audit log. With a new epoch each SVID that is held
/// is asked for anew, whether somebody uses it or not: what is refused then takes its connections with it.
pub async fn follow(shared: &Arc<Shared>) -> Result<(), IdentityError> {
    let mut updates = shared.identity.updates().await?;
    // Ends with this connection to the identity process.
    let mut renewing = JoinSet::new();
    while let Some(update) = updates.message().await.map_err(unavailable)? {
        let own = Arc::clone(shared);
        // One after the other: an older view must not judge connections that a newer one let in.
        let reviewed = tokio::task::spawn_blocking(move || {
            let trust = own.identity.take(update)?;
            for cut in own.live.review(&trust, crate::clock::now()) {
                report(&own, &cut);
            }
            Ok::<(), String>(())
        })
        .await;
        match reviewed {
            Ok(Ok(())) => {
                renewing.abort_all();
                renewing.spawn(renew(Arc::clone(shared)));
                while renewing.try_join_next().is_some() {}
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the identity process sent a trust bundle that cannot be used; nobody is trusted until the next");
                shared.identity.distrust();
                for cut in shared.live.end_all(&Unfit::Unknown) {
                    report(shared, &cut);
                }
            }
            Err(error) => tracing::error!(%error, "live connections could not be checked again"),
        }
    }
    Ok(())
}

/// Asks for every SVID of an epoch that is over, until each was given or refused.
async fn renew(shared: Arc<Shared>) {
    loop {
        let mut unknown = false;
        for instance in shared.identity.overdue() {
            match shared.identity.renewed(&instance).await {
                Renewed::Held => {}
                Renewed::Refused(why) => {
                    tracing::warn!(instance, %why, "an identity is not given any more");
                    for cut in shared.live.end_of(&instance, &Unfit::OwnWithdrawn(why.to_string())) {
                        report(&shared, &cut);
                    }
                }
                Renewed::Unknown => unknown = true,
            }
        }
        if !unknown {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Pause before it is asked again where nobody said.
const AGAIN: Duration = Duration::from_secs(1);

fn report(shared: &Shared, cut: &Cut) {
    let (code, detail) = match cut.inbound {
        true => ("C0302", format!("a connection from {} was cut: {}", cut.peer, cut.why)),
        false => ("N0402", format!("a connection to {} was cut: {}", cut.peer, cut.why)),
    };
    tracing::warn!(instance = cut.instance, detail, "a live connection was cut");
    shared.events.report(&cut.instance, 0, code, What::Failure(Failure { kind: "mtls-cut".to_owned(), detail }));
}
