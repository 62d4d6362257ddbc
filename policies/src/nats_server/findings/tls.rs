//! TLS of the clients' listener.

use super::{Level, Look};

impl Look<'_> {
    pub(super) fn tls(&mut self) {
        let Some(entry) = self.config.entry(&["tls"]) else {
            let reason = "there is no TLS: credentials and what they open cross the network in the clear";
            self.danger("tls.absent", None, reason, "add a tls block with verify, ca_file and handshake_first");
            return;
        };
        let Some(tls) = entry.value.as_map() else {
            self.danger("tls.unknown", Some(entry), "the tls block is not in this file", "write it out, or include it");
            return;
        };
        let verify = tls.is_on(&["verify"]) || tls.is_on(&["verify_and_map"]);
        if verify && tls.filled(&["ca_file", "ca_cert_file"]).is_none() {
            let reason = "`verify` without `ca_file` trusts every public authority of the machine for clients";
            self.danger("tls.no-ca", Some(entry), reason, "name the authorities of your trust domains in ca_file");
        }
        if !verify {
            let reason = "without `verify` no certificate is asked for: nobody can show an X.509-SVID here, and tokens alone count";
            let hint = "set verify: true, unless this listener is for tokens";
            self.add(Level::Note, "tls.no-verify", Some(entry), reason, hint);
        }
        let first = tls.entry(&["handshake_first", "first", "immediate"]);
        if !first.is_some_and(|first| first.value.is_on()) {
            let reason = "without `handshake_first: true` version, addresses and nonce are told to everybody, and a client that \
                          forgets TLS sends its credential in the clear";
            let hint = "set handshake_first: true, and tls_first in clients";
            self.danger("tls.not-first", first.or(Some(entry)), reason, hint);
        }
        match tls.text(&["min_version"]) {
            Some("1.3") => {}
            Some("1.0" | "1.1") => {
                let reason = "TLS 1.0 or 1.1 is taken: what is shown and said can be read or changed on the way";
                self.danger("tls.version", Some(entry), reason, "set min_version: \"1.3\"");
            }
            _ => {
                let reason = "TLS below 1.3 is taken: client certificates are then readable on the network";
                self.add(Level::Note, "tls.version", Some(entry), reason, "set min_version: \"1.3\"");
            }
        }
        if tls.is_on(&["insecure"]) || self.config.is_on(&["allow_non_tls"]) {
            let reason = "TLS is not demanded, or not checked";
            self.danger("tls.optional", Some(entry), reason, "drop allow_non_tls and insecure");
        }
    }
}
