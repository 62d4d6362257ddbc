//! mTLS connections that stand, inbound and outbound, each with what it was proven with, so that it ends when the proof does.
//!
//! A handshake is checked once; bundles change, identities are revoked, instances stop afterwards. Then every live connection is
//! checked again here, both sides of it, and what would not pass now is cut. Rotation alone cuts nothing: the old authority
//! stays in the bundle for as long as its SVIDs live.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use portcullis_identity::SpiffeId;
use portcullis_identity::mtls::Peer;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::identity::trust::{Trust, Unfit};

/// The table of live connections.
#[derive(Debug, Default)]
pub struct Live {
    entries: Mutex<HashMap<u64, Entry>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    instance: String,
    peer: Arc<Peer>,
    end: oneshot::Sender<Unfit>,
}

/// A connection's entry in the table. Dropping it takes the entry out.
#[derive(Debug)]
pub struct Place {
    live: Arc<Live>,
    number: u64,
    end: oneshot::Receiver<Unfit>,
    until: OffsetDateTime,
}

/// A connection that was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Whose it was.
    pub instance: String,
    /// The other side.
    pub peer: SpiffeId,
    /// Whether the other side had called.
    pub inbound: bool,
    /// Why it was cut.
    pub why: Unfit,
}

/// A stream that ends with its entry: each read and write fails from then on.
#[derive(Debug)]
pub struct Guarded<S> {
    stream: S,
    place: Place,
    expiry: Pin<Box<Sleep>>,
    over: Option<Unfit>,
}

impl Live {
    /// Enters a connection of `instance` to or from `peer`.
    pub fn enter(self: &Arc<Self>, instance: &str, peer: &Peer) -> Place {
        let (end, ended) = oneshot::channel();
        let until = peer.not_after().min(peer.presented().not_after);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { instance: instance.to_owned(), peer: Arc::new(peer.clone()), end };
        if let Ok(mut entries) = self.entries.lock() {
            entries.insert(number, entry);
        }
        Place { live: Arc::clone(self), number, end: ended, until }
    }

    /// Checks every connection again and cuts those that would not be made now. Does not wait: run it where computing is fine.
    pub fn review(&self, trust: &Trust, now: OffsetDateTime) -> Vec<Cut> {
        let all: Vec<(u64, String, Arc<Peer>)> = match self.entries.lock() {
            Ok(entries) => entries
                .iter()
                .map(|(number, entry)| (*number, entry.instance.clone(), Arc::clone(&entry.peer)))
                .collect(),
            Err(_) => return Vec::new(),
        };
        // Many connections show the same chains: each is verified once.
        let mut known = HashMap::new();
        let mut cut = Vec::new();
        for (number, instance, peer) in all {
            let checked =
                own(&mut known, trust, &instance, &peer, now).and_then(|()| other(&mut known, trust, &peer, now));
            if let Err(why) = checked {
                cut.extend(self.end(number, why));
            }
        }
        cut
    }

    /// Cuts every connection of an instance that was stopped.
    pub fn stop(&self, instance: &str) -> usize {
        self.end_of(instance, &Unfit::Stopped).len()
    }

    /// Cuts every connection of an instance.
    pub fn end_of(&self, instance: &str, why: &Unfit) -> Vec<Cut> {
        let numbers: Vec<u64> = match self.entries.lock() {
            Ok(entries) => {
                entries.iter().filter(|(_, entry)| entry.instance == instance).map(|(number, _)| *number).collect()
            }
            Err(_) => return Vec::new(),
        };
        numbers.into_iter().filter_map(|number| self.end(number, why.clone())).collect()
    }

    /// Cuts every connection.
    pub fn end_all(&self, why: &Unfit) -> Vec<Cut> {
        let numbers: Vec<u64> = match self.entries.lock() {
            Ok(entries) => entries.keys().copied().collect(),
            Err(_) => return Vec::new(),
        };
        numbers.into_iter().filter_map(|number| self.end(number, why.clone())).collect()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.lock().unwrap().len()
    }

    fn end(&self, number: u64, why: Unfit) -> Option<Cut> {
        let entry = self.entries.lock().ok()?.remove(&number)?;
        let peer = entry.peer.spiffe_id().clone();
        let inbound = entry.peer.server_name().is_some();
        // Nobody there any more: it ended by itself meanwhile.
        entry.end.send(why.clone()).ok()?;
        Some(Cut { instance: entry.instance, peer, inbound, why })
    }
}

type Known = HashMap<(String, Vec<u8>), Result<(), Unfit>>;

fn own(known: &mut Known, trust: &Trust, instance: &str, peer: &Peer, now: OffsetDateTime) -> Result<(), Unfit> {
    let svid = peer.presented();
    let key = (instance.to_owned(), svid.chain.concat());
    known.entry(key).or_insert_with(|| trust.check_own(instance, svid, now)).clone()
}

fn other(known: &mut Known, trust: &Trust, peer: &Peer, now: OffsetDateTime) -> Result<(), Unfit> {
    // No instance has this name; a chain is checked as a client's or as a server's.
    let side = if peer.server_name().is_some() { "/client" } else { "/server" };
    let key = (side.to_owned(), peer.certificates().collect::<Vec<_>>().concat());
    known.entry(key).or_insert_with(|| trust.check_peer(peer, now)).clone()
}

impl Place {
    /// Waits until the connection is cut.
    pub async fn cut(&mut self) -> Unfit {
        match (&mut self.end).await {
            Ok(why) => why,
            // Not cut, and nobody left who could.
            Err(_) => std::future::pending().await,
        }
    }

    /// The stream, for as long as the connection may live.
    pub fn guard<S>(self, stream: S) -> Guarded<S> {
        let expiry = Box::pin(tokio::time::sleep(left(self.until)));
        Guarded { stream, place: self, expiry, over: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Ok(mut entries) = self.live.entries.lock() {
            entries.remove(&self.number);
        }
    }
}

/// How long from now until then; nothing if that is past.
pub fn left(until: OffsetDateTime) -> std::time::Duration {
    (until - crate::clock::now()).try_into().unwrap_or_default()
}

impl<S> Guarded<S> {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.over.is_none() {
            if let Poll::Ready(Ok(why)) = Pin::new(&mut self.place.end).poll(cx) {
                self.over = Some(why);
            } else if self.expiry.as_mut().poll(cx).is_ready() {
                self.over = Some(Unfit::Expired);
            }
        }
        match &self.over {
            Some(why) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, why.clone())),
            None => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_identity::mtls::{self, HandshakeSigner, ServedIdentity, Svid};
    use portcullis_identity::rpc::BundleUpdate;
    use portcullis_identity::{Issuer, Lifetimes, TrustBundle, TrustDomain, Workload};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// An issuer with `a` and `b`, and connections between them by real handshakes.
    struct Site {
        issuer: Arc<Mutex<Issuer>>,
        live: Arc<Live>,
        _folder: tempfile::TempDir,
    }

    #[derive(Debug)]
    struct Signs(Arc<Mutex<Issuer>>, &'static str);

    impl HandshakeSigner for Signs {
        fn sign(&self, key_id: &str, message: &[u8]) -> Result<Vec<u8>, String> {
            let issuer = self.0.lock().unwrap();
            issuer.sign_handshake(&self.1.parse().unwrap(), key_id, message).map_err(|error| error.to_string())
        }
    }

    impl Site {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let domain: TrustDomain = "example.org".parse().unwrap();
            let now = crate::clock::now();
            let mut issuer = Issuer::open(&folder.path().join("state"), &domain, Lifetimes::default(), now).unwrap();
            for instance in ["a", "b"] {
                let workload = Workload {
                    instance: instance.parse().unwrap(),
                    spiffe_id: format!("spiffe://example.org/{instance}").parse().unwrap(),
                    digest: "sha256:00".to_owned(),
                    component: instance.to_owned(),
                    exportable: false,
                };
                issuer.admit(workload).unwrap();
            }
            Self { issuer: Arc::new(Mutex::new(issuer)), live: Arc::default(), _folder: folder }
        }

        fn svid(&self, instance: &str) -> Arc<Svid> {
            let mut issuer = self.issuer.lock().unwrap();
            let life = Duration::from_secs(600);
            let svid = issuer.x509_svid(&instance.parse().unwrap(), life, crate::clock::now()).unwrap().svid;
            let portcullis_identity::X509Svid { spiffe_id, chain, key_id, not_after, .. } = svid;
            Arc::new(Svid { spiffe_id, chain, key_id, not_after })
        }

        fn update(&self) -> BundleUpdate {
            let bundle = self.issuer.lock().unwrap().bundle();
            BundleUpdate { bundle_json: bundle.to_json(), ..BundleUpdate::default() }
        }

        fn trust(&self, change: impl FnOnce(&mut BundleUpdate)) -> Trust {
            let mut update = self.update();
            change(&mut update);
            Trust::parse(&"example.org".parse().unwrap(), update).unwrap()
        }

        /// A connection from `a` to `b`, entered at both ends: the client's stream and place, the server's stream and place.
        async fn connect(&self) -> (mtls::TlsStream<DuplexStream>, Place, mtls::TlsStream<DuplexStream>, Place) {
            let bundle = self.issuer.lock().unwrap().bundle();
            let trust = TrustBundle::from_json(bundle.trust_domain(), bundle.to_json().as_bytes()).unwrap();
            let trust = Arc::new(trust);
            let served =
                ServedIdentity { svid: self.svid("b"), signer: Arc::new(Signs(Arc::clone(&self.issuer), "b")) };
            let theirs = Arc::clone(&trust);
            let acceptor =
                mtls::acceptor(Arc::new(move |_| Some(served.clone())), Arc::new(move || Arc::clone(&theirs))).unwrap();
            let signer = Arc::new(Signs(Arc::clone(&self.issuer), "a"));
            let peer = "spiffe://example.org/b".parse().unwrap();
            let connector = mtls::connector(&self.svid("a"), signer, &trust, &peer).unwrap();
            let (near, far) = duplex(1 << 16);
            let (connected, accepted) = tokio::join!(connector.connect("b.example", near), acceptor.accept(far));
            let ((near, server), (far, client)) = (connected.unwrap(), accepted.unwrap());
            (near, self.live.enter("a", &server), far, self.live.enter("b", &client))
        }
    }

    #[tokio::test]
    async fn what_still_holds_is_left_alone_and_an_entry_goes_with_its_connection() {
        let site = Site::new();
        let (_near, client, _far, server) = site.connect().await;
        assert_eq!(site.live.len(), 2);
        assert_eq!(site.live.review(&site.trust(|_| ()), crate::clock::now()), []);
        drop(client);
        assert_eq!(site.live.len(), 1);
        drop(server);
        assert_eq!(site.live.len(), 0);
    }

    #[tokio::test]
    async fn a_bundle_without_the_authority_cuts_both_ends() {
        let site = Site::new();
        let (_near, mut client, _far, mut server) = site.connect().await;
        let empty = site.trust(|update| update.bundle_json = "{\"keys\":[]}".to_owned());
        let cut = site.live.review(&empty, crate::clock::now());
        assert_eq!(cut.len(), 2);
        assert!(cut.iter().all(|cut| matches!(cut.why, Unfit::Own(_))), "{cut:?}");
        assert!(matches!(client.cut().await, Unfit::Own(_)));
        assert!(matches!(server.cut().await, Unfit::Own(_)));
        assert_eq!(site.live.len(), 0, "an entry that was cut is gone");
    }

    #[tokio::test]
    async fn a_revoked_id_cuts_at_both_ends_for_their_own_reasons() {
        let site = Site::new();
        let (_near, _client, _far, _server) = site.connect().await;
        let trust = site.trust(|update| update.revoked = vec!["spiffe://example.org/a".to_owned()]);
        let mut cut = site.live.review(&trust, crate::clock::now());
        cut.sort_by_key(|cut| cut.inbound);
        let [outbound, inbound] = cut.as_slice() else { panic!("{cut:?}") };
        assert_eq!((outbound.instance.as_str(), &outbound.why), ("a", &Unfit::OwnRevoked));
        assert_eq!((inbound.instance.as_str(), &inbound.why), ("b", &Unfit::PeerRevoked));
        assert_eq!(inbound.peer.to_string(), "spiffe://example.org/a");
    }

    #[tokio::test]
    async fn a_revoked_instance_cuts_its_own_end_and_a_stop_too() {
        let site = Site::new();
        let (_near, _client, _far, mut server) = site.connect().await;
        let trust = site.trust(|update| update.revoked_instances = vec!["a".to_owned()]);
        let cut = site.live.review(&trust, crate::clock::now());
        assert_eq!(cut.iter().map(|cut| cut.instance.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!((site.live.stop("c"), site.live.stop("b"), site.live.stop("b")), (0, 1, 0));
        assert_eq!(server.cut().await, Unfit::Stopped);
    }

    #[tokio::test]
    async fn every_connection_is_cut_while_it_is_not_known_whom_to_trust() {
        let site = Site::new();
        let (_near, mut client, _far, mut server) = site.connect().await;
        assert_eq!(site.live.end_all(&Unfit::Unknown).len(), 2);
        assert_eq!((client.cut().await, server.cut().await), (Unfit::Unknown, Unfit::Unknown));
        assert_eq!(site.live.len(), 0);
    }

    #[tokio::test]
    async fn svids_that_ended_are_found_by_a_review() {
        let site = Site::new();
        let (_near, client, _far, _server) = site.connect().await;
        let cut = site.live.review(&site.trust(|_| ()), client.until + Duration::from_secs(2));
        assert_eq!(cut.len(), 2);
    }

    #[tokio::test]
    async fn a_guarded_stream_works_until_it_is_cut_and_wakes_whoever_reads() {
        let site = Site::new();
        let (near, client, mut far, _server) = site.connect().await;
        let mut guarded = client.guard(near);
        guarded.write_all(b"hello").await.unwrap();
        guarded.flush().await.unwrap();
        let mut read = [0; 5];
        far.read_exact(&mut read).await.unwrap();
        let reading = tokio::spawn(async move {
            let error = guarded.read_u8().await.unwrap_err();
            (error.kind(), guarded.write_all(b"x").await.is_err(), guarded.read_u8().await.is_err())
        });
        tokio::task::yield_now().await;
        assert_eq!(site.live.stop("a"), 1);
        assert_eq!(reading.await.unwrap(), (io::ErrorKind::ConnectionAborted, true, true));
    }

    #[tokio::test]
    async fn a_guarded_stream_ends_with_the_first_of_its_svids() {
        let site = Site::new();
        let (near, mut client, _far, _server) = site.connect().await;
        client.until = crate::clock::now() + Duration::from_millis(50);
        let mut guarded = client.guard(near);
        let error = tokio::time::timeout(Duration::from_secs(10), guarded.read_u8()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
