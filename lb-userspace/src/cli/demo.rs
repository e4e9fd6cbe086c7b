//! `lb demo`.

use crate::demo::DemoOptions;
use anyhow::Result;
use clap::Args;

/// Arguments of `lb demo`.
#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "\
Needs root. Everything happens in network namespaces that are removed afterwards.

Examples:
  lb demo
  lb demo --quick    the same in less than 20 s; like the long one it fails if anything was lost
  lb demo --keep     leaves the network up to play with
  lb demo --clean    removes a network that was kept")]
pub struct DemoArgs {
    /// No pauses; exits non-zero if anything was lost
    #[arg(long)]
    quick: bool,
    /// Leave the network up and say how to play with it
    #[arg(long)]
    keep: bool,
    /// Use IPv4 only
    #[arg(long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Use IPv6 only
    #[arg(long)]
    ipv6: bool,
    /// Remove what an earlier --keep left, and nothing else
    #[arg(long, conflicts_with_all = ["quick", "keep", "ipv4", "ipv6"])]
    clean: bool,
    /// Be the backends of a network that was kept
    #[arg(long, hide = true)]
    hold: bool,
}

pub(super) async fn run(args: DemoArgs) -> Result<()> {
    let DemoArgs { quick, keep, ipv4, ipv6, clean, hold } = args;
    crate::demo::run(DemoOptions { quick, keep, ipv4, ipv6, clean, hold }).await
}
