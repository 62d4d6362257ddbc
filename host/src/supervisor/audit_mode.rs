//! Audit mode: what nobody granted to a component is let through and recorded, for a time.
//!
//! Two keys open it: the configuration names the component, and a command says for how long, at most a day. It is kept in memory
//! only, so a restart of the host ends it. Its start and its end are on disk before they are in force; the end also comes in
//! each process that decides, by its own clock. Guards, admission and key export are as ever.

use std::sync::Arc;
use std::time::Duration;

use super::policy::Policy;
use super::refused::Refused;
use super::{Host, settle};
use crate::audit::Record;
use crate::cli::error::exit;
use crate::clock;
use crate::limits::AUDIT_MODE_MOST;
use crate::policy::Audited;
use crate::policy::pushed::{self, End};

impl Host {
    /// Those in audit mode now.
    pub fn audited(&self) -> Audited {
        self.audited.lock().map(|audited| audited.at(clock::now())).unwrap_or_default()
    }

    /// Whether a component is in audit mode now.
    pub fn is_audited(&self, component: &str) -> bool {
        self.audited.lock().is_ok_and(|audited| audited.holds(component, clock::now()))
    }

    /// Puts a running component into audit mode; gives its end.
    pub async fn begin_audit_mode(self: &Arc<Self>, component: &str, seconds: u64) -> Result<i64, Refused> {
        if seconds == 0 || seconds > AUDIT_MODE_MOST.as_secs() {
            let message =
                format!("audit mode lasts at least a second and at most {} hours", AUDIT_MODE_MOST.as_secs() / 3600);
            return Err(refused(exit::USAGE, "policy.audit-time", message, "for instance --for 4h"));
        }
        if !self.config.policy.audit_mode.iter().any(|name| name == component) {
            let message = format!("the configuration does not let `{}` be in audit mode", component.escape_debug());
            let hint =
                "two keys open it: name the component in policy.audit_mode of the configuration, and restart the host";
            return Err(refused(exit::DENIED, "policy.audit-not-configured", message, hint));
        }
        let _one_at_a_time = self.starting.lock().await;
        if !self.running().iter().any(|running| running.admitted.facts().name == component) {
            let message = format!("`{}` does not run", component.escape_debug());
            return Err(refused(exit::USAGE, "policy.audit-not-running", message, "`portcullis list` shows what runs"));
        }
        let now = clock::now();
        // Whole seconds, never less than was asked for.
        let until = (now + Duration::from_secs(seconds) + Duration::from_nanos(999_999_999)).unix_timestamp();
        let record = self.audit_record(component, "begin").field("until", until);
        self.record(record).map_err(Refused::internal)?;
        // There is room: the configuration names no more components than that.
        let begun = self.audited.lock().is_ok_and(|mut audited| audited.begin(component.to_owned(), until));
        if !begun {
            return Err(Refused::internal("no room for another component in audit mode"));
        }
        self.put_audit_mode_in_force().await;
        let shown = crate::cli::policy::audit_mode::shown(until);
        tracing::warn!(
            component,
            until = shown,
            "AUDIT MODE: what nobody granted to this component is let through until then"
        );
        let host = Arc::clone(self);
        let component = component.to_owned();
        let end = End::of(until, clock::now());
        tokio::spawn(async move {
            pushed::over(end).await;
            host.end_audit_mode(&component, Some(until)).await;
        });
        Ok(until)
    }

    /// Ends the audit mode of a component: the one that ends then, or whichever there is. Says whether there was one.
    pub async fn end_audit_mode(self: &Arc<Self>, component: &str, until: Option<i64>) -> bool {
        let _one_at_a_time = self.starting.lock().await;
        let ended = self.audited.lock().is_ok_and(|mut audited| {
            let is_meant = until.is_none_or(|until| audited.until(component) == Some(until));
            is_meant && audited.end(component)
        });
        if !ended || self.is_stopping() {
            return ended;
        }
        let why = if until.is_some() { "time" } else { "asked" };
        if let Err(error) = self.record(self.audit_record(component, "end").field("why", why)) {
            tracing::error!(%error, "the end of an audit mode could not be recorded; it ends all the same");
            self.audit_failed();
        }
        self.put_audit_mode_in_force().await;
        tracing::warn!(component, why, "audit mode is over: what nobody granted is refused again");
        true
    }

    /// A new generation of the same policy, so that nobody goes on under the one before.
    async fn put_audit_mode_in_force(self: &Arc<Self>) {
        let next = self.policy().next();
        match next {
            Ok(policy) => self.set_policy(policy),
            // It compiled before. Nothing is the safe policy where it does not now.
            Err(problems) => self.set_policy(Policy::deny_all(self.policy().generation() + 1, problems)),
        }
        settle::settle(self).await;
    }

    fn audit_record(&self, component: &str, event: &str) -> Record {
        Record::new("audit-mode").field("by", "supervisor").field("component", component).field("event", event)
    }
}

fn refused(exit: u8, code: &str, message: String, hint: &str) -> Refused {
    Refused { exit, code: code.to_owned(), message, hint: hint.to_owned(), ..Refused::internal("") }
}
