//! The supervisor's socket: admit, stop, policy, MACs, the self-check.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_identity::KeyScan;
use portcullis_identity::rpc::authority_server::Authority;
use portcullis_identity::rpc::{
    AdmitReply, AdmitRequest, CacheMacReply, CacheMacRequest, Done, GetBundleReply, GetBundleRequest, PushPolicyReply,
    PushPolicyRequest, ScanChunk, ScanForKeysReply, StatusReply, StatusRequest, StopReply, StopRequest, admit_reply,
    cache_mac_reply, push_policy_reply,
};
use tonic::{Request, Response, Status, Streaming};

use super::keeper::{Keeper, Stop};

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
        let result = match self.0.push_policy(request.into_inner()) {
            Ok(generation) => push_policy_reply::Result::Generation(generation),
            Err(Stop::Failed(failed)) => push_policy_reply::Result::Failed(failed),
            Err(Stop::Denied(_)) => return Err(Status::internal("not a thing that policy decides")),
        };
        Ok(Response::new(PushPolicyReply { result: Some(result) }))
    }

    async fn get_bundle(&self, _: Request<GetBundleRequest>) -> Result<Response<GetBundleReply>, Status> {
        let bundle = self.0.issuer().map_err(|_| Status::internal("the issuer is poisoned"))?.bundle();
        Ok(Response::new(GetBundleReply { json: bundle.to_json(), sequence: bundle.sequence() }))
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
        let issuer = self.0.issuer().map_err(|_| Status::internal("the issuer is poisoned"))?;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let generation = self.0.policy.lock().map(|policy| policy.generation()).unwrap_or_default();
        Ok(Response::new(StatusReply {
            trust_domain: issuer.trust_domain().to_string(),
            generation,
            instances: u64::try_from(issuer.instances()).unwrap_or(u64::MAX),
            x509_minted: count(&self.0.counts.x509),
            jwt_minted: count(&self.0.counts.jwt),
            handshakes_signed: count(&self.0.counts.handshakes),
            denied: count(&self.0.counts.denied),
            bundle_sequence: issuer.bundle().sequence(),
            x509_authority_not_after: issuer.x509_authority_not_after().unix_timestamp(),
            jwt_authority_not_after: issuer.jwt_authority_not_after().unix_timestamp(),
        }))
    }
}
