//! The routes: from a request to a call of [`Control`], from its result to an answer.
//!
//! Bodies and queries are parsed here and not by extractors, so that every refusal has the API's own shape.

use super::control::{Control, Source};
use super::failure::{Failure, FailureCode};
use super::types::{AttachRequest, BackendRequest, DrainRequest, ExplainRequest, PlanView};
use crate::config::{Change, file};
use crate::model::{AttachMode, InvalidText};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post, put};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Bytes of a request: a configuration of a million backends. The usual limit is that of 50 000.
const LARGEST_BODY: usize = 64 << 20;

type Parameters = Query<BTreeMap<String, String>>;

/// The routes of `/v1`.
pub(super) fn router<C: Control>(control: Arc<C>) -> Router {
    Router::new()
        .route("/v1/status", get(status::<C>))
        .route("/v1/stats", get(stats::<C>))
        .route("/v1/services", get(services::<C>).post(add_service::<C>))
        .route(
            "/v1/services/{name}",
            get(service::<C>).put(put_service::<C>).patch(set_service::<C>).delete(remove_service::<C>),
        )
        .route("/v1/services/{name}/backends", post(add_backend::<C>))
        .route(
            "/v1/services/{name}/backends/{address}",
            put(put_backend::<C>).merge(patch(set_backend::<C>)).merge(delete(remove_backend::<C>)),
        )
        .route("/v1/services/{name}/backends/{address}/drain", post(drain::<C>))
        .route("/v1/services/{name}/backends/{address}/undrain", post(undrain::<C>))
        .route("/v1/interfaces", delete(detach_all::<C>))
        .route("/v1/interfaces/{name}", put(attach::<C>).merge(delete(detach::<C>)))
        .route("/v1/apply", post(apply::<C>))
        .route("/v1/export", get(export::<C>))
        .route("/v1/explain", post(explain::<C>))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(control)
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        json(StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &self)
    }
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec_pretty(value) {
        Ok(mut body) => {
            // Read by people through curl.
            body.push(b'\n');
            (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn answer<T: Serialize>(result: Result<T, Failure>) -> Response {
    match result {
        Ok(value) => json(StatusCode::OK, &value),
        Err(failure) => failure.into_response(),
    }
}

/// An empty body is an empty object, so that `curl -X POST` alone works.
fn parse<T: DeserializeOwned>(body: &[u8], shape: &str) -> Result<T, Failure> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| Failure::invalid(format!("the body is not right: {error}"), format!("send {shape}")))
}

fn flag(Query(parameters): &Parameters, name: &str) -> Result<bool, Failure> {
    match parameters.get(name).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("" | "true") => Ok(true),
        Some(other) => Err(Failure::invalid(
            format!("{name} is {other:?}"),
            format!("write {name}=true or {name}=false"),
        )),
    }
}

async fn change<C: Control>(
    control: &C,
    change: Result<Change, Failure>,
    parameters: &Parameters,
) -> Result<PlanView, Failure> {
    let dry_run = flag(parameters, "dry-run")?;
    control.change(change?, dry_run).await
}

async fn status<C: Control>(State(control): State<Arc<C>>) -> Response {
    json(StatusCode::OK, &control.status().await)
}

async fn stats<C: Control>(State(control): State<Arc<C>>, Query(parameters): Parameters) -> Response {
    answer(control.stats(parameters.get("service").map(String::as_str)).await)
}

/// Service by service: a hundred thousand backends are tens of megabytes, and other requests need not wait for all.
async fn services<C: Control>(State(control): State<Arc<C>>) -> Response {
    let names = control.services().await;
    if names.is_empty() {
        return json(StatusCode::OK, &names);
    }
    let names = names.into_iter();
    let parts = stream::unfold((control, names, true), |(control, mut names, first)| async move {
        // One that was removed meanwhile is left out.
        let service = loop {
            match control.service(&names.next()?).await {
                Some(service) => break service,
                None => continue,
            }
        };
        let text = serde_json::to_string_pretty(&service).map_err(io::Error::other);
        // As one document would be indented: in JSON a line never ends within a text.
        let text = text.map(|text| {
            let separator = if first { "\n  " } else { ",\n  " };
            format!("{separator}{}", text.replace('\n', "\n  "))
        });
        Some((text, (control, names, false)))
    });
    let around = |text: &'static str| stream::iter([Ok(text.to_owned())]);
    let body = Body::from_stream(around("[").chain(parts).chain(around("\n]\n")));
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn service<C: Control>(State(control): State<Arc<C>>, Path(name): Path<String>) -> Response {
    let found = control.service(&name).await;
    answer(found.ok_or_else(|| {
        Failure::new(FailureCode::NotFound, format!("there is no service {name:?}"), "see `lb service list`")
    }))
}

const SERVICE: &str = r#"a service like {"name": "web", "listen": "tcp://192.0.2.10:443", "backend": [{"address": "10.0.0.11:8443"}]}"#;

async fn add_service<C: Control>(
    State(control): State<Arc<C>>,
    parameters: Parameters,
    body: Bytes,
) -> Response {
    let parsed = parse(&body, SERVICE).map(|service| Change::AddService { service });
    answer(change(&*control, parsed, &parameters).await)
}

async fn put_service<C: Control>(
    State(control): State<Arc<C>>,
    Path(name): Path<String>,
    parameters: Parameters,
    body: Bytes,
) -> Response {
    let parsed = parse::<file::Service>(&body, SERVICE).and_then(|mut service| {
        if service.name.is_empty() {
            service.name.clone_from(&name);
        }
        if service.name == name {
            Ok(Change::PutService { service })
        } else {
            Err(Failure::invalid(
                format!("the body is service {:?}, the path {name:?}", service.name),
                "leave the name out of the body, or write the same",
            ))
        }
    });
    answer(change(&*control, parsed, &parameters).await)
}

async fn set_service<C: Control>(
    State(control): State<Arc<C>>,
    Path(name): Path<String>,
    parameters: Parameters,
    body: Bytes,
) -> Response {
    let parsed = parse(&body, r#"options as texts, like {"on-down": "keep"}"#)
        .map(|set| Change::SetService { name, set });
    answer(change(&*control, parsed, &parameters).await)
}

async fn remove_service<C: Control>(
    State(control): State<Arc<C>>,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Response {
    answer(change(&*control, Ok(Change::RemoveService { name }), &parameters).await)
}

async fn add_backend<C: Control>(
    State(control): State<Arc<C>>,
    Path(service): Path<String>,
    parameters: Parameters,
    body: Bytes,
) -> Response {
    let parsed = parse(&body, r#"a backend like {"address": "10.0.0.11:8443", "weight": 100}"#)
        .map(|backend| Change::AddBackend { service, backend });
    answer(change(&*control, parsed, &parameters).await)
}

const WEIGHT: &str = r#"a weight like {"weight": 100}"#;

/// New with this weight, or there already and then with this weight.
async fn put_backend<C: Control>(
    State(control): State<Arc<C>>,
    Path((service, address)): Path<(String, String)>,
    parameters: Parameters,
    body: Bytes,
) -> Response {
    let weight = match parse::<BackendRequest>(&body, WEIGHT) {
        Ok(request) => request.weight,
        Err(failure) => return failure.into_response(),
    };
    let backend = file::Backend { address: address.clone(), weight, draining: None };
    let add = Change::AddBackend { service: service.clone(), backend };
    let added = change(&*control, Ok(add), &parameters).await;
    match (added, weight) {
        (Err(Failure { code: FailureCode::Conflict, .. }), Some(weight)) => {
            answer(change(&*control, Ok(Change::SetBackend { service, address, weight }), &parameters).await)
        }
        (added, _) => answer(added),
    }
}

async fn set_backend<C: Control>(
    State(control): State<Arc<C>>,
    Path((service, address)): Path<(String, String)>,
    parameters: Parameters,
    body: Bytes,
) -> Response {
    let parsed = parse::<BackendRequest>(&body, WEIGHT).and_then(|request| match request.weight {
        Some(weight) => Ok(Change::SetBackend { service, address, weight }),
        None => Err(Failure::invalid("the body sets nothing", format!("send {WEIGHT}"))),
    });
    answer(change(&*control, parsed, &parameters).await)
}

async fn remove_backend<C: Control>(
    State(control): State<Arc<C>>,
    Path((service, address)): Path<(String, String)>,
    parameters: Parameters,
) -> Response {
    answer(change(&*control, Ok(Change::RemoveBackend { service, address }), &parameters).await)
}

async fn drain<C: Control>(
    State(control): State<Arc<C>>,
    Path((service, address)): Path<(String, String)>,
    parameters: Parameters,
    body: Bytes,
) -> Response {
    let parsed = parse(&body, r#"{"until": seconds since the Unix epoch, "remove": false}, or nothing"#)
        .map(|DrainRequest { until, remove }| Change::DrainBackend { service, address, until, remove });
    answer(change(&*control, parsed, &parameters).await)
}

async fn undrain<C: Control>(
    State(control): State<Arc<C>>,
    Path((service, address)): Path<(String, String)>,
    parameters: Parameters,
) -> Response {
    answer(change(&*control, Ok(Change::UndrainBackend { service, address }), &parameters).await)
}

async fn attach<C: Control>(
    State(control): State<Arc<C>>,
    Path(interface): Path<String>,
    parameters: Parameters,
    body: Bytes,
) -> Response {
    let parsed = parse::<AttachRequest>(&body, r#"{"mode": "auto"}, or nothing"#).and_then(|request| {
        let mode = request.mode.as_deref().map(str::parse::<AttachMode>).transpose();
        let mode = mode.map_err(|InvalidText { message, remedy }| Failure::invalid(message, remedy))?;
        Ok(Change::Attach { interface, mode: mode.unwrap_or_default() })
    });
    answer(change(&*control, parsed, &parameters).await)
}

async fn detach<C: Control>(
    State(control): State<Arc<C>>,
    Path(interface): Path<String>,
    parameters: Parameters,
) -> Response {
    answer(change(&*control, Ok(Change::Detach { interface }), &parameters).await)
}

async fn detach_all<C: Control>(State(control): State<Arc<C>>, parameters: Parameters) -> Response {
    answer(change(&*control, Ok(Change::DetachAll), &parameters).await)
}

async fn apply<C: Control>(State(control): State<Arc<C>>, parameters: Parameters, body: Bytes) -> Response {
    let dry_run = match flag(&parameters, "dry-run") {
        Ok(dry_run) => dry_run,
        Err(failure) => return failure.into_response(),
    };
    let Ok(text) = String::from_utf8(body.into()) else {
        return Failure::invalid("the body is not text", "send the configuration, TOML in UTF-8")
            .into_response();
    };
    let name = parameters.get("file").cloned().unwrap_or_else(|| "the configuration".to_owned());
    answer(control.apply(Source { text, name }, dry_run).await)
}

async fn export<C: Control>(State(control): State<Arc<C>>) -> Response {
    match control.export().await {
        Ok(text) => ([(header::CONTENT_TYPE, "application/toml")], text).into_response(),
        Err(failure) => failure.into_response(),
    }
}

async fn explain<C: Control>(State(control): State<Arc<C>>, body: Bytes) -> Response {
    match parse::<ExplainRequest>(&body, r#"{"frame": "an Ethernet frame in hexadecimal"}"#) {
        Ok(request) => answer(control.explain(request).await),
        Err(failure) => failure.into_response(),
    }
}

async fn no_route() -> Failure {
    Failure::new(FailureCode::NotFound, "there is no such path", "start at /v1/status or /v1/services")
}

async fn no_method() -> Response {
    let failure = Failure::invalid("this path does not answer to that method", "see the API in the manual");
    json(StatusCode::METHOD_NOT_ALLOWED, &failure)
}
