//! Subscriptions that reach wider than a component may hear, through a running host and a real nats-server: by a wildcard over what is
//! forbidden, by a queue group, by somebody else's inbox. What the host denies does not arrive, and what the host would grant and the
//! server denies does not either.

#[path = "../messages.rs"]
mod messages;

use std::time::Duration;

use async_nats::Client;
use futures::StreamExt as _;
use portcullis_tests::host::Host;
use portcullis_tests::nats::pki::{Authority, replace};
use portcullis_tests::nats::{NatsServer, folder};
use portcullis_tests::patience::LONG;
use portcullis_tests::site::Site;

use crate::messages::{ask, connect, outsider, report_of, served, server};

/// What the listener reported until one with this body came: bodies in order.
async fn bodies_until(reports: &mut async_nats::Subscriber, last: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    loop {
        let message = tokio::time::timeout(LONG, reports.next()).await;
        let message = message.unwrap_or_else(|_| panic!("no report about {last:?}, but {bodies:?}")).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        let body = report["body"].as_str().unwrap_or_default().to_owned();
        bodies.push(body.clone());
        if body == last {
            return bodies;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forbidden_does_not_arrive_under_a_wildcard_that_overlaps_it() {
    let Some(nats) = server("what_is_forbidden_does_not_arrive_under_a_wildcard_that_overlaps_it") else { return };
    let mut site = Site::new();
    site.guest("messenger", "publish = [\">\"]\nrequest = [\">\"]");
    site.guest("listener", "subscribe = [\">\"]\npublish = [\"report.listener\"]");
    std::fs::write(
        site.file("no.cedar"),
        "@id(\"no-prices\") @reason(\"not before the launch\") @owner(\"ops\")\n\
         forbid (principal, action in Host::Action::\"messaging\", resource in Host::Subject::\"prices.*.new\");\n",
    )
    .unwrap();
    site.policy("cedar = [\"no.cedar\"]\n");
    connect(&mut site, &nats, "");
    let host = Host::ready(site);
    let client = outsider(&nats).await;
    let mut reports = client.subscribe("report.listener").await.unwrap();
    client.flush().await.unwrap();
    served(&client, "orders.new").await;
    for (subject, body) in [("prices.eu.new", "secret"), ("prices.us.new", "secret"), ("prices.eu.old", "open")] {
        client.publish(subject, body.into()).await.unwrap();
    }
    client.publish("orders.last", "last".into()).await.unwrap();
    let bodies = bodies_until(&mut reports, "last").await;
    // Messages are handled side by side: what was sent before may come after.
    let more = tokio::time::timeout(Duration::from_secs(1), bodies_until(&mut reports, "secret")).await;
    assert!(more.is_err() && !bodies.contains(&"secret".to_owned()), "{bodies:?} {more:?}");
    let denied = host.record(&[("kind", "denial"), ("code", "M0390"), ("component", "test:listener")]);
    assert!(denied.to_string().contains("no-prices"), "{denied:#}");
    // Nor does it go out under a grant of everything.
    for path in ["/messenger/publish?subject=prices.eu.new", "/messenger/request?subject=prices.eu.new"] {
        let (status, answer) = ask(&host, path, "x");
        assert!(status == 422 && answer["error"].as_str().unwrap().starts_with("denied M0390"), "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_group_opens_nothing_that_the_plain_subscription_does_not() {
    let Some(nats) = server("a_queue_group_opens_nothing_that_the_plain_subscription_does_not") else { return };
    let mut site = Site::new();
    site.guest("listener", "subscribe = [\"orders.>\", \"alerts.>\"]\npublish = [\"report.listener\"]");
    // One rule is about the group of this component alone, one about whoever comes without a group.
    std::fs::write(
        site.file("groups.cedar"),
        "@id(\"not-shared\") @reason(\"each host is to hear alerts\") @owner(\"ops\")\n\
         forbid (principal, action == Host::Action::\"subscribe\", resource in Host::Subject::\"alerts.>\")\n\
         when { context.queue == \"component.test.listener\" };\n",
    )
    .unwrap();
    site.policy("cedar = [\"groups.cedar\"]\n");
    connect(&mut site, &nats, "");
    let host = Host::ready(site);
    let client = outsider(&nats).await;
    let mut reports = client.subscribe("report.listener").await.unwrap();
    client.flush().await.unwrap();
    served(&client, "orders.new").await;
    let nobody = client.request("alerts.fire", "anybody".into()).await.unwrap_err();
    assert_eq!(nobody.kind(), async_nats::RequestErrorKind::NoResponders, "the host made no such subscription");
    let denied = host.record(&[("kind", "denial"), ("code", "M0390"), ("component", "test:listener")]);
    let text = denied["text"].as_str().unwrap();
    assert!(text.contains("queue group component.test.listener") && text.contains("not-shared"), "{text}");
    // An outsider in the very group of a component takes messages from it, as NATS has it, and gives it none that are not its own:
    // what the component gets is decided by subject.
    let mut thief = client.queue_subscribe("orders.>", "component.test.listener".to_owned()).await.unwrap();
    client.flush().await.unwrap();
    for _ in 0..40 {
        client.publish("orders.shared", "shared".into()).await.unwrap();
    }
    let _ = report_of(&mut reports, "shared").await;
    assert!(tokio::time::timeout(LONG, thief.next()).await.is_ok(), "one group shares");
}

/// A nats-server for components with connections of their own, each by its SVID. `listener` is what the server lets it hear.
fn strict_server(test: &str, site: Site, listener: &str) -> Option<(NatsServer, Site)> {
    let (place, authority) = (folder(), Authority::new("A test root"));
    authority.server().write(place.path(), "server");
    replace(site.path(), "ca.pem", &authority.pem());
    let host = Host::ready(site);
    let pem = host.site().run(["identity", "bundle", "--pem", "--config", "portcullis.toml"]).ok().out;
    let mut site = host.stop();
    replace(place.path(), "clients.pem", &pem);
    let inbox = |name: &str| {
        let id = format!("spiffe://test.example/ns/test/sa/{name}");
        let hash = ring::digest::digest(&ring::digest::SHA256, id.as_bytes());
        format!("_INBOX_{}.>", hash.as_ref().iter().take(10).map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    let config = format!(
        "tls {{ cert_file: server.pem, key_file: server.key, ca_file: clients.pem, verify_and_map: true }}
        accounts {{
          HOSTS {{ users: [ {{ user: \"spiffe://test.example/portcullis/host\" }} ] }}
          APPS {{ users: [
            {{ user: \"spiffe://test.example/ns/test/sa/messenger\", permissions: {{
                publish: {{ allow: [\">\"] }}, subscribe: {{ allow: [\"{}\"] }} }} }}
            {{ user: \"spiffe://test.example/ns/test/sa/listener\", permissions: {{
                publish: {{ allow: [\"$SYS.REQ.USER.INFO\", \"report.listener\"] }}, allow_responses: {{ max: 1, expires: \"5s\" }},
                subscribe: {{ allow: [{listener}, \"{}\"] }} }} }}
          ] }}
        }}",
        inbox("messenger"),
        inbox("listener")
    );
    let nats = NatsServer::start_in(test, place, &config)?;
    site.config(&format!(
        "[nats]\nservers = [\"{}\"]\naccount = \"HOSTS\"\ntls.ca = \"ca.pem\"\nauth.svid = true\n\n\
         [messaging]\nper_component = true\naccount = \"APPS\"\n",
        nats.tls_url()
    ));
    Some((nats, site))
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_connection_of_its_own_the_server_keeps_a_component_from_subjects_queues_and_inboxes_of_others() {
    let test = "with_a_connection_of_its_own_the_server_keeps_a_component_from_subjects_queues_and_inboxes_of_others";
    let mut site = Site::new();
    site.guest("messenger", "publish = [\"orders.>\", \"stock.>\"]\nrequest = [\"orders.>\"]\nidentity = [\"x509\"]");
    // The host grants both; the server lets it hear one of them, in its own group.
    site.guest(
        "listener",
        "subscribe = [\"orders.>\", \"stock.>\"]\npublish = [\"report.listener\"]\nidentity = [\"x509\"]",
    );
    // For the second half: the command line gets an SVID with the component's ID.
    let program = portcullis_tests::workload::sha256(&portcullis_tests::binary());
    let uid = portcullis_tests::workload::uid_of_tests();
    site.config(&format!(
        "[workload_api]\nsocket = \"workload.sock\"\n[[workload]]\nname = \"listener\"\nspiffe_path = \"/ns/test/sa/listener\"\n\
         uid = {uid}\nsha256 = \"{program}\"\n\n"
    ));
    let Some((nats, site)) = strict_server(test, site, "\"orders.> component.test.listener\"") else { return };
    let host = Host::ready(site);
    let denied = host.record(&[("kind", "failure"), ("kind_of_failure", "nats"), ("component", "test:listener")]);
    assert!(denied["detail"].as_str().unwrap().contains("stock.>"), "{denied:#}");
    nats.wait_for_log("Subscription Violation");
    let log = nats.log();
    let violation = log.lines().find(|line| line.contains("Subscription Violation")).unwrap();
    assert!(
        violation.contains("spiffe://test.example/ns/test/sa/listener") && violation.contains("stock.>"),
        "{violation}"
    );
    // What both allow goes on beside it.
    let end = std::time::Instant::now() + LONG;
    while ask(&host, "/messenger/request?subject=orders.new", "x").0 != 200 {
        assert!(std::time::Instant::now() < end, "{}\n{}", nats.log(), host.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // The same identity without a host between: the SVID's user hears neither another's inbox nor the subject without its group.
    let listener = as_component(&host, &nats, "listener").await;
    for (subject, queue) in
        [("_INBOX.>", None), (">", None), ("orders.>", None), ("orders.>", Some("component.test.other"))]
    {
        let before = nats.log().lines().filter(|line| line.contains("Subscription Violation")).count();
        let _subscription = match queue {
            Some(queue) => listener.queue_subscribe(subject, queue.to_owned()).await.unwrap(),
            None => listener.subscribe(subject).await.unwrap(),
        };
        listener.flush().await.unwrap();
        nats.wait_for_log_count("Subscription Violation", before + 1);
    }
}

/// A client with an SVID of the host's own authority for a component's SPIFFE ID, as the component itself would come.
async fn as_component(host: &Host, nats: &NatsServer, name: &str) -> Client {
    let place = host.site().path();
    let args = ["identity", "fetch", "--workload-api", "workload.sock", "--out-dir", name];
    let id = format!("spiffe://test.example/ns/test/sa/{name}");
    host.site().run(args.iter().copied().chain(["--id", &id])).ok();
    async_nats::ConnectOptions::new()
        .add_root_certificates(place.join("ca.pem"))
        .add_client_certificate(place.join(name).join("svid.pem"), place.join(name).join("svid_key.pem"))
        .require_tls(true)
        .connect(nats.tls_url())
        .await
        .unwrap()
}
