//! Ranges of addresses compared: which ends one has, and whether others open all of it.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::{AddressClass, AddressRange, Net};

impl AddressRange {
    /// The first and the last address; of a class, one that stands for it.
    pub(crate) fn ends(&self) -> Vec<IpAddr> {
        match self {
            Self::Class(AddressClass::Loopback) => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            Self::Class(AddressClass::Private) => vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))],
            Self::Class(AddressClass::Shared) => vec![IpAddr::V4(Ipv4Addr::new(100, 64, 0, 1))],
            Self::Class(_) => Vec::new(),
            Self::Net(Net(net)) => vec![net.network(), net.broadcast()],
        }
    }

    /// Whether these together open every address that this one opens. False where that is not plain.
    pub(crate) fn lies_in(&self, others: &[Self]) -> bool {
        let class = |class: AddressClass| others.contains(&Self::Class(class));
        match self {
            Self::Class(own) => class(*own),
            Self::Net(Net(own)) => {
                let nets = others.iter().filter_map(|other| match other {
                    Self::Net(Net(net)) => Some(*net),
                    Self::Class(_) => None,
                });
                let of_classes = CLASS_RANGES.iter().filter(|(of, _)| class(*of));
                let of_classes = of_classes.filter_map(|(_, net)| net.parse::<IpNet>().ok());
                let all: Vec<IpNet> = nets.chain(of_classes).collect();
                IpNet::aggregate(&all).iter().any(|net| net.contains(own))
            }
        }
    }
}

/// Ranges all of whose addresses are of a class, but for those that a guard forbids.
const CLASS_RANGES: [(AddressClass, &str); 8] = [
    (AddressClass::Loopback, "127.0.0.0/8"),
    (AddressClass::Loopback, "::1/128"),
    (AddressClass::Private, "10.0.0.0/8"),
    (AddressClass::Private, "172.16.0.0/12"),
    (AddressClass::Private, "192.168.0.0/16"),
    (AddressClass::Private, "fc00::/7"),
    (AddressClass::Private, "fec0::/10"),
    (AddressClass::Shared, "100.64.0.0/10"),
];

#[cfg(test)]
mod tests {
    use super::super::classify;
    use super::*;

    #[test]
    fn a_range_lies_in_what_others_open_together() {
        let range = |text: &str| text.parse::<AddressRange>().unwrap();
        let lies =
            |own: &str, others: &[&str]| range(own).lies_in(&others.iter().map(|o| range(o)).collect::<Vec<_>>());
        assert!(lies("10.0.0.0/24", &["10.0.0.0/16"]) && lies("10.0.0.0/16", &["10.0.0.0/17", "10.0.128.0/17"]));
        assert!(lies("10.0.0.0/24", &["private"]) && lies("private", &["private", "loopback"]));
        assert!(
            !lies("10.0.0.0/16", &["10.0.0.0/24"]) && !lies("10.0.0.0/16", &[]) && !lies("private", &["10.0.0.0/8"])
        );
        assert!(!lies("192.168.0.0/16", &["loopback", "shared"]) && !lies("fd00::/16", &["10.0.0.0/8"]));
        for (class, net) in CLASS_RANGES {
            let net: IpNet = net.parse().unwrap();
            for address in [net.network(), net.broadcast()] {
                assert_eq!(classify(address), class, "{address}");
            }
        }
    }
}
