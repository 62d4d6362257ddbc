//! A real SPIRE as the site's authority. Needs Go the first time; skipped loudly without it.

use portcullis_tests::spire::{Spire, TRUST_DOMAIN};
use spiffe::WorkloadApiClient;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_spire_gives_a_registered_process_its_identity_and_an_unregistered_one_none() {
    let test = "the_control_spire_gives_a_registered_process_its_identity_and_an_unregistered_one_none";
    let Some(spire) = tokio::task::spawn_blocking(move || Spire::start(test)).await.unwrap() else { return };
    let client = WorkloadApiClient::connect_to(spire.workload_api()).await.unwrap();
    let refused = client.fetch_x509_svid().await.unwrap_err();
    assert!(refused.to_string().to_lowercase().contains("no identity issued"), "{refused}");
    spire.register_this_user("/control");
    let svid = loop {
        match client.fetch_x509_svid().await {
            Ok(svid) => break svid,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
        }
    };
    assert_eq!(svid.spiffe_id().to_string(), format!("spiffe://{TRUST_DOMAIN}/control"));
}
