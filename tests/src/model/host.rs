//! The machine without a kernel: the program's own code on vectors, with a clock that stands still.

use super::Machine;
use crate::kernel::SIZES;
use lb_common::abi::FlowKey;
use lb_common::host::{self, HostTables};
use lb_common::reason::Reason;
use lb_userspace::agent::windows::{Memory, Remembered};
use lb_userspace::dataplane::Tables;

/// Tables on the heap, and what the program sees of them.
pub struct Host {
    tables: Tables,
    program: HostTables,
}

impl Default for Host {
    fn default() -> Self {
        Self { tables: Tables::in_memory(&SIZES), program: HostTables::default() }
    }
}

impl Machine for Host {
    fn tables(&mut self) -> &mut Tables {
        &mut self.tables
    }

    fn now(&self) -> u64 {
        self.program.now.get()
    }

    fn pass(&mut self, seconds: u64) {
        self.program.now.set(self.now() + seconds * super::SECOND);
    }

    fn written(&mut self) {
        for entry in self.tables.services.iter() {
            self.program.put_service(entry);
            for (index, word) in (0..).zip(self.tables.rings.read(entry.ring, entry.slots)) {
                self.program.set_slot(&entry, index, word);
            }
            for n in entry.backends..entry.backends + entry.capacity {
                self.program.backends[n as usize] = self.tables.backends.get(n).unwrap();
            }
        }
    }

    fn run(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut frame = frame.to_vec();
        let verdict = host::run(frame.as_mut_slice(), &self.program);
        (verdict.reason == Reason::Forwarded).then_some(frame)
    }

    fn entries(&mut self) -> Vec<Remembered> {
        let (flows, embryos) = (self.program.flows.borrow(), self.program.embryos.borrow());
        let embryos = embryos.iter().map(|(key, value)| (Memory::Embryonic, *key, *value));
        embryos.chain(flows.iter().map(|(key, value)| (Memory::Flows, *key, *value))).collect()
    }

    fn forget(&mut self, gone: &[(Memory, FlowKey)]) {
        for (memory, key) in gone {
            match memory {
                Memory::Flows => self.program.flows.borrow_mut().remove(key),
                Memory::Embryonic => self.program.embryos.borrow_mut().remove(key),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;
    use crate::model::World;
    use crate::model::history::{Event, history, play};
    use lb_userspace::model::OnDown;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]

        #[test]
        fn no_flow_moves_that_need_not(events in history(400)) {
            play(&mut World::new(Host::default(), OnDown::Rehash), events)?;
        }

        #[test]
        fn nor_when_dead_backends_keep_their_flows(events in history(400)) {
            play(&mut World::new(Host::default(), OnDown::Keep), events)?;
        }
    }

    /// `seen` is written once a second, so it may be that much older than the flow.
    #[test]
    fn a_flow_that_was_seen_again_within_a_second_lives_as_long_as_any() {
        let idle = super::super::IDLE;
        for flow in 0..60 {
            let mut events = vec![Event::Open(flow), Event::Put(5, 3), Event::Data(flow)];
            events.extend([Event::Time(1), Event::Data(flow), Event::Time(idle), Event::Data(flow)]);
            play(&mut World::new(Host::default(), OnDown::Rehash), events).unwrap();
        }
    }

    #[test]
    fn without_changes_nothing_is_remembered() {
        let mut world = World::new(Host::default(), OnDown::Rehash);
        for flow in 0..2000 {
            let first = world.send(flow, Kind::Syn);
            assert!(first.is_some());
            assert_eq!(world.send(flow, Kind::Data), first);
        }
        assert!(world.machine.entries().is_empty());
    }

    /// Two balancers that were configured in another order choose alike, so a flow may change between them.
    #[test]
    fn two_balancers_agree_whatever_their_history() {
        let mut first = World::new(Host::default(), OnDown::Rehash);
        let mut second = World::new(Host::default(), OnDown::Rehash);
        for n in [7, 5, 6] {
            first.put(n, 2);
            first.converge();
        }
        for n in [6, 8, 7, 5] {
            second.put(n, 2);
            second.converge();
        }
        second.remove(8);
        second.converge();
        for flow in 0..2000 {
            let [one, other] = [&mut first, &mut second].map(|world| world.send(flow, Kind::Syn));
            assert_eq!(one.map(|(to, _)| to), other.map(|(to, _)| to));
        }
    }
}
