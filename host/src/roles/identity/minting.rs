//! What an instance may have made with its identity: JWT-SVIDs, X.509-SVIDs, handshake signatures, checks of tokens.
//!
//! Each is decided here by the policy slice of the instance, whatever the runtime thinks, and recorded before it leaves.

use std::time::{Duration, Instant};

use portcullis_identity::rpc::{
    FetchX509SvidRequest, JwtSvid, MintJwtSvidRequest, SignHandshakeRequest, ValidJwtSvid, ValidateJwtSvidRequest,
    X509Svid,
};
use portcullis_identity::{Audience, IssueError};
use portcullis_policies::{ComponentFacts, IdentityAction};
use serde_json::{Value, json};

use super::keeper::{Keeper, Stop, failed};
use super::rate::Use;
use super::source::source_failed;
use crate::clock;

impl Keeper {
    pub(super) async fn mint_jwt(&self, request: MintJwtSvidRequest) -> Result<JwtSvid, Stop> {
        let started = Instant::now();
        let (id, facts, slice) = self.instance(&request.instance)?;
        self.take(&facts, Use::Mint).await?;
        let audiences: Result<Vec<Audience>, _> = request.audiences.iter().map(|audience| audience.parse()).collect();
        let audiences = audiences
            .map_err(|error: portcullis_identity::AudienceError| failed("invalid-argument", &error.to_string()))?;
        if audiences.is_empty() {
            return Err(failed("invalid-argument", &IssueError::Audiences.to_string()));
        }
        let most = self.issuer()?.lifetimes().jwt().as_secs();
        let mut ttl = request.ttl_seconds.unwrap_or(most).min(most);
        for audience in &audiences {
            let grant = self.decided(&facts, slice.svid_jwt(audience.as_str(), ttl)).await?;
            ttl = ttl.min(grant.ttl_secs());
        }
        // Read first: an epoch that is too old has the holder fetch again, one that is too new would not.
        let svid_epoch = self.now_published().svid_epoch;
        let minted = self.identities.jwt_svid(&id, &audiences, Duration::from_secs(ttl), clock::now()).await;
        let minted = minted.map_err(source_failed)?;
        let svid = minted.svid;
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
        if minted.fresh {
            self.counts.jwt.up();
            if let Some(held) = self.table()?.get_mut(&request.instance) {
                held.jwt_minted = held.jwt_minted.saturating_add(1);
            }
        }
        self.counts.jwt_time.took(started.elapsed());
        Ok(JwtSvid {
            token: svid.token().to_owned(),
            spiffe_id: svid.spiffe_id().to_string(),
            expires_at: svid.expires_at().unix_timestamp(),
            policy_generation: slice.generation(),
            svid_epoch,
        })
    }

    pub(super) async fn mint_x509(&self, request: FetchX509SvidRequest) -> Result<X509Svid, Stop> {
        let (_, facts, _) = self.instance(&request.instance)?;
        self.take(&facts, Use::Mint).await?;
        self.current_x509(request).await
    }

    /// The X.509-SVID of an instance, made now if there is none; what that costs was taken from its allowance already.
    pub(super) async fn current_x509(&self, request: FetchX509SvidRequest) -> Result<X509Svid, Stop> {
        let started = Instant::now();
        let (id, facts, slice) = self.instance(&request.instance)?;
        let most = self.issuer()?.lifetimes().x509().as_secs();
        let ttl = self.decided(&facts, slice.svid_x509(most)).await?.ttl_secs().min(most);
        let svid_epoch = self.now_published().svid_epoch;
        let minted = self.identities.x509_svid(&id, Duration::from_secs(ttl), clock::now()).await;
        let minted = minted.map_err(source_failed)?;
        let svid = minted.svid;
        self.recorded(&request.instance, &svid.serial, x509_fields(&facts, &svid, slice.generation())).await?;
        if minted.fresh {
            self.counts.x509.up();
        }
        if let Some(held) = self.table()?.get_mut(&request.instance) {
            held.x509_minted = held.x509_minted.saturating_add(u64::from(minted.fresh));
            held.x509_not_after = Some(svid.not_after.unix_timestamp());
        }
        self.counts.x509_time.took(started.elapsed());
        Ok(X509Svid {
            spiffe_id: svid.spiffe_id.to_string(),
            chain: svid.chain,
            key_id: svid.key_id,
            not_after: svid.not_after.unix_timestamp(),
            svid_epoch,
        })
    }

    pub(super) async fn sign(&self, request: SignHandshakeRequest) -> Result<Vec<u8>, Stop> {
        let started = Instant::now();
        let (id, facts, slice) = self.instance(&request.instance)?;
        self.take(&facts, Use::Sign).await?;
        let _grant = self.decided(&facts, slice.svid_x509(1)).await?;
        let signed = self.identities.sign_handshake(&id, &request.key_id, &request.message);
        let signature = signed.map_err(|error| failed("not-signed", &error.to_string()))?;
        self.counts.handshakes.up();
        self.counts.sign_time.took(started.elapsed());
        Ok(signature)
    }

    /// Checks a token of this trust domain or of one that it federates with, each with its own domain's keys.
    pub(super) async fn validate(&self, request: ValidateJwtSvidRequest) -> Result<ValidJwtSvid, Stop> {
        let started = Instant::now();
        let (_, facts, slice) = self.instance(&request.instance)?;
        self.take(&facts, Use::Check).await?;
        let _grant = self.decided(&facts, slice.identity(IdentityAction::Validate)).await?;
        let state = self.now_published();
        let checked = state.bundles.check_jwt(&request.token, &request.audience, clock::now());
        self.counts.check_time.took(started.elapsed());
        let claims = match checked {
            Ok(claims) if state.revoked.spiffe_ids.contains(claims.spiffe_id()) => {
                self.counts.tokens_refused.up();
                return Err(failed("invalid-token", &format!("{} is revoked", claims.spiffe_id())));
            }
            Ok(claims) => claims,
            Err(error) => {
                self.counts.tokens_refused.up();
                return Err(failed("invalid-token", &error.to_string()));
            }
        };
        self.counts.tokens_valid.up();
        Ok(ValidJwtSvid {
            spiffe_id: claims.spiffe_id().to_string(),
            audiences: claims.audiences().iter().map(|audience| audience.as_str().to_owned()).collect(),
            expires_at: claims.expires_at().unix_timestamp(),
            issued_at: claims.issued_at().map(|at| at.unix_timestamp()),
            jti: claims.jti().map(str::to_owned),
        })
    }
}

/// What the audit log says of an X.509-SVID.
pub(super) fn x509_fields(facts: &ComponentFacts, svid: &portcullis_identity::X509Svid, generation: u64) -> Value {
    json!({
        "svid": "x509",
        "instance": facts.instance,
        "component": facts.name,
        "digest": facts.digest,
        "signer": facts.signer,
        "spiffe_id": svid.spiffe_id.to_string(),
        "serial": svid.serial,
        "expires_at": svid.not_after.unix_timestamp(),
        "policy_generation": generation,
    })
}
