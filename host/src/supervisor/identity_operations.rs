//! What an operator does about identities: look, rotate, taint, revoke. Recorded before it has an effect; what takes rights away
//! goes on without that. A revocation that the identity process does not take ends that process, which comes back without the
//! identity.

use std::sync::Arc;

use portcullis_identity::SpiffeId;
use portcullis_identity::rpc::{RotateRequest, TaintRequest};

use super::Host;
use super::identity::IdentityError;
use super::refused::Refused;
use crate::audit::Record;
use crate::cli::error::exit;
use crate::identity_report::{Revoked, Shown};

/// What a revocation names.
enum Target {
    Id(SpiffeId),
    Instance(String),
}

impl Host {
    /// What `identity show` prints.
    pub async fn identity_show(&self) -> Result<String, Refused> {
        let json = self.identity.show().await.map_err(|error| operation_failed(&error))?;
        // What another process sends is checked before it is shown.
        let shown: Shown = serde_json::from_str(&json).map_err(Refused::internal)?;
        serde_json::to_string(&shown).map_err(Refused::internal)
    }

    /// Forces new authorities or SVIDs.
    pub async fn identity_rotate(self: &Arc<Self>, request: RotateRequest) -> Result<String, Refused> {
        let kinds = [(request.x509, "x509"), (request.jwt, "jwt"), (request.wit, "wit"), (request.svids, "svids")];
        let kinds: Vec<_> = kinds.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
        if kinds.is_empty() {
            return Err(invalid("nothing to rotate was named", "--x509, --jwt, --wit or --svids"));
        }
        self.control_record("identity.rotate", |record| record.field("what", kinds))?;
        self.identity.rotate(request).await.map_err(|error| operation_failed(&error))
    }

    /// Distrusts an authority.
    pub async fn identity_taint(self: &Arc<Self>, request: TaintRequest) -> Result<String, Refused> {
        let authority = crate::runtime::stdio::escape(request.authority.as_bytes(), false);
        let recorded = self.control_record("identity.taint", |record| record.field("authority", authority));
        goes_on("a taint", recorded);
        self.identity.taint(request).await.map_err(|error| operation_failed(&error))
    }

    /// Takes an identity away, or gives a SPIFFE ID back.
    pub async fn identity_revoke(self: &Arc<Self>, target: &str, lift: bool) -> Result<Revoked, Refused> {
        let named = parse(target, lift)?;
        // INVARIANT: does not wait for a start, which may take minutes. Who is being started has its identity from the identity
        // process, which looks at the list once more.
        let instances = self.meant(&named, lift)?;
        let recorded = self.control_record("identity.revoke", |record| {
            record.field("target", target).field("lift", lift).field("instances", instances.clone())
        });
        if lift {
            recorded?;
        } else {
            goes_on("a revocation", recorded);
        }
        let changed = self.change_revocations(&named, lift);
        // Also one that could not be written: it is in force from now on.
        self.send_revocations().await;
        changed?;
        Ok(Revoked { target: target.to_owned(), lifted: lift, instances })
    }

    /// The running instances that a revocation is about.
    fn meant(&self, named: &Target, lift: bool) -> Result<Vec<String>, Refused> {
        let running = self.running();
        let instances = running.iter().filter(|component| match named {
            Target::Id(id) => component.admitted.spiffe_id() == id,
            Target::Instance(instance) => component.admitted.facts().instance == *instance,
        });
        let instances: Vec<_> = instances.map(|component| component.admitted.facts().instance.clone()).collect();
        match named {
            Target::Instance(instance) if instances.is_empty() => {
                let instance = crate::runtime::stdio::escape(instance.as_bytes(), false);
                Err(invalid(&format!("no instance {instance} runs"), "`portcullis list` shows what runs"))
            }
            _ if lift => Ok(Vec::new()),
            _ => Ok(instances),
        }
    }

    fn change_revocations(&self, named: &Target, lift: bool) -> Result<(), Refused> {
        let mut list = self.revocations.lock().map_err(|_| Refused::internal("poisoned"))?;
        match named {
            Target::Id(id) if lift => match list.lift_id(id) {
                Ok(true) => Ok(()),
                Ok(false) => Err(invalid(&format!("{id} is not revoked"), "`portcullis identity show` lists what is")),
                Err(error) => Err(Refused::internal(error)),
            },
            Target::Id(id) => list.revoke_id(id.clone()).map_err(Refused::internal),
            Target::Instance(instance) => {
                list.revoke_instance(instance);
                // It may have ended meanwhile.
                if !self.running().iter().any(|component| component.admitted.facts().instance == *instance) {
                    list.ended(instance);
                }
                Ok(())
            }
        }
    }

    /// Tells the identity process what is revoked. One that does not take it is ended: it comes back and is told first.
    pub(super) async fn send_revocations(&self) {
        if let Err(error) = self.tell_revocations().await {
            tracing::error!(%error, "the identity process did not take a revocation; it is started again with it");
            if let Some(up) = self.identity_process.now().filter(|_| !self.is_stopping()) {
                up.child.kill();
            }
        }
    }

    /// Tells the identity process what is revoked.
    pub(super) async fn tell_revocations(&self) -> Result<u64, IdentityError> {
        let _one_at_a_time = self.telling.lock().await;
        let all = self.revocations.lock().map(|list| list.all());
        let (mut instances, mut spiffe_ids) = all.map_err(|_| IdentityError::internal("poisoned"))?;
        let (more_instances, more_ids) = self.cluster_revoked();
        instances.extend(more_instances);
        spiffe_ids.extend(more_ids);
        self.identity.set_revoked(instances, spiffe_ids).await
    }

    /// Refuses a start under a SPIFFE ID that is revoked.
    pub(super) fn check_revoked(&self, spiffe_id: &SpiffeId) -> Result<(), Refused> {
        let list = self.revocations.lock().map_err(|_| Refused::internal("poisoned"))?;
        if list.has_id(spiffe_id) { Err(Refused::revoked(spiffe_id)) } else { Ok(()) }
    }

    fn control_record(&self, what: &str, with: impl FnOnce(Record) -> Record) -> Result<(), Refused> {
        let record = with(Record::new("control").field("by", "operator").field("what_was_asked", what));
        match self.record(record) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.audit_failed();
                Err(Refused::internal(format!("it could not be recorded: {error}")))
            }
        }
    }
}

/// What takes rights away does not wait for the audit log.
fn goes_on(what: &str, recorded: Result<(), Refused>) {
    if let Err(refused) = recorded {
        tracing::error!(what, "it could not be recorded and goes on, since it takes rights away: {}", refused.message);
    }
}

fn parse(target: &str, lift: bool) -> Result<Target, Refused> {
    if target.to_ascii_lowercase().starts_with("spiffe:") {
        let id = target.parse().map_err(|error: portcullis_identity::SpiffeIdError| {
            invalid(&error.to_string(), "as `portcullis list` shows it")
        })?;
        return Ok(Target::Id(id));
    }
    if lift {
        return Err(invalid("only a SPIFFE ID can be given back", "an instance that was revoked is started again"));
    }
    Ok(Target::Instance(target.to_owned()))
}

fn invalid(message: &str, hint: &str) -> Refused {
    Refused {
        exit: exit::USAGE,
        code: "usage".to_owned(),
        message: message.to_owned(),
        hint: hint.to_owned(),
        ..Refused::internal("")
    }
}

fn operation_failed(error: &IdentityError) -> Refused {
    let exit = if error.is_invalid() { exit::USAGE } else { exit::INTERNAL };
    let text = error.to_string();
    let (message, hint) = text.split_once("; hint: ").unwrap_or((&text, "look at the log of the host"));
    let code = format!("identity.{}", error.kind());
    Refused { exit, code, message: message.to_owned(), hint: hint.to_owned(), ..Refused::internal("") }
}
