//! What the host trusts now: the signed trust policy, the deny list that it may demand, and what was learnt from both.
//!
//! Both are read again whenever a component is started, when somebody asks, and within half a second of their files changing.
//! A policy or list that cannot be used takes the old one's place for new loads: nothing is admitted. What runs is judged by
//! the last ones that could be used, so that damaging a file neither stops what is trusted nor revives what is denied.

use std::path::Path;

use portcullis_signing::trust::{DenyListError, Roots};
use portcullis_signing::{Claims, DenyList, Refusal, TrustError, TrustPolicy, Verified};
use time::OffsetDateTime;

use super::high_water::HighWater;
use super::refused::Refused;
use crate::cli::error::exit;
use crate::cli::files;
use crate::config;
use crate::limits;

/// The trust policy and the deny list, as they were read last.
#[derive(Debug)]
pub struct Trust {
    policy: Result<TrustPolicy, Refused>,
    deny_list: Result<Option<DenyList>, Refused>,
    /// The last ones that could be used.
    last: Option<(TrustPolicy, Option<DenyList>)>,
}

impl Trust {
    /// Nothing was read yet: nothing is admitted.
    pub fn unread() -> Self {
        let refused = || Refused::internal("the trust policy was not read yet");
        Self { policy: Err(refused()), deny_list: Err(refused()), last: None }
    }

    /// Reads both files again and raises the marks. Says whether anything else holds now than before.
    pub fn read(
        &mut self,
        config: &config::Trust,
        marks: &mut Result<HighWater, Refused>,
        now: OffsetDateTime,
    ) -> bool {
        let before = self.digests();
        self.policy = policy(config, marks, now);
        self.deny_list = match &self.policy {
            Ok(policy) => deny_list(config, policy, marks),
            Err(refused) => Err(refused.clone()),
        };
        if let Ok(policy) = &self.policy {
            let list = self.deny_list.as_ref().ok().cloned();
            // A list that cannot be used leaves the denials of the last one in force for what runs.
            let list = list.unwrap_or_else(|| self.last.take().and_then(|(_, list)| list));
            self.last = Some((policy.clone(), list));
        }
        before != self.digests()
    }

    /// What new loads are judged by, or why there are none.
    pub fn in_force(&self, now: OffsetDateTime) -> Result<(&TrustPolicy, Option<&DenyList>), Refused> {
        let policy = self.policy.as_ref().map_err(Clone::clone)?;
        policy.check_time(now).map_err(policy_refused)?;
        let list = self.deny_list.as_ref().map_err(Clone::clone)?.as_ref();
        if let Some(rule) = policy.deny_list() {
            let fresh = list.map_or(Err(DenyListError::Missing), |list| list.check_time(rule, now));
            fresh.map_err(list_refused)?;
        }
        Ok((policy, list))
    }

    /// Whether the trust policy in force demands no deny list.
    pub fn asks_no_deny_list(&self) -> bool {
        self.policy.as_ref().is_ok_and(|policy| policy.deny_list().is_none())
    }

    /// The version of the trust policy that new loads are judged by.
    pub fn version(&self) -> Option<u64> {
        self.policy.as_ref().ok().map(TrustPolicy::version)
    }

    /// Why a component that runs must not go on, by the last policy and deny list that could be used.
    pub fn against(&self, verified: &Verified<Claims>, cluster: &str, now: OffsetDateTime) -> Option<Refusal> {
        let (policy, list) = self.last.as_ref()?;
        portcullis_signing::recheck(verified, policy, list.as_ref(), cluster, now).err()
    }

    /// What becomes of running components whose claims expire.
    pub fn on_expiry(&self) -> portcullis_signing::OnExpiry {
        self.last.as_ref().map(|(policy, _)| policy.on_expiry()).unwrap_or_default()
    }

    /// What holds, to be compared. Of what is wrong the code alone: its text may say what time it is.
    fn digests(&self) -> (Option<String>, Option<String>) {
        let policy = match &self.policy {
            Ok(policy) => policy.digest().to_string(),
            Err(refused) => refused.code.clone(),
        };
        let list = match &self.deny_list {
            Ok(list) => list.as_ref().map(|list| list.digest().to_string()),
            Err(refused) => Some(refused.code.clone()),
        };
        (Some(policy), list)
    }
}

fn policy(
    config: &config::Trust,
    marks: &mut Result<HighWater, Refused>,
    now: OffsetDateTime,
) -> Result<TrustPolicy, Refused> {
    let bytes = bytes(&config.policy, "trust policy", "trust.unreadable")?;
    let marks = marks.as_mut().map_err(|refused| refused.clone())?;
    let pinned = Roots { roots: config.roots.clone(), threshold: config.threshold };
    // Root keys that replaced the pinned ones are known from the last policy, as long as the same ones are pinned.
    let known = marks.roots(&pinned).unwrap_or(&pinned).clone();
    let policy = TrustPolicy::verify(&bytes, &known.roots, known.threshold, now, marks.trust_policy())
        .map_err(|error| about(&config.policy, policy_refused(error)))?;
    marks.saw_trust_policy(policy.version(), &pinned, &policy.roots()).map_err(Refused::internal)?;
    Ok(policy)
}

fn deny_list(
    config: &config::Trust,
    policy: &TrustPolicy,
    marks: &mut Result<HighWater, Refused>,
) -> Result<Option<DenyList>, Refused> {
    let Some(rule) = policy.deny_list() else { return Ok(None) };
    let path = config.deny_list.as_ref().ok_or_else(|| list_refused(DenyListError::Missing))?;
    let bytes = bytes(path, "deny list", "deny-list.missing")?;
    let marks = marks.as_mut().map_err(|refused| refused.clone())?;
    let list = DenyList::verify(&bytes, rule, marks.deny_list()).map_err(|error| about(path, list_refused(error)))?;
    marks.saw_deny_list(list.version()).map_err(Refused::internal)?;
    Ok(Some(list))
}

fn bytes(path: &Path, what: &str, code: &str) -> Result<Vec<u8>, Refused> {
    files::read_bytes(path, limits::CONFIG_BYTES, what).map_err(|error| Refused {
        exit: exit::TRUST,
        code: code.to_owned(),
        ..Refused::from_file(&error)
    })
}

fn about(path: &Path, refused: Refused) -> Refused {
    Refused { message: format!("{}: {}", path.display(), refused.message), ..refused }
}

fn policy_refused(error: TrustError) -> Refused {
    Refused::from_evidence(&error.into())
}

fn list_refused(error: DenyListError) -> Refused {
    Refused::from_evidence(&error.into())
}
