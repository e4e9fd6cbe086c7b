//! What every network here has: machines with names, a balancer, and counters that show whether packets were harmed.

use crate::agent::Balancer;
use lb_userspace::lab::Namespace;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Backends of a network.
pub const BACKENDS: usize = 2;

/// A namespace of a test's own.
///
/// # Panics
///
/// Namespaces cannot be made.
#[must_use]
pub fn machine(role: &str) -> Arc<Namespace> {
    Arc::new(Namespace::create_unique(&format!("lbt-{role}")).unwrap())
}

/// An IP version, with the addresses that the networks use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The one of two texts that is of this family.
    #[must_use]
    pub const fn pick(self, v4: &'static str, v6: &'static str) -> &'static str {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }

    /// An address with a port.
    #[must_use]
    pub fn socket(self, address: &str, port: u16) -> String {
        match self {
            Self::V4 => format!("{address}:{port}"),
            Self::V6 => format!("[{address}]:{port}"),
        }
    }
}

/// Reasons that say that a packet of ours went nowhere, or not by the fast way.
const HARM: [&str; 9] = [
    "truncated",
    "malformed-ip",
    "malformed-transport",
    "no-backend",
    "no-next-hop",
    "no-route",
    "no-neighbour",
    "unfinished-checksum",
    "no-device",
];

/// Sees that no machine dropped a packet for its checksum, and that the balancer dropped none but for `allowed` reasons.
///
/// # Panics
///
/// One did.
#[track_caller]
pub fn assert_clean<'a>(
    machines: impl IntoIterator<Item = &'a Arc<Namespace>>,
    balancer: &Balancer,
    allowed: &[&str],
) {
    for machine in machines {
        assert_eq!(machine.checksum_errors().unwrap(), 0, "wrong checksums arrived at {}", machine.name());
    }
    let mut harm: BTreeMap<_, _> = balancer.reasons();
    harm.retain(|reason, _| HARM.contains(&reason.as_str()) && !allowed.contains(&reason.as_str()));
    assert!(harm.is_empty(), "packets came to harm: {harm:?}");
}
