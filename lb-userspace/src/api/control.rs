//! What the agent does for the API. The server knows nothing else of it, and tests put something in its place.

use super::failure::Failure;
use super::types::{ExplainRequest, ExplainView, PlanView, ServiceView, StatsView, StatusView};
use crate::config::Change;
use std::future::Future;

/// A configuration that somebody wants applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The TOML text.
    pub text: String,
    /// Its file's name, for messages.
    pub name: String,
}

/// What the API needs of an agent. Every failure says what to do about it.
pub trait Control: Send + Sync + 'static {
    /// Everything on one screen.
    fn status(&self) -> impl Future<Output = StatusView> + Send;

    /// Names of all services.
    fn services(&self) -> impl Future<Output = Vec<String>> + Send;

    /// One service; `None` if there is none of that name.
    fn service(&self, name: &str) -> impl Future<Output = Option<ServiceView>> + Send;

    /// What the kernel counted, for all services or one.
    fn stats(&self, service: Option<&str>) -> impl Future<Output = Result<StatsView, Failure>> + Send;

    /// Does a change, persists it, and waits until the kernel has it; or only plans it.
    fn change(&self, change: Change, dry_run: bool)
    -> impl Future<Output = Result<PlanView, Failure>> + Send;

    /// Puts a configuration in the place of what is desired, or only plans it.
    fn apply(&self, source: Source, dry_run: bool) -> impl Future<Output = Result<PlanView, Failure>> + Send;

    /// What is desired, as a configuration.
    fn export(&self) -> impl Future<Output = Result<String, Failure>> + Send;

    /// Asks the loaded program what it would do with a frame. Changes nothing.
    fn explain(&self, request: ExplainRequest) -> impl Future<Output = Result<ExplainView, Failure>> + Send;
}
