//! The agent: one task that owns everything, and what it listens to.
//!
//! ```text
//!  CLI, API ──► Request ──┐
//!  checks ──► Transition ─┤                      plan()         apply
//!  netlink ──► Change ────┼──► Core: desired ──────────► steps ──────► tables, interfaces, addresses
//!  program ──► Event ─────┤         observed ◄─────────────────────────────┘
//!  clock ──► tick ────────┘
//! ```
//!
//! There is one writer of kernel state, `core::Core`. Everything that happens ends in `Core::converge`, which
//! plans from what is wanted and what is there, and does nothing when nothing is to be done.

pub mod apply;
mod change;
mod control;
mod converge;
mod core;
mod drains;
mod explain;
mod flows;
mod heap;
mod hops;
mod interfaces;
pub mod options;
mod remember;
mod sources;
mod start;
pub(crate) mod touched;
mod views;
mod vips;
mod ways;
pub mod windows;

pub use options::AgentOptions;

use self::control::{Handle, Request};
use self::core::{Core, Inputs};
use crate::api::server;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

/// How often the agent looks at its clock: windows, drains, neighbours, interfaces that are missing.
const TICK: Duration = Duration::from_secs(1);
/// Requests that wait at once before the API makes clients wait.
const REQUESTS: usize = 64;
/// Backends that went up or down and are dealt with in one pass.
const TOGETHER: usize = 1024;

/// Runs the agent in the foreground until SIGTERM or SIGINT. What is pinned goes on without it.
///
/// # Errors
/// It cannot start: another agent, no privileges, an unsupported kernel, state that cannot be read.
pub async fn run(options: AgentOptions) -> Result<()> {
    // Before anything is touched: a second agent on the same socket must not change a thing.
    let socket = server::bind(&options.socket)?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let (mut core, inputs) = Core::start(options).await?;

    let (requests, queue) = mpsc::channel(REQUESTS);
    let (stop, stopped) = oneshot::channel::<()>();
    let api = tokio::spawn(server::serve(socket, Arc::new(Handle::new(requests)), async {
        let _ = stopped.await;
    }));
    // Not being run by systemd is no error.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let end = tokio::select! {
        signal = async { tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" } } => signal,
        result = serve(&mut core, inputs, queue) => { result?; "the end of its inputs" }
    };
    tracing::info!("stopping on {end}: the data plane stays and goes on");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let _ = stop.send(());
    core.save();
    // Connections that somebody keeps open must not keep the agent.
    let _ = tokio::time::timeout(TICK, api).await;
    Ok(())
}

/// Takes what comes, one thing at a time.
async fn serve(core: &mut Core, mut inputs: Inputs, mut requests: mpsc::Receiver<Request>) -> Result<()> {
    let mut transitions = Vec::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(request) = requests.recv() => core.answer(request).await,
            // All that have come together: a rack that fails is one pass.
            1.. = inputs.transitions.recv_many(&mut transitions, TOGETHER) => {
                core.health_changed(std::mem::take(&mut transitions)).await;
            }
            changes = inputs.watch.next() => core.network_changed(&changes.context("cannot follow the network")?).await,
            event = inputs.events.next() => core.kernel_says(event.context("cannot read the program's events")?).await,
            _ = ticks.tick() => core.tick().await,
        }
    }
}
