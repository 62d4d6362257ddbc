//! The way to a real nats-server: every kind of credential, its rotation, and what keeps a host from being ready.

use portcullis_tests::nats::operator::Operator;
use portcullis_tests::nats::pki::{Authority, replace};
use portcullis_tests::nats::{NatsServer, folder};
use serde_json::json;

#[tokio::test]
async fn the_server_of_the_tests_takes_spiffe_certificates_and_credentials_files() {
    let test = "the_server_of_the_tests_takes_spiffe_certificates_and_credentials_files";
    let (place, authority) = (folder(), Authority::new("A test root"));
    authority.write(place.path(), "ca");
    authority.server().write(place.path(), "server");
    let (certificate, key) = authority.spiffe("spiffe://test.example/portcullis/host").write(place.path(), "host");
    let config = "tls { cert_file: server.pem, key_file: server.key, ca_file: ca.pem, verify_and_map: true }
        accounts { APP { users: [ { user: \"spiffe://test.example/portcullis/host\" } ] } }";
    let Some(mut server) = NatsServer::start_in(test, place, config) else { return };
    let connect = || {
        let options = async_nats::ConnectOptions::new().require_tls(true);
        let options = options.add_root_certificates(server.folder().join("ca.pem"));
        options.add_client_certificate(certificate.clone(), key.clone()).connect(server.tls_url())
    };
    let client = connect().await.unwrap();
    let info = client.request("$SYS.REQ.USER.INFO", "".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&info.payload).contains("spiffe://test.example/portcullis/host"), "{info:?}");
    drop(client);
    server.reload();
    server.restart();

    let mut operator = Operator::new();
    let account = operator.account("APP", json!({}));
    let Some(server) = NatsServer::start(test, &operator.config()) else { return };
    let credentials = account.credentials("a user", json!({}), None);
    let path = replace(server.folder(), "user.creds", &credentials);
    let options = async_nats::ConnectOptions::with_credentials_file(path).await.unwrap();
    let client = options.connect(server.url()).await.unwrap();
    let info = client.request("$SYS.REQ.USER.INFO", "".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&info.payload).contains(&account.key.public_key()), "{info:?}");
}
