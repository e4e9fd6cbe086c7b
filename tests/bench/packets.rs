//! The frames that programs are measured with, and the addresses in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use etherparse::PacketBuilder;

use crate::shared::{CLIENT_PORT, FRAME, Template, WORDS};

/// The port of every service.
pub(crate) const SERVICE_PORT: u16 = 443;
/// The port of every backend.
pub(crate) const BACKEND_PORT: u16 = 8443;
/// Backends of one service lie so far apart from those of the next.
const BLOCK: u32 = 256;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    /// An address of a range that ends with `low`.
    fn address(self, v4: [u8; 4], v6: u16, low: u32) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from(u32::from_be_bytes(v4) | low).into(),
            Self::V6 => {
                let [high, low] = [(low >> 16) as u16, low as u16];
                Ipv6Addr::new(0x2001, 0xdb8, v6, 0, 0, 0, high, low).into()
            }
        }
    }

    /// The first of 2^22 clients.
    fn clients(self) -> IpAddr {
        self.address([100, 64, 0, 0], 0xc, 0)
    }

    /// The address of a service, of at most 2^17.
    pub(crate) fn service(self, number: u32) -> IpAddr {
        self.address([198, 18, 0, 0], 0x5, number)
    }

    /// Backend `number` of a service.
    pub(crate) fn backend(self, service: u32, number: u32) -> SocketAddr {
        SocketAddr::new(self.address([10, 0, 0, 0], 0xb, service * BLOCK + number), BACKEND_PORT)
    }

    /// An address that is nobody's.
    fn stranger(self) -> IpAddr {
        self.address([203, 0, 113, 0], 0x7, 0)
    }
}

/// Whose packets a frame stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A client's, to a service, in the middle of a connection.
    Client,
    /// A client's first.
    Syn,
    /// A backend's, to a client.
    Backend,
    /// A client's, to somebody else.
    Stranger,
}

/// The frame of a kind, and how it varies.
pub(crate) fn template(family: Family, kind: Kind, clients: u32, peers: u32) -> Result<Template> {
    let client = (family.clients(), CLIENT_PORT);
    let (source, destination) = match kind {
        Kind::Client | Kind::Syn => (client, (family.service(0), SERVICE_PORT)),
        Kind::Stranger => (client, (family.stranger(), SERVICE_PORT)),
        Kind::Backend => ((family.backend(0, 0).ip(), BACKEND_PORT), client),
    };
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]);
    let ip = match (source.0, destination.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => anyhow::bail!("a packet has one family"),
    };
    let tcp = ip.tcp(source.1, destination.1, 1_000_000, 64_000);
    let tcp = if kind == Kind::Syn { tcp.syn() } else { tcp.ack(2_000_000) };
    let mut frame = Vec::with_capacity(FRAME);
    let payload = FRAME - tcp.size(0);
    tcp.write(&mut frame, &vec![0x6c; payload]).context("cannot write a frame")?;

    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(frame.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into()?);
    }
    Ok(Template { words, clients: clients - 1, peers })
}

/// The bytes of a template's frame.
pub(crate) fn bytes(template: &Template) -> Vec<u8> {
    template.words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
