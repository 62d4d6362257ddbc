//! Where things are in NATS: buckets, keys, subjects; and the place that a statement is bound to, so that what was signed for
//! one key or subject is worth nothing under another.

use portcullis_signing::ComponentName;

use crate::token::{ClusterName, HostId};

/// A bucket of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Manifests, one key for each component.
    Desired,
    /// The revocation list, under one key.
    Revoked,
    /// The set of policies, under one key.
    Policy,
}

/// A key in a bucket of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The manifest of a component.
    App(ComponentName),
    /// The revocation list.
    Revoked,
    /// The set of policies.
    Policy,
}

impl Bucket {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Desired, Self::Revoked, Self::Policy];

    /// The last part of its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Desired => "desired",
            Self::Revoked => "revoked",
            Self::Policy => "policy",
        }
    }

    /// Its name.
    pub fn name(self, cluster: &ClusterName) -> String {
        format!("portcullis-{cluster}-{}", self.word())
    }

    /// Its stream.
    pub fn stream(self, cluster: &ClusterName) -> String {
        format!("KV_{}", self.name(cluster))
    }

    /// What its keys' subjects begin with.
    pub fn prefix(self, cluster: &ClusterName) -> String {
        format!("$KV.{}.", self.name(cluster))
    }

    /// Where core NATS hears of its new values: what subjects begin with.
    pub fn republished(self, cluster: &ClusterName) -> String {
        format!("portcullis.{cluster}.kv.{}.", self.word())
    }
}

impl Place {
    /// The bucket.
    pub fn bucket(&self) -> Bucket {
        match self {
            Self::App(_) => Bucket::Desired,
            Self::Revoked => Bucket::Revoked,
            Self::Policy => Bucket::Policy,
        }
    }

    /// The key. A component's has its namespace and its name as tokens of their own.
    pub fn key(&self) -> String {
        match self {
            Self::App(name) => format!("app.{}.{}", name.namespace(), name.name()),
            Self::Revoked => "list".to_owned(),
            Self::Policy => "set".to_owned(),
        }
    }

    /// What a statement for it is bound to (`sub`).
    pub fn statement(&self) -> String {
        format!("{}/{}", self.bucket().word(), self.key())
    }

    /// The subject that writes it.
    pub fn subject(&self, cluster: &ClusterName) -> String {
        format!("{}{}", self.bucket().prefix(cluster), self.key())
    }

    /// Reads a key of a bucket. Others than ours are nobody's.
    pub fn parse(bucket: Bucket, key: &str) -> Option<Self> {
        let place = match bucket {
            Bucket::Desired => {
                let (namespace, name) = key.strip_prefix("app.")?.split_once('.')?;
                Self::App(format!("{namespace}:{name}").parse().ok()?)
            }
            Bucket::Revoked => Self::Revoked,
            Bucket::Policy => Self::Policy,
        };
        (place.key() == key).then_some(place)
    }

    /// Reads the subject of a value: as it is stored, or as it is republished.
    pub fn of_subject(cluster: &ClusterName, subject: &str) -> Option<Self> {
        Bucket::ALL.into_iter().find_map(|bucket| {
            let key = subject
                .strip_prefix(&bucket.prefix(cluster))
                .or_else(|| subject.strip_prefix(&bucket.republished(cluster)))?;
            Self::parse(bucket, key)
        })
    }
}

/// What all new values of a cluster are heard on.
pub fn all_values(cluster: &ClusterName) -> String {
    format!("portcullis.{cluster}.kv.>")
}

/// The subject of a host's heartbeats.
pub fn heartbeat(cluster: &ClusterName, host: &HostId) -> String {
    format!("portcullis.{cluster}.hb.{host}")
}

/// What all heartbeats of a cluster are heard on.
pub fn all_heartbeats(cluster: &ClusterName) -> String {
    format!("portcullis.{cluster}.hb.*")
}

/// The host whose heartbeats come on a subject.
pub fn heartbeat_host(cluster: &ClusterName, subject: &str) -> Option<HostId> {
    subject.strip_prefix(&format!("portcullis.{cluster}.hb."))?.parse().ok()
}

/// The subject of a host's events of a kind.
pub fn event(cluster: &ClusterName, host: &HostId, kind: &str) -> String {
    format!("portcullis.{cluster}.evt.{host}.{kind}")
}

/// What all events of a cluster are heard on.
pub fn all_events(cluster: &ClusterName) -> String {
    format!("portcullis.{cluster}.evt.>")
}

/// The host whose events come on a subject, and their kind.
pub fn event_host<'a>(cluster: &ClusterName, subject: &'a str) -> Option<(HostId, &'a str)> {
    let (host, kind) = subject.strip_prefix(&format!("portcullis.{cluster}.evt."))?.split_once('.')?;
    Some((host.parse().ok()?, kind))
}

/// What a statement for a cluster is addressed to (`aud`).
pub fn audience(cluster: &ClusterName) -> String {
    format!("cluster:{cluster}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_in_one_way_only() {
        let cluster: ClusterName = "prod".parse().unwrap();
        let app = Place::App("shop:cart".parse().unwrap());
        assert_eq!(app.key(), "app.shop.cart");
        assert_eq!(app.statement(), "desired/app.shop.cart");
        assert_eq!(app.subject(&cluster), "$KV.portcullis-prod-desired.app.shop.cart");
        assert_eq!(Place::of_subject(&cluster, &app.subject(&cluster)), Some(app.clone()));
        assert_eq!(Place::of_subject(&cluster, "portcullis.prod.kv.desired.app.shop.cart"), Some(app));
        assert_eq!(Place::of_subject(&cluster, "$KV.portcullis-prod-revoked.list"), Some(Place::Revoked));
        assert_eq!(Place::of_subject(&cluster, "portcullis.prod.kv.policy.set"), Some(Place::Policy));
        for other in [
            "portcullis.prod.kv.desired.app.shop",
            "portcullis.prod.kv.desired.app.shop.cart.x",
            "portcullis.prod.kv.desired.app.shop:cart.x",
            "portcullis.prod.kv.revoked.other",
            "portcullis.other.kv.revoked.list",
            "portcullis.prod.ctl.h1.start",
            "$KV.x.list",
            "",
        ] {
            assert_eq!(Place::of_subject(&cluster, other), None, "{other}");
        }
    }

    #[test]
    fn heartbeats_and_events_name_their_host_in_the_subject() {
        let (cluster, host): (ClusterName, HostId) = ("prod".parse().unwrap(), "h1".parse().unwrap());
        assert_eq!(heartbeat_host(&cluster, &heartbeat(&cluster, &host)), Some(host.clone()));
        assert_eq!(event_host(&cluster, &event(&cluster, &host, "started")), Some((host, "started")));
        for bad in ["portcullis.prod.hb.h1.x", "portcullis.prod.hb.", "portcullis.prod.hb.*", "portcullis.other.hb.h1"]
        {
            assert_eq!(heartbeat_host(&cluster, bad), None, "{bad}");
        }
    }
}
