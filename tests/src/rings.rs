//! Rings as they lie in the kernel, read through the pins, without the agent that wrote them.

use crate::bpf;
use lb_common::abi::{Key, limits, names, ring};
use lb_common::addr::Addr;
use lb_common::slot::Slot;
use lb_userspace::dataplane::maps::Maps;
use lb_userspace::dataplane::pins::Pins;
use std::net::SocketAddr;
use std::path::Path;

/// The slots of the service that listens there.
///
/// # Panics
///
/// There is none, or the pins cannot be read.
#[must_use]
pub fn slots(pins: &Path, protocol: u8, listen: SocketAddr) -> Vec<Slot> {
    read(pins, protocol, listen).0
}

/// The backends that new flows go to, slot by slot; `None`: nobody.
///
/// # Panics
///
/// As [`slots`].
#[must_use]
pub fn backends(pins: &Path, protocol: u8, listen: SocketAddr) -> Vec<Option<SocketAddr>> {
    let (slots, first) = read(pins, protocol, listen);
    let all = Maps::new(Pins::new(pins)).backends().unwrap();
    let backend = |slot: Slot| {
        let entry = all.get(first as usize + usize::from(slot.current()))?;
        Some(SocketAddr::new(entry.addr.into(), u16::from_be(entry.port)))
    };
    slots.into_iter().map(backend).collect()
}

/// Slots, and where the service's backends begin.
fn read(pins: &Path, protocol: u8, listen: SocketAddr) -> (Vec<Slot>, u32) {
    let maps = Maps::new(Pins::new(pins));
    let key = Key::endpoint(Addr::from(listen.ip()), listen.port().to_be(), protocol);
    let service = maps.services().unwrap().into_iter().find(|entry| entry.key == key).unwrap();
    let word = size_of::<Slot>();
    let line = word * ring::SLOTS_PER_LINE as usize;
    let bytes = bpf::bytes(&Pins::new(pins).map(names::RINGS), limits::RING_LINES as usize * line).unwrap();
    let (words, _) = bytes[service.ring as usize * line..].as_chunks::<4>();
    let slots = words.iter().take(service.slots as usize).map(|word| Slot(u32::from_ne_bytes(*word)));
    (slots.collect(), service.backends)
}
