//! The supervisor's socket: admit, stop, policy, MACs, the self-check.

use std::pin::Pin;
use std::sync::Arc;

use portcullis_identity::KeyScan;
use portcullis_identity::rpc::authority_server::Authority;
use portcullis_identity::rpc::{
    AdmitReply, AdmitRequest, CacheMacReply, CacheMacRequest, DialWanted, Done, GetBundleReply, GetBundleRequest,
    MetricsReply, MetricsRequest, OperationReply, PushPolicyReply, PushPolicyRequest, RotateRequest, ScanChunk,
    ScanForKeysReply, SetRevokedReply, SetRevokedRequest, ShowReply, ShowRequest, StatusReply, StatusRequest,
    StopReply, StopRequest, TaintRequest, WatchDialsRequest, admit_reply, cache_mac_reply, operation_reply,
    push_policy_reply,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::keeper::{Keeper, Stop};
use crate::identity_report::Rotated;

/// The service for the supervisor.
#[derive(Clone)]
pub(super) struct ForSupervisor(pub(super) Arc<Keeper>);

#[tonic::async_trait]
impl Authority for ForSupervisor {
    async fn admit(&self, request: Request<AdmitRequest>) -> Result<Response<AdmitReply>, Status> {
        let result = match self.0.admit(request.into_inner()) {
            Ok(()) => admit_reply::Result::Ok(Done {}),
            Err(Stop::Denied(denied)) => admit_reply::Result::Denied(denied),
            Err(Stop::Failed(failed)) => admit_reply::Result::Failed(failed),
        };
        Ok(Response::new(AdmitReply { result: Some(result) }))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopReply>, Status> {
        let known = self.0.stop(&request.into_inner().instance);
        let known = known.map_err(|_| Status::internal("the issuer is poisoned"))?;
        Ok(Response::new(StopReply { known }))
    }

    async fn push_policy(&self, request: Request<PushPolicyRequest>) -> Result<Response<PushPolicyReply>, Status> {
        let result = match Keeper::push_policy(&self.0, request.into_inner()) {
            Ok(generation) => push_policy_reply::Result::Generation(generation),
            Err(Stop::Failed(failed)) => push_policy_reply::Result::Failed(failed),
            Err(Stop::Denied(_)) => return Err(Status::internal("not a thing that policy decides")),
        };
        Ok(Response::new(PushPolicyReply { result: Some(result) }))
    }

    async fn get_bundle(&self, request: Request<GetBundleRequest>) -> Result<Response<GetBundleReply>, Status> {
        let state = self.0.now_published();
        let json = match request.into_inner().federated {
            true => state.bundles.to_bundle_map(),
            false => state.bundles.own().json().to_owned(),
        };
        Ok(Response::new(GetBundleReply { json, sequence: state.sequence }))
    }

    type WatchDialsStream = Pin<Box<dyn Stream<Item = Result<DialWanted, Status>> + Send>>;

    async fn watch_dials(&self, _: Request<WatchDialsRequest>) -> Result<Response<Self::WatchDialsStream>, Status> {
        let wanted = self.0.dials.wanted().ok_or_else(|| Status::failed_precondition("they are watched already"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(wanted).map(Ok))))
    }

    async fn set_revoked(&self, request: Request<SetRevokedRequest>) -> Result<Response<SetRevokedReply>, Status> {
        let ended = self.0.set_revoked(request.into_inner()).map_err(status)?;
        Ok(Response::new(SetRevokedReply { ended }))
    }

    async fn rotate(&self, request: Request<RotateRequest>) -> Result<Response<OperationReply>, Status> {
        operation(self.0.rotate(request.into_inner()).await)
    }

    async fn taint(&self, request: Request<TaintRequest>) -> Result<Response<OperationReply>, Status> {
        operation(self.0.taint(request.into_inner()).await)
    }

    async fn show(&self, _: Request<ShowRequest>) -> Result<Response<ShowReply>, Status> {
        let shown = self.0.show().map_err(status)?;
        let report_json = serde_json::to_string(&shown).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(ShowReply { report_json }))
    }

    async fn metrics(&self, _: Request<MetricsRequest>) -> Result<Response<MetricsReply>, Status> {
        Ok(Response::new(MetricsReply { text: self.0.metrics().map_err(status)? }))
    }

    async fn cache_mac(&self, request: Request<CacheMacRequest>) -> Result<Response<CacheMacReply>, Status> {
        let CacheMacRequest { purpose, data } = request.into_inner();
        let mac = self.0.issuer().map_err(|_| Status::internal("the issuer is poisoned"))?.mac(&purpose, &data);
        Ok(Response::new(CacheMacReply { result: Some(cache_mac_reply::Result::Mac(mac.to_vec())) }))
    }

    async fn scan_for_keys(
        &self,
        request: Request<Streaming<ScanChunk>>,
    ) -> Result<Response<ScanForKeysReply>, Status> {
        let scan = self.0.issuer().map_err(|_| Status::internal("the issuer is poisoned"))?.key_scan();
        let scan = if self.0.issues_itself() { scan } else { scan.and(self.0.identities.key_scan()) };
        let scan = match &self.0.of_host {
            Some(source) => scan.and(source.key_scan()),
            None => scan,
        };
        let scan = Arc::new(scan);
        let mut chunks = request.into_inner();
        let (mut hits, mut scanned, mut tail) = (0_u64, 0_u64, Vec::new());
        while let Some(chunk) = chunks.message().await? {
            scanned = scanned.saturating_add(u64::try_from(chunk.data.len()).unwrap_or(u64::MAX));
            let mut bytes = if chunk.continues { std::mem::take(&mut tail) } else { Vec::new() };
            bytes.extend_from_slice(&chunk.data);
            let keep = bytes.len().saturating_sub(KeyScan::OVERLAP);
            tail = bytes.get(keep..).unwrap_or_default().to_vec();
            let scan = Arc::clone(&scan);
            let found = tokio::task::spawn_blocking(move || scan.count(&bytes)).await;
            let found = found.map_err(|error| Status::internal(error.to_string()))?;
            hits = hits.saturating_add(u64::try_from(found).unwrap_or(u64::MAX));
        }
        Ok(Response::new(ScanForKeysReply { hits, scanned }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        // INVARIANT: the issuer's lock is the last that is taken: whoever holds it waits for no other.
        let generation = self.0.policy.lock().map(|policy| policy.generation()).unwrap_or_default();
        let problems = self.0.problems();
        let issuer = self.0.issuer().map_err(|_| Status::internal("the issuer is poisoned"))?;
        let counts = &self.0.counts;
        Ok(Response::new(StatusReply {
            trust_domain: issuer.trust_domain().to_string(),
            generation,
            instances: u64::try_from(issuer.instances()).unwrap_or(u64::MAX),
            x509_minted: counts.x509.get(),
            jwt_minted: counts.jwt.get(),
            handshakes_signed: counts.handshakes.get(),
            denied: counts.denied.get(),
            bundle_sequence: issuer.bundle().sequence(),
            x509_authority_not_after: issuer.x509_authority_not_after().unix_timestamp(),
            jwt_authority_not_after: issuer.jwt_authority_not_after().unix_timestamp(),
            problems,
        }))
    }
}

fn operation(done: Result<Rotated, Stop>) -> Result<Response<OperationReply>, Status> {
    let result = match done {
        Ok(rotated) => operation_reply::Result::ReportJson(
            serde_json::to_string(&rotated).map_err(|error| Status::internal(error.to_string()))?,
        ),
        Err(Stop::Failed(failed)) => operation_reply::Result::Failed(failed),
        Err(Stop::Denied(_)) => return Err(Status::internal("not a thing that policy decides")),
    };
    Ok(Response::new(OperationReply { result: Some(result) }))
}

fn status(stop: Stop) -> Status {
    match stop {
        Stop::Failed(failed) => Status::failed_precondition(failed.message),
        Stop::Denied(denied) => Status::permission_denied(denied.code),
    }
}
