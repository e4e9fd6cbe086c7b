//! `lb pass`.

use super::Session;
use super::args::Format;
use crate::dataplane::pass;
use crate::net;
use anyhow::Result;
use clap::Args;
use serde_json::json;

/// Arguments of `lb pass`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A veth takes frames from XDP only if a program runs on its other end: run this there. Needs no agent.

Examples:
  lb pass veth0
  lb pass veth0 --detach
  lb pass                    lists where it is attached")]
pub struct PassArgs {
    /// Interface; without it, lists where the program is
    #[arg(value_name = "IFACE", required_if_eq("detach", "true"))]
    interface: Option<String>,
    /// Detach it
    #[arg(long)]
    detach: bool,
}

pub(super) fn run(session: &mut Session, args: &PassArgs) -> Result<()> {
    let Some(name) = &args.interface else {
        let attached: Vec<_> = pass::attached(&session.pins)?.into_iter().map(|(_, name)| name).collect();
        return match session.out.format {
            Format::Json => session.out.json(&attached),
            _ if attached.is_empty() => session.out.line("attached nowhere; attach it with `lb pass IFACE`"),
            _ => session.out.line(attached.join("\n")),
        };
    };
    let index = net::index(name)?;
    let (changed, now) = if args.detach {
        (pass::detach(&session.pins, index)?, "detached")
    } else {
        (pass::attach(&session.pins, index, name)?, "attached")
    };
    if session.out.is_json() {
        return session.out.json(&json!({ "interface": name, "changed": changed }));
    }
    session.out.line(if changed {
        format!("{name}: the program that passes everything is {now}")
    } else {
        "nothing changed: it is already so".to_owned()
    })
}
