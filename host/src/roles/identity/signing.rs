//! What leaves with an instance's name on it beyond SVIDs: signatures for a purpose, and, for the few that may, a private key.
//!
//! Both are decided here by the policy slice of the instance and recorded before they leave. The key needs three consents: the
//! grant `svid.export`, the operator's word in the configuration, and the claims, which must name the interface.

use std::time::Duration;

use portcullis_identity::rpc::{ExportX509Request, ExportedX509, FetchX509SvidRequest, SignDataRequest, SignedData};
use portcullis_identity::{IssueError, signed_message};
use portcullis_policies::{ComponentFacts, IdentityAction};
use serde_json::json;

use super::keeper::{Keeper, Stop, failed, issue_failed};
use super::rate::Use;
use crate::clock;
use crate::limits::SIGN_DATA_BYTES;

impl Keeper {
    /// Signs data with the key of the instance's X.509-SVID, which is issued now if there is none.
    pub(super) async fn sign_data(&self, request: SignDataRequest) -> Result<SignedData, Stop> {
        let (id, facts, slice) = self.instance(&request.instance)?;
        self.take(&facts, Use::Sign).await?;
        if request.data.len() > SIGN_DATA_BYTES {
            return Err(failed("invalid-argument", &format!("data: at most {SIGN_DATA_BYTES} bytes are signed")));
        }
        signed_message(&request.purpose, &request.data)
            .map_err(|error| failed("invalid-argument", &format!("purpose: {error}")))?;
        let _grant = self.decided(&facts, slice.svid_sign(&request.purpose)).await?;
        let svid = self.current_x509(FetchX509SvidRequest { instance: request.instance }).await?;
        let signed = self.identities.sign(&id, &svid.key_id, &request.purpose, &request.data);
        let signature = signed.map_err(|error| failed("not-signed", &error.to_string()))?;
        let fields = json!({
            "instance": facts.instance,
            "component": facts.name,
            "digest": facts.digest,
            "signer": facts.signer,
            "spiffe_id": svid.spiffe_id,
            "purpose": request.purpose,
            "data_sha256": crate::audit::sha256(&request.data),
            "data_bytes": request.data.len(),
            "key_id": svid.key_id,
            "policy_generation": slice.generation(),
        });
        self.must_record("signature", &fields).await?;
        // Recording takes its time: who was stopped or revoked meanwhile gets nothing.
        self.instance(&facts.instance)?;
        self.counts.signatures.up();
        Ok(SignedData { signature, chain: svid.chain, not_after: svid.not_after })
    }

    /// An X.509-SVID with its key, for an instance that is granted it and was admitted for it.
    pub(super) async fn export_x509(&self, request: ExportX509Request) -> Result<ExportedX509, Stop> {
        let (id, facts, slice) = self.instance(&request.instance)?;
        self.take(&facts, Use::Mint).await?;
        let _grant = self.decided(&facts, slice.identity(IdentityAction::Export)).await?;
        let most = self.issuer()?.lifetimes().x509().as_secs();
        let ttl = self.decided(&facts, slice.svid_x509(most)).await?.ttl_secs().min(most);
        // A source outside of this host gives keys to this process and to nobody else.
        self.only_builtin()?;
        let exported = self.issuer()?.export_x509(&id, Duration::from_secs(ttl), clock::now());
        let exported = match exported {
            Ok(exported) => exported.svid,
            Err(IssueError::NotExportable(_)) => return Err(self.not_marked(&facts).await),
            Err(error) => return Err(issue_failed(error)),
        };
        let svid = &exported.svid;
        let fields = json!({
            "instance": facts.instance,
            "component": facts.name,
            "digest": facts.digest,
            "signer": facts.signer,
            "spiffe_id": svid.spiffe_id.to_string(),
            "serial": svid.serial,
            "expires_at": svid.not_after.unix_timestamp(),
            "policy_generation": slice.generation(),
            "text": "a private key left the identity process: whoever has it is this component until it expires",
        });
        self.must_record("key-export", &fields).await?;
        self.instance(&facts.instance)?;
        self.counts.exported.up();
        tracing::warn!(component = facts.name, serial = svid.serial, "a private key was handed to a component");
        Ok(ExportedX509 {
            spiffe_id: svid.spiffe_id.to_string(),
            chain: svid.chain.clone(),
            private_key: exported.pkcs8().to_vec(),
            not_after: svid.not_after.unix_timestamp(),
        })
    }

    /// The refusal where policy grants the key, but the configuration does not mark the component.
    async fn not_marked(&self, facts: &ComponentFacts) -> Stop {
        let text = format!(
            "denied {NOT_MARKED}: component `{}` may not have the private key of its X.509-SVID: the configuration does not \
             name it\n  fix      add it to danger_exportable_keys in the configuration and restart the host",
            facts.name
        );
        self.refused(facts, NOT_MARKED, &text).await
    }
}

/// Code of an export that the configuration does not allow.
const NOT_MARKED: &str = "I0206";
