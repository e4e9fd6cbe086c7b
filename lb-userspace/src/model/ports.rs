//! The ports that a service listens on: one, a range, or every one of its address.

use super::text::InvalidText;
use std::fmt;
use std::str::FromStr;

/// Ports of a listener. Where several services have a port, one port comes before a range, and a range before every port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// `443`. Never 0.
    One(u16),
    /// `8000-8999`: more than one.
    Range(u16, u16),
    /// `*`.
    Any,
}

impl Ports {
    /// First port; 0 for every one.
    pub const fn first(self) -> u16 {
        match self {
            Self::One(port) | Self::Range(port, _) => port,
            Self::Any => 0,
        }
    }

    /// Last port.
    pub const fn last(self) -> u16 {
        match self {
            Self::One(port) | Self::Range(_, port) => port,
            Self::Any => u16::MAX,
        }
    }

    /// Whether this is more than one port.
    pub const fn is_wide(self) -> bool {
        !matches!(self, Self::One(_))
    }

    /// The port of a backend of which none was said; 0: each packet keeps its own.
    pub const fn backend_port(self) -> u16 {
        match self {
            Self::One(port) => port,
            Self::Range(..) | Self::Any => 0,
        }
    }

    /// The ports of a backend that packets for these are sent to, if `port` was said of it (0: nothing was said). `None`:
    /// they do not end at 65535.
    pub fn at_backend(self, port: u16) -> Option<Self> {
        match self {
            Self::One(_) => Some(Self::One(port)),
            Self::Range(first, last) if port != 0 => Some(Self::Range(port, port.checked_add(last - first)?)),
            Self::Range(..) | Self::Any => Some(self),
        }
    }

    /// What both have in common.
    pub fn common(self, other: Self) -> Option<(u16, u16)> {
        let (first, last) = (self.first().max(other.first()), self.last().min(other.last()));
        (first <= last).then_some((first, last))
    }

    /// How exact this is: what is larger comes first.
    pub const fn rank(self) -> u8 {
        match self {
            Self::One(_) => 2,
            Self::Range(..) => 1,
            Self::Any => 0,
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(port) => write!(f, "{port}"),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
            Self::Any => f.write_str("*"),
        }
    }
}

impl FromStr for Ports {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let Some((first, last)) = text.split_once('-') else { return Ok(Self::One(parse_port(text)?)) };
        match (parse_port(first)?, parse_port(last)?) {
            (first, last) if first == last => Ok(Self::One(first)),
            (first, last) if first < last => Ok(Self::Range(first, last)),
            (first, last) => Err(InvalidText::new(
                format!("range of ports \"{text}\" ends before it begins"),
                format!("write {last}-{first}"),
            )),
        }
    }
}

pub(super) fn parse_port(text: &str) -> Result<u16, InvalidText> {
    // `u16` accepts a sign; a port has none.
    match text.parse::<u16>() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => {
            Err(InvalidText::new(format!("port \"{text}\" is not a port"), "write a number from 1 to 65535"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_of_a_range_have_as_many_ports() {
        let range = Ports::Range(8000, 8999);
        assert_eq!(range.at_backend(0), Some(range));
        assert_eq!(range.at_backend(9000), Some(Ports::Range(9000, 9999)));
        assert_eq!(range.at_backend(64_536), Some(Ports::Range(64_536, 65_535)));
        assert_eq!(range.at_backend(64_537), None);
        assert_eq!(Ports::Any.at_backend(0), Some(Ports::Any));
        assert_eq!(Ports::One(80).at_backend(8080), Some(Ports::One(8080)));
    }

    #[test]
    fn what_ports_have_in_common() {
        let range = Ports::Range(8000, 8999);
        assert_eq!(range.common(Ports::Range(8999, 9000)), Some((8999, 8999)));
        assert_eq!(range.common(Ports::Range(9000, 9001)), None);
        assert_eq!(range.common(Ports::One(8000)), Some((8000, 8000)));
        assert_eq!(range.common(Ports::Any), Some((8000, 8999)));
    }
}
