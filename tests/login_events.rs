//! What a login writes to the log: no code of any kind, no `state`, no verifier and no token.
//!
//! This test is alone in its process, because `tracing` caches for all threads whether an event has a subscriber.
#![cfg(all(feature = "login", feature = "testing"))]

use std::{
    fmt::{Debug, Write},
    sync::{Arc, Mutex},
};

use http::Request;
use tower::ServiceExt;
use tower_bearer::{
    ClientAuth, OAuthClient,
    login::{AuthorizationCode, DeviceCode},
    testing::{AuthorizationServer, Dialect, Fault},
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

const ISSUER: &str = "https://login.example.com";

/// The text of all events and spans.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<String>>);

impl Visit for Recorder {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = self.0.lock().unwrap();
        writeln!(text, "{field}={value:?}").unwrap();
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        span.record(&mut self.clone());
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// A login with a device code that begins badly, and one that is refused. Adds what nobody may see.
async fn device_logins(
    server: &AuthorizationServer,
    client: OAuthClient,
    secrets: &mut Vec<String>,
) {
    let login = DeviceCode::new(client);
    for agrees in [true, false] {
        let mut pending = login.begin().await.unwrap();
        let kept = serde_json::to_value(&pending).unwrap();
        secrets.push(kept["device_code"].as_str().unwrap().to_owned());
        secrets.push(pending.user_code().to_owned());
        if agrees {
            server.approve_device(pending.user_code());
        } else {
            server.deny_device(pending.user_code());
        }
        server.fault(Fault::Status(http::StatusCode::BAD_GATEWAY));
        if let Ok(session) = login.finish(&mut pending).await {
            let stored = serde_json::to_value(&session).unwrap();
            let tokens = [&stored["refresh_token"], &stored["access"]["token"]];
            secrets.extend(tokens.map(|it| it.as_str().unwrap().to_owned()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_writes_no_secret_to_the_log() {
    let recorder = Recorder::default();
    tracing::subscriber::set_global_default(recorder.clone()).unwrap();
    let server = AuthorizationServer::new(Dialect::Rfc6749)
        .issuer(ISSUER)
        .public_client("my-app");
    let client = OAuthClient::discover_with_transport(ISSUER, server.clone())
        .unwrap()
        .client_auth(ClientAuth::none("my-app"));
    let login = AuthorizationCode::new(client.clone());
    let mut secrets = Vec::new();
    for fault in [None, Some(Fault::error("invalid_grant"))] {
        let (lines, pasted) = tokio::sync::mpsc::channel(4);
        let (told, mut urls) = tokio::sync::mpsc::unbounded_channel();
        let task = login
            .clone()
            .in_browser()
            .without_browser()
            .pasted(pasted)
            .prompt(move |prompt| told.send(format!("{prompt}")).unwrap());
        let task = tokio::spawn(task.log_in());
        let prompt = urls.recv().await.unwrap();
        let url = prompt.lines().map(str::trim);
        let url = url.clone().find(|it| it.starts_with("https://")).unwrap();
        let request = Request::get(url).body(String::new()).unwrap();
        let redirect = server.clone().oneshot(request).await.unwrap();
        let response = redirect.headers()["location"].to_str().unwrap();
        for name in ["state", "code"] {
            let mut pairs = form_urlencoded::parse(response.split_once('?').unwrap().1.as_bytes());
            secrets.push(pairs.find(|(it, _)| it == name).unwrap().1.into_owned());
        }
        if let Some(fault) = fault {
            server.fault(fault);
        }
        lines
            .send(response.replace("state=", "state=x"))
            .await
            .unwrap();
        lines.send(response.to_owned()).await.unwrap();
        if let Ok(session) = task.await.unwrap() {
            let stored = serde_json::to_value(&session).unwrap();
            let tokens = [&stored["refresh_token"], &stored["access"]["token"]];
            secrets.extend(tokens.map(|it| it.as_str().unwrap().to_owned()));
        }
    }
    for request in server.requests() {
        secrets.extend(request.param("code_verifier").map(str::to_owned));
    }
    device_logins(&server, client, &mut secrets).await;
    assert_eq!(secrets.len(), 2 + 2 + 2 + 2 + 2 + 2 + 2);
    let log = recorder.0.lock().unwrap();
    assert!(log.contains("a person has logged in"), "{log}");
    assert!(log.contains("was refused, the login still waits"), "{log}");
    assert!(
        log.contains("asking whether the person has logged in has failed"),
        "{log}"
    );
    for secret in secrets {
        let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        assert!(!log.contains(&secret) && !log.contains(&encoded), "{log}");
    }
}
