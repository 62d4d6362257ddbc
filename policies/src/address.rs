//! What kind of network an address lies in, and which kinds a grant may open.
//!
//! Decides: the class of every address, looking through IPv4-mapped, NAT64, 6to4 and Teredo forms, since a packet to those
//! reaches the address inside. Refuses, whoever grants it: metadata services, link-local, multicast, broadcast, unspecified.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::limits::{V4_PREFIX, V6_PREFIX};

mod ranges;

/// The kind of network that an address lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressClass {
    /// Reachable by anyone; every grant of a destination includes these.
    Public,
    /// RFC 1918, unique local and site-local addresses.
    Private,
    /// Carrier-grade NAT, RFC 6598.
    Shared,
    /// This machine.
    Loopback,
    /// This link only.
    LinkLocal,
    /// A cloud's metadata or credential service.
    Metadata,
    /// Many receivers.
    Multicast,
    /// All receivers of the link.
    Broadcast,
    /// No address; systems take it for their own.
    Unspecified,
    /// Documentation, benchmarks, future use and the like.
    Reserved,
}

/// Addresses beyond the public ones that a grant opens: a class by its name, or a CIDR range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressRange {
    /// All addresses of a class: loopback, private or shared.
    Class(AddressClass),
    /// A CIDR range.
    Net(Net),
}

/// A CIDR range narrow enough to be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Net(IpNet);

/// Why text is no range that may be granted. The operator erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressRangeError {
    /// Neither a name nor a range.
    #[error("neither loopback, private, shared nor a range such as 10.1.0.0/16")]
    Malformed,
    /// Bits beyond the prefix.
    #[error("bits are set beyond the prefix; the range is {0}")]
    HostBits(IpNet),
    /// Broader than a grant may be.
    #[error("broader than /{V4_PREFIX} (IPv4) or /{V6_PREFIX} (IPv6)")]
    TooBroad,
    /// Only addresses that a guard forbids.
    #[error("no grant can open {0} addresses")]
    Guarded(AddressClass),
}

/// The class of an address. What an IPv6 address embeds counts where that is less public than the outside.
pub fn classify(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    }
}

impl AddressClass {
    /// Its name, as policies and refusals have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Shared => "shared",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Unspecified => "unspecified",
            Self::Reserved => "reserved",
        }
    }

    /// The guard that forbids this class to everybody, where one does. The same guards are shipped as Cedar.
    pub fn guard(self) -> Option<&'static str> {
        match self {
            Self::Metadata => Some("guard.metadata"),
            Self::LinkLocal => Some("guard.link-local"),
            Self::Multicast | Self::Broadcast => Some("guard.multicast"),
            Self::Unspecified => Some("guard.unspecified"),
            Self::Public | Self::Private | Self::Shared | Self::Loopback | Self::Reserved => None,
        }
    }
}

impl AddressRange {
    /// The narrowest range that opens this one address, or nothing where none may or none need.
    pub fn exactly(address: IpAddr) -> Option<Self> {
        let class = classify(address);
        (class.guard().is_none() && class != AddressClass::Public).then(|| Self::Net(Net(IpNet::from(address))))
    }

    /// The class of an address as a range, where a grant may name it.
    pub fn class_of(address: IpAddr) -> Option<Self> {
        match classify(address) {
            class @ (AddressClass::Loopback | AddressClass::Private | AddressClass::Shared) => Some(Self::Class(class)),
            _ => Self::exactly(address),
        }
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, AddressRangeError> {
        match text {
            "loopback" => return Ok(Self::Class(AddressClass::Loopback)),
            "private" => return Ok(Self::Class(AddressClass::Private)),
            "shared" => return Ok(Self::Class(AddressClass::Shared)),
            "link-local" => return Err(AddressRangeError::Guarded(AddressClass::LinkLocal)),
            "metadata" => return Err(AddressRangeError::Guarded(AddressClass::Metadata)),
            "multicast" => return Err(AddressRangeError::Guarded(AddressClass::Multicast)),
            "broadcast" => return Err(AddressRangeError::Guarded(AddressClass::Broadcast)),
            "unspecified" => return Err(AddressRangeError::Guarded(AddressClass::Unspecified)),
            _ => {}
        }
        let net: IpNet = text.parse().map_err(|_| AddressRangeError::Malformed)?;
        if net.trunc() != net {
            return Err(AddressRangeError::HostBits(net.trunc()));
        }
        let narrowest = match net {
            IpNet::V4(_) => V4_PREFIX,
            IpNet::V6(_) => V6_PREFIX,
        };
        if net.prefix_len() < narrowest {
            return Err(AddressRangeError::TooBroad);
        }
        let (first, last) = (classify(net.network()), classify(net.broadcast()));
        match first.guard() {
            Some(_) if first.guard() == last.guard() => Err(AddressRangeError::Guarded(first)),
            _ => Ok(Self::Net(Net(net))),
        }
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => class.fmt(f),
            Self::Net(Net(net)) => net.fmt(f),
        }
    }
}

impl Serialize for AddressRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn classify_v4(address: Ipv4Addr) -> AddressClass {
    use AddressClass::*;
    match address.octets() {
        // AWS, Azure, GCP and most others; AWS containers and pods; Alibaba; Azure's wire server; Oracle classic.
        [169, 254, 169, 254]
        | [169, 254, 170, 2 | 23]
        | [100, 100, 100, 200]
        | [168, 63, 129, 16]
        | [192, 0, 0, 192] => Metadata,
        [0, ..] => Unspecified,
        [127, ..] => Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Private,
        [100, 64..=127, ..] => Shared,
        [169, 254, ..] => LinkLocal,
        [224..=239, ..] => Multicast,
        [255, 255, 255, 255] => Broadcast,
        [240..=255, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Reserved,
        _ => Public,
    }
}

fn classify_v6(address: Ipv6Addr) -> AddressClass {
    use AddressClass::*;
    if let Some(mapped) = address.to_ipv4_mapped() {
        return classify_v4(mapped);
    }
    match address.segments() {
        // AWS (instance, pods), GCP.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254 | 0x23] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => Metadata,
        [0, 0, 0, 0, 0, 0, 0, 0] => Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Loopback,
        // IPv4-compatible, and IPv4-translated (RFC 2765).
        [0, 0, 0, 0, 0, 0, a, b] | [0, 0, 0, 0, 0xffff, 0, a, b] => embedded(a, b, Reserved),
        // NAT64: the well-known prefix (RFC 6052), the local-use prefix (RFC 8215) with its two usual layouts.
        [0x64, 0xff9b, 0, 0, 0, 0, a, b] => embedded(a, b, Public),
        [0x64, 0xff9b, 1, a, b, c, d, e] => match (embedded(d, e, Private), embedded(a, b << 8 | c >> 8, Private)) {
            (_, inside) if (d, e) == (0, 0) => inside,
            (inside, Private) => inside,
            (inside, _) if (a, b, c) == (0, 0, 0) => inside,
            (_, inside) => inside,
        },
        // 6to4.
        [0x2002, a, b, ..] => embedded(a, b, Public),
        // Teredo: the server, and the client with its bits flipped.
        [0x2001, 0, a, b, _, _, c, d] => match embedded(a, b, Reserved) {
            Reserved => embedded(!c, !d, Reserved),
            inside => inside,
        },
        [0xfe80..=0xfebf, ..] => LinkLocal,
        [0xfec0..=0xfeff, ..] | [0xfc00..=0xfdff, ..] => Private,
        [0xff00..=0xffff, ..] => Multicast,
        // RFC 6890 special use, documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Reserved,
        [0x2000..=0x3fff, ..] => Public,
        _ => Reserved,
    }
}

fn embedded(high: u16, low: u16, outside: AddressClass) -> AddressClass {
    match classify_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))) {
        AddressClass::Public => outside,
        inside => inside,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(text: &str) -> AddressClass {
        classify(text.parse().unwrap())
    }

    #[test]
    fn every_class_is_recognised() {
        use AddressClass::*;
        for (address, expected) in [
            ("8.8.8.8", Public),
            ("172.15.255.255", Public),
            ("172.32.0.0", Public),
            ("2606:4700::1111", Public),
            ("10.0.0.1", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.1.1", Private),
            ("fd12::1", Private),
            ("fec0::1", Private),
            ("100.64.0.1", Shared),
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("::1", Loopback),
            ("169.254.1.1", LinkLocal),
            ("fe80::1", LinkLocal),
            ("febf::1", LinkLocal),
            ("169.254.169.254", Metadata),
            ("169.254.170.2", Metadata),
            ("169.254.170.23", Metadata),
            ("100.100.100.200", Metadata),
            ("168.63.129.16", Metadata),
            ("192.0.0.192", Metadata),
            ("fd00:ec2::254", Metadata),
            ("fd20:ce::254", Metadata),
            ("224.0.0.1", Multicast),
            ("ff02::1", Multicast),
            ("255.255.255.255", Broadcast),
            ("0.0.0.0", Unspecified),
            ("0.1.2.3", Unspecified),
            ("::", Unspecified),
            ("203.0.113.7", Reserved),
            ("240.0.0.1", Reserved),
            ("2001:db8::1", Reserved),
            ("3fff::1", Reserved),
            ("100::1", Reserved),
            ("4000::1", Reserved),
        ] {
            assert_eq!(class(address), expected, "{address}");
        }
    }

    #[test]
    fn an_address_inside_an_ipv6_address_counts() {
        use AddressClass::*;
        for (address, expected) in [
            ("::ffff:169.254.169.254", Metadata),
            ("::169.254.169.254", Metadata),
            ("::ffff:0:169.254.169.254", Metadata),
            ("64:ff9b::169.254.169.254", Metadata),
            ("64:ff9b::10.0.0.1", Private),
            ("64:ff9b::8.8.8.8", Public),
            ("64:ff9b:1::169.254.169.254", Metadata),
            ("64:ff9b:1:a9fe:a9:fe00::", Metadata),
            ("64:ff9b:1::8.8.8.8", Private),
            ("2002:a9fe:a9fe::1", Metadata),
            ("2002:7f00:1::", Loopback),
            ("2002:808:808::1", Public),
            ("2001:0:a9fe:a9fe::", Metadata),
            ("2001:0:808:808::5601:5601", Metadata),
            ("::ffff:127.0.0.1", Loopback),
        ] {
            assert_eq!(class(address), expected, "{address}");
        }
    }

    #[test]
    fn ranges_that_may_be_granted_are_read_and_shown() {
        for text in ["loopback", "private", "shared", "10.0.0.0/8", "127.0.0.1/32", "fd12::/16", "203.0.113.0/24"] {
            assert_eq!(text.parse::<AddressRange>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn ranges_that_no_grant_may_open_are_refused() {
        use AddressRangeError::*;
        for text in ["169.254.169.254/32", "100.100.100.200/32"] {
            assert_eq!(text.parse::<AddressRange>(), Err(Guarded(AddressClass::Metadata)), "{text}");
        }
        for text in ["169.254.0.0/16", "fe80::/16", "link-local"] {
            assert_eq!(text.parse::<AddressRange>(), Err(Guarded(AddressClass::LinkLocal)), "{text}");
        }
        assert_eq!("224.0.0.0/8".parse::<AddressRange>(), Err(Guarded(AddressClass::Multicast)));
        assert_eq!("0.0.0.0/32".parse::<AddressRange>(), Err(Guarded(AddressClass::Unspecified)));
        for text in ["0.0.0.0/0", "10.0.0.0/7", "::/0", "2000::/15"] {
            assert!(matches!(text.parse::<AddressRange>(), Err(TooBroad | HostBits(_))), "{text}");
        }
        assert_eq!("10.0.0.1/8".parse::<AddressRange>(), Err(HostBits("10.0.0.0/8".parse().unwrap())));
        for text in ["", "public", "10.0.0.0", "10.0.0.0/33", "everything", "Loopback"] {
            assert_eq!(text.parse::<AddressRange>(), Err(Malformed), "{text}");
        }
    }
}
