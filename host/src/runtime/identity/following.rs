//! Following what the identity process says about whom to trust, and making it so at once.

use std::sync::Arc;

use super::trust::Unfit;
use super::{IdentityError, unavailable};
use crate::rpc::runtime::{Failure, event::What};
use crate::runtime::component::Shared;
use crate::runtime::live::Cut;

/// Follows bundles, epoch and revocations over the present connection until that ends. After each change every live connection
/// is checked again; those that would not be made now are cut, and that is in the audit log.
pub async fn follow(shared: &Arc<Shared>) -> Result<(), IdentityError> {
    let mut updates = shared.identity.updates().await?;
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
            Ok(Ok(())) => {}
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

fn report(shared: &Shared, cut: &Cut) {
    let (code, detail) = match cut.inbound {
        true => ("C0302", format!("a connection from {} was cut: {}", cut.peer, cut.why)),
        false => ("N0402", format!("a connection to {} was cut: {}", cut.peer, cut.why)),
    };
    tracing::warn!(instance = cut.instance, detail, "a live connection was cut");
    shared.events.report(&cut.instance, 0, code, What::Failure(Failure { kind: "mtls-cut".to_owned(), detail }));
}
