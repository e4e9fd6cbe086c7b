//! Addresses of this machine.

use super::{Error, Netlink, kernel_error, vip, watch};
use futures_util::TryStreamExt;
use netlink_packet_route::address::AddressMessage;
use std::net::IpAddr;

impl Netlink {
    /// Every address of this network namespace, with its interface, except those that announce services: nothing is sent
    /// from them.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub async fn addresses(&self) -> Result<Vec<(u32, IpAddr)>, Error> {
        let request = self.handle().address().get();
        let all: Vec<AddressMessage> =
            request.execute().try_collect().await.map_err(kernel_error("list addresses"))?;
        let own = all.iter().filter(|message| !vip::marked(message));
        Ok(own.filter_map(watch::address).collect())
    }
}
