//! Follows the bundles of other trust domains: fetched at their refresh hints, on disk, in force for as long as they are fresh.
//!
//! This is no place of decisions: who may be asked, what is a bundle and which may take another's place is decided in
//! `portcullis_identity::federation`. A bundle is recorded in the audit log before it is in force. One peer's trouble is no
//! other's, and none of them touches our own bundle.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use portcullis_identity::federation::{
    Dial, FederationStore, Holding, Offered, Peer, WebTrust, bootstrap_digest, ca_certificates, fetch, next_poll,
};
use portcullis_identity::limits::{MAX_BUNDLE_BYTES, MAX_WEB_CERTIFICATE_BYTES, MIN_POLL};
use portcullis_identity::web::WebConnector;
use portcullis_identity::{BundleDocument, TrustBundle, TrustDomain};
use serde_json::json;
use tokio::net::TcpStream;

use super::dials::Dials;
use super::keeper::Keeper;
use crate::cli::files;
use crate::clock;
use crate::config::Oidc;
use crate::config::federation::{Federation, FederationPeer, ProfileName, dial_name};
use crate::identity_report::PeerReport;

/// All relationships of this host.
struct Followed {
    keeper: Arc<Keeper>,
    dialer: Dialer,
    store: FederationStore,
    state: Mutex<BTreeMap<TrustDomain, State>>,
}

/// What is held of one peer.
struct State {
    peer: Arc<Peer>,
    bootstrap: Option<String>,
    /// In force as soon as it is in the audit log.
    unrecorded: Option<Holding>,
    holding: Option<Holding>,
    next_at: Option<i64>,
    problem: Option<String>,
}

/// How one peer is followed.
struct Follow {
    peer: Arc<Peer>,
    web: WebTrust,
    poll: Option<Duration>,
}

/// Connections that the supervisor makes, to servers that are in the configuration.
struct Dialer(Arc<Dials>);

#[async_trait::async_trait]
impl Dial for Dialer {
    type Stream = TcpStream;

    async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let stream = StdStream::from(self.0.dial(&dial_name(host, port)).await?);
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }
}

/// Follows every peer of the configuration; what is stored of others is removed.
pub(super) fn start(keeper: &Arc<Keeper>, dials: &Arc<Dials>, config: &Federation, folder: &Path) -> io::Result<()> {
    let folder = folder.join("federation");
    if config.peer.is_empty() && !folder.exists() {
        return Ok(());
    }
    let store = FederationStore::open(&folder).map_err(io::Error::other)?;
    let removed = store.keep_only(config.peer.iter().map(|peer| &peer.trust_domain)).map_err(io::Error::other)?;
    if removed > 0 {
        tracing::info!(removed, "bundles of trust domains that are no longer federated with were removed");
    }
    let own = keeper.now_published().bundles.trust_domain().clone();
    let (mut state, mut follows) = (BTreeMap::new(), Vec::new());
    let system =
        config.peer.iter().any(needs_system_roots).then(|| WebConnector::system().map_err(|error| error.to_string()));
    for configured in &config.peer {
        let peer = configured.relationship(&own).map_err(|(why, _)| io::Error::other(why))?;
        let peer = Arc::new(peer);
        state.insert(configured.trust_domain.clone(), State::at_start(Arc::clone(&peer), configured, &store));
        let web = match (&configured.ca, &system) {
            (Some(path), _) => own_roots(path),
            (None, Some(system)) => system.clone(),
            (None, None) => Err("none was read".to_owned()),
        };
        follows.push(Follow { peer, web, poll: configured.poll() });
    }
    let dialer = Dialer(Arc::clone(dials));
    let followed = Arc::new(Followed { keeper: Arc::clone(keeper), dialer, store, state: Mutex::new(state) });
    followed.publish();
    for follow in follows {
        tokio::spawn(Arc::clone(&followed).follow(follow));
    }
    Ok(())
}

/// What of the file system the identity process must read for this. Of a file that may be renewed, its folder: a rule for the
/// file itself would end with the file.
pub(super) fn readable(config: &Federation, oidc: Option<&Oidc>) -> Vec<PathBuf> {
    let web = config.https_web.as_ref().map(|endpoint| [&endpoint.certificate, &endpoint.key]);
    let oidc = oidc.and_then(|oidc| Some([oidc.certificate.as_ref()?, oidc.key.as_ref()?]));
    let renewed = web.into_iter().chain(oidc).flatten().filter_map(|path| path.parent()).map(Path::to_path_buf);
    let once = config.peer.iter().flat_map(|peer| [&peer.bootstrap, &peer.ca]).flatten().cloned();
    let system = config.peer.iter().any(needs_system_roots).then(|| SYSTEM_ROOTS.map(PathBuf::from));
    renewed.chain(once).chain(system.into_iter().flatten()).collect()
}

fn needs_system_roots(peer: &FederationPeer) -> bool {
    peer.profile == ProfileName::HttpsWeb && peer.ca.is_none()
}

impl State {
    /// What is stored, unless the operator gave another bootstrap bundle since.
    fn at_start(peer: Arc<Peer>, configured: &FederationPeer, store: &FederationStore) -> Self {
        let mut problem = None;
        let stored = store.read(peer.trust_domain()).unwrap_or_else(|error| {
            tracing::error!(trust_domain = %peer.trust_domain(), %error, "a stored bundle cannot be used");
            problem = Some(error.to_string());
            None
        });
        let given = configured.bootstrap.as_deref().map(read_bootstrap).transpose().unwrap_or_else(|why| {
            tracing::error!(trust_domain = %peer.trust_domain(), why, "a bootstrap bundle cannot be used");
            problem = Some(why);
            None
        });
        let digest = given.as_deref().map(bootstrap_digest);
        let begun_anew = digest.is_some() && stored.as_ref().is_some_and(|stored| stored.bootstrap != digest);
        let holding = stored.filter(|_| !begun_anew).map(|stored| stored.holding);
        let mut unrecorded = None;
        if holding.is_none()
            && let Some(bytes) = given
        {
            match BundleDocument::parse(peer.trust_domain(), &bytes) {
                Ok(document) => unrecorded = Some(Holding::first(Arc::new(document), clock::now())),
                Err(error) => problem = Some(format!("the bootstrap bundle: {error}")),
            }
        }
        if begun_anew {
            tracing::warn!(trust_domain = %peer.trust_domain(), "another bootstrap bundle was given: begun anew with it");
        }
        let state = Self { peer, bootstrap: digest, unrecorded, holding, next_at: None, problem };
        state.write(store);
        state
    }

    fn write(&self, store: &FederationStore) {
        let Some(holding) = &self.holding else { return };
        if let Err(error) = store.write(holding, self.bootstrap.as_deref()) {
            // In force all the same: a peer that withdraws a key is followed even where the disk is full.
            tracing::error!(trust_domain = %self.peer.trust_domain(), %error, "a bundle could not be stored");
        }
    }

    fn fresh(&self) -> Option<&Arc<BundleDocument>> {
        let holding = self.holding.as_ref()?;
        holding.is_fresh(self.peer.max_age(), clock::now()).then(|| holding.document())
    }

    /// How long what is held stays in force without another fetch; `None` where nothing is.
    fn left(&self) -> Option<Duration> {
        let holding = self.holding.as_ref()?;
        let left = Duration::try_from(holding.confirmed() + self.peer.max_age() - clock::now()).ok()?;
        Some(left + Duration::from_secs(1))
    }

    fn report(&self) -> PeerReport {
        let stale = self.holding.is_some() && self.fresh().is_none();
        let problem = self.problem.clone().or_else(|| stale.then(String::new));
        PeerReport {
            trust_domain: self.peer.trust_domain().to_string(),
            profile: self.peer.profile().name().to_owned(),
            url: self.peer.url().to_string(),
            in_force: self.fresh().is_some(),
            sequence: self.holding.as_ref().and_then(|holding| holding.document().sequence()),
            fetched_at: self.holding.as_ref().map(|holding| holding.confirmed().unix_timestamp()),
            next_at: self.next_at,
            problem: problem.map(|why| if stale { format!("too old to be used; {why}") } else { why }),
        }
    }
}

impl Followed {
    async fn follow(self: Arc<Self>, follow: Follow) {
        let domain = follow.peer.trust_domain().clone();
        loop {
            // An attempt may take its time; what is too old is not trusted meanwhile.
            self.publish();
            let outcome = self.attempt(&follow).await;
            if let Err(why) = &outcome {
                tracing::warn!(trust_domain = %domain, why, "a federated bundle was not fetched");
            }
            let wait = self.settle(&follow, outcome.err());
            tokio::time::sleep(wait).await;
        }
    }

    /// Puts the bootstrap bundle in force, once it is in the audit log.
    async fn begin(&self, follow: &Follow) -> Result<(), String> {
        let domain = follow.peer.trust_domain();
        let first = match self.lock()?.get(domain) {
            Some(State { unrecorded: Some(first), holding: None, .. }) => first.clone(),
            _ => return Ok(()),
        };
        self.record(follow, first.document(), "bootstrap").await?;
        if let Some(state) = self.lock()?.get_mut(domain) {
            state.unrecorded = None;
            state.holding = Some(first);
            state.write(&self.store);
        }
        self.publish();
        Ok(())
    }

    /// One fetch and what it leads to.
    async fn attempt(&self, follow: &Follow) -> Result<(), String> {
        self.begin(follow).await?;
        let domain = follow.peer.trust_domain();
        let trust = self.trust();
        let fetched = fetch(&follow.peer, &trust, &follow.web, &self.dialer).await;
        let document = Arc::new(fetched.map_err(|error| format!("{error}; hint: {}", error.hint()))?);
        let now = clock::now();
        let (holding, offered) = {
            let mut state = self.lock()?;
            let state = state.get_mut(domain).ok_or("it is not followed any more")?;
            let mut holding = state.holding.clone();
            let offered = match &mut holding {
                Some(held) => held.offer(document, now).map_err(|error| format!("{error}; hint: {}", error.hint()))?,
                None => {
                    holding = Some(Holding::first(document, now));
                    Offered::New
                }
            };
            (holding, offered)
        };
        if offered == Offered::New
            && let Some(holding) = &holding
        {
            self.record(follow, holding.document(), "bundle").await?;
        }
        let mut state = self.lock()?;
        let state = state.get_mut(domain).ok_or("it is not followed any more")?;
        state.holding = holding;
        state.write(&self.store);
        Ok(())
    }

    /// A bundle that is not in the audit log does not come into force.
    async fn record(&self, follow: &Follow, document: &BundleDocument, change: &str) -> Result<(), String> {
        let kids: Vec<_> = document.jwt_keys().keys().iter().map(|key| key.kid().to_owned()).collect();
        let fields = json!({
            "change": change,
            "trust_domain": document.trust_domain().to_string(),
            "url": follow.peer.url().to_string(),
            "profile": follow.peer.profile().name(),
            "sequence": document.sequence(),
            "x509_authorities": document.x509_authorities().len(),
            "jwt_keys": kids,
        });
        let recorded = self.keeper.append("federation", &ulid::Ulid::generate().to_string(), &fields).await;
        recorded.map_err(|why| format!("the new bundle could not be recorded: {why}"))
    }

    /// Notes how an attempt went, publishes what is in force, and says how long to wait.
    fn settle(&self, follow: &Follow, problem: Option<String>) -> Duration {
        let mut random = [0];
        let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        let [random] = random;
        let mut wait = MIN_POLL;
        if let Ok(mut all) = self.lock()
            && let Some(state) = all.get_mut(follow.peer.trust_domain())
        {
            let hint = state.holding.as_ref().and_then(|holding| holding.document().refresh_hint());
            let poll = next_poll(hint, follow.poll, random);
            // Without any bundle there is nothing to go on with until the next interval.
            let poll = poll.min(follow.peer.max_age() / 2);
            wait = if state.holding.is_none() { poll.min(MIN_POLL) } else { poll };
            // Out of force as soon as it is too old, not at the first look after that.
            wait = state.left().map_or(wait, |left| wait.min(left));
            state.next_at = Some((clock::now() + wait).unix_timestamp());
            state.problem = problem;
        }
        self.publish();
        wait
    }

    /// What is in force from now on, and what an operator sees of it.
    fn publish(&self) {
        let Ok(state) = self.lock() else { return };
        let documents: Vec<_> = state.values().filter_map(State::fresh).cloned().collect();
        let reports = state.values().map(State::report).collect();
        drop(state);
        if let Ok(mut peers) = self.keeper.peers.lock() {
            *peers = reports;
        }
        self.keeper.foreign.send_if_modified(|current| {
            let same = current.len() == documents.len()
                && current.iter().zip(&documents).all(|(one, other)| one.json() == other.json());
            if !same {
                *current = Arc::new(documents);
            }
            !same
        });
    }

    /// What endpoints' X.509-SVIDs are verified with: our own bundle and the latest of each peer, each for its own domain.
    fn trust(&self) -> TrustBundle {
        let mut trust = TrustBundle::new();
        let held: Vec<_> = match self.lock() {
            Ok(state) => {
                state.values().filter_map(|state| state.holding.as_ref()).map(Holding::document).cloned().collect()
            }
            Err(_) => Vec::new(),
        };
        for document in held.into_iter().chain([Arc::clone(self.keeper.now_published().bundles.own())]) {
            if let Err(error) = trust.put(document) {
                tracing::error!(%error, "a bundle is left out");
            }
        }
        trust
    }

    fn lock(&self) -> Result<MutexGuard<'_, BTreeMap<TrustDomain, State>>, String> {
        self.state.lock().map_err(|_| "poisoned".to_owned())
    }
}

fn read_bootstrap(path: &Path) -> Result<Vec<u8>, String> {
    let most = u64::try_from(MAX_BUNDLE_BYTES).unwrap_or(u64::MAX);
    files::read_bytes(path, most, "bootstrap bundle").map_err(|error| error.to_string())
}

fn own_roots(path: &Path) -> WebTrust {
    let most = u64::try_from(MAX_WEB_CERTIFICATE_BYTES).unwrap_or(u64::MAX);
    let pem = files::read_bytes(path, most, "ca").map_err(|error| error.to_string())?;
    let roots = ca_certificates(&pem).map_err(|error| format!("{}: {error}", path.display()))?;
    WebConnector::with_roots(roots, "none of them can be used").map_err(|error| error.to_string())
}

/// Where systems keep their root certificates.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/pki",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];

#[cfg(test)]
mod tests {
    use portcullis_identity::federation::Profile;

    use super::*;
    use crate::roles::identity::rig::Rig;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_bundle_is_looked_at_again_as_soon_as_it_is_too_old_and_is_out_of_force_then() {
        let rig = Rig::new().await;
        let domain: TrustDomain = "partner.example".parse().unwrap();
        let url = "https://partner.example/".parse().unwrap();
        let hour = Duration::from_secs(3600);
        let own = "example.org".parse().unwrap();
        let peer = Arc::new(Peer::new(&own, domain.clone(), url, Profile::Web, Vec::new(), hour).unwrap());
        let document = Arc::new(BundleDocument::parse(&domain, br#"{"keys":[],"spiffe_sequence":1}"#).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let store = FederationStore::open(&folder.path().join("federation")).unwrap();
        let held = |age: Duration| {
            let holding = Some(Holding::first(Arc::clone(&document), clock::now() - age));
            let peer = Arc::clone(&peer);
            BTreeMap::from([(
                domain.clone(),
                State { peer, bootstrap: None, unrecorded: None, holding, next_at: None, problem: None },
            )])
        };
        let followed = Followed {
            keeper: Arc::clone(&rig.keeper),
            dialer: Dialer(Arc::clone(&rig.keeper.dials)),
            store,
            state: Mutex::new(held(hour - Duration::from_secs(10))),
        };
        let follow = Follow { peer: Arc::clone(&peer), web: Err("none".to_owned()), poll: None };
        let wait = followed.settle(&follow, Some("away".to_owned()));
        assert!(wait <= Duration::from_secs(11), "{wait:?}");
        assert_eq!(rig.keeper.foreign.borrow().len(), 1);
        *followed.state.lock().unwrap() = held(hour + Duration::from_secs(1));
        let wait = followed.settle(&follow, Some("away".to_owned()));
        assert!(wait > Duration::from_secs(11), "tried again without a pause");
        assert_eq!(rig.keeper.foreign.borrow().len(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_bootstrap_bundle_is_in_force_once_it_is_recorded_and_not_before() {
        let rig = Rig::new().await;
        let folder = tempfile::tempdir().unwrap();
        let bootstrap = folder.path().join("bootstrap.json");
        std::fs::write(&bootstrap, br#"{"keys":[],"spiffe_sequence":7}"#).unwrap();
        let text = format!(
            "trust_domain = \"partner.example\"\nurl = \"https://partner.example/\"\nprofile = \"https_web\"\nbootstrap = {:?}",
            bootstrap.display().to_string()
        );
        let configured: FederationPeer = toml::from_str(&text).unwrap();
        let own = "example.org".parse().unwrap();
        let peer = Arc::new(configured.relationship(&own).unwrap_or_else(|(why, _)| panic!("{why}")));
        let store = FederationStore::open(&folder.path().join("federation")).unwrap();
        let state = State::at_start(Arc::clone(&peer), &configured, &store);
        let followed = Followed {
            keeper: Arc::clone(&rig.keeper),
            dialer: Dialer(Arc::clone(&rig.keeper.dials)),
            store,
            state: Mutex::new(BTreeMap::from([(peer.trust_domain().clone(), state)])),
        };
        let follow = Follow { peer, web: Err("none".to_owned()), poll: None };
        followed.publish();
        rig.sink.set_broken(true);
        assert!(followed.begin(&follow).await.is_err());
        followed.publish();
        assert_eq!(rig.keeper.foreign.borrow().len(), 0);
        rig.sink.set_broken(false);
        followed.begin(&follow).await.unwrap();
        assert_eq!(rig.keeper.foreign.borrow().len(), 1);
        let records = rig.records("federation");
        assert_eq!(
            (records.len(), &records[0]["change"], &records[0]["sequence"]),
            (1, &json!("bootstrap"), &json!(7))
        );
        // Once; after a restart it is what is stored.
        followed.begin(&follow).await.unwrap();
        assert_eq!(rig.records("federation").len(), 1);
    }
}
