//! The host of a destination: a DNS name in its canonical ASCII form, or an address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use idna::AsciiDenyList;

use super::DestinationError;
use crate::limits::{DNS_LABEL_BYTES, DNS_NAME_BYTES};

/// A canonical DNS name: lower-case ASCII (IDNA A-labels), no dot at the end.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsName(Arc<str>);

/// A name or an address. Shown without brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A DNS name.
    Dns(DnsName),
    /// An IPv4 address; also what was written as IPv4-mapped IPv6.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
}

impl DnsName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The zones it lies in, itself first: `api.pay.example`, `pay.example`, `example`.
    pub fn zones(&self) -> impl Iterator<Item = &str> {
        let mut rest = Some(self.as_str());
        std::iter::from_fn(move || {
            let zone = rest?;
            rest = zone.split_once('.').map(|(_, parent)| parent);
            Some(zone)
        })
    }
}

impl Host {
    /// The address, where the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Dns(_) => None,
            Self::V4(address) => Some(IpAddr::V4(*address)),
            Self::V6(address) => Some(IpAddr::V6(*address)),
        }
    }

    pub(super) fn bracketed(&self) -> String {
        match self {
            Self::V6(address) => format!("[{address}]"),
            Self::Dns(_) | Self::V4(_) => self.to_string(),
        }
    }

    pub(super) fn parse_v6(text: &str) -> Result<Self, DestinationError> {
        let address: Ipv6Addr = text.parse().map_err(|_| DestinationError::Ipv6)?;
        Ok(match address.to_ipv4_mapped() {
            Some(mapped) => Self::V4(mapped),
            None => Self::V6(address),
        })
    }

    pub(super) fn parse_name(text: &str) -> Result<Self, DestinationError> {
        if text.is_empty() {
            return Err(DestinationError::EmptyHost);
        }
        let ascii =
            idna::domain_to_ascii_cow(text.as_bytes(), AsciiDenyList::URL).map_err(|_| DestinationError::Name)?;
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        if name.is_empty() {
            return Err(DestinationError::EmptyHost);
        }
        if ends_in_number(name) {
            return parse_v4(name).map(Self::V4).ok_or(DestinationError::Ipv4);
        }
        if name.len() > DNS_NAME_BYTES || !name.split('.').all(is_label) {
            return Err(DestinationError::Name);
        }
        Ok(Self::Dns(DnsName(Arc::from(name))))
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => name.fmt(f),
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => address.fmt(f),
        }
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= DNS_LABEL_BYTES
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

/// The WHATWG URL standard's "ends in a number" checker: such a host is an IPv4 address or nothing.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x");
    let digits = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
    digits || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// One to four parts in base 8, 10 or 16, the last one filling the rest, as `inet_aton` has it.
fn parse_v4(name: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = name.split('.').map(parse_part).collect::<Option<_>>()?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|part| *part > 0xff) {
        return None;
    }
    let bits = 8 * (4 - leading.len());
    if *last >= 1_u64 << bits {
        return None;
    }
    let address = leading.iter().fold(0_u64, |address, part| address << 8 | part);
    u32::try_from(address << bits | last).ok().map(Ipv4Addr::from)
}

fn parse_part(part: &str) -> Option<u64> {
    // Digits alone: `from_str_radix` would take a sign.
    if !part.bytes().all(|b| b.is_ascii_hexdigit() || b == b'x') {
        return None;
    }
    match (part.strip_prefix("0x"), part.strip_prefix('0')) {
        (Some(hex), _) => u64::from_str_radix(hex, 16).ok(),
        (None, Some("")) => Some(0),
        (None, Some(octal)) => u64::from_str_radix(octal, 8).ok(),
        (None, None) => part.parse().ok(),
    }
}
