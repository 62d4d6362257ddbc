//! Trust policy and policies read again: a bad trust policy admits nothing new, a bad policy keeps the one in force.

use std::sync::{Arc, PoisonError};

use super::policy::Policy;
use super::{Host, settle, trust_watch};
use crate::audit::Record;
use crate::clock;

impl Host {
    /// Reads the trust policy and the deny list again. A bad one takes the old one's place: nothing new is admitted.
    pub fn read_trust(&self) {
        // INVARIANT: both are replaced as a whole, so whoever panicked with one in hand left nothing half done; and bad news
        // is taken up all the same.
        let mut trust = self.trust.write().unwrap_or_else(PoisonError::into_inner);
        let mut marks = self.high_water.lock().unwrap_or_else(PoisonError::into_inner);
        if trust.read(&self.config.trust, &mut marks, clock::now()) {
            self.changed.trust();
            match trust.in_force(clock::now()) {
                Ok((policy, list)) => tracing::info!(
                    version = policy.version(),
                    deny_list = list.map(portcullis_signing::DenyList::version),
                    "the trust policy is in force"
                ),
                Err(refused) => {
                    tracing::error!(code = refused.code, "nothing new is admitted: {}", refused.message);
                }
            }
            if let Some(list) = self.config.trust.deny_list.as_ref().filter(|_| trust.asks_no_deny_list()) {
                tracing::warn!(list = %list.display(), "the deny list of the configuration is not read: the trust policy demands none, and says of nobody that he may sign one");
            }
        }
    }

    /// Reads the trust policy and the policy files again. A bad trust policy is a problem of its own; a bad policy keeps the old.
    pub async fn reload(self: &Arc<Self>) -> Result<u64, Vec<String>> {
        self.read_trust();
        trust_watch::enforce(self).await;
        let trust = self.trust_problem();
        match (self.reload_policy().await, trust) {
            (Ok(generation), None) => Ok(generation),
            (Ok(_), Some(problem)) => Err(vec![problem]),
            (Err(problems), trust) => Err(problems.into_iter().chain(trust).collect()),
        }
    }

    /// Why nothing new is admitted because of the trust policy.
    pub(super) fn trust_problem(&self) -> Option<String> {
        let trust = self.trust.read().ok()?;
        let refused = trust.in_force(clock::now()).err()?;
        Some(format!("{}: {}", refused.code, refused.message))
    }

    /// Reads the policy files again and puts them in force everywhere, or keeps the old ones and says why.
    pub async fn reload_policy(self: &Arc<Self>) -> Result<u64, Vec<String>> {
        let _one_at_a_time = self.starting.lock().await;
        // Under the lock: what the cluster adds is what is in force when this is.
        let new = self.read_policy(self.cluster_policy())?;
        Ok(self.put_in_force(new).await)
    }

    /// What the cluster adds to the policy files.
    pub(super) fn cluster_policy(&self) -> Vec<portcullis_policies::Source> {
        self.cluster.as_ref().map(|cluster| cluster.policy_sources()).unwrap_or_default()
    }

    /// The next policy: the policy files, and these sources besides. On record, and not in force yet. For who holds `starting`.
    pub(super) fn read_policy(&self, more: Vec<portcullis_policies::Source>) -> Result<Policy, Vec<String>> {
        let old = self.policy();
        let new = match Policy::read_with(&self.config.policy, more, old.generation() + 1) {
            Ok(new) => new,
            Err(problems) => {
                self.set_policy(old.with_problems(problems.clone()));
                return Err(problems);
            }
        };
        let record = Record::new("policy").field("by", "supervisor").field("generation", new.generation());
        self.record(record).map_err(|error| vec![error.to_string()])?;
        Ok(new)
    }

    /// Puts a policy in force everywhere. For who holds `starting` since the policy was read.
    pub(super) async fn put_in_force(self: &Arc<Self>, new: Policy) -> u64 {
        let generation = new.generation();
        self.set_policy(new);
        // A child that does not take it is started again with it: nothing goes on under the old policy.
        for problem in settle::settle(self).await {
            tracing::warn!(generation, problem, "a reload had to start a process again");
        }
        generation
    }

    /// Takes up policy files that changed. The same texts as those in force are no change: whoever wrote them had them
    /// reloaded.
    pub async fn policy_files_changed(self: &Arc<Self>) {
        let in_force = self.policy();
        let read = Policy::read_with(&self.config.policy, self.cluster_policy(), in_force.generation());
        if read.is_ok_and(|read| read.sources() == in_force.sources() && read.problems() == in_force.problems()) {
            return;
        }
        match self.reload_policy().await {
            Ok(generation) => tracing::info!(generation, "changed policy files were taken up"),
            Err(problems) => {
                for problem in &problems {
                    tracing::error!(problem, "changed policy files cannot be used; the policy before stays in force");
                }
                let record = Record::new("policy")
                    .field("by", "supervisor")
                    .field("refused", problems)
                    .field("generation", in_force.generation());
                if self.record(record).is_err() {
                    self.audit_failed();
                }
            }
        }
    }

    pub(super) fn set_policy(&self, policy: Policy) {
        if let Ok(mut slot) = self.policy.write() {
            *slot = policy;
        }
        self.changed.policy();
    }
}
