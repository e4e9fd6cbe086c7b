//! `lb demo --keep`: what stays when the demonstration ends, and how to play with it.

use super::backend::Backend;
use super::leftovers::{PINS, PREFIX};
use super::tool::Tool;
use super::topology::{BACKENDS, VIP4, VIP6, backend_addresses, backend_name};
use super::view;
use crate::lab::Namespace;
use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

/// Serves in the namespaces of the backends until it is told to end: by a signal, or with a namespace.
///
/// # Errors
///
/// There is no network that was kept.
pub(super) async fn hold() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let _backends = (0..BACKENDS)
        .map(|backend| {
            let name = backend_name(backend);
            let namespace = Namespace::open(&format!("{PREFIX}-{name}"))?;
            Backend::start(&namespace, &name, &backend_addresses(backend))
        })
        .collect::<Result<Vec<_>>>()?;
    terminate.recv().await;
    Ok(())
}

/// What to try, and how to end it.
pub(super) fn hints(tool: &Tool) -> Vec<String> {
    let socket = tool.socket().display().to_string();
    let inside = |name: &str| format!("nsenter --net=/run/netns/{PREFIX}-{name}");
    let first = backend_addresses(0)[0];
    let called = called();
    view::hints(&[
        ("the commands below find this agent", format!("export LB_SOCKET={socket} LB_PINS={PINS}")),
        ("everything on one screen", format!("{called} status")),
        ("who answers", format!("{} curl http://{VIP4}/", inside("client"))),
        ("over IPv6", format!("{} curl -g http://[{VIP6}]/", inside("client"))),
        ("what the kernel counts", format!("{called} stats --watch 1s")),
        ("no new connections for b1", format!("{called} backend drain web {first}:8080")),
        ("why a packet goes where it goes", format!("{called} explain tcp 192.0.2.2:40000 {VIP4}:80")),
        ("take b2 off the network", format!("{} ip link set eth0 down", inside("b2"))),
        ("remove it all", format!("{called} demo --clean")),
    ])
}

/// How this program was called, so that what is printed works.
fn called() -> String {
    std::env::args().next().unwrap_or_else(|| "lb".to_owned())
}
