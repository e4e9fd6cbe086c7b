//! What the clients saw, phase by phase, and which losses were to be expected.
//!
//! Only a stopped backend may cost anything: the connections that were on it, and attempts that reached it before the
//! health check noticed. Everything else is a fault of the balancer. No clock here but the instants that are handed in.

use super::topology::BACKENDS;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Address family of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// An attempt that got no first answer: refused, reset or timed out.
    Attempt,
    /// A connection that worked, and then did not.
    Connection,
    /// A datagram without an answer.
    Datagram,
    /// An answer from another backend than before on the same connection, or with wrong bytes.
    Answer,
}

/// A loss.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    /// What it was.
    pub(super) what: What,
    /// The backend it was on, if a first answer had told.
    pub(super) backend: Option<usize>,
    /// Family of the client.
    pub(super) family: Family,
    /// When the request, the attempt or the datagram was started.
    pub(super) began: Instant,
    /// When the client noticed.
    pub(super) noticed: Instant,
    /// What the client's kernel said.
    pub(super) why: String,
}

/// What happened in a phase.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    /// What it is called.
    pub(super) name: String,
    /// When it began.
    pub(super) began: Instant,
    /// When the next began, or the traffic ended.
    pub(super) ended: Option<Instant>,
    /// New connections, by backend.
    pub(super) opened: [u64; BACKENDS],
    /// Answered requests on connections.
    pub(super) requests: u64,
    /// Answered datagrams.
    pub(super) datagrams: u64,
    /// Longest wait for an answer.
    pub(super) slowest: Duration,
}

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    /// Phases, in their order.
    pub(super) phases: Vec<Phase>,
    /// Losses, in the order in which they were noticed.
    pub(super) losses: Vec<Loss>,
    /// Long-lived connections that are open, by backend.
    pub(super) open: [u64; BACKENDS],
    /// New connections since the beginning, by backend.
    pub(super) opened: [u64; BACKENDS],
    /// Answered requests since the beginning, by backend.
    pub(super) answered: [u64; BACKENDS],
    /// New connections since the beginning, IPv4 and IPv6.
    pub(super) families: [u64; 2],
    /// Bytes of payload that came back as they were sent.
    pub(super) bytes: u64,
    /// Since when a backend must get nothing new.
    pub(super) closed: [Option<Instant>; BACKENDS],
    /// New connections that were started later than that, and got there all the same.
    pub(super) strays: [u64; BACKENDS],
}

/// The books, shared between clients and the story.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Books>);

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        // Numbers cannot be half written in a way that matters: a client that panicked left whole ones.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy.
    pub(super) fn snapshot(&self) -> Books {
        self.books().clone()
    }

    /// A phase begins, and the one before ends.
    pub(super) fn phase(&self, name: impl Into<String>) {
        self.end();
        self.books().phases.push(Phase {
            name: name.into(),
            began: Instant::now(),
            ended: None,
            opened: [0; BACKENDS],
            requests: 0,
            datagrams: 0,
            slowest: Duration::ZERO,
        });
    }

    /// The last phase ends.
    pub(super) fn end(&self) {
        if let Some(phase) = self.books().phases.last_mut() {
            phase.ended.get_or_insert_with(Instant::now);
        }
    }

    /// From now on a backend must get no new connections; or it may again.
    pub(super) fn close(&self, backend: usize, closed: bool) {
        self.books().closed[backend] = closed.then(Instant::now);
    }

    /// A connection, started at `began`, got its first answer.
    pub(super) fn opened(&self, backend: usize, family: Family, began: Instant) {
        let mut books = self.books();
        if books.closed[backend].is_some_and(|closed| closed < began) {
            books.strays[backend] += 1;
        }
        books.opened[backend] += 1;
        books.families[family as usize] += 1;
        if let Some(phase) = books.phases.last_mut() {
            phase.opened[backend] += 1;
        }
    }

    /// A connection that was opened stays open.
    pub(super) fn stays(&self, backend: usize) {
        self.books().open[backend] += 1;
    }

    /// A connection that stayed open ended, whoever ended it.
    pub(super) fn ends(&self, backend: usize) {
        let mut books = self.books();
        books.open[backend] = books.open[backend].saturating_sub(1);
    }

    /// A request was answered with the right bytes.
    pub(super) fn answered(&self, backend: usize, bytes: usize, took: Duration) {
        let mut books = self.books();
        books.answered[backend] += 1;
        books.bytes += bytes as u64;
        if let Some(phase) = books.phases.last_mut() {
            phase.requests += 1;
            phase.slowest = phase.slowest.max(took);
        }
    }

    /// A datagram was answered with the right bytes.
    pub(super) fn echoed(&self) {
        if let Some(phase) = self.books().phases.last_mut() {
            phase.datagrams += 1;
        }
    }

    /// Something was lost, and noticed now.
    pub(super) fn lost(
        &self,
        what: What,
        backend: Option<usize>,
        family: Family,
        began: Instant,
        why: impl Into<String>,
    ) {
        let loss = Loss { what, backend, family, began, noticed: Instant::now(), why: why.into() };
        self.books().losses.push(loss);
    }
}

/// The stop of a backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    /// Which one.
    pub(super) backend: usize,
    /// When it was stopped.
    pub(super) stopped: Instant,
    /// When the balancer had noticed.
    pub(super) detected: Instant,
}

/// Losses, judged.
#[derive(Clone, Debug, Default)]
pub(super) struct Judgement {
    /// Connections that ended with the backend that was stopped.
    pub(super) with_backend: Vec<Loss>,
    /// Attempts and datagrams that went to it before the balancer noticed.
    pub(super) before_detection: Vec<Loss>,
    /// What must not happen.
    pub(super) faults: Vec<Loss>,
}

impl Books {
    /// Judges every loss. Without an outage, each is a fault.
    pub(super) fn judge(&self, outage: Option<Outage>) -> Judgement {
        let mut judgement = Judgement::default();
        for loss in &self.losses {
            let pile = match outage {
                Some(outage) if outage.took_connection(loss) => &mut judgement.with_backend,
                Some(outage) if outage.took_attempt(loss) => &mut judgement.before_detection,
                _ => &mut judgement.faults,
            };
            pile.push(loss.clone());
        }
        judgement
    }

    /// Losses of a phase: those that the outage excuses, and faults. What an outage took belongs to the phase in which
    /// it happened, however late a client noticed; a fault belongs to the phase in which it was started.
    pub(super) fn lost_in(&self, phase: &Phase, outage: Option<Outage>) -> (usize, usize) {
        let judgement = self.judge(outage);
        let excused = match outage {
            Some(outage) if phase.contains(outage.stopped) => {
                judgement.with_backend.len() + judgement.before_detection.len()
            }
            _ => 0,
        };
        (excused, judgement.faults.iter().filter(|loss| phase.contains(loss.began)).count())
    }
}

impl Outage {
    /// Connections on the backend die with it, whenever the client looks.
    fn took_connection(self, loss: &Loss) -> bool {
        loss.what == What::Connection && loss.backend == Some(self.backend) && loss.noticed >= self.stopped
    }

    /// Nobody can know before the detection which attempts the stopped backend would get.
    fn took_attempt(self, loss: &Loss) -> bool {
        matches!(loss.what, What::Attempt | What::Datagram)
            && loss.backend.is_none_or(|backend| backend == self.backend)
            && loss.noticed >= self.stopped
            && loss.began <= self.detected
    }
}

impl Phase {
    fn contains(&self, instant: Instant) -> bool {
        instant >= self.began && self.ended.is_none_or(|ended| instant < ended)
    }

    /// Share of each backend among the new connections of the phase, 0 to 1. `None`: there were none.
    pub(super) fn shares(&self) -> Option<[f64; BACKENDS]> {
        shares(self.opened)
    }
}

/// Share of each count in their sum, 0 to 1. `None`: the sum is 0.
pub(super) fn shares(counts: [u64; BACKENDS]) -> Option<[f64; BACKENDS]> {
    let sum: u64 = counts.iter().sum();
    (sum > 0).then(|| counts.map(|count| count as f64 / sum as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn loss(what: What, backend: Option<usize>, began: Instant, noticed: Instant) -> Loss {
        Loss { what, backend, family: Family::V4, began, noticed, why: String::new() }
    }

    #[test]
    fn only_the_stopped_backend_may_cost_anything() {
        let start = Instant::now();
        let at = |ms: u32| start + ms * MS;
        let outage = Outage { backend: 1, stopped: at(100), detected: at(500) };
        let books = Books {
            losses: vec![
                loss(What::Connection, Some(1), at(90), at(101)),
                loss(What::Connection, Some(1), at(600), at(601)),
                loss(What::Attempt, None, at(99), at(102)),
                loss(What::Datagram, None, at(499), at(1499)),
                // Faults: another backend, too early, too late, wrong bytes.
                loss(What::Connection, Some(0), at(200), at(201)),
                loss(What::Connection, Some(1), at(50), at(99)),
                loss(What::Attempt, None, at(50), at(99)),
                loss(What::Attempt, None, at(501), at(502)),
                loss(What::Answer, Some(1), at(200), at(201)),
            ],
            ..Books::default()
        };
        let judgement = books.judge(Some(outage));
        let counts = [&judgement.with_backend, &judgement.before_detection, &judgement.faults].map(Vec::len);
        assert_eq!(counts, [2, 2, 5]);
        assert_eq!(books.judge(None).faults.len(), 9);
    }

    #[test]
    fn a_closed_backend_gets_nothing_new() {
        let (ledger, before) = (Ledger::default(), Instant::now());
        ledger.close(2, true);
        ledger.opened(2, Family::V4, before);
        ledger.opened(1, Family::V4, Instant::now() + MS);
        assert_eq!(ledger.snapshot().strays, [0; BACKENDS], "started before, or elsewhere");
        ledger.opened(2, Family::V4, Instant::now() + MS);
        assert_eq!(ledger.snapshot().strays, [0, 0, 1, 0]);
        ledger.close(2, false);
        ledger.opened(2, Family::V4, Instant::now() + MS);
        assert_eq!(ledger.snapshot().strays, [0, 0, 1, 0]);
    }

    #[test]
    fn phases_count_what_happens_in_them() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        ledger.opened(3, Family::V6, now);
        ledger.phase("one");
        ledger.opened(0, Family::V4, now);
        ledger.opened(0, Family::V6, now);
        ledger.opened(2, Family::V6, now);
        ledger.answered(0, 64, 3 * MS);
        ledger.answered(0, 64, MS);
        ledger.lost(What::Attempt, None, Family::V4, Instant::now(), "refused");
        ledger.phase("two");
        ledger.stays(2);
        ledger.stays(2);
        ledger.ends(2);
        ledger.end();
        let books = ledger.snapshot();
        let [one, two] = &books.phases[..] else { panic!("two phases") };
        assert_eq!((one.opened, one.requests, one.slowest), ([2, 0, 1, 0], 2, 3 * MS));
        assert_eq!((two.opened, two.requests), ([0; BACKENDS], 0));
        assert!(two.ended.is_some());
        assert_eq!((books.lost_in(one, None), books.lost_in(two, None)), ((0, 1), (0, 0)));
        let outage = Outage { backend: 1, stopped: one.began, detected: Instant::now() };
        assert_eq!(books.lost_in(one, Some(outage)), (1, 0));
        assert_eq!((books.opened, books.families, books.bytes), ([2, 0, 1, 1], [1, 3], 128));
        assert_eq!(books.open, [0, 0, 1, 0]);
        assert_eq!(two.shares(), None);
        let shares = one.shares().unwrap();
        assert!((shares[0] - 2.0 / 3.0).abs() < 1e-9 && shares[1] == 0.0);
    }
}
