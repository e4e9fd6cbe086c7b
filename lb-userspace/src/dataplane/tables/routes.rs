//! `ROUTES`: the way back to clients, in two generations of which one is in force.

use std::mem::offset_of;

use lb_common::abi::RouteEntry;
use lb_common::abi::limits::ROUTES_PER_FAMILY;

use super::grace::Grace;
use super::region::{OutOfRange, Region};
use super::settings::SettingsTable;

/// MAC of the gateway and the start of the interface's: stored last when only MACs change.
const MACS: usize = 5;
const _: () = assert!(offset_of!(RouteEntry, macs) == MACS * 8);

const PER_FAMILY: usize = ROUTES_PER_FAMILY as usize;
const PER_GENERATION: u32 = 2 * ROUTES_PER_FAMILY;

/// More routes than a generation holds. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} routes of one family, the table holds {ROUTES_PER_FAMILY}: compile the rest to one that asks the kernel"
)]
pub struct TooManyRoutes(pub usize);

/// What [`Routes::publish`] had to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Nothing: they were in force.
    Unchanged,
    /// MACs or MTUs were changed where they stand.
    InPlace,
    /// The other generation was filled and put in force.
    Flipped,
}

/// Both generations of routes.
#[derive(Debug)]
pub struct Routes {
    entries: Region<RouteEntry>,
    settings: SettingsTable,
    grace: Grace,
    /// The idle generation may still be read.
    retired: bool,
}

impl Routes {
    /// Routes in a region; `settings` says which generation is in force.
    pub(in crate::dataplane) fn new(
        entries: Region<RouteEntry>,
        settings: SettingsTable,
        grace: Grace,
    ) -> Self {
        Self { entries, settings, grace, retired: true }
    }

    /// The routes in force, each family longest prefix first: IPv4, IPv6.
    pub fn in_force(&self) -> (Vec<RouteEntry>, Vec<RouteEntry>) {
        let (v4, v6) = self.generation(self.settings.get().routes & 1);
        let used = |routes: &[RouteEntry]| {
            routes.iter().take_while(|r| r.kind != lb_common::abi::route::kind::END).copied().collect()
        };
        (used(&v4), used(&v6))
    }

    /// Puts routes in force, each family longest prefix first. A packet sees the old ones or the new ones.
    ///
    /// # Errors
    /// A family has too many.
    pub fn publish(&mut self, v4: &[RouteEntry], v6: &[RouteEntry]) -> Result<Published, TooManyRoutes> {
        let wanted = [padded(v4)?, padded(v6)?].concat();
        let current = self.settings.get().routes & 1;
        let (now4, now6) = self.generation(current);
        let now = [now4, now6].concat();
        if now == wanted {
            return Ok(Published::Unchanged);
        }
        let written = if now.iter().zip(&wanted).all(|(a, b)| same_but_macs(a, b)) {
            self.fill(current, &wanted).map(|()| Published::InPlace)
        } else {
            self.flip(1 - current, &wanted).map(|()| Published::Flipped)
        };
        // The region holds exactly two generations.
        debug_assert!(written.is_ok());
        Ok(written.unwrap_or(Published::Unchanged))
    }

    fn flip(&mut self, idle: u32, routes: &[RouteEntry]) -> Result<(), OutOfRange> {
        if self.retired {
            self.grace.synchronize();
        }
        self.fill(idle, routes)?;
        self.settings.set_routes(idle)?;
        self.retired = true;
        Ok(())
    }

    fn fill(&mut self, generation: u32, routes: &[RouteEntry]) -> Result<(), OutOfRange> {
        let first = generation * PER_GENERATION;
        (first..).zip(routes).try_for_each(|(index, route)| self.entries.write(index, route, MACS))
    }

    fn generation(&self, generation: u32) -> (Vec<RouteEntry>, Vec<RouteEntry>) {
        let family = |family| {
            let first = generation * PER_GENERATION + family * ROUTES_PER_FAMILY;
            (first..first + ROUTES_PER_FAMILY).filter_map(|index| self.entries.get(index)).collect()
        };
        (family(0), family(1))
    }
}

fn padded(routes: &[RouteEntry]) -> Result<Vec<RouteEntry>, TooManyRoutes> {
    if routes.len() > PER_FAMILY {
        return Err(TooManyRoutes(routes.len()));
    }
    let mut padded = routes.to_vec();
    padded.resize(PER_FAMILY, RouteEntry::default());
    Ok(padded)
}

fn same_but_macs(a: &RouteEntry, b: &RouteEntry) -> bool {
    RouteEntry { macs: b.macs, mtu: b.mtu, ..*a } == *b
}

#[cfg(test)]
mod tests {
    use super::super::region::observe::while_observed;
    use super::*;
    use lb_common::abi::limits;
    use lb_common::abi::route::kind;
    use std::net::IpAddr;

    fn routes() -> Routes {
        let settings = SettingsTable::new(Region::on_heap("SETTINGS", 1));
        Routes::new(Region::on_heap("ROUTES", limits::ROUTES), settings, Grace::None)
    }

    fn route(net: u8, mac: u8) -> RouteEntry {
        RouteEntry {
            prefix: IpAddr::from([10, net, 0, 0]).into(),
            mask: IpAddr::from([255, 255, 0, 0]).into(),
            kind: kind::GATEWAY,
            ifindex: 2,
            macs: [mac; 12],
            mtu: 1500,
            reserved: [0; 2],
        }
    }

    #[test]
    fn what_is_published_is_in_force_until_the_next() {
        let mut routes = routes();
        assert_eq!(routes.publish(&[], &[]), Ok(Published::Unchanged));
        assert_eq!(routes.publish(&[route(1, 1), route(2, 1)], &[]), Ok(Published::Flipped));
        assert_eq!(routes.publish(&[route(1, 1), route(2, 1)], &[]), Ok(Published::Unchanged));
        assert_eq!(routes.publish(&[route(1, 1)], &[route(9, 1)]), Ok(Published::Flipped));
        assert_eq!(routes.in_force(), (vec![route(1, 1)], vec![route(9, 1)]));
        assert_eq!(routes.publish(&[route(1, 7)], &[route(9, 1)]), Ok(Published::InPlace));
        assert_eq!(routes.in_force(), (vec![route(1, 7)], vec![route(9, 1)]));
    }

    #[test]
    fn a_packet_sees_the_old_routes_or_the_new_ones() {
        let mut routes = routes();
        routes.publish(&[route(1, 1), route(2, 1)], &[]).unwrap();
        let view = Routes::new(routes.entries.clone(), routes.settings.share(), Grace::None);
        let (old, new) = (vec![route(1, 1), route(2, 1)], vec![route(3, 1)]);
        let allowed = [old, new.clone()];
        while_observed(
            move || assert!(allowed.contains(&view.in_force().0)),
            || routes.publish(&new, &[]).unwrap(),
        );
    }

    #[test]
    fn too_many_change_nothing() {
        let mut routes = routes();
        routes.publish(&[route(1, 1)], &[]).unwrap();
        let many = vec![route(2, 1); PER_FAMILY + 1];
        assert_eq!(routes.publish(&many, &[]), Err(TooManyRoutes(17)));
        assert_eq!(routes.in_force().0, [route(1, 1)]);
        assert_eq!(routes.publish(&many[1..], &[]), Ok(Published::Flipped));
    }
}
