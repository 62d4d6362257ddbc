//! Folders that are too wide: the identity process may read the whole folder of a file that is renewed, since a rule for the file
//! alone would end with it. So such a file needs a folder of its own, not one with everything else in it.

use std::path::{Component, Path, PathBuf};

use super::environment;
use super::problems::Problems;

/// Folders below the first level that hold other things than one service's certificates.
const SHARED: [&str; 14] = [
    "/etc/ssl",
    "/etc/pki",
    "/usr/lib",
    "/usr/local",
    "/usr/local/etc",
    "/usr/share",
    "/var/lib",
    "/var/log",
    "/var/run",
    "/var/spool",
    "/var/tmp",
    "/run/user",
    "/run/secrets",
    "/dev/shm",
];

/// Refuses a file that is renewed whose folder would open much else.
pub(super) fn check(key: &str, path: &Path, problems: &mut Problems) {
    let folder = path.parent().unwrap_or(Path::new("/"));
    // Also through links; a folder that is not there yet is judged by its name.
    let real = folder.canonicalize().unwrap_or_else(|_| plain(folder));
    let home = environment::read(environment::HOME).map(PathBuf::from);
    if is_wide(&plain(folder)) || is_wide(&real) || home.is_some_and(|home| home == real) {
        problems.add(
            key,
            format!("lies in {}, and the identity process would have to be let read all of that", folder.display()),
            Some("put certificate and key into a folder of their own, such as /etc/portcullis/tls"),
        );
    }
}

fn is_wide(folder: &Path) -> bool {
    let depth = folder.components().filter(|component| matches!(component, Component::Normal(_))).count();
    folder.is_absolute() && (depth < 2 || SHARED.iter().any(|shared| folder == Path::new(shared)))
}

/// Without `.` and `..`.
fn plain(folder: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in folder.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &str) -> bool {
        let mut problems = Problems::new(Path::new("c.toml"));
        check("oidc.key", Path::new(path), &mut problems);
        !problems.is_empty()
    }

    #[test]
    fn a_certificate_in_a_folder_with_much_else_is_refused() {
        for path in ["/c.pem", "/etc/c.pem", "/etc/x/../c.pem", "/etc/./c.pem", "/var/lib/c.pem", "/etc/ssl/c.pem"] {
            assert!(refused(path), "{path}");
        }
        for path in ["/etc/portcullis/tls/c.pem", "/etc/portcullis/c.pem", "/etc/ssl/private/c.pem", "tls/c.pem"] {
            assert!(!refused(path), "{path}");
        }
        // Through a link, too.
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("tls")).unwrap();
        assert!(refused(folder.path().join("tls/c.pem").to_str().unwrap()));
    }
}
