//! `lb service`.

use super::Session;
use super::args::{DryRun, backend_address, word};
use super::output::{How, state, table};
use crate::api::client::segment;
use crate::api::types::{AdminState, BackendView, HealthState, ServiceState, ServiceView};
use crate::config::change::SERVICE_OPTIONS;
use crate::model::{Announce, EncapChecksum, Listen, Mode, OnDown, Tracking, closest};
use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::{Cell, Table};
use hyper::Method;
use serde_json::{Map, Value, json};

/// Verbs of `lb service`.
#[derive(Clone, Debug, Subcommand)]
pub enum ServiceCommand {
    /// Add a service
    Add(AddArgs),
    /// Change options of a service; flows and counters survive
    Set(SetArgs),
    /// Remove a service and its backends
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Show a service and its backends
    Show(ShowArgs),
    /// List the services
    #[command(visible_alias = "ls")]
    List,
}

/// Arguments of `lb service add`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  lb service add web tcp://192.0.2.10:443 --backend 10.0.0.11:8443 --backend 10.0.0.12:8443,weight=50
  lb service add dns udp://[2001:db8::10]:53 --mode l2 --backend 2001:db8::11
  lb service add web tcp://192.0.2.10:80 --check http:/healthz,interval=2s --backend 10.0.0.11
  lb service add ftp tcp://192.0.2.10:50000-50999 --check tcp,port=21 --backend 10.0.0.11
  lb service add all tcp://192.0.2.10:* --mode l2 --backend 10.0.0.11")]
pub struct AddArgs {
    /// Its name
    name: String,
    /// Where it listens, like tcp://192.0.2.10:443, tcp://192.0.2.10:8000-8999 or tcp://192.0.2.10:*
    #[arg(value_parser = word::<Listen>)]
    listen: String,
    #[command(flatten)]
    options: Options,
    /// A backend; can be given several times
    #[arg(long = "backend", value_name = "ADDR[:PORT][,weight=N]", value_parser = backend)]
    backends: Vec<Value>,
    #[command(flatten)]
    dry: DryRun,
}

/// Arguments of `lb service set`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  lb service set web --on-down keep
  lb service set web --set idle-timeout=30m --check none")]
pub struct SetArgs {
    /// Its name
    name: String,
    /// Where it listens, like tcp://192.0.2.10:443, tcp://192.0.2.10:8000-8999 or tcp://192.0.2.10:*
    #[arg(long, value_parser = word::<Listen>)]
    listen: Option<String>,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    dry: DryRun,
}

/// Options of a service.
#[derive(Clone, Debug, Args)]
struct Options {
    /// How packets reach the backends: nat (replies come back through lb), or with direct
    /// replies l2 (same segment), ipip or gue (any network)
    #[arg(long, value_name = "nat|l2|ipip|gue", value_parser = word::<Mode>)]
    mode: Option<String>,
    /// How backends are chosen: maglev
    #[arg(long)]
    scheduler: Option<String>,
    /// How backends are checked: tcp, http:/PATH or none; options follow, like ,interval=2s,rise=2,fall=3
    #[arg(long, value_name = "SPEC")]
    check: Option<String>,
    /// What happens to flows of a dead backend: they move (rehash) or wait (keep)
    #[arg(long, value_name = "rehash|keep", value_parser = word::<OnDown>)]
    on_down: Option<String>,
    /// Who answers ARP and neighbour discovery for the address: an attached interface, or none
    #[arg(long, value_name = "interface|none", value_parser = word::<Announce>)]
    announce: Option<String>,
    /// How long a silent flow is remembered, like 15m
    #[arg(long, value_name = "DURATION")]
    idle_timeout: Option<String>,
    /// Which flows have table entries
    #[arg(long, value_name = "adaptive|always|never", value_parser = word::<Tracking>)]
    tracking: Option<String>,
    /// Whether outer headers of mode gue have a checksum
    #[arg(long, value_name = "none|udp", value_parser = word::<EncapChecksum>)]
    encap_checksum: Option<String>,
    /// Whether pings of the address are answered
    #[arg(long, value_name = "true|false")]
    echo: Option<bool>,
    /// Slots of the ring: a prime like 16381
    #[arg(long, value_name = "N")]
    ring_size: Option<u32>,
    /// Any option by its name in the configuration file; can be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

/// Arguments of `lb service rm`.
#[derive(Clone, Debug, Args)]
pub struct RmArgs {
    /// Its name
    name: String,
    #[command(flatten)]
    dry: DryRun,
}

/// Arguments of `lb service show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Its name
    name: String,
}

impl Options {
    /// Names and values of those that were given.
    fn given(self) -> Map<String, Value> {
        let named = [
            ("mode", self.mode),
            ("scheduler", self.scheduler),
            ("check", self.check),
            ("on-down", self.on_down),
            ("announce", self.announce),
            ("idle-timeout", self.idle_timeout),
            ("tracking", self.tracking),
            ("encap-checksum", self.encap_checksum),
            ("echo", self.echo.map(|answered| answered.to_string())),
            ("ring-size", self.ring_size.map(|size| size.to_string())),
        ];
        let named = named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into())));
        named.chain(self.set.into_iter().map(|(key, value)| (key, value.into()))).collect()
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it like on-down=keep")?;
    if SERVICE_OPTIONS.contains(&key) {
        return Ok((key.to_owned(), value.to_owned()));
    }
    let list = SERVICE_OPTIONS.join(", ");
    Err(match closest(key, SERVICE_OPTIONS) {
        Some(known) => format!("did you mean \"{known}\"? One of: {list}"),
        None => format!("a service has no option \"{key}\"; write one of: {list}"),
    })
}

/// `ADDR[:PORT][,weight=N]` as the API takes it.
fn backend(text: &str) -> Result<Value, String> {
    let (address, weight) = match text.split_once(',') {
        None => (text, None),
        Some((address, option)) => {
            let weight = option.strip_prefix("weight=").and_then(|number| number.parse::<u16>().ok());
            (address, Some(weight.ok_or("write the weight like ,weight=100, from 0 to 65535")?))
        }
    };
    let address = backend_address(address).map_err(|error| error.to_string())?;
    Ok(match weight {
        Some(weight) => json!({ "address": address, "weight": weight }),
        None => json!({ "address": address }),
    })
}

pub(super) async fn run(session: &mut Session, command: ServiceCommand) -> Result<()> {
    match command {
        ServiceCommand::Add(args) => {
            let mut body = args.options.given();
            if let Some(size) =
                body.get("ring-size").and_then(Value::as_str).and_then(|s| s.parse::<i64>().ok())
            {
                body.insert("ring-size".into(), size.into());
            }
            if let Some(answered) =
                body.get("echo").and_then(Value::as_str).and_then(|s| s.parse::<bool>().ok())
            {
                body.insert("echo".into(), answered.into());
            }
            body.insert("name".into(), args.name.into());
            body.entry("listen").or_insert_with(|| args.listen.into());
            body.insert("backend".into(), args.backends.into());
            change(session, Method::POST, "/v1/services", &body.into(), args.dry).await
        }
        ServiceCommand::Set(args) => {
            let mut body = args.options.given();
            if let Some(listen) = args.listen {
                body.insert("listen".into(), listen.into());
            }
            if body.is_empty() {
                return Err(crate::api::failure::Failure::invalid(
                    "nothing to set",
                    "say what, for example --on-down keep; see `lb service set --help`",
                )
                .into());
            }
            let path = format!("/v1/services/{}", segment(&args.name));
            change(session, Method::PATCH, &path, &body.into(), args.dry).await
        }
        ServiceCommand::Rm(args) => {
            let path = format!("/v1/services/{}", segment(&args.name));
            change(session, Method::DELETE, &path, &json!({}), args.dry).await
        }
        ServiceCommand::Show(args) => show(session, &args.name).await,
        ServiceCommand::List => {
            let services = session.client.services().await?;
            let out = &mut session.out;
            if out.is_json() {
                return out.json(&services);
            }
            if services.is_empty() {
                return out.line("no services; add one with `lb service add NAME LISTEN`");
            }
            let table = services_table(&services, out.is_wide());
            out.table(table, 0)
        }
    }
}

async fn change(session: &mut Session, method: Method, path: &str, body: &Value, dry: DryRun) -> Result<()> {
    let plan = session.client.change(method, path, body, dry.dry_run).await?;
    session.print_plan(&plan)
}

async fn show(session: &mut Session, name: &str) -> Result<()> {
    let service = session.client.service(name).await?;
    let out = &mut session.out;
    if out.is_json() {
        return out.json(&service);
    }
    let (word, how) = service_state(&service);
    out.line(format_args!("{} {} {}", service.name, service.listen, how.paint(word)))?;
    if let Some(reason) = &service.reason {
        out.line(format_args!("  {reason}"))?;
    }
    let announced = match (service.announce.as_str(), service.announced_on.as_slice()) {
        (announce, []) => announce.to_owned(),
        (announce, on) => format!("{announce} (on {})", on.join(", ")),
    };
    let check = service.check.as_deref().unwrap_or("none");
    let idle = super::output::span(service.idle_timeout_s);
    for (key, value) in [
        ("mode", service.mode.as_str()),
        ("scheduler", &service.scheduler),
        ("check", check),
        ("on-down", &service.on_down),
        ("announce", &announced),
        ("idle-timeout", &idle),
        ("tracking", &service.tracking),
        ("echo", &service.echo.to_string()),
        ("ring-size", &service.ring_size.to_string()),
    ] {
        out.line(format_args!("  {key:<13} {value}"))?;
    }
    if service.mode == Mode::Gue.as_str() {
        out.line(format_args!("  encap-checksum {}", service.encap_checksum))?;
    }
    if service.backends.is_empty() {
        return out.line(format_args!("  no backends; add one with `lb backend add {name} ADDR:PORT`"));
    }
    let wide = out.is_wide();
    out.line("")?;
    out.table(super::backend::backends_table([&service], false, wide), 2)
}

/// A row for each service.
pub(super) fn services_table(services: &[ServiceView], wide: bool) -> Table {
    let mut headings = vec!["SERVICE", "LISTEN", "MODE", "STATE", "UP>", "DRAINING>", "CHECK"];
    if wide {
        headings.extend([
            "SCHEDULER",
            "ON-DOWN",
            "ANNOUNCE",
            "TRACKING",
            "ECHO",
            "IDLE-TIMEOUT-S>",
            "RING-SIZE>",
        ]);
    }
    headings.push("REASON");
    let mut table = table(&headings);
    for service in services {
        let count = |wanted: fn(&BackendView) -> bool| service.backends.iter().filter(|b| wanted(b)).count();
        let draining = count(|backend| backend.admin == AdminState::Draining);
        let up = count(|b| {
            b.admin == AdminState::Active && matches!(b.health, HealthState::Up | HealthState::Unchecked)
        });
        let active = service.backends.len() - draining;
        let (word, how) = service_state(service);
        let mut row = vec![
            Cell::new(&service.name),
            Cell::new(&service.listen),
            Cell::new(&service.mode),
            state(word, how),
            state(format!("{up}/{active}"), if up < active { How::Warning } else { How::Plain }),
            state(draining, if draining > 0 { How::Warning } else { How::Plain }),
            Cell::new(service.check.as_deref().unwrap_or("none")),
        ];
        if wide {
            row.extend([
                Cell::new(&service.scheduler),
                Cell::new(&service.on_down),
                Cell::new(&service.announce),
                Cell::new(&service.tracking),
                Cell::new(service.echo),
                Cell::new(service.idle_timeout_s),
                Cell::new(service.ring_size),
            ]);
        }
        row.push(Cell::new(service.reason.as_deref().unwrap_or_default()));
        table.add_row(row);
    }
    table
}

fn service_state(service: &ServiceView) -> (&'static str, How) {
    let how = match service.state {
        ServiceState::Ok => How::Good,
        ServiceState::Degraded | ServiceState::Empty => How::Warning,
        ServiceState::Down => How::Bad,
    };
    (service.state.as_str(), how)
}
