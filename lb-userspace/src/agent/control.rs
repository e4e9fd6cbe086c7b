//! The API's view of the agent: requests into its one task, answers back.

use super::change::judge;
use crate::api::control::{Control, Source};
use crate::api::failure::Failure;
use crate::api::types::{ExplainRequest, ExplainView, PlanView, ServiceView, StatsView, StatusView};
use crate::config::{Change, Checked};
use tokio::sync::{mpsc, oneshot};

/// Where an answer goes. Whoever asked may be gone.
pub(crate) type Answer<T> = oneshot::Sender<T>;

/// What may be asked of the agent.
pub(crate) enum Request {
    Status(Answer<StatusView>),
    /// Names of all services.
    Services(Answer<Vec<String>>),
    Service(String, Answer<Option<ServiceView>>),
    Stats(Option<String>, Answer<Result<StatsView, Failure>>),
    Change(Box<Change>, bool, Answer<Result<PlanView, Failure>>),
    Apply(Box<Checked>, bool, Answer<Result<PlanView, Failure>>),
    Export(Answer<Result<String, Failure>>),
    Explain(ExplainRequest, Answer<Result<ExplainView, Failure>>),
}

/// A door to the agent.
pub(crate) struct Handle {
    requests: mpsc::Sender<Request>,
}

impl Handle {
    pub(crate) fn new(requests: mpsc::Sender<Request>) -> Self {
        Self { requests }
    }

    /// Asks and waits. `None`: the agent is stopping.
    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.ok()?;
        answered.await.ok()
    }
}

fn stopping() -> Failure {
    Failure::failed("the agent is stopping", "try again when it has been started: see `lb status`")
}

impl Control for Handle {
    async fn status(&self) -> StatusView {
        self.ask(Request::Status).await.unwrap_or_default()
    }

    async fn services(&self) -> Vec<String> {
        self.ask(Request::Services).await.unwrap_or_default()
    }

    async fn service(&self, name: &str) -> Option<ServiceView> {
        self.ask(|answer| Request::Service(name.to_owned(), answer)).await.flatten()
    }

    async fn stats(&self, service: Option<&str>) -> Result<StatsView, Failure> {
        let service = service.map(str::to_owned);
        self.ask(|answer| Request::Stats(service, answer)).await.unwrap_or_else(|| Err(stopping()))
    }

    async fn change(&self, change: Change, dry_run: bool) -> Result<PlanView, Failure> {
        self.ask(|answer| Request::Change(Box::new(change), dry_run, answer))
            .await
            .unwrap_or_else(|| Err(stopping()))
    }

    async fn apply(&self, source: Source, dry_run: bool) -> Result<PlanView, Failure> {
        // On a thread of its own: the agent's one task goes on meanwhile, and what this takes is given back as a whole.
        let judged = tokio::task::spawn_blocking(move || judge(&source)).await;
        let checked = Box::new(judged.map_err(|error| {
            Failure::failed(format!("cannot judge the configuration: {error}"), "please report this")
        })??);
        self.ask(|answer| Request::Apply(checked, dry_run, answer)).await.unwrap_or_else(|| Err(stopping()))
    }

    async fn export(&self) -> Result<String, Failure> {
        self.ask(Request::Export).await.unwrap_or_else(|| Err(stopping()))
    }

    async fn explain(&self, request: ExplainRequest) -> Result<ExplainView, Failure> {
        self.ask(|answer| Request::Explain(request, answer)).await.unwrap_or_else(|| Err(stopping()))
    }
}
