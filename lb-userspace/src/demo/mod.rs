//! `lb demo`: a network of namespaces, an agent, real traffic, and the things that go wrong in the life of a balancer.
//!
//! ```text
//!                                               ┌── b1
//!  client ──── lb ──── switch ──────────────────┼── b2
//!  clients     agent   a bridge                 ├── b3
//!                                               └── b4   servers
//! ```
//!
//! The clients and the servers are threads of this process in their namespaces; the agent and every change are the
//! program itself, run as anybody would run it. `story` says what happens, `ledger` what it may cost, `stage` runs
//! and shows it, `leftovers` sees to it that nothing stays.

mod backend;
mod client;
mod keep;
mod ledger;
mod leftovers;
mod options;
mod screen;
mod stage;
mod story;
mod summary;
mod tool;
mod topology;
mod view;

pub use options::DemoOptions;

use self::leftovers::Lock;
use self::screen::Screen;
use self::stage::Stage;
use anyhow::{Context, Result, anyhow, ensure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a demonstration to its end, or until SIGINT, SIGTERM or SIGHUP; then everything is taken down first.
///
/// # Errors
///
/// Not root, another one runs, something was lost that must not be, or it was interrupted.
pub async fn run(options: DemoOptions) -> Result<()> {
    leftovers::require_root()?;
    if options.hold {
        return keep::hold().await;
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&interrupted);
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<std::io::Result<Vec<_>>>()
        .context("cannot listen for signals")?;
    let listening = tokio::spawn(async move {
        // From here on these signals end nothing by themselves: the story looks at the flag.
        let waits = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
        futures_util::future::select_all(waits).await;
        told.store(true, Ordering::Relaxed);
    });
    // A thread of its own: it blocks, and the agent ends with the thread that started it.
    let (done, ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("story".to_owned()).spawn(move || {
        let result = perform(&options, interrupted);
        // Nobody waits any more: then nobody is interested.
        let _ = done.send(result);
    })?;
    let result = ended.await.map_err(|_| anyhow!("the demonstration panicked; everything was taken down"))?;
    listening.abort();
    result
}

fn perform(options: &DemoOptions, interrupted: Arc<AtomicBool>) -> Result<()> {
    let _lock = Lock::take()?;
    let mut screen = Screen::new();
    let found = leftovers::remove()?;
    if options.clean {
        screen.good(if found { "removed what was left" } else { "nothing was left" });
        return Ok(());
    }
    screen.lines(&view::title(story::families(options)));
    if found {
        screen.note("an earlier demonstration was still there: removed");
    }
    screen.step(1, "A network of namespaces, made for this and removed afterwards");
    let began = Instant::now();
    let mut stage = Stage::build(screen, interrupted)?;
    let networks = stage.network.all().count();
    stage.screen.good(&format!("{networks} namespaces in {}", view::duration(began.elapsed())));
    let summary = story::play(&mut stage, options)?;
    stage.screen.lines(&summary.lines());
    if options.keep {
        let hints = keep::hints(&stage.tool);
        stage.leave(&hints)?;
    }
    ensure!(summary.good(), "the demonstration lost what it must not lose");
    Ok(())
}
