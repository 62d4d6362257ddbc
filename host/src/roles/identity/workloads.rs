//! The runtime's socket: SVIDs, signatures and checks for instances that the supervisor admitted.

use std::pin::Pin;
use std::sync::Arc;

use portcullis_identity::rpc::workloads_server::Workloads;
use portcullis_identity::rpc::{
    BundleUpdate, ExportX509Reply, ExportX509Request, FederatedBundle, FetchX509SvidReply, FetchX509SvidRequest,
    MintJwtSvidReply, MintJwtSvidRequest, SignDataReply, SignDataRequest, SignHandshakeReply, SignHandshakeRequest,
    ValidateJwtSvidReply, ValidateJwtSvidRequest, WatchBundleRequest, export_x509_reply, fetch_x509_svid_reply,
    mint_jwt_svid_reply, sign_data_reply, sign_handshake_reply, validate_jwt_svid_reply,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::keeper::{Keeper, Stop};
use super::publishing::Published;

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

    async fn sign_data(&self, request: Request<SignDataRequest>) -> Result<Response<SignDataReply>, Status> {
        let result = match self.0.sign_data(request.into_inner()).await {
            Ok(signed) => sign_data_reply::Result::Ok(signed),
            Err(Stop::Denied(denied)) => sign_data_reply::Result::Denied(denied),
            Err(Stop::Failed(failed)) => sign_data_reply::Result::Failed(failed),
        };
        Ok(Response::new(SignDataReply { result: Some(result) }))
    }

    async fn export_x509(&self, request: Request<ExportX509Request>) -> Result<Response<ExportX509Reply>, Status> {
        let result = match self.0.export_x509(request.into_inner()).await {
            Ok(exported) => export_x509_reply::Result::Ok(exported),
            Err(Stop::Denied(denied)) => export_x509_reply::Result::Denied(denied),
            Err(Stop::Failed(failed)) => export_x509_reply::Result::Failed(failed),
        };
        Ok(Response::new(ExportX509Reply { result: Some(result) }))
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
        let stream = futures::stream::unfold(self.0.published(), |mut states| async move {
            states.changed().await.ok()?;
            let update = update(&states.borrow_and_update());
            Some((Ok(update), states))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

fn update(state: &Published) -> BundleUpdate {
    let foreign = state.bundles.foreign().map(|document| FederatedBundle {
        trust_domain: document.trust_domain().to_string(),
        bundle_json: document.json().to_owned(),
    });
    BundleUpdate {
        bundle_json: state.bundles.own().json().to_owned(),
        sequence: state.sequence,
        federated: foreign.collect(),
        svid_epoch: state.svid_epoch,
        revoked: state.revoked.spiffe_ids.iter().map(ToString::to_string).collect(),
        revoked_instances: state.revoked.instances.iter().cloned().collect(),
    }
}
