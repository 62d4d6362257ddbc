//! A private certificate authority of the Web, made by openssl: what endpoints show that browsers and clouds ask.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority, and the server certificate for `localhost` that it issued, in one folder.
#[derive(Debug)]
pub struct WebPki {
    folder: tempfile::TempDir,
}

impl WebPki {
    /// An authority with a certificate for `localhost` and 127.0.0.1.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("portcullis-web-").tempdir().expect("a folder for a test");
        let pki = Self { folder };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"];
        let mut root = pki.openssl(&["req", "-x509"]);
        root.args(key).args(["-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=A test root"]);
        done(root);
        pki.renew();
        pki
    }

    /// Issues the server certificate anew, with a new key, each file replaced in one step.
    pub fn renew(&self) {
        let mut request = self.openssl(&["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]);
        request.args(["-keyout", "new.key", "-out", "server.csr", "-subj", "/CN=A test server"]);
        done(request);
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n";
        std::fs::write(self.path("names"), names).expect("a file can be written");
        let mut issue = self.openssl(&["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key"]);
        issue.args(["-CAcreateserial", "-days", "1", "-extfile", "names", "-out", "new.pem"]);
        done(issue);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(self.path("new.key"), mode).expect("the mode of a key can be set");
        std::fs::rename(self.path("new.key"), self.key()).expect("a key can be renamed");
        std::fs::rename(self.path("new.pem"), self.certificate()).expect("a certificate can be renamed");
    }

    /// The root certificate, PEM.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The server's certificate, PEM.
    pub fn certificate(&self) -> PathBuf {
        self.path("server.pem")
    }

    /// The server's key, PEM.
    pub fn key(&self) -> PathBuf {
        self.path("server.key")
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("openssl");
        command.current_dir(self.folder.path()).args(arguments);
        command
    }
}

impl Default for WebPki {
    fn default() -> Self {
        Self::new()
    }
}

fn done(mut command: Command) {
    let output = command.output().expect("openssl starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
