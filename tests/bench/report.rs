//! Results: as a table for people, as JSON for programs.

use std::collections::BTreeMap;

pub(crate) use lb_tests::measured::{Spread, machine};
use lb_tests::measured::{aligned, table};
use serde::Serialize;

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Where.
    pub(crate) machine: String,
    /// Floors by name, ns a packet: `return…` with the wrapper, the others net of it.
    pub(crate) floors: BTreeMap<String, f64>,
    /// Packets.
    pub(crate) cases: Vec<Case>,
    /// The control plane: values by name, the unit in the name.
    pub(crate) control: BTreeMap<String, f64>,
}

/// What a packet costs in one case.
#[derive(Debug, Serialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) flows: u32,
    pub(crate) services: u32,
    /// Median over the rounds, ns a packet.
    pub(crate) ns: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// The floor that is the unit.
    pub(crate) floor: String,
    /// `ns` in units.
    pub(crate) ratio: f64,
}

impl Report {
    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{}\n", self.machine);
        if !self.floors.is_empty() {
            let mut floors = table(&["floor", "ns"]);
            for (name, ns) in &self.floors {
                floors.add_row([name.clone(), format!("{ns:.1}")]);
            }
            text += &format!("{}\n", aligned(floors));
        }
        if !self.cases.is_empty() {
            let mut cases = table(&["case", "flows", "services", "ns", "min", "max", "units"]);
            for case in &self.cases {
                cases.add_row([
                    case.name.clone(),
                    case.flows.to_string(),
                    case.services.to_string(),
                    format!("{:.1}", case.ns),
                    format!("{:.1}", case.min),
                    format!("{:.1}", case.max),
                    format!("{:.2}", case.ratio),
                ]);
            }
            text += &format!("{}\n", aligned(cases));
        }
        if !self.control.is_empty() {
            let mut control = table(&["control plane", "value"]);
            for (name, value) in &self.control {
                control.add_row([name.clone(), format!("{value:.2}")]);
            }
            text += &format!("{}\n", aligned(control));
        }
        text
    }
}
