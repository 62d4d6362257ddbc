//! The runtime's socket: SVIDs, signatures and checks for instances that the supervisor admitted.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use portcullis_identity::rpc::workloads_server::Workloads;
use portcullis_identity::rpc::{
    BundleUpdate, FetchX509SvidReply, FetchX509SvidRequest, MintJwtSvidReply, MintJwtSvidRequest, SignHandshakeReply,
    SignHandshakeRequest, ValidateJwtSvidReply, ValidateJwtSvidRequest, WatchBundleRequest, fetch_x509_svid_reply,
    mint_jwt_svid_reply, sign_handshake_reply, validate_jwt_svid_reply,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::keeper::{Keeper, Stop};

/// The service for the runtime process.
#[derive(Clone)]
pub(super) struct ForRuntime(pub(super) Arc<Keeper>);

#[tonic::async_trait]
impl Workloads for ForRuntime {
    async fn mint_jwt_svid(&self, request: Request<MintJwtSvidRequest>) -> Result<Response<MintJwtSvidReply>, Status> {
        let result = match self.0.mint_jwt(request.into_inner()).await {
            Ok(svid) => mint_jwt_svid_reply::Result::Ok(svid),
            Err(Stop::Denied(denied)) => mint_jwt_svid_reply::Result::Denied(denied),
            Err(Stop::Failed(failed)) => mint_jwt_svid_reply::Result::Failed(failed),
        };
        Ok(Response::new(MintJwtSvidReply { result: Some(result) }))
    }

    async fn fetch_x509_svid(
        &self,
        request: Request<FetchX509SvidRequest>,
    ) -> Result<Response<FetchX509SvidReply>, Status> {
        let result = match self.0.mint_x509(request.into_inner()).await {
            Ok(svid) => fetch_x509_svid_reply::Result::Ok(svid),
            Err(Stop::Denied(denied)) => fetch_x509_svid_reply::Result::Denied(denied),
            Err(Stop::Failed(failed)) => fetch_x509_svid_reply::Result::Failed(failed),
        };
        Ok(Response::new(FetchX509SvidReply { result: Some(result) }))
    }

    async fn sign_handshake(
        &self,
        request: Request<SignHandshakeRequest>,
    ) -> Result<Response<SignHandshakeReply>, Status> {
        let result = match self.0.sign(request.into_inner()).await {
            Ok(signature) => sign_handshake_reply::Result::Signature(signature),
            Err(Stop::Denied(denied)) => sign_handshake_reply::Result::Denied(denied),
            Err(Stop::Failed(failed)) => sign_handshake_reply::Result::Failed(failed),
        };
        Ok(Response::new(SignHandshakeReply { result: Some(result) }))
    }

    async fn validate_jwt_svid(
        &self,
        request: Request<ValidateJwtSvidRequest>,
    ) -> Result<Response<ValidateJwtSvidReply>, Status> {
        let result = match self.0.validate(request.into_inner()).await {
            Ok(claims) => validate_jwt_svid_reply::Result::Ok(claims),
            Err(Stop::Denied(denied)) => validate_jwt_svid_reply::Result::Denied(denied),
            Err(Stop::Failed(failed)) => validate_jwt_svid_reply::Result::Failed(failed),
        };
        Ok(Response::new(ValidateJwtSvidReply { result: Some(result) }))
    }

    type WatchBundleStream = Pin<Box<dyn Stream<Item = Result<BundleUpdate, Status>> + Send>>;

    async fn watch_bundle(&self, _: Request<WatchBundleRequest>) -> Result<Response<Self::WatchBundleStream>, Status> {
        let keeper = Arc::clone(&self.0);
        let stream = futures::stream::unfold((keeper, None), |(keeper, seen)| async move {
            loop {
                let (sequence, bundle_json) = match keeper.issuer() {
                    Ok(issuer) => {
                        let bundle = issuer.bundle();
                        (bundle.sequence(), bundle.to_json())
                    }
                    Err(_) => return None,
                };
                if seen != Some(sequence) {
                    let update = BundleUpdate { bundle_json, sequence };
                    return Some((Ok(update), (keeper, Some(sequence))));
                }
                tokio::time::sleep(BUNDLE_POLL).await;
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// How soon a change of the bundle is noticed.
const BUNDLE_POLL: Duration = Duration::from_millis(250);
