//! Which services the next pass has to look at: those that something happened to.
//!
//! A pass over everything costs as much as everything is large; what happens concerns a service or two. When in doubt
//! it is everything: at the start and after a failure. As a safety net each service has its turn once in [`ROUND`] ticks,
//! a few with every tick, so that nobody who asks for a change has to wait for all of them.

use crate::model::{Admin, Desired};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Ticks in which every service is looked at once.
pub(crate) const ROUND: u64 = 60;

/// What happened since the last pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    /// Nobody knows: look at everything.
    Everything,
    /// Something to these services, some of which may be gone.
    Services(BTreeSet<String>),
}

impl Default for Touched {
    fn default() -> Self {
        Self::Services(BTreeSet::new())
    }
}

impl Touched {
    /// What there is to look at, which is then nothing.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Whether a service has to be looked at.
    pub(crate) fn has(&self, service: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Services(names) => names.contains(service),
        }
    }

    /// Something may have happened to everything.
    pub(crate) fn everything(&mut self) {
        *self = Self::Everything;
    }

    /// Something happened to a service.
    pub(crate) fn service(&mut self, name: &str) {
        if let Self::Services(names) = self
            && !names.contains(name)
        {
            names.insert(name.to_owned());
        }
    }

    /// Something else is desired.
    pub(crate) fn differing(&mut self, before: &Desired, after: &Desired) {
        before.differing(after).for_each(|name| self.service(name));
    }

    /// The ways to these backends changed.
    pub(crate) fn backends(&mut self, desired: &Desired, changed: &BTreeSet<IpAddr>) {
        if changed.is_empty() {
            return;
        }
        for service in desired.services.values() {
            if service.backends.keys().any(|backend| changed.contains(&backend.ip())) {
                self.service(&service.name);
            }
        }
    }

    /// A second passed, the `ticks`th; `now` is in seconds since the Unix epoch. A drain whose deadline passed changes
    /// what its backend may do.
    pub(crate) fn time(&mut self, desired: &Desired, ticks: u64, now: u64) {
        for (number, service) in (0..).zip(desired.services.values()) {
            let turn = number % ROUND == ticks % ROUND;
            if turn || service.backends.values().any(|b| b.admin != Admin::Active && b.admin.has_expired(now))
            {
                self.service(&service.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn desired() -> Desired {
        let text = "
[[service]]
name = 'a'
listen = 'tcp://192.0.2.1:80'
[[service.backend]]
address = '10.0.0.1:80'
[[service]]
name = 'b'
listen = 'tcp://192.0.2.2:80'
[[service.backend]]
address = '10.0.0.2:80'
draining = { until = '1970-01-01T00:01:40Z' }
";
        config::check(text, "example").unwrap().desired
    }

    fn names(touched: &Touched) -> Vec<&str> {
        match touched {
            Touched::Everything => vec!["everything"],
            Touched::Services(names) => names.iter().map(String::as_str).collect(),
        }
    }

    #[test]
    fn what_happens_touches_whom_it_concerns() {
        let before = desired();
        let mut touched = Touched::default();
        touched.differing(&before, &before.clone());
        touched.backends(&before, &BTreeSet::from([IpAddr::from([10, 0, 0, 9])]));
        touched.time(&before, 2, 99);
        assert_eq!(touched, Touched::default());
        touched.backends(&before, &BTreeSet::from([IpAddr::from([10, 0, 0, 1])]));
        assert_eq!(names(&touched.take()), ["a"]);
        touched.time(&before, 2, 100);
        assert_eq!(names(&touched.take()), ["b"], "its drain has ended");
        let mut after = before.clone();
        after.services.remove("a");
        after.service_mut("b").unwrap().ring_size = 251;
        let mut new = crate::model::Service::clone(&before.services["a"]);
        new.name = "c".into();
        after.put(new);
        touched.differing(&before, &after);
        assert_eq!(names(&touched), ["a", "b", "c"]);
        touched.everything();
        assert!(touched.has("whatever"));
        touched.service("a");
        assert_eq!(touched.take(), Touched::Everything);
        assert_eq!(touched, Touched::default());
    }

    #[test]
    fn everybody_has_a_turn_in_each_round() {
        let mut desired = desired();
        let one = crate::model::Service::clone(&desired.services["a"]);
        for n in 0..2 * ROUND + 5 {
            desired.put(crate::model::Service { name: format!("s{n}"), ..one.clone() });
        }
        let turns = (7..7 + ROUND).map(|ticks| {
            let mut touched = Touched::default();
            touched.time(&desired, ticks, 0);
            names(&touched).into_iter().map(str::to_owned).collect::<Vec<_>>()
        });
        let turns: Vec<_> = turns.collect();
        assert!(turns.iter().all(|names| (2..=3).contains(&names.len())), "{turns:?}");
        let all: BTreeSet<_> = turns.into_iter().flatten().collect();
        assert!(all.iter().eq(desired.services.keys()));
    }
}
