//! The identity interfaces as guests see them: `portcullis:identity@0.1.0` and `wasmcloud:identity@0.0.1`.
//!
//! Every function is a policy action. Those that issue, sign or check are decided by the identity process; the others by what
//! the slice in force said of them, decided beforehand: Cedar is never asked from the stack of a fiber. Whatever a guest sends is
//! checked for its size here, and answered with an error that has a type, never with a trap.

use std::sync::Arc;

use portcullis_identity::TrustDomain;
use portcullis_policies::{Denial, IdentityAction};

use super::IdentityError;
use super::tokens::Token;
use crate::limits::SIGN_DATA_BYTES;
use crate::rpc::runtime::{IdentityUse, event::What};
use crate::runtime::component::Loaded;
use crate::runtime::context::Ctx;
use crate::runtime::wit::portcullis::portcullis::identity as wit;
use crate::runtime::wit::wasmcloud::wasmcloud::identity::store;

impl wit::types::Host for Ctx {}

impl wit::workload::Host for Ctx {
    async fn spiffe_id(&mut self) -> Result<String, wit::types::Error> {
        allowed(self.who(), IdentityAction::Read)?;
        Ok(self.who().spiffe_id().to_string())
    }
}

impl wit::jwt::Host for Ctx {
    async fn fetch(&mut self, audiences: Vec<String>) -> Result<wit::jwt::Svid, wit::types::Error> {
        if audiences.is_empty() || audiences.len() > AUDIENCES {
            return Err(wit::types::Error::InvalidArgument(format!("audiences: 1 to {AUDIENCES} are taken")));
        }
        if audiences.iter().any(|audience| audience.is_empty() || audience.len() > AUDIENCE_BYTES) {
            return Err(wit::types::Error::InvalidArgument(format!("audiences: each has 1 to {AUDIENCE_BYTES} bytes")));
        }
        let svid = jwt(self.who(), audiences).await?;
        Ok(wit::jwt::Svid { token: svid.token, spiffe_id: svid.spiffe_id, expires_at: seconds(svid.expires_at) })
    }

    async fn validate(&mut self, token: String, audience: String) -> Result<wit::jwt::Claims, wit::types::Error> {
        if token.len() > TOKEN_BYTES {
            return Err(wit::types::Error::InvalidArgument(format!("token: at most {TOKEN_BYTES} bytes are taken")));
        }
        if audience.is_empty() || audience.len() > AUDIENCE_BYTES {
            return Err(wit::types::Error::InvalidArgument(format!("audience: has 1 to {AUDIENCE_BYTES} bytes")));
        }
        let who = Arc::clone(self.who());
        running(&who)?;
        let claims = who.shared().identity.validate(who.instance(), token, audience).await?;
        Ok(wit::jwt::Claims {
            spiffe_id: claims.spiffe_id,
            audiences: claims.audiences,
            expires_at: seconds(claims.expires_at),
        })
    }
}

impl wit::x509::Host for Ctx {
    async fn fetch_chain(&mut self) -> Result<wit::x509::Chain, wit::types::Error> {
        allowed(self.who(), IdentityAction::X509Chain)?;
        let who = Arc::clone(self.who());
        let svid = who.shared().identity.svid(who.instance()).await?;
        Ok(wit::x509::Chain {
            spiffe_id: svid.spiffe_id.to_string(),
            certificates: svid.chain.clone(),
            expires_at: crate::clock::unix_seconds(svid.not_after),
        })
    }
}

impl wit::signing::Host for Ctx {
    async fn sign(&mut self, purpose: String, data: Vec<u8>) -> Result<wit::signing::Signature, wit::types::Error> {
        if purpose.is_empty() || purpose.len() > PURPOSE_BYTES {
            return Err(wit::types::Error::InvalidArgument(format!("purpose: has 1 to {PURPOSE_BYTES} bytes")));
        }
        if data.len() > SIGN_DATA_BYTES {
            return Err(wit::types::Error::InvalidArgument(format!(
                "data: at most {SIGN_DATA_BYTES} bytes are signed"
            )));
        }
        let who = Arc::clone(self.who());
        running(&who)?;
        let signed = who.shared().identity.sign(who.instance(), purpose, data).await?;
        Ok(wit::signing::Signature {
            bytes: signed.signature,
            certificates: signed.chain,
            expires_at: seconds(signed.not_after),
        })
    }
}

impl wit::bundle::Host for Ctx {
    async fn fetch(&mut self) -> Result<String, wit::types::Error> {
        allowed(self.who(), IdentityAction::Bundles)?;
        let bundles = self.who().shared().identity.bundles().ok_or_else(no_bundle)?;
        Ok(bundles.own().json().to_owned())
    }

    async fn fetch_for(&mut self, trust_domain: String) -> Result<Option<String>, wit::types::Error> {
        allowed(self.who(), IdentityAction::Bundles)?;
        let name: TrustDomain = match trust_domain.parse() {
            Ok(name) if trust_domain.len() <= TRUST_DOMAIN_BYTES => name,
            _ => {
                let why = format!("trust-domain: a name of 1 to {TRUST_DOMAIN_BYTES} bytes, such as prod.example");
                return Err(wit::types::Error::InvalidArgument(why));
            }
        };
        let bundles = self.who().shared().identity.bundles().ok_or_else(no_bundle)?;
        Ok(bundles.get(&name).map(|document| document.json().to_owned()))
    }

    async fn trust_domains(&mut self) -> Result<Vec<String>, wit::types::Error> {
        allowed(self.who(), IdentityAction::Bundles)?;
        let bundles = self.who().shared().identity.bundles().ok_or_else(no_bundle)?;
        let foreign = bundles.foreign().map(|document| document.trust_domain().to_string());
        Ok(std::iter::once(bundles.trust_domain().to_string()).chain(foreign).collect())
    }
}

impl wit::peer::Host for Ctx {
    async fn caller(&mut self) -> Result<Option<wit::peer::Identity>, wit::types::Error> {
        allowed(self.who(), IdentityAction::Peer)?;
        Ok(Ctx::caller(self).map(|caller| wit::peer::Identity {
            spiffe_id: caller.spiffe_id.to_string(),
            trust_domain: caller.spiffe_id.trust_domain().to_string(),
            expires_at: crate::clock::unix_seconds(caller.until),
        }))
    }
}

impl wit::key_export::Host for Ctx {
    async fn fetch_x509(&mut self) -> Result<wit::key_export::KeyedSvid, wit::types::Error> {
        let who = Arc::clone(self.who());
        running(&who)?;
        let exported = who.shared().identity.export(who.instance()).await?;
        Ok(wit::key_export::KeyedSvid {
            spiffe_id: exported.spiffe_id,
            certificates: exported.chain,
            private_key: exported.private_key,
            expires_at: seconds(exported.not_after),
        })
    }
}

impl store::Host for Ctx {
    async fn get(&mut self, audience: String) -> Result<Option<String>, store::Error> {
        if audience.is_empty() || audience.len() > AUDIENCE_BYTES {
            return Err(store::Error::Other(format!("audience: has 1 to {AUDIENCE_BYTES} bytes")));
        }
        if self.who().is_stopped() {
            return Err(store::Error::NotFound);
        }
        match jwt(self.who(), vec![audience]).await {
            Ok(svid) => Ok(Some(svid.token)),
            Err(IdentityError::Failed { kind, .. }) if kind == "unknown-instance" => Err(store::Error::NotFound),
            Err(error @ (IdentityError::Denied { .. } | IdentityError::Failed { .. })) => {
                Err(store::Error::Other(error.to_string()))
            }
            Err(IdentityError::Unavailable(why)) => Err(store::Error::Io(why)),
        }
    }
}

async fn jwt(who: &Arc<Loaded>, audiences: Vec<String>) -> Result<Token, IdentityError> {
    let who = Arc::clone(who);
    if who.is_stopped() {
        return Err(IdentityError::Unavailable(STOPPED.to_owned()));
    }
    let (generation, is_audited) = {
        let in_force = who.in_force();
        (in_force.slice().generation(), in_force.slice().is_audited())
    };
    // Each use that audit mode lets through is recorded where it is issued: none is given from what is kept.
    let keep = !is_audited;
    who.shared().identity.jwt(who.instance(), generation, audiences, keep).await
}

/// Decides an action that needs nobody else, and reports a refusal.
fn allowed(who: &Arc<Loaded>, action: IdentityAction) -> Result<(), wit::types::Error> {
    running(who)?;
    let in_force = who.in_force();
    match in_force.identity(action) {
        Some(Ok(grant)) => {
            who.note(grant, || What::Identity(IdentityUse { action: action.name().to_owned() }));
            Ok(())
        }
        Some(Err(denial)) => Err(refuse(who, action, denial)),
        None => Err(wit::types::Error::Unavailable("policy has no answer".to_owned())),
    }
}

fn refuse(who: &Arc<Loaded>, action: IdentityAction, denial: &Denial) -> wit::types::Error {
    let what = What::Identity(IdentityUse { action: action.name().to_owned() });
    let code = denial.code().to_string();
    let reference = who.shared().events.report(who.instance(), who.slice().generation(), &code, what);
    wit::types::Error::Denied(wit::types::Refusal { code, reference })
}

fn running(who: &Arc<Loaded>) -> Result<(), wit::types::Error> {
    if who.is_stopped() { Err(wit::types::Error::Unavailable(STOPPED.to_owned())) } else { Ok(()) }
}

fn no_bundle() -> wit::types::Error {
    wit::types::Error::Unavailable("no trust bundle yet".to_owned())
}

fn seconds(unix: i64) -> u64 {
    u64::try_from(unix).unwrap_or_default()
}

impl From<IdentityError> for wit::types::Error {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Denied { code, reference } => {
                wit::types::Error::Denied(wit::types::Refusal { code, reference })
            }
            IdentityError::Failed { kind, message } => match kind.as_str() {
                "invalid-token" => wit::types::Error::InvalidToken(message),
                "invalid-argument" => wit::types::Error::InvalidArgument(message),
                "rate-limited" => wit::types::Error::RateLimited(message),
                _ => wit::types::Error::Unavailable(message),
            },
            IdentityError::Unavailable(why) => wit::types::Error::Unavailable(why),
        }
    }
}

const STOPPED: &str = "this instance was stopped";
/// Audiences of one JWT-SVID.
const AUDIENCES: usize = 8;
/// Bytes of one audience.
const AUDIENCE_BYTES: usize = 255;
/// Bytes of a token to validate.
const TOKEN_BYTES: usize = 8 << 10;
/// Bytes of the purpose of a signature.
const PURPOSE_BYTES: usize = 64;
/// Bytes of the name of a trust domain.
const TRUST_DOMAIN_BYTES: usize = 255;
