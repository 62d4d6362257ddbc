//! What an instance may have made with its identity: JWT-SVIDs, X.509-SVIDs, handshake signatures, checks of tokens.
//!
//! Each is decided here by the policy slice of the instance, whatever the runtime thinks, and recorded before it leaves.

use std::sync::atomic::Ordering;
use std::time::Duration;

use portcullis_identity::rpc::{
    FetchX509SvidRequest, JwtSvid, MintJwtSvidRequest, SignHandshakeRequest, ValidJwtSvid, ValidateJwtSvidRequest,
    X509Svid,
};
use portcullis_identity::{Audience, IssueError};
use portcullis_policies::IdentityAction;
use serde_json::json;

use super::keeper::{Keeper, Stop, failed, issue_failed};
use crate::clock;

impl Keeper {
    pub(super) async fn mint_jwt(&self, request: MintJwtSvidRequest) -> Result<JwtSvid, Stop> {
        let (id, facts, slice) = self.instance(&request.instance)?;
        let audiences: Result<Vec<Audience>, _> = request.audiences.iter().map(|audience| audience.parse()).collect();
        let audiences = audiences
            .map_err(|error: portcullis_identity::AudienceError| failed("invalid-argument", &error.to_string()))?;
        if audiences.is_empty() {
            return Err(failed("invalid-argument", &IssueError::Audiences.to_string()));
        }
        let most = self.issuer()?.lifetimes().jwt().as_secs();
        let mut ttl = request.ttl_seconds.unwrap_or(most).min(most);
        for audience in &audiences {
            match slice.svid_jwt(audience.as_str(), ttl) {
                Ok(grant) => ttl = ttl.min(grant.ttl_secs()),
                Err(denial) => return Err(self.denied(&facts, denial).await),
            }
        }
        let minted = self.issuer()?.jwt_svid(&id, &audiences, Duration::from_secs(ttl), clock::now());
        let svid = minted.map_err(issue_failed)?.svid;
        if !self.is_recorded(&request.instance, svid.jti()) {
            self.counts.jwt.fetch_add(1, Ordering::Relaxed);
        }
        let fields = json!({
            "svid": "jwt",
            "instance": facts.instance,
            "component": facts.name,
            "digest": facts.digest,
            "signer": facts.signer,
            "spiffe_id": svid.spiffe_id().to_string(),
            "audiences": request.audiences,
            "jti": svid.jti(),
            "expires_at": svid.expires_at().unix_timestamp(),
            "policy_generation": slice.generation(),
        });
        self.recorded(&request.instance, svid.jti(), fields).await?;
        Ok(JwtSvid {
            token: svid.token().to_owned(),
            spiffe_id: svid.spiffe_id().to_string(),
            expires_at: svid.expires_at().unix_timestamp(),
        })
    }

    pub(super) async fn mint_x509(&self, request: FetchX509SvidRequest) -> Result<X509Svid, Stop> {
        let (id, facts, slice) = self.instance(&request.instance)?;
        let most = self.issuer()?.lifetimes().x509().as_secs();
        let ttl = match slice.svid_x509(most) {
            Ok(grant) => grant.ttl_secs().min(most),
            Err(denial) => return Err(self.denied(&facts, denial).await),
        };
        let minted = self.issuer()?.x509_svid(&id, Duration::from_secs(ttl), clock::now());
        let svid = minted.map_err(issue_failed)?.svid;
        if !self.is_recorded(&request.instance, &svid.serial) {
            self.counts.x509.fetch_add(1, Ordering::Relaxed);
        }
        let fields = json!({
            "svid": "x509",
            "instance": facts.instance,
            "component": facts.name,
            "digest": facts.digest,
            "signer": facts.signer,
            "spiffe_id": svid.spiffe_id.to_string(),
            "serial": svid.serial,
            "expires_at": svid.not_after.unix_timestamp(),
            "policy_generation": slice.generation(),
        });
        self.recorded(&request.instance, &svid.serial, fields).await?;
        Ok(X509Svid {
            spiffe_id: svid.spiffe_id.to_string(),
            chain: svid.chain,
            key_id: svid.key_id,
            not_after: svid.not_after.unix_timestamp(),
        })
    }

    pub(super) async fn sign(&self, request: SignHandshakeRequest) -> Result<Vec<u8>, Stop> {
        let (id, facts, slice) = self.instance(&request.instance)?;
        if let Err(denial) = slice.svid_x509(1) {
            return Err(self.denied(&facts, denial).await);
        }
        let signed = self.issuer()?.sign_handshake(&id, &request.key_id, &request.message);
        let signature = signed.map_err(|error| failed("not-signed", &error.to_string()))?;
        self.counts.handshakes.fetch_add(1, Ordering::Relaxed);
        Ok(signature)
    }

    pub(super) async fn validate(&self, request: ValidateJwtSvidRequest) -> Result<ValidJwtSvid, Stop> {
        let (_, facts, slice) = self.instance(&request.instance)?;
        if let Err(denial) = slice.identity(IdentityAction::Validate) {
            return Err(self.denied(&facts, denial).await);
        }
        let checked = self.issuer()?.validate_jwt(&request.token, &request.audience, clock::now());
        let claims = checked.map_err(|error| failed("invalid-token", &error.to_string()))?;
        Ok(ValidJwtSvid {
            spiffe_id: claims.spiffe_id().to_string(),
            audiences: claims.audiences().iter().map(|audience| audience.as_str().to_owned()).collect(),
            expires_at: claims.expires_at().unix_timestamp(),
            issued_at: claims.issued_at().map(|at| at.unix_timestamp()),
            jti: claims.jti().map(str::to_owned),
        })
    }
}
