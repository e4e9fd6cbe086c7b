//! The demonstration.

pub mod options;

pub use options::DemoOptions;

/// Runs the demonstration.
///
/// # Errors
///
/// This build has none.
#[expect(clippy::unused_async, reason = "a demonstration will wait")]
pub async fn run(_options: DemoOptions) -> anyhow::Result<()> {
    anyhow::bail!("this build of lb has no demonstration")
}
