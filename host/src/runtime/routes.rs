//! The routing table: which instance answers a request, by host and then by the longest path prefix on whole segments.

use std::collections::HashMap;
use std::sync::Arc;

use super::component::Loaded;

/// An immutable table; a new one replaces it.
#[derive(Debug, Default)]
pub struct Routes {
    hosts: HashMap<String, Vec<Entry>>,
    any: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    path: String,
    target: Arc<Loaded>,
}

impl Routes {
    /// A table of (host, path prefix, target); an empty host is any host.
    pub fn new(rows: Vec<(String, String, Arc<Loaded>)>) -> Self {
        let mut routes = Self::default();
        for (host, path, target) in rows {
            let list = if host.is_empty() { &mut routes.any } else { routes.hosts.entry(host).or_default() };
            list.push(Entry { path, target });
        }
        for list in routes.hosts.values_mut().chain(std::iter::once(&mut routes.any)) {
            list.sort_by_key(|entry| std::cmp::Reverse(entry.path.len()));
        }
        routes
    }

    /// The instance for a request. `host` is lower case, without a port.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Loaded>> {
        let listed = self.hosts.get(host).and_then(|list| list.iter().find(|entry| covers(&entry.path, path)));
        listed.or_else(|| self.any.iter().find(|entry| covers(&entry.path, path))).map(|entry| &entry.target)
    }

    /// The instance that a TLS server name stands for: the one behind the host's shortest prefix. Only named hosts count.
    pub fn server(&self, host: &str) -> Option<&Arc<Loaded>> {
        self.hosts.get(host).and_then(|list| list.last()).map(|entry| &entry.target)
    }
}

/// Whether a prefix covers a path on whole segments.
fn covers(prefix: &str, path: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn prefixes_match_whole_segments_only() {
        assert!(covers("/", "/x") && covers("/", ""));
        assert!(covers("/a", "/a") && covers("/a", "/a/b"));
        assert!(!covers("/a", "/ab") && !covers("/a", "/") && !covers("/a/b", "/a"));
        assert!(!covers("/a", "/A"));
    }
}
