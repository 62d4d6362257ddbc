//! What a broker may have at one time, and what becomes of connections on which nobody ever shakes hands.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use portcullis_identity::limits::BROKER_STREAMS;
use portcullis_tests::host::Host;
use portcullis_tests::patience::LONG;
use spiffe::broker_api::pb::spiffe::broker::SubscribeToX509BundlesRequest;

use crate::{Broker, site, socket};

/// BROKER_STREAMS: one more waits until there is room.
#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_those_that_a_broker_may_have_wait_for_one_to_end() {
    let host = tokio::task::spawn_blocking(|| Host::ready(site())).await.unwrap();
    let mesh = Broker::new(&host, "mesh").await;
    let mut client = mesh.client().await;
    let request = SubscribeToX509BundlesRequest { reference: Some(mesh.reference(&host, "test:greeter")) };
    let mut streams = Vec::new();
    for _ in 0..BROKER_STREAMS {
        let mut stream = client.subscribe_to_x509_bundles(request.clone()).await.unwrap().into_inner();
        assert!(stream.message().await.unwrap().is_some());
        streams.push(stream);
    }
    let more = client.subscribe_to_x509_bundles(request.clone());
    assert!(tokio::time::timeout(Duration::from_secs(2), more).await.is_err(), "one more than may be");
    // Another connection is not held up by it.
    let mut other = mesh.client().await;
    assert!(other.subscribe_to_x509_bundles(request.clone()).await.is_ok());
    drop(streams.pop());
    let more = tokio::time::timeout(LONG, client.subscribe_to_x509_bundles(request)).await.expect("there is room");
    assert!(more.unwrap().into_inner().message().await.unwrap().is_some());
}

/// BROKER_CONNECTIONS and BROKER_HANDSHAKE: 64 that say nothing have all places, for ten seconds.
#[test]
fn connections_that_never_shake_hands_are_ended_and_make_room() {
    let host = Host::ready(site());
    let began = Instant::now();
    let connect = || {
        let stream = UnixStream::connect(socket(&host)).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    };
    let silent: Vec<UnixStream> = (0..64).map(|_| connect()).collect();
    // What is no handshake is hung up on at once, by whoever has a place.
    let hung_up = || {
        let mut plain = connect();
        plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        let mut answer = Vec::new();
        let ended = plain.read_to_end(&mut answer);
        assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
        assert!(answer.first().is_none_or(|byte| *byte == 0x15), "{answer:?}");
        began.elapsed()
    };
    let took = hung_up();
    assert!(took >= Duration::from_secs(8), "there was a place for one more: {took:?}");
    for mut stream in silent {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{answer:?}");
    }
    hung_up();
    assert!(host.log().contains("the handshake took too long"), "{}", host.log());
}
