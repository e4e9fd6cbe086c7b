//! Services that listen on ranges of ports, or on every port of an address: exact before range before any.
//!
//! Whoever looks for a port finds in `RANGES` which service its range is of, and under that service's key the rest. A program
//! of its own does it, for packets of every kind that the others found no exact service and no exact way back for.

use crate::abi::ranges::{ends, service};
use crate::abi::{Correction, Key, RangesEntry, ReverseEntry, ServiceEntry};
use crate::packet::locate;
use crate::packet::part::Kind;
use crate::packet::tags::Untagged;
use crate::packet::{Frame, Packet, Parsed};
use crate::pipeline::{self, Tables, Verdict};
use crate::reason::Reason;
use crate::{checksum, fragment, icmp, table};

/// Decides, rewrites, and counts, like [`pipeline::run`].
#[inline(always)]
pub fn run<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let verdict = decide(frame, tables);
    pipeline::finish(tables, verdict)
}

#[inline(always)]
fn decide<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let at = match locate::found(frame) {
        Ok(at) => at,
        Err(reason) => return Verdict::stop(0, reason),
    };
    let mut frame = Untagged::new(frame, at.tags);
    if matches!(at.kind, Kind::Whole) && icmp::is_icmp(&at) {
        return icmp::decide_wide(&mut frame, tables, at);
    }
    let parsed = match at.kind {
        Kind::Later => fragment::later(&frame, tables, at),
        Kind::Whole | Kind::First => locate::parse(&frame, at),
    };
    let packet = match parsed {
        Parsed::Flow(packet) => packet,
        Parsed::NotOurs(reason) | Parsed::Malformed(reason) => return Verdict::stop(0, reason),
    };
    if let Some(service) = find_service(tables, &packet) {
        return pipeline::towards::<true, _, _>(&mut frame, tables, packet, service);
    }
    if let Some(entry) = find_way(tables, &packet) {
        return pipeline::back::<true, _, _>(&mut frame, tables, packet, entry);
    }
    Verdict::stop(0, Reason::NotAService)
}

/// Whether it is worth looking for a range.
#[inline(always)]
pub(crate) fn may_be_wide<T: Tables>(tables: &T, packet: &Packet) -> bool {
    tables.filter().is_some_and(|filter| filter.may_be_wide(&packet.dst, &packet.src))
}

/// What a packet's port becomes, and what that does to its checksums.
///
/// The range that begins with `from` becomes the one that begins with `to`; 0 keeps the port. All in network order.
#[inline(always)]
pub(crate) const fn shifted(port: u16, from: u16, to: u16, correction: Correction) -> (u16, Correction) {
    if to == 0 {
        return (0, correction);
    }
    let new = u16::from_be(port).wrapping_sub(u16::from_be(from)).wrapping_add(u16::from_be(to)).to_be();
    // Of this packet's own ports: ranges may change while it is looked at.
    let endpoint = checksum::fold(correction.address as u64 + !port as u64 + new as u64);
    (new, Correction { endpoint, ..correction })
}

#[inline(always)]
pub(crate) fn find_service<'a, T: Tables>(tables: &'a T, packet: &Packet) -> Option<&'a ServiceEntry> {
    let exact = packet.destination();
    pipeline::service_of(tables, &exact.wide_of(tables.range(&exact)?))
}

#[inline(always)]
pub(crate) fn find_way<'a, T: Tables>(tables: &'a T, packet: &Packet) -> Option<&'a ReverseEntry> {
    let exact = packet.source();
    let key = exact.wide_of(tables.range(&exact.of_source())?);
    pipeline::reverse_of(tables, &key, table::hash(&key))
}

/// Looks in `RANGES` for the range at a key's address that holds its port: the service's id, as keys have it.
#[inline(always)]
pub fn look<'a>(key: &Key, mask: u32, at: impl Fn(u32) -> Option<&'a RangesEntry>) -> Option<u16> {
    let port = u16::from_be(key.port());
    let address = key.with_port(0);
    let entry = table::look((&address, table::hash(&address)), mask, at, |entry| &entry.key)?;
    for word in entry.list() {
        let (first, last) = ends(*word);
        if first <= port && port <= last {
            return Some(service(*word) as u16);
        }
    }
    None
}

/// What [`look`] found, as one word: what a program's function can answer.
#[inline(always)]
pub const fn pack(found: Option<u16>) -> u64 {
    match found {
        Some(service) => service as u64,
        None => u64::MAX,
    }
}

/// What was packed.
#[inline(always)]
pub const fn unpack(word: u64) -> Option<u16> {
    if word > u16::MAX as u64 { None } else { Some(word as u16) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::ranges::word;
    use crate::addr::{Addr, TCP, UDP};

    #[test]
    fn ranges_end_where_they_say_and_every_port_comes_last() {
        let key = |port: u16| Key::endpoint(Addr::v4(7), port.to_be(), TCP);
        let mut entry = RangesEntry { key: Key::ranges(Addr::v4(7), TCP), ..RangesEntry::default() };
        entry.lists[0][..2].copy_from_slice(&[word(80, 81, 1), word(8000, 8999, 2)]);
        entry.lists[1][..2].copy_from_slice(&[word(8000, 8999, 2), word(0, 65_535, 3)]);
        let seen =
            |entry: &RangesEntry, ports: [u16; 8]| ports.map(|port| look(&key(port), 0, |_| Some(entry)));
        let (one, two, any) = (Some(1), Some(2), Some(3));
        let ports = [79, 80, 81, 82, 7999, 8000, 8999, 9000];
        assert_eq!(seen(&entry, ports), [None, one, one, None, None, two, two, None]);
        entry.bank = 1;
        assert_eq!(seen(&entry, ports), [any, any, any, any, any, two, two, any]);
        let other = Key::endpoint(Addr::v4(7), 80_u16.to_be(), UDP);
        assert_eq!(look(&other, 0, |_| Some(&entry)), None);
        assert_eq!(look(&key(80).of_source(), 0, |_| Some(&entry)), None);
    }

    #[test]
    fn ports_shift_with_their_range() {
        let be = |port: u16| port.to_be();
        let none = Correction::default();
        assert_eq!(shifted(be(8042), be(8000), be(9000), none).0, be(9042));
        assert_eq!(shifted(be(9042), be(9000), be(80), none).0, be(122));
        assert_eq!(shifted(be(8042), be(8000), 0, none), (0, none), "keeps");
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        for found in [None, Some(0), Some(1), Some(u16::MAX)] {
            assert_eq!(unpack(pack(found)), found);
        }
    }
}
