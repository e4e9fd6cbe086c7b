//! Service addresses on interfaces: put there, taken away, and recognised after a crash.
//!
//! An address is marked with a protocol number of our own (`IFA_PROTO`, Linux 5.18), so the kernel itself remembers
//! which ones are ours. Addresses without the mark belong to somebody else and are never removed. An older kernel
//! ignores the mark: then only this process knows what it added, and what it left behind looks foreign.
//!
//! Telling the segment about an address is in [`super::announce`].

use super::{Error, Netlink, kernel_error, watch};
use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The protocol number of our addresses, "L". The kernel uses 1 to 3 (`IFAPROT_KERNEL_*`), and leaves the rest to
/// userspace, which has no registry of them. `ip address show proto 76` lists ours.
pub const PROTOCOL: u8 = 76;

/// Addresses that this process put on interfaces.
#[derive(Clone, Debug)]
pub struct Vips {
    netlink: Netlink,
    added: BTreeSet<(u32, IpAddr)>,
}

/// What came of an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The address is there now.
    Added,
    /// It was there already, and ours.
    AlreadyOurs,
    /// It was there already, and somebody else's: it stays as it is, and [`Vips::remove`] will leave it.
    Foreign,
}

/// What came of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The address is gone.
    Removed,
    /// It was not there.
    NotThere,
    /// It is somebody else's, and stays.
    Foreign,
}

impl Vips {
    /// Works through this connection, in its network namespace.
    #[must_use]
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink, added: BTreeSet::new() }
    }

    /// Puts an address on an interface, alone (/32 or /128): no route to a prefix appears, IPv6 is usable within
    /// milliseconds (no duplicate address detection), and the kernel does not choose it as source of its own connections.
    ///
    /// # Errors
    ///
    /// No such interface, or no privilege.
    pub async fn add(&mut self, ifindex: u32, address: IpAddr) -> Result<Added, Error> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let mut request = self.netlink.handle.address().add(ifindex, address, bits);
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)));
        if address.is_ipv6() {
            attributes.push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute));
            // Deprecated (RFC 4862, section 5.5.4): answered for, not chosen as a source. An IPv4 /32 never is while
            // the interface has another address.
            let mut cache = CacheInfo::default();
            cache.ifa_valid = u32::MAX;
            attributes.push(AddressAttribute::CacheInfo(cache));
        }
        match request.execute().await.map_err(kernel_error(format!("add {address} to interface {ifindex}"))) {
            Ok(()) => {
                self.added.insert((ifindex, address));
                Ok(Added::Added)
            }
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                Ok(if self.is_ours(ifindex, address).await? { Added::AlreadyOurs } else { Added::Foreign })
            }
            Err(error) => Err(error),
        }
    }

    /// Takes an address of ours from an interface.
    ///
    /// # Errors
    ///
    /// No privilege.
    pub async fn remove(&mut self, ifindex: u32, address: IpAddr) -> Result<Removed, Error> {
        let Some(message) = self.find(ifindex, address).await? else {
            self.added.remove(&(ifindex, address));
            return Ok(Removed::NotThere);
        };
        if !self.owns(&message, ifindex, address) {
            return Ok(Removed::Foreign);
        }
        let deleted = self.netlink.handle.address().del(message).execute().await;
        match deleted.map_err(kernel_error(format!("remove {address} from interface {ifindex}"))) {
            Err(error) if error.errno() != Some(Errno::EADDRNOTAVAIL) => return Err(error),
            _ => self.added.remove(&(ifindex, address)),
        };
        Ok(Removed::Removed)
    }

    /// The addresses on an interface that are ours: added by this process, or marked by one before it.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub async fn list_ours(&self, ifindex: u32) -> Result<Vec<IpAddr>, Error> {
        let messages = self.messages(ifindex).await?;
        let ours = messages.iter().filter_map(|message| {
            let (ifindex, address) = watch::address(message)?;
            self.owns(message, ifindex, address).then_some(address)
        });
        let mut ours: Vec<_> = ours.collect();
        ours.sort();
        Ok(ours)
    }

    async fn is_ours(&self, ifindex: u32, address: IpAddr) -> Result<bool, Error> {
        let message = self.find(ifindex, address).await?;
        Ok(message.is_some_and(|message| self.owns(&message, ifindex, address)))
    }

    fn owns(&self, message: &AddressMessage, ifindex: u32, address: IpAddr) -> bool {
        marked(message) || self.added.contains(&(ifindex, address))
    }

    /// The address on the interface; IPv4 may have it twice, with two prefix lengths: then ours.
    async fn find(&self, ifindex: u32, address: IpAddr) -> Result<Option<AddressMessage>, Error> {
        let same = |message: &AddressMessage| watch::address(message) == Some((ifindex, address));
        let mut found: Vec<_> = self.messages(ifindex).await?.into_iter().filter(same).collect();
        found.sort_by_key(|message| !marked(message));
        Ok(found.into_iter().next())
    }

    async fn messages(&self, ifindex: u32) -> Result<Vec<AddressMessage>, Error> {
        let request = self.netlink.handle.address().get().set_link_index_filter(ifindex);
        let action = format!("list the addresses of interface {ifindex}");
        let all: Vec<_> = request.execute().try_collect().await.map_err(kernel_error(action))?;
        let ip = |message: &AddressMessage| {
            matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6)
        };
        Ok(all.into_iter().filter(ip).collect())
    }
}

pub(super) fn marked(message: &AddressMessage) -> bool {
    message.attributes.contains(&AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)))
}

#[cfg(test)]
#[path = "vip_tests.rs"]
mod tests;
