//! `lb decap`.

use super::Session;
use super::args::{Format, word};
use super::output::{How, table};
use crate::dataplane::decap::{self, Attachment, Wanted};
use crate::model::AttachMode;
use crate::net::{self, Netlink};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use comfy_table::Cell;
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// Arguments of `lb decap`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
For backends of services in mode ipip or gue that have no tunnel device: packets are taken out of those around them and
go to the kernel, which serves them if the service's address is on `lo`. Needs no agent. Whatever comes from elsewhere is
passed as it is. Name who may send: whoever may, can send packets that seem to come from anybody.

Examples:
  lb decap eth0 --from 10.0.0.0/24
  lb decap eth0 --from 198.18.0.0/15 --from 2001:db8:f::/64 --kind gue
  lb decap eth0 --detach
  lb decap                   lists where it is attached, and what it did")]
pub struct DecapArgs {
    /// Interface; without it, lists where the program is
    #[arg(value_name = "IFACE", required_if_eq("detach", "true"))]
    interface: Option<String>,
    /// Who sends: a prefix or an address of balancers, or their encap-source; several times
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    from: Vec<IpNet>,
    /// Where to: addresses of this machine; unsaid, those that the interface has now
    #[arg(long, value_name = "ADDR")]
    to: Vec<IpAddr>,
    /// What is taken off; unsaid, both
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// UDP port of gue
    #[arg(long, default_value_t = GUE_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// How: native runs in the driver, generic on socket buffers, auto tries native and says if it could not
    #[arg(long, value_name = "auto|native|generic", default_value = "auto", value_parser = word::<AttachMode>)]
    mode: String,
    /// Detach it
    #[arg(long, conflicts_with_all = ["from", "to", "kind"])]
    detach: bool,
}

/// The port that `lb` sends to.
const GUE_PORT: u16 = u16::from_be(lb_common::encap::GUE_PORT);

/// What is around a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// An IP header.
    Ipip,
    /// An IP and a UDP header.
    Gue,
}

fn prefix(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    net.map(|net| net.trunc()).ok_or_else(|| "write a prefix like 10.0.0.0/24, or an address".to_owned())
}

pub(super) async fn run(session: &mut Session, args: DecapArgs) -> Result<()> {
    let Some(name) = &args.interface else { return list(session) };
    let index = net::index(name)?;
    let (changed, now, fallback) = if args.detach {
        (decap::detach(&session.pins, index)?, "detached", None)
    } else {
        let wanted = wanted(&args, name, index).await?;
        let mode = args.mode.parse().unwrap_or_default();
        let attached = decap::attach(&session.pins, index, name, mode, &wanted)?;
        (!attached.already, "attached", attached.fallback)
    };
    if session.out.is_json() {
        return session.out.json(&json!({ "interface": name, "changed": changed, "fallback": fallback }));
    }
    if let Some(reason) = fallback {
        let text = format!("warning: {name} is generic: {reason}");
        session.out.line(How::Warning.paint(&text))?;
    }
    session.out.line(if changed {
        format!("{name}: the program that takes packets out of others is {now}")
    } else {
        "nothing changed: it is already so".to_owned()
    })
}

async fn wanted(args: &DecapArgs, name: &str, index: u32) -> Result<Wanted> {
    if args.from.is_empty() {
        bail!("say who may send: --from PREFIX, such as the address of the balancer or its encap-source");
    }
    let mut addresses = args.to.clone();
    if addresses.is_empty() {
        let own = Netlink::open()?.addresses().await?;
        addresses = own.into_iter().filter(|(ifindex, _)| *ifindex == index).map(|(_, ip)| ip).collect();
        if addresses.is_empty() {
            bail!("{name} has no address: say where packets are sent to: --to ADDR");
        }
    }
    Ok(Wanted {
        sources: args.from.clone(),
        addresses,
        ipip: args.kind != Some(Kind::Gue),
        gue: (args.kind != Some(Kind::Ipip)).then_some(args.port),
    })
}

fn list(session: &mut Session) -> Result<()> {
    let attached = decap::attached(&session.pins)?;
    match session.out.format {
        Format::Json => session.out.json(&attached.iter().map(document).collect::<Vec<_>>()),
        _ if attached.is_empty() => {
            session.out.line("attached nowhere; attach it with `lb decap IFACE --from PREFIX`")
        }
        _ => {
            let mut rows = table(&["interface", "from", "to", "kind", "outcome", "packets"]);
            for attachment in &attached {
                let counted: Vec<_> = attachment.counts.iter().filter(|(_, count)| *count > 0).collect();
                let lines = |of: &mut dyn Iterator<Item = String>| of.collect::<Vec<_>>().join("\n");
                rows.add_row([
                    Cell::new(&attachment.interface),
                    Cell::new(lines(&mut attachment.wanted.sources.iter().map(ToString::to_string))),
                    Cell::new(lines(&mut attachment.wanted.addresses.iter().map(ToString::to_string))),
                    Cell::new(lines(&mut kinds(&attachment.wanted).into_iter())),
                    Cell::new(lines(&mut counted.iter().map(|(outcome, _)| outcome.as_str().to_owned()))),
                    Cell::new(lines(&mut counted.iter().map(|(_, count)| count.to_string()))),
                ]);
            }
            session.out.table(rows, 0)
        }
    }
}

fn kinds(wanted: &Wanted) -> Vec<String> {
    let gue =
        wanted.gue.map(|port| if port == GUE_PORT { "gue".into() } else { format!("gue, port {port}") });
    wanted.ipip.then(|| "ipip".to_owned()).into_iter().chain(gue).collect()
}

fn document(attachment: &Attachment) -> Value {
    let counts: Map<String, Value> =
        attachment.counts.iter().map(|(outcome, count)| (outcome.as_str().into(), (*count).into())).collect();
    json!({
        "interface": attachment.interface,
        "from": attachment.wanted.sources,
        "to": attachment.wanted.addresses,
        "ipip": attachment.wanted.ipip,
        "gue_port": attachment.wanted.gue,
        "counts": counts,
    })
}
