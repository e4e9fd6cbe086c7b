//! A case: one frame, one sentence, and everything that must be true afterwards.

use lb_common::abi::{BackendCounters, names};
use lb_common::reason::{Fate, Reason};
use lb_tests::frame::Flow;
use lb_tests::kernel::{FlowId, FragmentId, Moved, Owner};

use crate::lab::{LOOPBACK, Lab, Served};

/// `XDP_DROP`, `XDP_PASS`, `XDP_TX`, `XDP_REDIRECT`.
pub(crate) const DROP: u32 = 1;
pub(crate) const PASS: u32 = 2;
pub(crate) const TX: u32 = 3;
pub(crate) const REDIRECT: u32 = 4;

/// A frame that comes in, and what is claimed about it.
pub(crate) struct Case<'l, 'n> {
    lab: &'l mut Lab<'n>,
    sentence: String,
    frame: Vec<u8>,
    ingress: u32,
}

/// What is to happen.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    reason: Reason,
    /// The service that it is counted for, if any.
    service: Option<String>,
    /// The frame that leaves; `None`: as it came in.
    frame: Option<Vec<u8>>,
    /// The interface that it leaves through.
    egress: u32,
    /// The backend that counts it, and whether it counts a new flow.
    counted: Option<(Served, bool)>,
    flows: Entries,
    embryos: Entries,
    fragments: Vec<(FragmentId, Option<Owner>)>,
}

/// Entries that change: flow, and the backend that owns it afterwards.
type Entries = Vec<(FlowId, Option<Owner>)>;

/// Passed unchanged, and counted for no service.
pub(crate) fn passed(reason: Reason) -> Expected {
    Expected {
        reason,
        service: None,
        frame: None,
        egress: LOOPBACK,
        counted: None,
        flows: Vec::new(),
        embryos: Vec::new(),
        fragments: Vec::new(),
    }
}

/// Dropped or passed, counted for a service but for no backend.
pub(crate) fn refused(served: &Served, reason: Reason) -> Expected {
    Expected { service: Some(served.name.into()), ..passed(reason) }
}

/// Sent to the backend as this frame.
pub(crate) fn forwarded(served: &Served, frame: &[u8]) -> Expected {
    let counted = Some((served.clone(), false));
    Expected { frame: Some(frame.into()), counted, ..refused(served, Reason::Forwarded) }
}

/// Sent back to the client as this frame.
pub(crate) fn returned(served: &Served, frame: &[u8]) -> Expected {
    Expected { reason: Reason::Returned, ..forwarded(served, frame) }
}

impl Expected {
    /// It is made this answer.
    pub(crate) fn answered(mut self, frame: &[u8]) -> Self {
        self.frame = Some(frame.into());
        self
    }

    /// It leaves through another interface than the loopback.
    pub(crate) fn through(mut self, ifindex: u32) -> Self {
        self.egress = ifindex;
        self
    }

    /// It leaves as this frame.
    pub(crate) fn leaving(mut self, frame: &[u8]) -> Self {
        self.frame = Some(frame.into());
        self
    }

    /// It is counted as a new flow.
    pub(crate) fn new_flow(mut self) -> Self {
        self.counted = self.counted.map(|(served, _)| (served, true));
        self
    }

    /// An entry of `FLOWS` changes.
    pub(crate) fn flow(mut self, id: FlowId, owner: Option<Owner>) -> Self {
        self.flows.push((id, owner));
        self
    }

    /// An entry of `EMBRYONIC` changes.
    pub(crate) fn embryo(mut self, id: FlowId, owner: Option<Owner>) -> Self {
        self.embryos.push((id, owner));
        self
    }

    /// An entry of `FRAGMENTS` changes.
    pub(crate) fn fragment(mut self, id: FragmentId, owner: Option<Owner>) -> Self {
        self.fragments.push((id, owner));
        self
    }

    fn action(&self, ingress: u32) -> u32 {
        match self.reason.fate() {
            Fate::Pass => PASS,
            Fate::Drop => DROP,
            Fate::Answer => TX,
            Fate::Forward if self.egress == ingress => TX,
            Fate::Forward => REDIRECT,
        }
    }

    fn moved(&self, lab: &Lab<'_>, bytes: u64) -> Moved {
        let service = self.service.as_ref().map_or(0, |name| lab.kernel.service(name).id);
        let mut moved = Moved::default().reason(service, self.reason);
        if let Some((served, new)) = &self.counted {
            let row = lab.kernel.backend(served.name, served.backend.ip()).1.counters;
            let counters = if self.reason == Reason::Returned {
                BackendCounters { back_packets: 1, back_bytes: bytes, ..BackendCounters::default() }
            } else {
                BackendCounters { packets: 1, bytes, flows: u64::from(*new), ..BackendCounters::default() }
            };
            moved.counters.insert(row, counters);
        }
        moved.flows = self.flows.iter().copied().collect();
        moved.embryos = self.embryos.iter().copied().collect();
        moved.fragments = self.fragments.iter().copied().collect();
        moved
    }
}

impl<'n> Lab<'n> {
    /// A claim about a frame that comes in through the loopback.
    pub(crate) fn case(&mut self, sentence: impl Into<String>, frame: impl Into<Vec<u8>>) -> Case<'_, 'n> {
        Case { lab: self, sentence: sentence.into(), frame: frame.into(), ingress: LOOPBACK }
    }

    /// A claim about a packet.
    pub(crate) fn flow(&mut self, sentence: impl Into<String>, flow: &Flow) -> Case<'_, 'n> {
        self.case(sentence, flow.build())
    }
}

impl Case<'_, '_> {
    /// It comes in through another interface.
    pub(crate) fn from(mut self, ifindex: u32) -> Self {
        self.ingress = ifindex;
        self
    }

    /// Explains the frame, which moves nothing, then balances it: both as expected, and nothing else moves.
    #[track_caller]
    pub(crate) fn expect(self, expected: Expected) {
        let Self { lab, sentence, frame, ingress } = self;
        let out = expected.frame.as_ref().unwrap_or(&frame);
        let action = expected.action(ingress);
        let moved = expected.moved(lab, frame.len() as u64);
        let before = lab.kernel.snapshot();

        let explained = lab.kernel.runner().explain(&frame, ingress).expect("the kernel explains");
        let reason = Reason::from_number(explained.report.reason);
        assert_eq!(reason, Some(expected.reason), "{sentence}: the reason");
        assert_eq!((explained.action, &explained.frame), (action, out), "{sentence}: explained");
        if expected.reason.fate() == Fate::Forward {
            assert_eq!(explained.report.egress, expected.egress, "{sentence}: the interface");
        }
        assert_eq!(lab.kernel.snapshot(), before, "{sentence}: explaining moves nothing");

        let ran = lab.kernel.runner().run(names::BALANCE, &frame, ingress, 1).expect("the kernel runs it");
        assert_eq!((ran.action, &ran.frame), (action, out), "{sentence}");
        assert_eq!(lab.kernel.snapshot().since(&before), moved, "{sentence}: what moved");
    }
}
