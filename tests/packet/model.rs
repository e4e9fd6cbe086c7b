//! The consistency invariant in the loaded program: the model that judges the shared code on the host judges the
//! kernel's maps and the verified program too, with fewer histories.

use lb_common::abi::{FlowKey, names};
use lb_tests::bpf::Program;
use lb_tests::kernel::Kernel;
use lb_tests::model::history::{history, play};
use lb_tests::model::{Machine, SECOND, World};
use lb_userspace::agent::windows::{Memory, Remembered};
use lb_userspace::dataplane::Tables;
use lb_userspace::dataplane::flows::FlowTable;
use lb_userspace::model::OnDown;
use nix::time::{ClockId, clock_gettime};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::case::{REDIRECT, TX};
use crate::lab::in_lab;

/// Histories of each kind.
const HISTORIES: u32 = 24;

/// The loaded program. Its clock cannot be turned forward: instead what it wrote is made older.
struct Loaded<'k> {
    kernel: &'k mut Kernel,
    program: &'k Program,
    /// How far the model's clock is ahead of the kernel's, ns.
    ahead: u64,
}

fn table(memory: Memory) -> FlowTable {
    match memory {
        Memory::Flows => FlowTable::Established,
        Memory::Embryonic => FlowTable::Embryonic,
    }
}

impl Loaded<'_> {
    fn raw(&mut self) -> Vec<Remembered> {
        let mut all = Vec::new();
        for memory in [Memory::Embryonic, Memory::Flows] {
            let read =
                self.kernel.table(table(memory)).for_each(|key, value| all.push((memory, *key, *value)));
            read.expect("flows can be read");
        }
        all
    }
}

impl Machine for Loaded<'_> {
    fn tables(&mut self) -> &mut Tables {
        &mut self.kernel.tables
    }

    fn now(&self) -> u64 {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the clock that the program reads");
        now.tv_sec().cast_unsigned() * SECOND + now.tv_nsec().cast_unsigned() + self.ahead
    }

    fn pass(&mut self, seconds: u64) {
        self.ahead += seconds * SECOND;
        for (memory, key, mut value) in self.raw() {
            value.seen = value.seen.wrapping_sub(seconds * SECOND);
            self.kernel.table(table(memory)).insert(&key, &value).expect("an entry that is there");
        }
    }

    fn written(&mut self) {}

    fn run(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; frame.len()];
        let action = self.program.run(frame, &mut out).expect("the kernel runs it");
        [TX, REDIRECT].contains(&action).then_some(out)
    }

    fn entries(&mut self) -> Vec<Remembered> {
        let ahead = self.ahead;
        let mut all = self.raw();
        all.iter_mut().for_each(|(_, _, value)| value.seen = value.seen.wrapping_add(ahead));
        all
    }

    fn forget(&mut self, gone: &[(Memory, FlowKey)]) {
        for memory in [Memory::Embryonic, Memory::Flows] {
            let keys: Vec<_> = gone.iter().filter(|(m, _)| *m == memory).map(|(_, key)| *key).collect();
            self.kernel.table(table(memory)).delete(&keys).expect("entries can be deleted");
        }
    }
}

fn histories(on_down: OnDown) {
    in_lab(|lab| {
        let program = lab.kernel.program(names::BALANCE);
        // The same histories every time: a failure here is to be looked at, not to be shaken off.
        let config = Config { cases: HISTORIES, failure_persistence: None, ..Config::default() };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let kernel = std::cell::RefCell::new(&mut lab.kernel);
        let played = TestRunner::new_with_rng(config, rng).run(&history(250), |events| {
            let kernel = &mut **kernel.borrow_mut();
            play(&mut World::new(Loaded { kernel, program: &program, ahead: 0 }, on_down), events)
        });
        played.unwrap_or_else(|error| panic!("{error}"));
    });
}

#[test]
fn no_flow_moves_that_need_not() {
    histories(OnDown::Rehash);
}

#[test]
fn nor_when_dead_backends_keep_their_flows() {
    histories(OnDown::Keep);
}
