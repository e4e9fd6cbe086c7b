//! `lb status`: one screen.

use super::Session;
use super::output::{How, span, state, table};
use anyhow::Result;
use comfy_table::Cell;

pub(super) async fn run(session: &mut Session) -> Result<()> {
    let status = session.client.status().await?;
    let out = &mut session.out;
    if out.is_json() {
        return out.json(&status);
    }
    let wide = out.is_wide();
    let agent = &status.agent;
    out.line(format_args!(
        "agent {}, pid {}, up {}, {}",
        agent.version,
        agent.pid,
        span(agent.uptime_s),
        agent.started
    ))?;
    if wide {
        out.line(format_args!("socket {}, pins {}", agent.socket, agent.pins))?;
    }
    for message in &status.messages {
        out.line(format_args!("  {message}"))?;
    }
    out.line("")?;
    if status.interfaces.is_empty() {
        out.line("no interfaces; attach one with `lb attach IFACE`")?;
    } else {
        let mut interfaces = table(&["INTERFACE", "WANTED", "MODE", "REASON"]);
        for interface in &status.interfaces {
            let (mode, how) = match interface.mode.as_deref() {
                Some(mode) if interface.reason.is_none() => (mode, How::Good),
                Some(mode) => (mode, How::Warning),
                None => ("not attached", How::Bad),
            };
            interfaces.add_row(vec![
                Cell::new(&interface.name),
                Cell::new(&interface.wanted),
                state(mode, how),
                Cell::new(interface.reason.as_deref().unwrap_or_default()),
            ]);
        }
        out.table(interfaces, 0)?;
    }
    out.line("")?;
    if status.services.is_empty() {
        out.line("no services; add one with `lb service add NAME LISTEN`")?;
    } else {
        out.table(super::service::services_table(&status.services, wide), 0)?;
        if status.services.iter().any(|service| !service.backends.is_empty()) {
            out.line("")?;
            out.table(super::backend::backends_table(&status.services, true, wide), 0)?;
        }
    }
    out.line("")?;
    if status.attention.is_empty() {
        return out.line(How::Good.paint("nothing needs attention"));
    }
    out.line(How::Warning.paint("needs attention"))?;
    for sentence in &status.attention {
        out.line(format_args!("  {sentence}"))?;
    }
    Ok(())
}
