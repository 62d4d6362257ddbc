//! What stands below the options in the help of commands that work over NATS: how they are used, and how they end.

/// `portcullis callout`.
pub const CALLOUT: &str = "\
Examples:
  portcullis callout init site --trust-domain prod.example=bundle.json --ca tls/ca.pem \\
      --server-certificate tls/server.pem --server-key tls/server.key \\
      --certificate tls/callout.pem --key tls/callout.key
  portcullis callout --config site/callout.toml
  portcullis callout check site/server.conf --callout site/callout.toml
  portcullis callout renew site

Exit codes: 0 it was told to stop, 1 internal, 2 usage, 64 a file is missing, unreadable or wrong.
While it runs, /readyz, /metrics and the log say how it is; no server is no reason to end.";

/// `portcullis callout init`.
pub const CALLOUT_INIT: &str = "\
Examples:
  portcullis callout init site --mode operator --cluster prod-eu --jetstream --valid 90 \\
      --listen 0.0.0.0:4222 --server tls://nats-1.example:4222 --server tls://nats-2.example:4222 \\
      --trust-domain prod.example=bundle.json --ca tls/ca.pem \\
      --server-certificate tls/server.pem --server-key tls/server.key \\
      --certificate tls/callout.pem --key tls/callout.key
  spire-server bundle show -format spiffe > bundle.json    # or: portcullis identity bundle

Exit codes: 0 written, 1 internal, 2 usage: also where a file is missing, a key is not its
certificate's, or a certificate is not of --ca, for another name, for another use, or ended.
Then nothing is written.";

/// `portcullis callout renew`.
pub const CALLOUT_RENEW: &str = "\
Examples:
  portcullis callout renew site --dry-run
  portcullis callout renew site --offline /media/offline --valid 90
  portcullis callout renew site --server-certificate new.pem --server-key new.key

Exit codes: 0 renewed, or nothing to renew, 1 internal, 2 usage: also where a file is missing, was
changed by hand, or does not fit. Then nothing is written. 64 server.conf or a key cannot be read.";

/// `portcullis callout check`.
pub const CALLOUT_CHECK: &str = "\
Examples:
  portcullis callout check server.conf --server-version \"$(nats-server --version)\"
  portcullis callout check server.conf --callout callout.toml --json

Exit codes: 0 nothing dangerous, 1 internal, 2 usage or a file is missing, 64 something dangerous,
or a file that the server would not take. Notes do not change the exit code.";

/// `portcullis cluster init`.
pub const CLUSTER_INIT: &str = "\
Examples:
  portcullis cluster init --operator operator.toml --replicas 3 --host h1 --host h2
  portcullis cluster init --print --cluster prod-eu --host h1      # no connection, nothing is made
  portcullis cluster init --print --cluster prod-eu --login spiffe://prod.example/operator/ann

Exit codes: 0 done, 2 usage or a file is missing, 18 NATS is not reached or denies it, 64 the
operator file is wrong.";

/// `portcullis cluster deploy`.
pub const CLUSTER_DEPLOY: &str = "\
Examples:
  portcullis cluster deploy orders.toml --operator operator.toml
  portcullis cluster deploy orders.toml --operator operator.toml --version 8 --valid-for 90d
  portcullis cluster deploy orders.toml --operator operator.toml --wait 30

Exit codes: 0 stored (with --wait: and it runs), 1 it does not run by --wait, 2 usage or the manifest
is wrong, 11 what is stored is no value of a cluster, 18 NATS is not reached or denies it, 64 the
operator file is wrong. Hosts decide for themselves: `portcullis cluster status` shows what became
of it.";

/// `portcullis cluster undeploy`.
pub const CLUSTER_UNDEPLOY: &str = "\
Example:
  portcullis cluster undeploy shop:orders --operator operator.toml

Exit codes: 0 stored, 2 usage or it is not deployed, 18 NATS is not reached or denies it, 64 the
operator file is wrong.";

/// `portcullis cluster revoke`.
pub const CLUSTER_REVOKE: &str = "\
Examples:
  portcullis cluster revoke --spiffe-id spiffe://prod.example/ns/shop/sa/orders \\
      --operator operator.toml
  portcullis cluster revoke --digest sha256:3cd1.. --operator operator.toml
  portcullis cluster revoke --lift --signer AAKX.. --operator operator.toml
  portcullis cluster revoke --refresh --operator operator.toml     # before the list ends

Exit codes: 0 published, 2 usage, 11 what is stored is no value of a cluster, 18 NATS is not
reached or denies it, 64 the operator file is wrong.";

/// `portcullis cluster policies`.
pub const CLUSTER_POLICIES: &str = "\
Example:
  portcullis cluster policies --grants grants.toml --cedar site.cedar --operator operator.toml

Exit codes: 0 published, 2 usage or a file is missing, 18 NATS is not reached or denies it, 64 the
operator file or a policy is wrong.";

/// `portcullis cluster status`.
pub const CLUSTER_STATUS: &str = "\
Example:
  portcullis cluster status --operator operator.toml --json

Exit codes: 0 all is as it is wanted, 1 something is not, 2 usage, 18 NATS is not reached or denies
it, 64 the operator file is wrong.";

/// `portcullis cluster events`.
pub const CLUSTER_EVENTS: &str = "\
Example:
  portcullis cluster events --operator operator.toml --seconds 60 --json

Exit codes: 0 done, 2 usage, 18 NATS is not reached or denies it, 64 the operator file is wrong.";

/// Commands to one host.
pub const ONE_HOST: &str = "\
Elsewhere, signed, over NATS or HTTPS: add --operator operator.toml --host h1.

Exit codes: 0 done, 1 internal, 2 usage, 11 the answer is not proven to be the host's, 18 the host
is not reached, 20 it denies this operator that, 64 the configuration or the operator file is wrong.";

/// `portcullis status`.
pub const STATUS: &str = "\
Examples:
  portcullis status --wait 30
  portcullis status --operator operator.toml --host h1 --json

Exit codes: 0 ready, 1 not ready: the reasons are listed, 2 usage, 11 the answer is not proven to be
the host's, 18 the host is not reached, 20 it denies this operator that, 64 the configuration or
the operator file is wrong.";

/// `portcullis start`.
pub const START: &str = "\
Examples:
  portcullis start orders.wasm --route /orders
  portcullis start oci://registry.example/shop/orders:1.4 --operator operator.toml --host h1 \\
      --name shop:orders --digest sha256:3cd1..

Exit codes: 0 it runs, 1 internal, 2 usage, 10 to 17 the host does not believe the component, 18 the
host or the registry is not reached, 20 denied by policy, 64 the configuration or the operator
file is wrong.";
