//! Interfaces that should be attached, and those that are.
//!
//! A link that is pinned stays attached without the agent. An interface that is missing when the agent starts is
//! attached when it appears; one that is gone is attached again when it comes back.

use crate::dataplane::Dataplane;
use crate::dataplane::devices::Mode;
use crate::dataplane::interfaces::{AttachError, Attached, AttachedInterface};
use crate::model::{AttachMode, Desired};
use crate::net::links::Link;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// What became of every interface that should be attached, by name.
#[derive(Debug, Default)]
pub(crate) struct Interfaces {
    states: BTreeMap<String, State>,
}

/// An interface that should be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is.
    Attached {
        /// Its index.
        ifindex: u32,
        /// How.
        mode: Mode,
        /// Why not natively although that was tried.
        fallback: Option<String>,
        /// Since when, seconds since the Unix epoch.
        since: u64,
    },
    /// It is not.
    Missing {
        /// Why, with what to do.
        reason: String,
    },
}

impl Interfaces {
    /// What became of an interface.
    pub(crate) fn state(&self, name: &str) -> Option<&State> {
        self.states.get(name)
    }

    /// Attached interfaces by index.
    pub(crate) fn attached(&self) -> BTreeMap<u32, String> {
        let attached = |(name, state): (&String, &State)| match state {
            State::Attached { ifindex, .. } => Some((*ifindex, name.clone())),
            State::Missing { .. } => None,
        };
        self.states.iter().filter_map(attached).collect()
    }

    /// Attaches one interface.
    ///
    /// # Errors
    /// It cannot be attached; what was known of it is as before.
    pub(crate) fn attach(
        &mut self,
        dataplane: &Dataplane,
        link: &Link,
        mode: AttachMode,
    ) -> Result<Attached, AttachError> {
        let attached = dataplane.attach(link.index, &link.name, mode)?;
        let since = match self.states.get(&link.name) {
            Some(State::Attached { ifindex, since, mode, .. })
                if *ifindex == link.index && *mode == attached.mode =>
            {
                *since
            }
            _ => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        };
        if let Some(reason) = &attached.fallback {
            tracing::warn!(interface = link.name, "attached in generic mode, which is slower: {reason}");
        }
        let state = State::Attached {
            ifindex: link.index,
            mode: attached.mode,
            fallback: attached.fallback.clone(),
            since,
        };
        self.states.insert(link.name.clone(), state);
        Ok(attached)
    }

    /// Detaches one interface, if it is attached.
    ///
    /// # Errors
    /// It cannot be detached.
    pub(crate) fn detach(&mut self, dataplane: &Dataplane, name: &str) -> Result<(), AttachError> {
        if let Some(State::Attached { ifindex, .. }) = self.states.get(name) {
            dataplane.interfaces()?.detach(*ifindex)?;
        }
        self.states.remove(name);
        Ok(())
    }

    /// Makes what is attached what is desired. What cannot be is remembered with its reason, and tried again next time.
    pub(crate) fn reconcile(&mut self, dataplane: &Dataplane, desired: &Desired, links: &[Link]) {
        let unwanted: Vec<String> =
            self.states.keys().filter(|name| !desired.interfaces.contains_key(*name)).cloned().collect();
        for name in unwanted {
            if let Err(error) = self.detach(dataplane, &name) {
                tracing::warn!(interface = name, %error, "cannot detach");
            }
        }
        for (name, mode) in &desired.interfaces {
            let Some(link) = links.iter().find(|link| link.name == *name) else {
                let reason = format!("there is no interface {name}: it is attached when it appears");
                self.states.insert(name.clone(), State::Missing { reason });
                continue;
            };
            if matches!(self.states.get(name), Some(State::Attached { ifindex, .. }) if *ifindex == link.index)
            {
                continue;
            }
            if let Err(error) = self.attach(dataplane, link, *mode) {
                let reason = error.to_string();
                if self.states.get(name) != Some(&State::Missing { reason: reason.clone() }) {
                    tracing::warn!(interface = name, "not attached: {reason}");
                }
                self.states.insert(name.clone(), State::Missing { reason });
            }
        }
    }

    /// Takes over what is pinned and still there. What is not desired is detached by [`Self::reconcile`].
    pub(crate) fn adopt(&mut self, attached: Vec<AttachedInterface>) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        for AttachedInterface { name, ifindex, mode, .. } in attached {
            // Without a note of its mode it is attached again, which finds out.
            if let Some(mode) = mode {
                self.states.insert(name, State::Attached { ifindex, mode, fallback: None, since });
            }
        }
    }
}
