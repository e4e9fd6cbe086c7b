//! Random histories, and the judge of every packet in them.
//!
//! The judge remembers for each flow which backend it is on, and knows the few cases in which it may move:
//!
//! - its backend cannot be reached any more (down, removed, or its drain ended);
//! - it was silent for longer than the service's idle timeout;
//! - its entry was evicted while it disagreed with `previous`, or while the window was open and the flow was then not
//!   seen again before it closed (DESIGN, section 4).

use super::{BACKENDS, IDLE, Machine, SECOND, World};
use crate::frame::Kind;
use lb_userspace::model::{Admin, Health};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A flow sends its SYN.
    Open(u16),
    /// A flow sends a segment.
    Data(u16),
    /// Seconds pass.
    Time(u64),
    /// A backend is added, or gets another weight.
    Put(u8, u32),
    /// A backend is removed at once.
    Remove(u8),
    /// A backend is drained, seconds.
    Drain(u8, u64),
    /// A drain is taken back.
    Undrain(u8),
    /// A check succeeds or fails.
    Health(u8, bool),
    /// The kernel evicts a flow's entry.
    Evict(u16),
    /// The agent is killed and started again.
    Restart,
}

/// A history of 50 to `longest` events.
pub fn history(longest: usize) -> impl Strategy<Value = Vec<Event>> {
    proptest::collection::vec(event(), 50..longest)
}

fn event() -> impl Strategy<Value = Event> {
    let (flow, backend) = (|| 0_u16..60, || 1..=BACKENDS);
    prop_oneof![
        12 => flow().prop_map(Event::Open),
        30 => flow().prop_map(Event::Data),
        6 => (1_u64..25).prop_map(Event::Time),
        1 => (IDLE..3 * IDLE).prop_map(Event::Time),
        3 => (backend(), 0_u32..4).prop_map(|(n, weight)| Event::Put(n, weight)),
        1 => backend().prop_map(Event::Remove),
        2 => (backend(), 1_u64..200).prop_map(|(n, seconds)| Event::Drain(n, seconds)),
        2 => backend().prop_map(Event::Undrain),
        3 => (backend(), any::<bool>()).prop_map(|(n, up)| Event::Health(n, up)),
        1 => flow().prop_map(Event::Evict),
        1 => Just(Event::Restart),
    ]
}

/// What the judge remembers of a flow.
#[derive(Clone, Copy, Debug)]
struct Memory {
    backend: SocketAddr,
    generation: u32,
    seen: u64,
    /// Its backend was out of reach at some moment since, or its entry was evicted while it mattered: it may move once.
    may_move: bool,
}

impl Memory {
    fn dead(&self, now: u64) -> bool {
        now - self.seen > IDLE * SECOND
    }
}

/// Plays a history. Every packet is judged, and in the end nothing is remembered.
///
/// # Errors
/// A flow moved that need not.
pub fn play<M: Machine>(world: &mut World<M>, events: Vec<Event>) -> Result<(), TestCaseError> {
    let mut flows: BTreeMap<u16, Memory> = BTreeMap::new();
    for event in events {
        match event {
            Event::Open(flow) => open(world, &mut flows, flow)?,
            Event::Data(flow) => data(world, &mut flows, flow)?,
            Event::Time(seconds) => world.pass_time(seconds),
            Event::Put(n, weight) => world.put(n, weight),
            Event::Remove(n) => world.remove(n),
            Event::Drain(n, seconds) => {
                let until = Some(world.machine.now() / SECOND + seconds);
                world.administer(n, Admin::Draining { until, remove: false });
            }
            Event::Undrain(n) => world.administer(n, Admin::Active),
            Event::Health(n, up) => world.check(n, if up { Health::Up } else { Health::Down }),
            Event::Evict(flow) => {
                if world.evict(flow)
                    && let Some(memory) = flows.get_mut(&flow)
                {
                    memory.may_move = true;
                }
            }
            Event::Restart => world.restart(),
        }
        world.converge();
        let reachable = world.reachable();
        for memory in flows.values_mut() {
            memory.may_move |= !reachable.contains(&memory.generation);
        }
    }
    // The world is quiet: every window closes, every entry goes, nothing is tracked.
    for _ in 0..4 {
        world.pass_time(2 * IDLE);
    }
    prop_assert!(!world.slots().iter().any(|slot| slot.tracked()), "a slot is tracked for ever");
    let left = world.machine.entries();
    prop_assert!(left.is_empty(), "entries are kept for ever: {left:?}");
    Ok(())
}

fn open<M: Machine>(
    world: &mut World<M>,
    flows: &mut BTreeMap<u16, Memory>,
    flow: u16,
) -> Result<(), TestCaseError> {
    let now = world.machine.now();
    // A connection that is alive does not send SYNs.
    if flows.get(&flow).is_some_and(|memory| !memory.dead(now)) {
        return Ok(());
    }
    flows.remove(&flow);
    if let Some((backend, generation)) = world.send(flow, Kind::Syn) {
        prop_assert!(world.selectable(generation), "a new flow went to {backend}, which takes none");
        flows.insert(flow, Memory { backend, generation, seen: now, may_move: false });
    }
    Ok(())
}

fn data<M: Machine>(
    world: &mut World<M>,
    flows: &mut BTreeMap<u16, Memory>,
    flow: u16,
) -> Result<(), TestCaseError> {
    let Some(memory) = flows.get(&flow).copied() else { return Ok(()) };
    let now = world.machine.now();
    let sent = world.send(flow, Kind::Data);
    let may_move = memory.may_move || memory.dead(world.machine.now());
    let Some((backend, generation)) = sent else {
        prop_assert!(may_move, "a live flow on {} got nobody", memory.backend);
        flows.remove(&flow);
        return Ok(());
    };
    prop_assert!(
        may_move || (backend, generation) == (memory.backend, memory.generation),
        "flow {flow} moved from {} to {backend}; its slot is {:?}",
        memory.backend,
        world.slot(flow)
    );
    flows.insert(flow, Memory { backend, generation, seen: now, may_move: false });
    Ok(())
}
