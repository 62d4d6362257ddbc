//! `portcullis cluster init`: the buckets, and the least that each user of NATS needs. Hosts may make no consumer and write no value.

use std::fmt::Write as _;
use std::time::Duration;

use portcullis_cluster::{Bucket, ClusterName, HostId};
use portcullis_identity::SpiffeId;
use serde_json::{Value, json};

use super::InitArgs;
use super::operator::{Operator, unreachable};
use crate::cli::error::{CliError, exit};
use crate::cli::output::Output;
use crate::control::inbox;

/// Makes what is not there, and mends what is other than it must be.
pub async fn run(args: &InitArgs, out: &mut Output) -> Result<(), CliError> {
    let hosts: Vec<HostId> = args
        .host
        .iter()
        .map(|name| {
            name.parse()
                .map_err(|error: portcullis_cluster::TokenError| CliError::usage(format!("--host {name}: {error}")))
        })
        .collect::<Result<_, _>>()?;
    args.login.iter().try_for_each(|who| check_login(who))?;
    if let (true, Some(name)) = (args.print, &args.cluster) {
        let cluster: ClusterName = name.parse().map_err(|_| CliError::usage("--cluster is no token"))?;
        return out.result(permissions(&cluster, &hosts, &args.login), &as_json(&cluster, &hosts, &args.login));
    }
    let path = args.operator.as_deref();
    let path = path.ok_or_else(|| {
        CliError::usage("--operator FILE is missing").with_hint("or --print --cluster NAME, to make nothing")
    })?;
    let operator = Operator::open(path).await?;
    let mut made = Vec::new();
    for bucket in Bucket::ALL {
        let how = ensure(&operator, bucket, args.replicas).await?;
        out.line(format!("{}: {how}", bucket.name(&operator.cluster)))?;
        made.push(json!({ "bucket": bucket.name(&operator.cluster), "was": how }));
    }
    let own = operator.login().filter(|_| args.login.is_empty());
    let logins: Vec<String> = args.login.iter().cloned().chain(own).collect();
    let mut json = as_json(&operator.cluster, &hosts, &logins);
    if let Some(object) = json.as_object_mut() {
        object.insert("buckets".to_owned(), made.into());
    }
    out.result(format!("\n{}", permissions(&operator.cluster, &hosts, &logins)), &json)
}

/// A name that is somebody's: another spelling would be another inbox, and would be noticed at the first command only.
fn check_login(who: &str) -> Result<(), CliError> {
    let known = who.strip_prefix("spiffe:").is_none() || who.parse::<SpiffeId>().is_ok_and(|id| id.has_path());
    if who.is_empty() || who.len() > LOGIN || who.chars().any(|c| c.is_control() || c.is_whitespace()) || !known {
        let message = format!("--login {}: nobody is called so", who.escape_debug());
        return Err(
            CliError::usage(message).with_hint("a SPIFFE ID, the public nkey of a user (U..), or the name of a user")
        );
    }
    Ok(())
}

async fn ensure(operator: &Operator, bucket: Bucket, replicas: u32) -> Result<&'static str, CliError> {
    let wanted = stream(&operator.cluster, bucket, replicas);
    let name = bucket.stream(&operator.cluster);
    let there = ask(operator, &format!("$JS.API.STREAM.INFO.{name}"), &json!({})).await?;
    let (verb, how) = match there.get("config") {
        None => ("CREATE", "made"),
        Some(config) if agrees(config, &wanted) => return Ok("is there"),
        Some(_) => ("UPDATE", "mended"),
    };
    let answer = ask(operator, &format!("$JS.API.STREAM.{verb}.{name}"), &wanted).await?;
    match answer.get("error") {
        None => Ok(how),
        Some(error) => Err(CliError::new(exit::TRANSPORT, "cluster.bucket", format!("{name}: {error}"))
            .with_hint("whoever runs `cluster init` needs $JS.API.STREAM.{INFO,CREATE,UPDATE} of these streams, and JetStream in the account")),
    }
}

async fn ask(operator: &Operator, subject: &str, request: &Value) -> Result<Value, CliError> {
    let answer = operator.nats.request(subject, None, request.to_string().into_bytes(), Duration::from_secs(10)).await;
    let answer = answer.map_err(|error| unreachable(&error))?;
    serde_json::from_slice(&answer.payload)
        .map_err(|_| CliError::new(exit::TRANSPORT, "cluster.answer", "JetStream's answer makes no sense"))
}

/// A bucket as KV clients make it, and: no value is ever deleted or purged, and each new one is heard in core NATS.
fn stream(cluster: &ClusterName, bucket: Bucket, replicas: u32) -> Value {
    json!({
        "name": bucket.stream(cluster),
        "subjects": [format!("{}>", bucket.prefix(cluster))],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": 1,
        "max_msg_size": 1 << 20,
        "num_replicas": replicas,
        "duplicate_window": 120_000_000_000_u64,
        "allow_direct": true,
        "deny_delete": true,
        "deny_purge": true,
        "allow_rollup_hdrs": false,
        "republish": { "src": format!("{}>", bucket.prefix(cluster)), "dest": format!("{}>", bucket.republished(cluster)) },
    })
}

fn agrees(config: &Value, wanted: &Value) -> bool {
    ["subjects", "allow_direct", "deny_delete", "deny_purge", "republish", "num_replicas", "max_msgs_per_subject"]
        .iter()
        .all(|member| config.get(member) == wanted.get(member))
}

/// What a host may publish and hear.
pub fn of_host(cluster: &ClusterName, host: &str) -> (Vec<String>, Vec<String>) {
    let mut publish = vec![
        format!("portcullis.{cluster}.hb.{host}"),
        format!("portcullis.{cluster}.evt.{host}.>"),
        "$SYS.REQ.USER.INFO".to_owned(),
    ];
    publish.extend(Bucket::ALL.map(|bucket| format!("$JS.API.DIRECT.GET.{}", bucket.stream(cluster))));
    let subscribe = vec![
        format!("portcullis.{cluster}.kv.>"),
        format!("portcullis.{cluster}.hb.*"),
        format!("portcullis.{cluster}.evt.*.host-down"),
        format!("portcullis.{cluster}.ctl.{host}.*"),
        format!("_INBOX_{host}.>"),
    ];
    (publish, subscribe)
}

/// What an operator may publish and hear whose inbox has this prefix.
pub fn of_operator(cluster: &ClusterName, inbox: &str) -> (Vec<String>, Vec<String>) {
    let mut publish = vec![format!("portcullis.{cluster}.ctl.>"), "$SYS.REQ.USER.INFO".to_owned()];
    for bucket in Bucket::ALL {
        publish.push(format!("{}>", bucket.prefix(cluster)));
        publish.push(format!("$JS.API.DIRECT.GET.{}", bucket.stream(cluster)));
        publish.push(format!("$JS.API.DIRECT.GET.{}.>", bucket.stream(cluster)));
        publish.extend(
            ["INFO", "CREATE", "UPDATE"].map(|verb| format!("$JS.API.STREAM.{verb}.{}", bucket.stream(cluster))),
        );
    }
    let subscribe =
        vec![format!("portcullis.{cluster}.hb.*"), format!("portcullis.{cluster}.evt.>"), format!("{inbox}.>")];
    (publish, subscribe)
}

fn block(publish: &[String], subscribe: &[String], more: &str) -> String {
    let list = |subjects: &[String]| {
        subjects.iter().map(|subject| format!("\"{subject}\"")).collect::<Vec<_>>().join(",\n      ")
    };
    format!(
        "permissions {{\n  publish {{ allow: [\n      {}\n  ] }}\n  subscribe {{ allow: [\n      {}\n  ] }}\n{more}}}\n",
        list(publish),
        list(subscribe)
    )
}

/// The permissions of each user, as nats-server's configuration has them.
fn permissions(cluster: &ClusterName, hosts: &[HostId], logins: &[String]) -> String {
    let mut text = String::from(
        "# The least that each user needs. No host may make a consumer: with one it could have the server\n# deliver what it likes to another host's subjects. No host writes values.\n",
    );
    let names: Vec<String> = match hosts {
        [] => vec!["HOST".to_owned()],
        hosts => hosts.iter().map(ToString::to_string).collect(),
    };
    for host in names {
        let (publish, subscribe) = of_host(cluster, &host);
        let _ = write!(
            text,
            "\n# host {host}\n{}",
            block(&publish, &subscribe, "  allow_responses: { max: 1, expires: \"150s\" }\n")
        );
    }
    let mut operators: Vec<(&str, String)> = logins.iter().map(|who| (who.as_str(), inbox::prefix(who))).collect();
    if operators.is_empty() {
        operators.push(("WHO; --login WHO prints its inbox", "_INBOX_op_HASH".to_owned()));
    }
    for (who, inbox) in operators {
        let (publish, subscribe) = of_operator(cluster, &inbox);
        let _ = write!(
            text,
            "\n# operator {who} (the STREAM subjects for `cluster init` alone)\n{}",
            block(&publish, &subscribe, "")
        );
    }
    text.trim_end().to_owned()
}

fn as_json(cluster: &ClusterName, hosts: &[HostId], logins: &[String]) -> Value {
    let one = |(publish, subscribe): (Vec<String>, Vec<String>)| json!({ "publish": publish, "subscribe": subscribe });
    let hosts: serde_json::Map<_, _> =
        hosts.iter().map(|host| (host.to_string(), one(of_host(cluster, host.as_str())))).collect();
    let operators: serde_json::Map<_, _> =
        logins.iter().map(|who| (who.clone(), one(of_operator(cluster, &inbox::prefix(who))))).collect();
    json!({ "cluster": cluster, "hosts": hosts, "operators": operators })
}

/// Longest name of an operator: that of a SPIFFE ID.
const LOGIN: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_neither_write_values_nor_make_consumers_nor_speak_for_others() {
        let cluster: ClusterName = "prod".parse().unwrap();
        let (publish, subscribe) = of_host(&cluster, "h1");
        for subject in &publish {
            assert!(
                !subject.starts_with("$KV.") && !subject.contains("CONSUMER") && !subject.contains("STREAM"),
                "{subject}"
            );
            assert!(!subject.contains('*') && *subject != ">", "{subject}");
            assert!(!subject.contains(".hb.") || subject.ends_with(".hb.h1"), "{subject}");
        }
        assert!(subscribe.iter().all(|subject| !subject.starts_with("$") && !subject.starts_with("_INBOX.")));
        let text = permissions(&cluster, &["h1".parse().unwrap(), "h2".parse().unwrap()], &["ann".to_owned()]);
        assert!(text.contains("_INBOX_h2.>") && text.contains("# operator ann "));
        assert!(text.contains(&format!("\"{}.>\"", inbox::prefix("ann"))) && !text.contains("HASH"));
        assert!(permissions(&cluster, &[], &[]).contains("_INBOX_op_HASH.>"), "nobody's, where nobody is named");
    }

    #[test]
    fn an_operator_hears_the_same_as_others_but_for_its_inbox() {
        let cluster: ClusterName = "prod".parse().unwrap();
        let heard = |who: &str| of_operator(&cluster, &inbox::prefix(who)).1;
        let (ann, bob) = (heard("ann"), heard("bob"));
        let own: Vec<_> = ann.iter().filter(|subject| !bob.contains(subject)).collect();
        assert_eq!(own, [&format!("{}.>", inbox::prefix("ann"))]);
        assert_eq!(ann.iter().filter(|subject| subject.starts_with("_INBOX")).count(), 1);
        for wrong in ["", "a b", "a\n}", "spiffe://prod.example", "spiffe:/x", &"a".repeat(LOGIN + 1)] {
            assert!(check_login(wrong).is_err(), "{wrong}");
        }
        for who in ["ann", "spiffe://prod.example/ops/ann", &"a".repeat(LOGIN)] {
            assert!(check_login(who).is_ok(), "{who}");
        }
    }

    #[test]
    fn a_bucket_that_is_as_it_must_be_is_left_alone() {
        let cluster: ClusterName = "prod".parse().unwrap();
        let wanted = stream(&cluster, Bucket::Desired, 1);
        assert!(agrees(&wanted, &wanted));
        assert!(!agrees(&stream(&cluster, Bucket::Desired, 3), &wanted));
        let mut without = wanted.clone();
        without.as_object_mut().unwrap().remove("republish");
        assert!(!agrees(&without, &wanted));
    }
}
