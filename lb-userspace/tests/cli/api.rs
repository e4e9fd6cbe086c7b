//! The API as other programs use it: HTTP over the socket, errors in one shape, one agent a socket.

use crate::world::World;
use hyper::Method;
use lb_userspace::api::client::Client;
use lb_userspace::api::failure::{Failure, FailureCode};
use lb_userspace::api::server;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use tempfile::tempdir;

async fn send(world: &World, method: Method, path: &str, body: &str) -> Result<serde_json::Value, Failure> {
    let client = Client::new(world.socket());
    let answer = client.send(method, path, "application/json", body.into()).await?;
    Ok(serde_json::from_slice(&answer).unwrap())
}

#[tokio::test]
async fn services_and_backends_by_put_and_delete() {
    let world = World::new();
    let body = r#"{"listen": "tcp://192.0.2.10:443", "backend": [{"address": "10.0.0.11:8443"}]}"#;
    let put = send(&world, Method::PUT, "/v1/services/web", body).await.unwrap();
    assert_eq!(put["changed"], true);
    assert_eq!(send(&world, Method::PUT, "/v1/services/web", body).await.unwrap()["changed"], false);
    let path = "/v1/services/web/backends/10.0.0.12:8443";
    send(&world, Method::PUT, path, r#"{"weight": 5}"#).await.unwrap();
    send(&world, Method::PUT, path, r#"{"weight": 6}"#).await.unwrap();
    let service = send(&world, Method::GET, "/v1/services/web", "").await.unwrap();
    assert_eq!(service["backends"][1]["weight"], 6);
    send(&world, Method::POST, &format!("{path}/drain"), "").await.unwrap();
    send(&world, Method::DELETE, path, "").await.unwrap();
    send(&world, Method::DELETE, "/v1/services/web", "").await.unwrap();
    assert_eq!(send(&world, Method::GET, "/v1/services", "").await.unwrap(), serde_json::json!([]));
}

#[tokio::test]
async fn every_refusal_has_the_same_shape() {
    let world = World::with_web();
    for (method, path, body, code) in [
        (Method::GET, "/v1/services/nope", "", FailureCode::NotFound),
        (Method::GET, "/v2", "", FailureCode::NotFound),
        (Method::PATCH, "/v1/status", "", FailureCode::Invalid),
        (Method::PUT, "/v1/services/web", "{", FailureCode::Invalid),
        (Method::PUT, "/v1/services/web", r#"{"name": "other"}"#, FailureCode::Invalid),
        (Method::PUT, "/v1/services/web", r#"{"lisetn": "x"}"#, FailureCode::Invalid),
        (Method::POST, "/v1/apply?dry-run=perhaps", "", FailureCode::Invalid),
        (Method::POST, "/v1/explain", r#"{"frame": "xyz"}"#, FailureCode::Invalid),
        (
            Method::POST,
            "/v1/services",
            r#"{"name": "web", "listen": "tcp://192.0.2.9:1"}"#,
            FailureCode::Conflict,
        ),
        (Method::PUT, "/v1/interfaces/broken0", "", FailureCode::Failed),
    ] {
        let failure = send(&world, method.clone(), path, body).await.unwrap_err();
        assert_eq!(failure.code, code, "{method} {path}: {failure:?}");
        assert!(!failure.message.is_empty() && !failure.remedy.is_empty(), "{method} {path}: {failure:?}");
        assert!(!failure.message.contains("the agent answered"), "not JSON: {failure:?}");
    }
}

#[tokio::test]
async fn a_large_configuration_is_no_matter() {
    let world = World::new();
    let text = format!(
        "# {}\n[[service]]\nname = \"web\"\nlisten = \"tcp://192.0.2.10:443\"\n",
        "x".repeat(5 << 20)
    );
    assert_eq!(send(&world, Method::POST, "/v1/apply", &text).await.unwrap()["changed"], true);
    let services = send(&world, Method::GET, "/v1/services", "").await.unwrap();
    assert_eq!(services[0]["name"], "web");
}

#[tokio::test]
async fn services_are_listed_one_after_the_other_as_one_document() {
    let world = World::new();
    for n in 0..3 {
        let body = format!(r#"{{"listen": "tcp://192.0.2.1{n}:443"}}"#);
        send(&world, Method::PUT, &format!("/v1/services/s{n}"), &body).await.unwrap();
    }
    let client = Client::new(world.socket());
    let listed = client.send(Method::GET, "/v1/services", "application/json", "".into()).await.unwrap();
    let services: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    let whole = serde_json::to_string_pretty(&client.services().await.unwrap()).unwrap();
    assert_eq!(String::from_utf8(listed.to_vec()).unwrap(), whole + "\n");
    assert_eq!(services.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn names_cannot_leave_their_place_in_a_path() {
    let world = World::with_web();
    let client = Client::new(world.socket());
    for name in ["../services/web", "..", "web?x", "web/backends", "web#", "ü"] {
        let failure = client.service(name).await.unwrap_err();
        assert_eq!(failure.code, FailureCode::NotFound, "{name}: {failure:?}");
        assert!(failure.message.contains("there is no service"), "{name}: {failure:?}");
    }
}

#[tokio::test]
async fn a_socket_belongs_to_one_agent() {
    let world = World::new();
    let metadata = std::fs::metadata(world.socket()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    let error = server::bind(&world.socket()).unwrap_err().to_string();
    assert!(error.contains("an agent already answers"), "{error}");
    assert_eq!(world.lb("status").code, 0, "the first one still answers");
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_other_files_are_not() {
    let directory = tempdir().unwrap();
    let stale = directory.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    drop(server::bind(&stale).unwrap());
    assert!(!stale.exists());
    let file = directory.path().join("file");
    std::fs::write(&file, "text").unwrap();
    assert!(server::bind(&file).unwrap_err().to_string().contains("is not a socket"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");
}
