//! Where a request goes: scheme, host and port, canonicalised once and by this one type.
//!
//! Decides: which spellings mean the same destination. Everything later (policy, name lookup, `host` header, TLS) uses the
//! canonical form, so no two parsers can disagree. Refuses: whatever could be read in two ways (user information,
//! backslashes, percent-encoding, white space, zone ids, numbers that are nearly an IPv4 address).

use std::fmt;

use serde::{Serialize, Serializer};

pub use self::host::{DnsName, Host};
use crate::limits::AUTHORITY_BYTES;

mod host;

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// A canonical destination. Equal destinations are equal values, whatever spelling they came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    scheme: Scheme,
    host: Host,
    port: u16,
}

/// Why text is no destination. The sender of the text erred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// Neither `http` nor `https`.
    #[error("the scheme is neither http nor https")]
    Scheme,
    /// No host.
    #[error("the host is empty")]
    EmptyHost,
    /// `user@` or `user:password@`.
    #[error("user information (`user@`) is not taken")]
    UserInformation,
    /// A character that can be read in more than one way, or that no host has.
    #[error("a character that no host has (white space, control, backslash, percent or the like)")]
    Character,
    /// Something after the authority.
    #[error("a path, query or fragment: only scheme://host[:port] is taken here")]
    NotBare,
    /// Not a port.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// Not a DNS name.
    #[error("the host is not a valid DNS name")]
    Name,
    /// Nearly an IPv4 address.
    #[error("the host ends in a number but is no IPv4 address")]
    Ipv4,
    /// Not an IPv6 address in brackets.
    #[error("the host is not a valid IPv6 address in brackets, without a zone")]
    Ipv6,
    /// Over the limit.
    #[error("it is longer than {AUTHORITY_BYTES} bytes")]
    TooLong,
}

impl DestinationError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotBare => "drop what follows the host and port, for instance https://api.example:8443",
            Self::Ipv6 => "write it as https://[2001:db8::1]:8443",
            Self::UserInformation => "send credentials in a header",
            _ => "write it as https://host or https://host:port",
        }
    }
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// 80 or 443.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    fn parse(text: &str) -> Result<Self, DestinationError> {
        match text {
            _ if text.eq_ignore_ascii_case("http") => Ok(Self::Http),
            _ if text.eq_ignore_ascii_case("https") => Ok(Self::Https),
            _ => Err(DestinationError::Scheme),
        }
    }
}

impl Destination {
    /// Canonicalises the scheme and the authority of a request.
    pub fn from_parts(scheme: &str, authority: &str) -> Result<Self, DestinationError> {
        let scheme = Scheme::parse(scheme)?;
        if authority.len() > AUTHORITY_BYTES {
            return Err(DestinationError::TooLong);
        }
        check_characters(authority)?;
        let (host, port) = split(authority)?;
        let port = match port {
            None | Some("") => scheme.default_port(),
            Some(digits) => parse_port(digits)?,
        };
        Ok(Self { scheme, host, port })
    }

    /// Reads `scheme://host[:port]`, as grants have it: no path, query, fragment or user information.
    pub fn parse_url(text: &str) -> Result<Self, DestinationError> {
        let (scheme, authority) = text.split_once("://").ok_or(DestinationError::Scheme)?;
        Self::from_parts(scheme, authority)
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, also where it is the scheme's own.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What belongs into a `host` header: the port is left out where it is the scheme's own.
    pub fn authority(&self) -> String {
        match self.port == self.scheme.default_port() {
            true => self.host.bracketed(),
            false => format!("{}:{}", self.host.bracketed(), self.port),
        }
    }
}

/// `https://api.pay.example:443`, always with the port.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.as_str(), self.host.bracketed(), self.port)
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn check_characters(authority: &str) -> Result<(), DestinationError> {
    for c in authority.chars() {
        match c {
            '@' => return Err(DestinationError::UserInformation),
            '/' | '?' | '#' => return Err(DestinationError::NotBare),
            '\\' | '%' | '<' | '>' | '^' | '`' | '{' | '|' | '}' | '"' | '\'' | ',' | ';' => {
                return Err(DestinationError::Character);
            }
            _ if c.is_control() || c.is_whitespace() => return Err(DestinationError::Character),
            _ => {}
        }
    }
    Ok(())
}

fn split(authority: &str) -> Result<(Host, Option<&str>), DestinationError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or(DestinationError::Ipv6)?;
        let host = Host::parse_v6(address)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(DestinationError::Port),
        };
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => Err(DestinationError::Ipv6),
        Some((name, port)) => Ok((Host::parse_name(name)?, Some(port))),
        None => Ok((Host::parse_name(authority)?, None)),
    }
}

fn parse_port(digits: &str) -> Result<u16, DestinationError> {
    // Digits alone: `u16::from_str` would take a sign.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DestinationError::Port);
    }
    match digits.trim_start_matches('0').parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(DestinationError::Port),
    }
}

#[cfg(test)]
mod tests;
