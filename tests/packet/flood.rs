//! Floods from sources that are all different: in steady state there is nothing to fill, and in an open window what a
//! SYN fills is not where established flows are.

use lb_common::abi::names;
use lb_tests::frame::put;
use lb_tests::kernel::{Moved, SIZES};

use crate::case::{TX, forwarded};
use crate::consistency::{Change, from, open_window, out};
use crate::lab::{Lab, Served, in_lab, served};

/// Sends so many SYNs, each from an address of its own, and gives what moved.
fn flood(lab: &mut Lab<'_>, served: &Served, count: u32) -> Moved {
    let before = lab.kernel.snapshot();
    let mut frame = served.request().carrying([]).build();
    let mut out = vec![0; frame.len()];
    // The last four bytes of the source address.
    let source = if served.vip.is_ipv4() { 26 } else { 34 };
    let program = lab.kernel.program(names::BALANCE);
    for n in 0..count {
        // Checksums are now wrong, which is nobody's matter here: they are updated, not verified.
        put(&mut frame, source, 0x0a00 | (n >> 16) as u16);
        put(&mut frame, source + 2, n as u16);
        assert_eq!(program.run(&frame, &mut out).expect("the kernel runs it"), TX, "SYN {n}");
    }
    lab.kernel.snapshot().since(&before)
}

#[test]
fn a_million_sources_leave_nothing_in_steady_state() {
    const MILLION: u32 = 1_000_000;
    in_lab(|lab| {
        for (name, count) in [("tcp4-nat", MILLION), ("tcp6-l2", MILLION / 10)] {
            let served = served(name);
            let moved = flood(lab, &served, count);
            assert_eq!((moved.flows.len(), moved.embryos.len()), (0, 0), "{name}");
            let row = lab.kernel.backend(served.name, served.backend.ip()).1.counters;
            assert_eq!(moved.counters.keys().collect::<Vec<_>>(), [&row]);
            let counted = &moved.counters[&row];
            assert_eq!((counted.packets, counted.flows), (count.into(), count.into()));
            assert!(moved.reasons.is_empty(), "nothing but forwarded packets: {:?}", moved.reasons);
        }
        let steady = lab.kernel.snapshot();
        assert!(steady.flows.is_empty() && steady.embryos.is_empty());
    });
}

#[test]
fn syns_in_a_window_never_touch_established_flows() {
    // Of old flows and of new ones; a tenth of what `FLOWS` holds.
    const ESTABLISHED: u16 = (SIZES.flows / 10) as u16;
    for name in ["tcp4-nat", "tcp6-nat"] {
        in_lab(|lab| {
            let Change { old, new } = open_window(lab, name);
            let program = lab.kernel.program(names::BALANCE);
            let mut buffer = vec![0; 256];
            let mut send = |flow: &lb_tests::frame::Flow| {
                let frame = flow.build();
                assert_eq!(program.run(&frame, &mut buffer).expect("the kernel runs it"), TX);
            };
            for port in 6000..6000 + ESTABLISHED {
                // Even ports were there before the window, odd ones begin in it.
                if port % 2 == 1 {
                    send(&from(&new, port));
                }
                send(&from(&new, port).data());
            }
            let (stays, goes) = (lab.owner(&old), lab.owner(&new));
            let before = lab.kernel.snapshot();
            assert_eq!(before.flows.len(), usize::from(ESTABLISHED));
            for (id, owner) in &before.flows {
                assert_eq!(*owner, if id.ports[0] % 2 == 1 { goes } else { stays }, "{id:?}");
            }

            for count in [2 * SIZES.embryonic, 3 * SIZES.flows] {
                let moved = flood(lab, &new, count);
                assert_eq!(moved.flows.len(), 0, "{count} SYNs");
                let embryos = lab.kernel.snapshot().embryos.len();
                assert!(embryos > 0 && embryos <= SIZES.embryonic as usize, "{embryos} embryos");
            }
            for (port, on) in [(6000, &old), (6001, &new)] {
                let data = from(on, port).data();
                lab.flow("it is still remembered", &data).expect(forwarded(on, &out(on, &data)));
            }
        });
    }
}
