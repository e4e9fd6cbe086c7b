//! The agent.

pub mod options;

pub use options::AgentOptions;

/// Runs an agent until it is told to stop.
///
/// # Errors
///
/// This build has none.
#[expect(clippy::unused_async, reason = "an agent will wait")]
pub async fn run(options: AgentOptions) -> anyhow::Result<()> {
    anyhow::bail!("this build of lb has no agent to answer on {}", options.socket.display())
}
