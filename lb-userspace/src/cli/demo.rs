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
  lb demo --quick    under 20 s; fails if a packet was lost that should not have been
  lb demo --keep     leaves the network up to play with")]
pub struct DemoArgs {
    /// No pauses; exits non-zero if anything was lost
    #[arg(long)]
    quick: bool,
    /// Leave the network up and say how to play with it
    #[arg(long)]
    keep: bool,
    /// Use IPv4
    #[arg(long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Use IPv6
    #[arg(long)]
    ipv6: bool,
}

pub(super) async fn run(DemoArgs { quick, keep, ipv4, ipv6 }: DemoArgs) -> Result<()> {
    crate::demo::run(DemoOptions { quick, keep, ipv6: ipv6 && !ipv4 }).await
}
