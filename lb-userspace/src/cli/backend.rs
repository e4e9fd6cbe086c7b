//! `lb backend`.

use super::Session;
use super::args::{DryRun, backend_address, duration};
use super::output::{How, bar, bytes, now, number, span, state, table};
use crate::api::client::segment;
use crate::api::types::{AdminState, BackendRequest, BackendView, DrainRequest, HealthState, ServiceView};
use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::{Cell, Table};
use hyper::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// Verbs of `lb backend`.
#[derive(Clone, Debug, Subcommand)]
pub enum BackendCommand {
    /// Add a backend to a service
    Add(AddArgs),
    /// Change the weight of a backend; established flows stay
    Set(SetArgs),
    /// List the backends of a service, or all
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Remove a backend, at once or after a drain
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Send a backend no new flows; it keeps those it has
    Drain(DrainArgs),
    /// Send a backend new flows again
    Undrain(Which),
}

/// Which backend.
#[derive(Clone, Debug, Args)]
pub struct Which {
    /// Name of the service
    service: String,
    /// The backend; without a port, the service's
    #[arg(value_name = "ADDR[:PORT]", value_parser = backend_address)]
    backend: String,
    #[command(flatten)]
    dry: DryRun,
}

/// Arguments of `lb backend add`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  lb backend add web 10.0.0.13:8443\n  lb backend add web 2001:db8::13 --weight 50"
)]
pub struct AddArgs {
    #[command(flatten)]
    which: Which,
    /// Its share, 0 to 65535: twice the weight, twice the new flows. 100 if unsaid
    #[arg(long, value_name = "N")]
    weight: Option<u16>,
}

/// Arguments of `lb backend set`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  lb backend set web 10.0.0.13:8443 --weight 50")]
pub struct SetArgs {
    #[command(flatten)]
    which: Which,
    /// Its share, 0 to 65535; 0 takes no new flows
    #[arg(long, value_name = "N")]
    weight: u16,
}

/// Arguments of `lb backend list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Name of the service
    service: Option<String>,
}

/// Arguments of `lb backend rm`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Without --drain its flows are lost, or go to other backends, which reset them.

Examples:
  lb backend rm web 10.0.0.13:8443 --drain 60s
  lb backend rm web 10.0.0.13:8443 --now")]
pub struct RmArgs {
    #[command(flatten)]
    which: Which,
    /// Send it no new flows, and remove it after this time
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    drain: Option<Duration>,
    /// Remove it at once: so it is unless --drain is given
    #[arg(long, conflicts_with = "drain")]
    now: bool,
}

/// Arguments of `lb backend drain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  lb backend drain web 10.0.0.13:8443              until `lb backend undrain`
  lb backend drain web 10.0.0.13:8443 --for 60s")]
pub struct DrainArgs {
    #[command(flatten)]
    which: Which,
    /// When it ends whatever is left; without it, when you say so
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    time: Option<Duration>,
}

impl Which {
    fn path(&self, action: &str) -> String {
        format!("/v1/services/{}/backends/{}{action}", segment(&self.service), segment(&self.backend))
    }
}

pub(super) async fn run(session: &mut Session, command: BackendCommand) -> Result<()> {
    let (which, method, path, body) = match command {
        BackendCommand::List(args) => return list(session, args.service).await,
        BackendCommand::Add(AddArgs { which, weight }) => {
            let path = format!("/v1/services/{}/backends", segment(&which.service));
            let mut body = json!({ "address": which.backend });
            if let Some(weight) = weight {
                body["weight"] = weight.into();
            }
            (which, Method::POST, path, body)
        }
        BackendCommand::Set(SetArgs { which, weight }) => {
            let body = serde_json::to_value(BackendRequest { weight: Some(weight.into()) })?;
            let path = which.path("");
            (which, Method::PATCH, path, body)
        }
        BackendCommand::Rm(RmArgs { which, drain: Some(time), .. }) => drain(which, Some(time), true)?,
        BackendCommand::Rm(RmArgs { which, .. }) => {
            let path = which.path("");
            (which, Method::DELETE, path, json!({}))
        }
        BackendCommand::Drain(DrainArgs { which, time }) => drain(which, time, false)?,
        BackendCommand::Undrain(which) => {
            let path = which.path("/undrain");
            (which, Method::POST, path, json!({}))
        }
    };
    let plan = session.client.change(method, &path, &body, which.dry.dry_run).await?;
    session.print_plan(&plan)
}

fn drain(which: Which, time: Option<Duration>, remove: bool) -> Result<(Which, Method, String, Value)> {
    let until = time.map(|time| now().saturating_add(time.as_secs()));
    let path = which.path("/drain");
    Ok((which, Method::POST, path, serde_json::to_value(DrainRequest { until, remove })?))
}

async fn list(session: &mut Session, service: Option<String>) -> Result<()> {
    let every = service.is_none();
    let services = match service {
        Some(name) => vec![session.client.service(&name).await?],
        None => session.client.services().await?,
    };
    let out = &mut session.out;
    match services.as_slice() {
        [service] if !every && out.is_json() => out.json(&service.backends),
        services if out.is_json() => {
            let by_service: std::collections::BTreeMap<_, _> =
                services.iter().map(|service| (&service.name, &service.backends)).collect();
            out.json(&by_service)
        }
        services if services.iter().all(|service| service.backends.is_empty()) => {
            out.line("no backends; add one with `lb backend add SERVICE ADDR:PORT`")
        }
        services => {
            let wide = out.is_wide();
            out.table(backends_table(services, every, wide), 0)
        }
    }
}

/// A row for each backend.
pub(super) fn backends_table<'a>(
    services: impl IntoIterator<Item = &'a ServiceView>,
    named: bool,
    wide: bool,
) -> Table {
    let mut headings = if named { vec!["SERVICE"] } else { vec![] };
    headings.extend([
        "BACKEND",
        "WEIGHT>",
        "STATE",
        "EXPECTED>",
        "SHARE",
        "FLOWS>",
        "PACKETS>",
        "BYTES>",
        "NEXT HOP",
    ]);
    if wide {
        headings.extend(["BACK-PACKETS>", "BACK-BYTES>", "SINCE"]);
    }
    headings.push("REASON");
    let mut table = table(&headings);
    for service in services {
        for backend in &service.backends {
            let mut row = if named { vec![Cell::new(&service.name)] } else { vec![] };
            row.extend(backend_cells(backend, wide));
            table.add_row(row);
        }
    }
    table
}

fn backend_cells(backend: &BackendView, wide: bool) -> Vec<Cell> {
    let (word, how) = backend_state(backend);
    let counters = &backend.counters;
    let count = |count: u64| if wide { count.to_string() } else { number(count as f64) };
    let size = |count: u64| if wide { count.to_string() } else { bytes(count) };
    let mut reasons: Vec<_> = backend.health_reason.iter().cloned().collect();
    let hop = backend.next_hop.as_ref().map_or_else(String::new, |hop| {
        reasons.extend(hop.reason.clone());
        let parts = [hop.interface.as_deref(), hop.via.as_deref(), hop.mac.as_deref().filter(|_| wide)];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        if parts.is_empty() { hop.state.clone() } else { parts.join(" ") }
    });
    let mut row = vec![
        Cell::new(&backend.address),
        Cell::new(backend.weight),
        state(word, how),
        Cell::new(format!("{:.1}%", backend.expected_share * 100.0)),
        Cell::new(bar(backend.actual_share)),
        Cell::new(count(counters.flows)),
        Cell::new(count(counters.packets)),
        Cell::new(size(counters.bytes)),
        Cell::new(hop),
    ];
    if wide {
        row.extend([
            Cell::new(count(counters.back_packets)),
            Cell::new(size(counters.back_bytes)),
            Cell::new(backend.since.map_or_else(String::new, |since| span(now().saturating_sub(since)))),
        ]);
    }
    row.push(Cell::new(reasons.join("; ")));
    row
}

fn backend_state(backend: &BackendView) -> (String, How) {
    let health = backend.health.as_str();
    if backend.admin == AdminState::Draining {
        let mut parts = vec![health.to_owned()];
        parts.extend(backend.flows_left.map(|flows| format!("flows left: {flows}")));
        parts.extend(
            backend.drain_deadline.map(|until| format!("{} left", span(until.saturating_sub(now())))),
        );
        parts.extend(backend.remove_when_drained.then(|| "then removed".to_owned()));
        return (format!("draining ({})", parts.join(", ")), How::Warning);
    }
    let how = match backend.health {
        HealthState::Up => How::Good,
        HealthState::Down => How::Bad,
        HealthState::Unknown => How::Warning,
        HealthState::Unchecked => How::Plain,
    };
    (health.to_owned(), how)
}
