//! Results: as tables for people, as JSON for programs.

use std::collections::BTreeMap;

use lb_tests::measured::{Spread, aligned, table};
use serde::Serialize;

use crate::load::{Load, Sample};
use crate::ways::Way;

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Where.
    pub(crate) machine: String,
    /// Measurements whose median counts.
    pub(crate) rounds: u32,
    /// Seconds of each.
    pub(crate) seconds: u64,
    /// Measurements that were repeated, because others had too much of the processors meanwhile; the first ones do
    /// not count.
    pub(crate) repeated: u32,
    /// The most that others had in one that counts, share of all processors.
    pub(crate) others_max: f64,
    /// Medians.
    pub(crate) cells: Vec<Cell>,
}

/// Medians of one way under one load.
#[derive(Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) load: Load,
    pub(crate) way: Way,
    /// Requests a second, and from which to which it went.
    pub(crate) rate: f64,
    pub(crate) rate_min: f64,
    pub(crate) rate_max: f64,
    /// Latency, µs.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Processor time of the whole machine a request, µs.
    pub(crate) cpu: f64,
    /// What of it this way adds to plain forwarding of the same round, µs.
    pub(crate) over_forwarding: f64,
    /// What of it the balancer's own processes had, µs.
    pub(crate) process: Option<f64>,
    /// All that failed, in all rounds.
    pub(crate) failed: u64,
}

/// The samples of a way under a load, by round.
pub(crate) type Samples = BTreeMap<(Load, Way), Vec<Sample>>;

/// Medians of all samples.
pub(crate) fn cells(samples: &Samples) -> Vec<Cell> {
    let median = |values: &[Sample], of: fn(&Sample) -> f64| Spread::of(values.iter().map(of).collect());
    let cell = |(&(load, way), values): (&(Load, Way), &Vec<Sample>)| {
        let rate = median(values, |sample| sample.rate);
        let forwarding = samples.get(&(load, Way::Forwarding))?;
        let over = values.iter().zip(forwarding).map(|(way, plain)| way.cpu - plain.cpu).collect();
        let process: Vec<_> = values.iter().filter_map(|sample| sample.process).collect();
        Some(Cell {
            load,
            way,
            rate: rate.median,
            rate_min: rate.min,
            rate_max: rate.max,
            p50: median(values, |sample| sample.p50).median,
            p99: median(values, |sample| sample.p99).median,
            cpu: median(values, |sample| sample.cpu).median,
            over_forwarding: Spread::of(over).median,
            process: (!process.is_empty()).then(|| Spread::of(process).median),
            failed: values.iter().map(|sample| sample.failed).sum(),
        })
    };
    samples.iter().filter_map(cell).collect()
}

impl Report {
    /// For people.
    pub(crate) fn tables(&self) -> String {
        let mut text = format!(
            "{}; median of {} rounds of {} s; {} disturbed measurements repeated, others had at most {:.0} % of the \
             processors in those that count\n",
            self.machine,
            self.rounds,
            self.seconds,
            self.repeated,
            100.0 * self.others_max
        );
        for load in Load::ALL {
            let title = load.to_string();
            let header = [
                "req/s",
                "min",
                "max",
                "p50 µs",
                "p99 µs",
                "CPU µs/req",
                "over forwarding",
                "own processes",
                "failed",
            ];
            let mut rows = table(&[&[title.as_str()], &header[..]].concat());
            for way in Way::ALL {
                let Some(cell) = self.cells.iter().find(|cell| cell.load == load && cell.way == way) else {
                    continue;
                };
                rows.add_row([
                    way.to_string(),
                    format!("{:.0}", cell.rate),
                    format!("{:.0}", cell.rate_min),
                    format!("{:.0}", cell.rate_max),
                    format!("{:.0}", cell.p50),
                    format!("{:.0}", cell.p99),
                    format!("{:.1}", cell.cpu),
                    format!("{:+.1}", cell.over_forwarding),
                    cell.process.map_or_else(|| "–".into(), |process| format!("{process:.1}")),
                    cell.failed.to_string(),
                ]);
            }
            text += &format!("\n{}\n", aligned(rows));
        }
        text
    }
}
