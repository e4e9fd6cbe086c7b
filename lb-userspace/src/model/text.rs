//! How the model's words and addresses are written and read: in files, on the command line, in JSON.
//!
//! One spelling for all of them. What is wrong with a text is said together with what to write instead.

use super::ports::parse_port;
use super::{
    Announce, AttachMode, EncapChecksum, Health, HttpMethod, Listen, Mode, OnDown, Protocol, Tracking,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A text that means nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {remedy}")]
pub struct InvalidText {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

impl InvalidText {
    pub(crate) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

/// The candidate that `word` was probably meant to be.
pub(crate) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let typos = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= typos || strsim::jaro_winkler(&word, candidate) > 0.85)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Why `got` is none of `words`; `later` are words of the field that this version does not serve.
fn not_a_word(what: &str, got: &str, words: &[&str], later: &[&str]) -> InvalidText {
    if later.contains(&got) {
        return InvalidText::new(
            format!("{what} \"{got}\" is not available in this version"),
            format!("write one of: {}", words.join(", ")),
        );
    }
    let remedy = match closest(got, words.iter().copied()) {
        Some(word) => format!("did you mean \"{word}\"? One of: {}", words.join(", ")),
        None => format!("write one of: {}", words.join(", ")),
    };
    InvalidText::new(format!("{what} \"{got}\" is unknown"), remedy)
}

/// Gives a type without fields its words.
macro_rules! words {
    ($type:ident, $what:literal, later $later:expr, $($variant:ident = $word:literal),+) => {
        impl $type {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = InvalidText;

            fn from_str(text: &str) -> Result<Self, InvalidText> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(not_a_word($what, text, &[$($word),+], $later)),
                }
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

words!(AttachMode, "attach mode", later & [], Auto = "auto", Native = "native", Generic = "generic");
words!(Protocol, "protocol", later & ["sctp"], Tcp = "tcp", Udp = "udp");
words!(Mode, "mode", later & ["snat"], Nat = "nat", L2 = "l2", Ipip = "ipip", Gue = "gue");
words!(OnDown, "on-down", later & [], Rehash = "rehash", Keep = "keep");
words!(Announce, "announce", later & [], Interface = "interface", None = "none");
words!(EncapChecksum, "encap-checksum", later & [], None = "none", Udp = "udp");
words!(Tracking, "tracking", later & [], Adaptive = "adaptive", Always = "always", Never = "never");
words!(Health, "health", later & [], Unknown = "unknown", Up = "up", Down = "down");
words!(HttpMethod, "method", later & [], Get = "GET", Head = "HEAD");

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, address, ports } = self;
        match address {
            IpAddr::V4(address) => f.pad(&format!("{protocol}://{address}:{ports}")),
            IpAddr::V6(address) => f.pad(&format!("{protocol}://[{address}]:{ports}")),
        }
    }
}

impl FromStr for Listen {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        const SHAPE: &str =
            "write it like tcp://192.0.2.10:443, udp://[2001:db8::10]:8000-8999 or tcp://192.0.2.10:*";
        let Some((protocol, rest)) = text.split_once("://") else {
            return Err(InvalidText::new(format!("listener \"{text}\" has no protocol"), SHAPE));
        };
        let protocol = protocol.parse()?;
        let Some((address, port)) = split_port(rest) else {
            return Err(InvalidText::new(format!("listener \"{text}\" has no port"), SHAPE));
        };
        let address = parse_address(address, "listener", SHAPE)?;
        let ports = port.parse()?;
        if let Some(kind) = useless(address) {
            return Err(InvalidText::new(
                format!("listener \"{text}\": {address} is {kind}"),
                "write the one unicast address that clients connect to",
            ));
        }
        Ok(Self { protocol, address, ports })
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How the address of a backend is written: without a port, if each packet keeps its own.
pub fn shown(address: &SocketAddr) -> String {
    if address.port() == 0 { address.ip().to_string() } else { address.to_string() }
}

/// Reads the address of a backend; `port` is used if the text has none.
///
/// # Errors
///
/// If it is not a unicast address that a packet could be sent to, or its port is not one.
pub fn parse_backend(text: &str, port: u16) -> Result<SocketAddr, InvalidText> {
    const SHAPE: &str = "write it like 10.0.0.11:8443 or [2001:db8::11]:8443";
    let (address, port) = match split_port(text) {
        Some((_, ports)) if ports == "*" || ports.contains('-') => {
            return Err(InvalidText::new(
                format!("backend \"{text}\" has more than one port"),
                "write the address alone: ports stay as they are; or the first port of its range",
            ));
        }
        Some((address, port)) => (address, parse_port(port)?),
        None => (text, port),
    };
    let address = parse_address(address, "backend", SHAPE)?;
    match useless(address) {
        // Checks of a backend on this machine are of use in tests of a configuration.
        Some(_) if address.is_loopback() => {}
        Some(kind) => {
            return Err(InvalidText::new(
                format!("backend \"{text}\": {address} is {kind}"),
                "write the unicast address of the machine that serves",
            ));
        }
        None => {}
    }
    Ok(SocketAddr::new(address, port))
}

/// The part before the port and the port, if there is one: `a:1`, `[a::b]:1`, not `a::b`.
fn split_port(text: &str) -> Option<(&str, &str)> {
    let (address, port) = text.rsplit_once(':')?;
    let bare_v6 = address.contains(':') && !address.ends_with(']');
    (!bare_v6).then_some((address, port))
}

fn parse_address(text: &str, what: &str, shape: &str) -> Result<IpAddr, InvalidText> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some((address, _)) = bare.unwrap_or(text).split_once('%') {
        return Err(InvalidText::new(
            format!("{what} address \"{text}\" has a zone, which means nothing to another machine"),
            format!("write a global or unique local address instead of {address}"),
        ));
    }
    let parsed = match bare {
        Some(bare) => bare.parse().map(IpAddr::V6).ok(),
        None => text.parse::<IpAddr>().ok(),
    };
    match parsed {
        Some(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(v4) => Err(InvalidText::new(
                format!("{what} address {address} is an IPv4 address inside an IPv6 one"),
                format!("write {v4}"),
            )),
            None => Ok(address.into()),
        },
        Some(address) => Ok(address),
        None => Err(InvalidText::new(format!("{what} address \"{text}\" is not an IP address"), shape)),
    }
}

/// What keeps an address from being somebody's, if anything.
fn useless(address: IpAddr) -> Option<&'static str> {
    match address {
        address if address.is_unspecified() => Some("no machine's address"),
        address if address.is_multicast() => Some("a multicast address"),
        address if address.is_loopback() => Some("a loopback address, which never arrives on an interface"),
        IpAddr::V4(address) if address.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(address) if address.octets()[0] == 0 => {
            Some("in 0.0.0.0/8, which is no machine's (RFC 1122)")
        }
        IpAddr::V6(address) if address.is_unicast_link_local() => Some("link-local, which needs a zone"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back() {
        for mode in Mode::ALL {
            assert_eq!(mode.as_str().parse(), Ok(*mode));
        }
        for method in HttpMethod::ALL {
            assert_eq!(method.as_str().parse(), Ok(*method));
        }
    }

    #[test]
    fn modes_to_come_are_refused_as_such() {
        let error = "snat".parse::<Mode>().unwrap_err();
        assert!(error.message.contains("not available in this version"), "{error}");
        assert!("nta".parse::<Mode>().unwrap_err().remedy.contains("did you mean \"nat\""));
    }

    #[test]
    fn listeners_come_back() {
        for text in [
            "tcp://192.0.2.10:443",
            "udp://[2001:db8::10]:53",
            "tcp://192.0.2.10:8000-8999",
            "udp://[2001:db8::10]:1-65535",
            "tcp://192.0.2.10:*",
            "udp://[2001:db8::10]:*",
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn listeners_that_cannot_be() {
        for (text, why) in [
            ("192.0.2.10:443", "no protocol"),
            ("sctp://192.0.2.10:443", "not available"),
            ("tcp://192.0.2.10", "no port"),
            ("tcp://2001:db8::10", "no port"),
            ("tcp://192.0.2.10:0", "not a port"),
            ("tcp://192.0.2.10:65536", "not a port"),
            ("tcp://192.0.2.10:+80", "not a port"),
            ("tcp://192.0.2.10:90-80", "ends before it begins"),
            ("tcp://192.0.2.10:0-80", "not a port"),
            ("tcp://192.0.2.10:80-", "not a port"),
            ("tcp://192.0.2.10:-80", "not a port"),
            ("tcp://192.0.2.10:80-90-99", "not a port"),
            ("tcp://192.0.2.10:80-65536", "not a port"),
            ("tcp://192.0.2.10:**", "not a port"),
            ("tcp://2001:db8::10:*", "no port"),
            ("tcp://0.0.0.0:80", "no machine's"),
            ("tcp://[::]:80", "no machine's"),
            ("tcp://224.0.0.1:80", "multicast"),
            ("tcp://[ff02::1]:80", "multicast"),
            ("tcp://255.255.255.255:80", "broadcast"),
            ("tcp://127.0.0.1:80", "loopback"),
            ("tcp://[fe80::1]:80", "link-local"),
            ("tcp://[fe80::1%eth0]:80", "zone"),
            ("tcp://[fe80::1%3]:80", "zone"),
            ("tcp://[::ffff:192.0.2.10]:80", "inside an IPv6"),
            ("tcp://example.com:80", "not an IP"),
            ("tcp://[192.0.2.10]:80", "not an IP"),
            ("tcp://192.0.2.010:80", "not an IP"),
        ] {
            let error = text.parse::<Listen>().unwrap_err();
            assert!(error.message.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn backends_take_the_services_port() {
        assert_eq!(parse_backend("10.0.0.1", 80).unwrap().to_string(), "10.0.0.1:80");
        assert_eq!(parse_backend("2001:db8::1", 80).unwrap().to_string(), "[2001:db8::1]:80");
        assert_eq!(parse_backend("[2001:db8::1]", 80).unwrap().to_string(), "[2001:db8::1]:80");
        assert_eq!(parse_backend("[2001:db8::1]:81", 80).unwrap().to_string(), "[2001:db8::1]:81");
        assert!(parse_backend("[2001:db8::1%2]:81", 80).is_err());
        for text in ["10.0.0.1:*", "10.0.0.1:80-90"] {
            assert!(parse_backend(text, 80).unwrap_err().message.contains("more than one port"), "{text}");
        }
        assert_eq!(shown(&parse_backend("2001:db8::1", 0).unwrap()), "2001:db8::1");
        assert_eq!(shown(&parse_backend("10.0.0.1:81", 0).unwrap()), "10.0.0.1:81");
        assert!(parse_backend("10.0.0.1:", 80).is_err());
        assert!(parse_backend("", 80).is_err());
    }
}
