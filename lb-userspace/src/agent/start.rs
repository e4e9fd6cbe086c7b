//! How an agent begins: it reads its state, adopts or loads the data plane, and makes a first pass.

use super::change::{judge, outcome_of};
use super::core::{Core, Inputs, monotonic_ns};
use super::flows::FlowCounts;
use super::heap::Heap;
use super::hops::Hops;
use super::interfaces::Interfaces;
use super::options::AgentOptions;
use super::touched::Touched;
use super::views;
use super::vips::Announcer;
use super::ways::Ways;
use super::windows::{Memory, Windows};
use crate::api::control::Source;
use crate::dataplane::counters::Counters;
use crate::dataplane::drops;
use crate::dataplane::events::Events;
use crate::dataplane::flows::{FlowTable, Flows};
use crate::dataplane::{Dataplane, Opened, Options, Sizes, Tables};
use crate::health::{self, Network, Runner};
use crate::model::Desired;
use crate::net::Netlink;
use crate::net::watch::Watch;
use crate::plan::{self, RingCache};
use crate::state::{Saved, Store};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::block_in_place;

/// Transitions that wait at once.
const TRANSITIONS: usize = 1024;

impl Core {
    /// Reads the state, adopts or loads the data plane, and makes one pass.
    ///
    /// # Errors
    /// No privileges, an unsupported kernel, pins of somebody else, state or configuration that cannot be used.
    pub(super) async fn start(options: AgentOptions) -> Result<(Self, Inputs)> {
        let store = Store::new(&options.state);
        let loaded = block_in_place(|| store.load())?;
        let mut messages: Vec<String> = loaded.note.into_iter().collect();
        let mut state = loaded.state;
        if let Some(seed) = options.seed {
            state.seed = seed;
        }
        if let Some(path) = &options.config {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let outcome = judge(&Source { text, name: path.display().to_string() })
                .and_then(|checked| outcome_of(&state.desired, checked))
                .map_err(|failure| anyhow::anyhow!(views::full_text(&failure)))?;
            messages.extend(outcome.warnings);
            state.desired = outcome.desired;
        }

        let opened = block_in_place(|| {
            let (pins, log_drops) = (options.pins.clone(), options.log_drops);
            Dataplane::open(&Options { pins, sizes: options.sizes, log_drops })
        })?;
        let Opened { dataplane, start, unknown, kept_sizes } = opened;
        messages.extend(unknown.iter().map(|path| {
            format!("{} is not ours and was left alone: remove it if nobody needs it", path.display())
        }));
        messages.extend(kept_sizes.iter().map(|k| {
            format!("table {} keeps its size of {} entries (asked for: {})", k.table, k.has, k.asked)
        }));
        for message in &messages {
            tracing::warn!("{message}");
        }
        let tables = dataplane.tables()?;
        let counters = Counters::open(dataplane.maps())?;
        let sizes = sizes(&tables, &counters);
        let events = Events::open(dataplane.maps())?;
        if options.log_drops {
            let program = dataplane.program_id()?;
            tokio::spawn(async move {
                if let Err(error) = drops::follow(program).await {
                    tracing::warn!(%error, "dropped packets are not told of");
                }
            });
        }
        // Read in this order: an entry that is promoted meanwhile is seen in one of both, or in both, never in none.
        let entries = [
            (Memory::Embryonic, Flows::open(dataplane.maps(), FlowTable::Embryonic)?),
            (Memory::Flows, Flows::open(dataplane.maps(), FlowTable::Established)?),
        ];

        // Subscribed first, read afterwards: nothing falls between the two.
        let watch = Watch::open()?;
        let netlink = Netlink::open()?;
        let (sender, transitions) = mpsc::channel(TRANSITIONS);
        let mut core = Self {
            started: Instant::now(),
            start,
            messages,
            ids: ids_by_listener(&state.desired, &tables),
            windows: Windows::adopt(&tables, monotonic_ns()),
            rings: RingCache::default(),
            flows: FlowCounts::default(),
            interfaces: Interfaces::default(),
            hops: Hops::new(netlink.clone()),
            announcer: Announcer::new(netlink.clone()),
            ways: Ways::new(netlink.clone()),
            runner: Runner::new(Network, health::schedule::CONCURRENCY, sender),
            failure: None,
            said: None,
            options,
            state,
            dataplane,
            tables,
            counters,
            sizes,
            entries,
            netlink,
            saved: Saved::new(store),
            touched: Touched::Everything,
            heap: Heap::default(),
            fit: BTreeSet::new(),
            egress: BTreeSet::new(),
            ticks: 0,
            unsaved: true,
        };
        let found = core.dataplane.interfaces()?.attached()?;
        for gone in &found.vanished {
            tracing::info!(
                interface = gone.name,
                "was deleted while it was attached: attached again when it is back"
            );
        }
        core.interfaces.adopt(found.attached);
        core.announcer.adopt(&core.interfaces.attached()).await?;
        core.ways.refresh(&mut core.tables).await?;
        core.interfaces_follow().await;
        core.converge().await;
        core.save();
        block_in_place(Heap::give_back);
        tracing::info!(
            services = core.state.desired.services.len(),
            interfaces = core.interfaces.attached().len(),
            "ready: {}",
            views::start_word(core.start)
        );
        Ok((core, Inputs { transitions, watch, events }))
    }
}

/// The ids of services that are in the tables, found by where they listen: names are not in the kernel.
fn ids_by_listener(desired: &Desired, tables: &Tables) -> BTreeMap<String, u32> {
    let id = |service| plan::installed(service, tables).map(|entry| entry.id);
    desired.services.iter().filter_map(|(name, service)| Some((name.clone(), id(service)?))).collect()
}

/// How large the tables are that were found or made.
fn sizes(tables: &Tables, counters: &Counters) -> Sizes {
    Sizes {
        services: tables.services.capacity(),
        ring_lines: tables.rings.lines(),
        backends: tables.backends.capacity(),
        reverse: tables.reverse.capacity(),
        ranges: tables.ranges.capacity(),
        neighbours: tables.neighbours.capacity(),
        counters: counters.backend_rows(),
        reasons: counters.reason_rows(),
        ..Sizes::default()
    }
}
