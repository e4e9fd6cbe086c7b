//! `lb stats`: what the kernel counted, once or again and again with rates.

use super::Session;
use super::args::duration;
use super::output::{Out, bytes, number, table};
use crate::api::types::{CountersView, StatsView};
use anyhow::Result;
use clap::Args;
use comfy_table::{Cell, Table};
use lb_common::reason::Reason;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Clears the screen and goes to its corner (ECMA-48: CUP, ED).
const REDRAW: &str = "\x1b[H\x1b[2J";

/// Arguments of `lb stats`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Counters count since the maps were made; they survive restarts of the agent.

Examples:
  lb stats web
  lb stats --watch          every second, with rates; ends with Ctrl-C
  lb stats --reasons        why packets left the program the way they did")]
pub struct StatsArgs {
    /// Name of a service
    service: Option<String>,
    /// Print again and again, with rates a second
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "1s", value_parser = pause)]
    watch: Option<Duration>,
    /// Show how many packets left for each reason
    #[arg(long)]
    reasons: bool,
}

fn pause(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        pause if pause < Duration::from_millis(100) => Err("write at least 100ms".into()),
        pause => Ok(pause),
    }
}

pub(super) async fn run(session: &mut Session, args: StatsArgs) -> Result<()> {
    let StatsArgs { service, watch, reasons } = args;
    let mut before: Option<(Instant, StatsView)> = None;
    loop {
        let now = session.stats(service.as_deref()).await?;
        let at = Instant::now();
        let out = &mut session.out;
        if out.is_json() {
            // A document a line, so that a reader of a stream knows where one ends.
            match watch {
                Some(_) => out.line(serde_json::to_string(&now)?)?,
                None => out.json(&now)?,
            }
        } else {
            if watch.is_some() && out.terminal {
                out.text(REDRAW)?;
            }
            let rates = before.as_ref().map(|(then, stats)| (at.duration_since(*then), stats));
            print(out, &now, rates, watch.is_some(), reasons)?;
        }
        let Some(pause) = watch else { return Ok(()) };
        before = Some((at, now));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            stopped = tokio::signal::ctrl_c() => return Ok(stopped?),
        }
    }
}

fn print(
    out: &mut Out,
    stats: &StatsView,
    before: Option<(Duration, &StatsView)>,
    watch: bool,
    reasons: bool,
) -> Result<()> {
    let wide = out.is_wide();
    if reasons {
        if stats.reasons.is_empty() && stats.services.iter().all(|service| service.reasons.is_empty()) {
            return out.line("no packet has come through an attached interface yet");
        }
        return out.table(reasons_table(stats, wide), 0);
    }
    if stats.services.is_empty() {
        return out.line("no services; `lb stats --reasons` tells what happened to packets all the same");
    }
    out.table(counters_table(stats, before, watch, wide), 0)
}

fn counters_table(
    stats: &StatsView,
    before: Option<(Duration, &StatsView)>,
    watch: bool,
    wide: bool,
) -> Table {
    let mut headings =
        vec!["SERVICE", "BACKEND", "FLOWS>", "PACKETS>", "BYTES>", "BACK-PACKETS>", "BACK-BYTES>"];
    if watch {
        headings.extend(["FLOWS/S>", "PACKETS/S>", "BITS/S>"]);
    }
    let mut table = table(&headings);
    for service in &stats.services {
        let then = before.and_then(|(_, stats)| stats.services.iter().find(|then| then.id == service.id));
        let total = std::iter::once(("", &service.counters, then.map(|then| &then.counters)));
        let backends = service.backends.iter().map(|backend| {
            let then = then.and_then(|then| then.backends.iter().find(|b| b.address == backend.address));
            (backend.address.as_str(), &backend.counters, then.map(|then| &then.counters))
        });
        for (index, (address, counters, then)) in total.chain(backends).enumerate() {
            let name = if index == 0 { service.name.as_str() } else { "" };
            let mut row = vec![Cell::new(name), Cell::new(if index == 0 { "all" } else { address })];
            row.extend(counter_cells(counters, wide));
            if watch {
                let rates = before.zip(then).map(|((elapsed, _), then)| rates(counters, then, elapsed));
                row.extend(rates.unwrap_or_default().map(Cell::new));
            }
            table.add_row(row);
        }
    }
    table
}

fn counter_cells(counters: &CountersView, wide: bool) -> [Cell; 5] {
    let count = |count: u64| Cell::new(if wide { count.to_string() } else { number(count as f64) });
    let size = |count: u64| Cell::new(if wide { count.to_string() } else { bytes(count) });
    [
        count(counters.flows),
        count(counters.packets),
        size(counters.bytes),
        count(counters.back_packets),
        size(counters.back_bytes),
    ]
}

/// Flows, packets and bits a second. Counters that went back, of a backend that came anew, are no rate.
fn rates(now: &CountersView, then: &CountersView, elapsed: Duration) -> [String; 3] {
    let rate = |now: u64, then: u64, factor: f64| {
        let gained = now.saturating_sub(then) as f64;
        number(factor * gained / elapsed.as_secs_f64().max(f64::EPSILON))
    };
    [rate(now.flows, then.flows, 1.0), rate(now.packets, then.packets, 1.0), rate(now.bytes, then.bytes, 8.0)]
}

fn reasons_table(stats: &StatsView, wide: bool) -> Table {
    let mut table = table(&["SERVICE", "REASON", "PACKETS>", "MEANING"]);
    let services = stats.services.iter().map(|service| (service.name.as_str(), &service.reasons));
    for (name, reasons) in services.chain([("-", &stats.reasons)]) {
        let mut counted: Vec<_> = BTreeMap::iter(reasons).filter(|(_, count)| **count > 0).collect();
        counted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in counted {
            let meaning = Reason::ALL.iter().find(|known| known.as_str() == reason);
            table.add_row(vec![
                Cell::new(name),
                Cell::new(reason),
                Cell::new(if wide { count.to_string() } else { number(*count as f64) }),
                Cell::new(meaning.map_or("", |reason| reason.describe().trim())),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_a_second() {
        let then = CountersView { flows: 1, packets: 10, bytes: 1000, ..CountersView::default() };
        let now = CountersView { flows: 3, packets: 4010, bytes: 126_000, ..CountersView::default() };
        assert_eq!(rates(&now, &then, Duration::from_secs(2)), ["1", "2.0 k", "500.0 k"]);
        assert_eq!(rates(&then, &now, Duration::from_secs(2)), ["0", "0", "0"]);
    }
}
