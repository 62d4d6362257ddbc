//! The configuration files of SPIRE's server and agent.

use std::path::Path;

use super::{DELEGATE, TRUST_DOMAIN};

/// What a test may choose.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Life of an X.509-SVID, as SPIRE writes it (`1h`).
    pub x509_ttl: &'static str,
    /// Life of a JWT-SVID.
    pub jwt_ttl: &'static str,
    /// Serve the Broker API for the broker with this SPIFFE ID, with the attestor for components.
    pub broker: Option<String>,
    /// Serve the bundle with profile `https_spiffe` on this port of the loopback.
    pub bundle_endpoint: Option<u16>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { x509_ttl: "1h", jwt_ttl: "5m", broker: None, bundle_endpoint: None }
    }
}

impl Settings {
    pub(super) fn server(&self, folder: &Path, port: u16) -> String {
        let folder = folder.display();
        let federation = self.bundle_endpoint.map(|port| {
            format!(
                r#"federation {{
        bundle_endpoint {{
            address = "127.0.0.1"
            port = {port}
            profile "https_spiffe" {{}}
        }}
    }}"#
            )
        });
        format!(
            r#"server {{
    bind_address = "127.0.0.1"
    bind_port = "{port}"
    socket_path = "{folder}/api.sock"
    trust_domain = "{TRUST_DOMAIN}"
    data_dir = "{folder}"
    log_level = "INFO"
    agent_ttl = "1h"
    default_x509_svid_ttl = "{}"
    default_jwt_svid_ttl = "{}"
    {}
}}
plugins {{
    DataStore "sql" {{
        plugin_data {{
            database_type = "sqlite3"
            connection_string = "{folder}/datastore.sqlite3"
        }}
    }}
    NodeAttestor "join_token" {{ plugin_data {{}} }}
    KeyManager "disk" {{ plugin_data {{ keys_path = "{folder}/keys.json" }} }}
}}
"#,
            self.x509_ttl,
            self.jwt_ttl,
            federation.unwrap_or_default()
        )
    }

    pub(super) fn agent(&self, folder: &Path, port: u16, attestor: Option<&Path>) -> String {
        let folder = folder.display();
        let broker = self.broker.as_ref().map(|id| {
            format!(
                r#"broker {{
            socket_path = "{folder}/broker/broker.sock"
            brokers = [{{
                id = "{id}"
                allowed_reference_types = [
                    {{ type_url = "type.googleapis.com/portcullis.broker.v1.ComponentReference" }},
                    {{ type_url = "type.googleapis.com/spiffe.broker.WorkloadPIDReference" }},
                ]
            }}]
        }}"#
            )
        });
        let attestor = attestor.zip(self.broker.as_ref()).map(|(program, host)| {
            format!(
                r#"WorkloadAttestor "portcullis" {{
        plugin_cmd = "{}"
        plugin_data {{ hosts = ["{host}"] }}
    }}"#,
                program.display()
            )
        });
        format!(
            r#"agent {{
    data_dir = "{folder}"
    log_level = "INFO"
    server_address = "127.0.0.1"
    server_port = "{port}"
    socket_path = "{folder}/api/agent.sock"
    admin_socket_path = "{folder}/admin/admin.sock"
    authorized_delegates = ["spiffe://{TRUST_DOMAIN}{DELEGATE}"]
    insecure_bootstrap = true
    trust_domain = "{TRUST_DOMAIN}"
    experimental {{
        sync_interval = "1s"
        {}
    }}
}}
plugins {{
    NodeAttestor "join_token" {{ plugin_data {{}} }}
    KeyManager "disk" {{ plugin_data {{ directory = "{folder}" }} }}
    WorkloadAttestor "unix" {{ plugin_data {{}} }}
    {}
}}
"#,
            broker.unwrap_or_default(),
            attestor.unwrap_or_default()
        )
    }
}
