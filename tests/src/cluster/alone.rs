//! A cluster of one host whose server can be taken away: what it keeps on its disk is changed, and it is started again.

use std::path::PathBuf;

use super::Lattice;
use crate::host::Host;
use crate::site::Site;

/// One host, without a server that it could reach.
#[derive(Debug)]
pub struct Alone {
    /// The cluster.
    pub lattice: Lattice,
}

impl Alone {
    /// It.
    pub fn host(&self) -> &Host {
        &self.lattice.hosts["h1"]
    }

    /// A file that it keeps of its cluster.
    pub fn kept(&self, name: &str) -> PathBuf {
        self.host().site().file("state/cluster").join(name)
    }

    /// What is in one.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.kept(name)).unwrap()
    }

    /// Ends the host, changes what it kept, and starts it again.
    pub fn again(&mut self, change: impl FnOnce(&Site)) {
        let site = self.lattice.hosts.remove("h1").unwrap().stop();
        change(&site);
        self.lattice.hosts.insert("h1".to_owned(), Host::start(site));
    }

    /// How many denials with a code are on record.
    pub fn denials(&self, code: &str) -> usize {
        self.host().audit().iter().filter(|record| record["kind"] == "denial" && record["code"] == code).count()
    }

    /// Starts it again with another file, and waits until it says that it does not believe it.
    pub fn refuses(&mut self, name: &str, bytes: &str, code: &str) {
        let (before, good) = (self.denials(code), self.read(name));
        self.again(|site| std::fs::write(site.file("state/cluster").join(name), bytes).unwrap());
        self.lattice.wait(code, |lattice| {
            let records = lattice.hosts["h1"].audit();
            records.iter().filter(|record| record["kind"] == "denial" && record["code"] == code).count() > before
        });
        assert!(self.lattice.answering().is_empty(), "{code}: it runs\n{}", self.lattice.logs());
        std::fs::write(self.kept(name), good).unwrap();
    }

    /// The same where the host is not ready for it, and says this.
    pub fn stops_at(&mut self, name: &str, change: impl FnOnce(&mut String), says: &str) {
        let good = self.read(name);
        let mut bad = good.clone();
        change(&mut bad);
        self.again(|site| std::fs::write(site.file("state/cluster").join(name), bad).unwrap());
        self.lattice.wait(says, |lattice| lattice.hosts["h1"].ask_status(0)["problems"].to_string().contains(says));
        assert_eq!(self.host().ask_status(0)["ready"], false);
        assert!(self.lattice.answering().is_empty(), "{says}: it runs\n{}", self.lattice.logs());
        std::fs::write(self.kept(name), good).unwrap();
    }
}
