//! `lb explain`: what the loaded program does with a packet, and why.

use super::Session;
use super::args::word;
use super::output::How;
use crate::api::failure::Failure;
use crate::api::types::{ExplainRequest, ExplainView};
use crate::explain::packet::{Flags, Tuple, frame};
use crate::explain::{decode, pcap};
use crate::model::{InvalidText, Protocol};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Arguments of `lb explain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  lb explain tcp 198.51.100.7:40000 192.0.2.10:443
  lb explain tcp 198.51.100.7:40000 192.0.2.10:443 --flags ack     a packet of an established flow
  lb explain udp [2001:db8::7]:4000 [2001:db8::10]:53 --iface eth0
  lb explain --pcap capture.pcapng                                 a line for each packet")]
pub struct ExplainArgs {
    /// tcp or udp
    #[arg(value_name = "PROTO", required_unless_present = "pcap", value_parser = word::<Protocol>)]
    protocol: Option<String>,
    /// Where the packet comes from
    #[arg(value_name = "SRC:PORT", required_unless_present = "pcap")]
    source: Option<SocketAddr>,
    /// Where it goes
    #[arg(value_name = "DST:PORT", required_unless_present = "pcap")]
    destination: Option<SocketAddr>,
    /// Interface that it arrives on; without it, the first that is attached
    #[arg(long, value_name = "IFACE")]
    iface: Option<String>,
    /// Flags of a TCP packet, like syn or syn,ack or none
    #[arg(long, default_value = "syn", conflicts_with = "pcap", value_parser = word::<Flags>)]
    flags: String,
    /// Explain the packets of a capture, pcap or pcapng
    #[arg(long, value_name = "FILE", conflicts_with_all = ["protocol", "source", "destination"])]
    pcap: Option<PathBuf>,
}

/// A packet of a capture and what becomes of it.
#[derive(Debug, Serialize)]
struct Explained {
    /// Its place in the capture, from 1.
    number: u64,
    #[serde(flatten)]
    answer: ExplainView,
}

pub(super) async fn run(session: &mut Session, args: ExplainArgs) -> Result<()> {
    if let Some(file) = &args.pcap {
        return capture(session, file, args.iface.as_deref()).await;
    }
    let (Some(protocol), Some(source), Some(destination)) = (args.protocol, args.source, args.destination)
    else {
        return Err(Failure::invalid("no packet is named", "see `lb explain --help`").into());
    };
    let packet = (|| {
        let (protocol, flags) = (protocol.parse()?, args.flags.parse()?);
        frame(&Tuple { protocol, source, destination, flags })
    })();
    let packet = packet.map_err(|InvalidText { message, remedy }| Failure::invalid(message, remedy))?;
    let request = ExplainRequest { interface: args.iface, frame: hex::encode(packet) };
    let answer = session.explain(&request).await?;
    if session.out.is_json() {
        return session.out.json(&answer);
    }
    print(session, &answer)
}

fn print(session: &mut Session, answer: &ExplainView) -> Result<()> {
    let out = &mut session.out;
    out.line(format_args!("{} ({}): {}", verdict(answer), answer.reason, answer.description.trim()))?;
    let slot = answer.slot.map(|slot| slot.to_string());
    for (key, value) in [
        ("service", &answer.service),
        ("mode", &answer.mode),
        ("slot", &slot),
        ("backend", &answer.backend),
        ("chosen by", &answer.how),
        ("arrives on", &Some(answer.interface.clone())),
        ("leaves by", &answer.egress),
        ("before", &Some(answer.before.decoded.clone())),
        ("after", &Some(answer.after.decoded.clone()).filter(|_| changed(answer))),
    ] {
        if let Some(value) = value {
            out.line(format_args!("  {key:<11} {value}"))?;
        }
    }
    if out.is_wide() {
        out.line(format_args!("  {:<11} {}", "bytes in", answer.before.hex))?;
        if changed(answer) {
            out.line(format_args!("  {:<11} {}", "bytes out", answer.after.hex))?;
        }
    }
    Ok(())
}

fn changed(answer: &ExplainView) -> bool {
    answer.before.hex != answer.after.hex
}

fn verdict(answer: &ExplainView) -> String {
    let how = match answer.verdict.as_str() {
        "tx" | "redirect" => How::Good,
        "drop" => How::Bad,
        _ => How::Plain,
    };
    how.paint(&answer.verdict)
}

async fn capture(session: &mut Session, file: &Path, interface: Option<&str>) -> Result<()> {
    let mut packets = Vec::new();
    pcap::read(file, |packet| {
        packets.push(packet);
        Ok(())
    })?;
    let mut explained = Vec::new();
    for packet in packets {
        let request =
            ExplainRequest { interface: interface.map(str::to_owned), frame: hex::encode(&packet.frame) };
        let answer = session.explain(&request).await?;
        if session.out.is_json() {
            explained.push(Explained { number: packet.number, answer });
            continue;
        }
        let cut = if packet.wire_length as usize > packet.frame.len() { ", cut by the capture" } else { "" };
        let to = match (&answer.service, &answer.backend) {
            (Some(service), Some(backend)) => format!(", {service} to {backend}"),
            (Some(service), None) => format!(", {service}"),
            _ => String::new(),
        };
        session.out.line(format_args!(
            "{:>5} {} ({}){to}: {}{cut}",
            packet.number,
            verdict(&answer),
            answer.reason,
            decode::line(&packet.frame)
        ))?;
    }
    if session.out.is_json() { session.out.json(&explained) } else { Ok(()) }
}
