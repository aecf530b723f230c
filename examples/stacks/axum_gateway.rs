//! An axum service in front of an API. Its handlers, and a reverse proxy that streams both ways, share one client for the
//! API. The callers of the service need no token.
//!
//! `cargo run -p stack-examples --example axum_gateway`
//!
//! [`api_client`], [`gateway`] and what they use are what a program of yours would contain. The rest is servers on this
//! machine, and checks.

#[path = "../support/mod.rs"]
mod support;

use std::{io, process::ExitCode, time::Duration};

use axum::{
    Router,
    body::Body,
    error_handling::HandleErrorLayer,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use support::{Options, check};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tower::{
    BoxError, ServiceBuilder, ServiceExt, service_fn, timeout::error::Elapsed,
    util::BoxCloneSyncService,
};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, OAuthClient, RefreshTokenSource, TokenError,
    testing::{self, AuthorizationServer, Dialect},
};
use tower_http::trace::TraceLayer;

/// The client that all requests to the API share. It takes and returns axum's bodies.
pub(crate) type ApiClient = BoxCloneSyncService<Request<Body>, Response, BoxError>;

/// Layers above the session see a request once, layers below it see each time it is sent.
pub(crate) fn api_client(session: BearerAuthLayer) -> ApiClient {
    let hyper = Client::builder(TokioExecutor::new()).build_http();
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            .map_result(hide_rejection)
            .layer(TraceLayer::new_for_http())
            .timeout(Duration::from_secs(10))
            .layer(session)
            // Below the session: a request that waits for a token does not count towards the limit.
            .concurrency_limit(64)
            .service(hyper),
    )
}

/// Turns the API's rejection of the gateway's token into an error. The gateway's callers have no token, so the API's 401
/// would mislead them.
fn hide_rejection<B>(result: Result<http::Response<B>, BoxError>) -> Result<Response, BoxError>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut response = result?;
    match response.extensions_mut().remove::<TokenError>() {
        Some(error) => Err(error.into()),
        None => Ok(response.map(Body::new)),
    }
}

/// The response for a caller if the API could not be called.
fn error_response(error: &BoxError) -> Response {
    let mut headers = HeaderMap::new();
    let status = match error.downcast_ref::<TokenError>() {
        // The next attempt may succeed.
        Some(error) if error.is_transient() => {
            if let Some(wait) = error.retry_after() {
                headers.insert(header::RETRY_AFTER, wait.as_secs().into());
            }
            StatusCode::SERVICE_UNAVAILABLE
        }
        None if error.is::<Elapsed>() => StatusCode::GATEWAY_TIMEOUT,
        // A person must log in again, for example; the caller can do nothing about it.
        _ => StatusCode::BAD_GATEWAY,
    };
    eprintln!("  log of the gateway: {status}, because {error}");
    (status, headers).into_response()
}

#[derive(Clone)]
struct Api {
    client: ApiClient,
    url: String,
}

/// A handler that calls the API and builds a response of its own.
async fn invoice(State(api): State<Api>, Path(id): Path<u32>) -> Result<String, Response> {
    let call = async || {
        let request = Request::post(format!("{}/invoices/{id}", api.url));
        let request = request.body(Body::from(format!("invoice {id}")))?;
        let response = api.client.oneshot(request).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    };
    let text = call()
        .await
        .map_err(|error: BoxError| error_response(&error))?;
    Ok(format!(
        "the API answered: {}",
        String::from_utf8_lossy(&text)
    ))
}

/// Turns a request to the gateway into one to the API. Its body is passed on as it arrives.
fn forward(to: &Uri, request: Request<Body>) -> Request<Body> {
    let (mut head, body) = request.into_parts();
    let mut uri = to.clone().into_parts();
    uri.path_and_query = head.uri.path_and_query().cloned();
    head.uri = Uri::from_parts(uri).unwrap_or_default();
    head.version = Version::HTTP_11;
    head.headers.remove(header::HOST);
    // The layer leaves an `Authorization` alone that is already there, and the caller's is not meant for the API.
    head.headers.remove(header::AUTHORIZATION);
    remove_hop_by_hop(&mut head.headers);
    Request::from_parts(head, body)
}

/// Removes the headers that belong to one connection (RFC 9110, section 7.6.1).
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<_> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .map(|name| name.trim().to_owned())
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    ] {
        headers.remove(name);
    }
}

pub(crate) fn gateway(client: ApiClient, url: &str) -> Result<Router, BoxError> {
    let to: Uri = url.parse()?;
    let proxy = ServiceBuilder::new()
        // A router takes services that cannot fail, so errors become responses here.
        .layer(HandleErrorLayer::new(async |error: BoxError| {
            error_response(&error)
        }))
        .map_request(move |request| forward(&to, request))
        .map_response(|mut response: Response| {
            remove_hop_by_hop(response.headers_mut());
            response
        })
        .service(client.clone());
    let api = Api {
        client,
        url: url.to_owned(),
    };
    Ok(Router::new()
        .route("/summary/{id}", get(invoice))
        .with_state(api)
        .fallback_service(proxy))
}

// ---------------------------------------------------------------------------------------------------------------------
// Servers on this machine, and checks.

const OPTIONS: Options = Options::new(
    "-p stack-examples --example axum_gateway",
    "Runs an axum service that calls an API with a session: from a handler, and as a streaming reverse proxy.",
);

#[tokio::main]
async fn main() -> ExitCode {
    support::run(&OPTIONS, async |_| call_the_gateway().await).await
}

async fn call_the_gateway() -> Result<(), BoxError> {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let token_endpoint = testing::serve(server.clone()).await?;
    let tokens = server.clone();
    // An API that sends each piece of a request back as it arrives.
    let echo = testing::serve(service_fn(move |request: Request<_>| {
        let token = request.headers().get(header::AUTHORIZATION).cloned();
        let token = token.as_ref().and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        let accepted = token.is_some_and(|token| tokens.is_live(token));
        async move {
            let body = if accepted {
                Body::new(request.into_body())
            } else {
                Body::empty()
            };
            let status = if accepted { 200 } else { 401 };
            http::Response::builder().status(status).body(body)
        }
    }))
    .await?;

    let token_url = format!("{}{}", token_endpoint.url(), server.token_path());
    let oauth = OAuthClient::new(token_url)?.client_auth(ClientAuth::client_secret_basic(
        AuthorizationServer::CLIENT_ID,
        AuthorizationServer::CLIENT_SECRET,
    ));
    let source = RefreshTokenSource::new(oauth, server.issue_refresh_token());
    let client = api_client(BearerAuthLayer::new(source));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let gateway = gateway(client, &echo.url())?;
    let running = tokio::spawn(axum::serve(listener, gateway).into_future());

    let caller: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    let get = |path: &str| {
        let request = Request::get(format!("{url}{path}"));
        caller.request(request.body(Body::empty()).expect("a request"))
    };

    let summary = get("/summary/7").await?.into_body().collect().await?;
    check(
        "the handler got the API's response",
        summary.to_bytes() == "the API answered: invoice 7",
    )?;
    println!("GET /summary/7: answered by the handler");

    server.revoke_access_tokens();
    let (pieces, body) = mpsc::channel(1);
    let body = ReceiverStream::new(body).map(|piece| Ok::<_, io::Error>(Frame::data(piece)));
    let request = Request::post(format!("{url}/upload"))
        // The gateway removes it; the API would reject it.
        .header(header::AUTHORIZATION, "Bearer from-the-caller")
        .body(Body::new(StreamBody::new(body)))?;
    // The first piece is sent twice: the first time with the revoked token.
    let count = 40;
    pieces.send(Bytes::from(vec![0; 4096])).await?;
    let response = caller.request(request).await?;
    check("the upload is passed on", response.status() == 200)?;
    let mut echo = response.into_body();
    for n in 0..count {
        // The next piece is sent after this one has come back, so neither side may wait for the end of a body.
        let mut received = 0;
        while received < 4096 {
            let frame = echo.frame().await.ok_or("the echo ended early")??;
            let data = frame.into_data().map_err(|_| "expected a data frame")?;
            check("each piece comes back", data.iter().all(|b| *b == n))?;
            received += data.len();
        }
        if n + 1 < count {
            pieces.send(Bytes::from(vec![n + 1; 4096])).await?;
        }
    }
    drop(pieces);
    check(
        "the echo ends with the upload",
        echo.frame().await.is_none(),
    )?;
    println!("POST /upload, token revoked: {count} pieces came back, one by one");
    check(
        "one refresh for each of the two tokens",
        server.refreshes() == 2,
    )?;

    // The session has ended. The callers cannot log in for the gateway, so they get a 502.
    server.revoke_sessions();
    let status = get("/invoices").await?.status();
    println!("GET /invoices after the session ended: {status}");
    check("the caller gets 502", status == StatusCode::BAD_GATEWAY)?;
    running.abort();
    Ok(())
}
