//! An axum service in front of an API: its handlers, and a reverse proxy that streams both ways, go through one outbound
//! stack. Its callers know nothing of tokens.
//!
//! `cargo run --example axum_gateway`
//!
//! [`outbound`], [`gateway`] and what they use are what you would write; the rest is a stage for it on this machine, and
//! checks.

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
use support::check;
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

/// The stack that all requests to the API share, with axum's bodies at its top.
pub(crate) type Outbound = BoxCloneSyncService<Request<Body>, Response, BoxError>;

/// Above the session: what concerns a request as its caller sees it. Below: what concerns each attempt.
pub(crate) fn outbound(session: BearerAuthLayer) -> Outbound {
    let hyper = Client::builder(TokioExecutor::new()).build_http();
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            .map_result(ours)
            .layer(TraceLayer::new_for_http())
            .timeout(Duration::from_secs(10))
            .layer(session)
            // Below, so that no request that waits for a token takes the place of one that could go.
            .concurrency_limit(64)
            .service(hyper),
    )
}

/// A rejection of our token that could not be healed says nothing to our callers, who have none: it is a failure of ours.
fn ours<B>(outcome: Result<http::Response<B>, BoxError>) -> Result<Response, BoxError>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut response = outcome?;
    match response.extensions_mut().remove::<TokenError>() {
        Some(error) => Err(error.into()),
        None => Ok(response.map(Body::new)),
    }
}

/// What a caller gets to see if the API could not be asked.
fn failed(error: &BoxError) -> Response {
    let mut headers = HeaderMap::new();
    let status = match error.downcast_ref::<TokenError>() {
        // It may pass by itself.
        Some(error) if error.is_transient() => {
            if let Some(wait) = error.retry_after() {
                headers.insert(header::RETRY_AFTER, wait.as_secs().into());
            }
            StatusCode::SERVICE_UNAVAILABLE
        }
        None if error.is::<Elapsed>() => StatusCode::GATEWAY_TIMEOUT,
        // Somebody must log in again, say; but that is not the caller.
        _ => StatusCode::BAD_GATEWAY,
    };
    eprintln!("  the gateway's log: {status}, for {error}");
    (status, headers).into_response()
}

#[derive(Clone)]
struct Api {
    client: Outbound,
    url: String,
}

/// A handler that asks the API for something, and answers in its own words.
async fn invoice(State(api): State<Api>, Path(id): Path<u32>) -> Result<String, Response> {
    let ask = async || {
        let request = Request::post(format!("{}/invoices/{id}", api.url));
        let request = request.body(Body::from(format!("invoice {id}")))?;
        let response = api.client.oneshot(request).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    };
    let text = ask().await.map_err(|error: BoxError| failed(&error))?;
    Ok(format!("the API says: {}", String::from_utf8_lossy(&text)))
}

/// Turns a request to us into one to the API. Its body is not looked at, and flows as it comes.
fn forward(to: &Uri, request: Request<Body>) -> Request<Body> {
    let (mut head, body) = request.into_parts();
    let mut uri = to.clone().into_parts();
    uri.path_and_query = head.uri.path_and_query().cloned();
    head.uri = Uri::from_parts(uri).unwrap_or_default();
    head.version = Version::HTTP_11;
    head.headers.remove(header::HOST);
    // A caller's own would be left alone, and go to the API in place of our token.
    head.headers.remove(header::AUTHORIZATION);
    only_end_to_end(&mut head.headers);
    Request::from_parts(head, body)
}

/// Without what concerns one connection only (RFC 9110 §7.6.1).
fn only_end_to_end(headers: &mut HeaderMap) {
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

pub(crate) fn gateway(client: Outbound, url: &str) -> Result<Router, BoxError> {
    let to: Uri = url.parse()?;
    let proxy = ServiceBuilder::new()
        // A router serves what cannot fail, so errors become responses here.
        .layer(HandleErrorLayer::new(async |error: BoxError| {
            failed(&error)
        }))
        .map_request(move |request| forward(&to, request))
        .map_response(|mut response: Response| {
            only_end_to_end(response.headers_mut());
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
// The stage.

#[tokio::main]
async fn main() -> ExitCode {
    support::run(show()).await
}

async fn show() -> Result<(), BoxError> {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let tokens = testing::serve(server.clone()).await?;
    let live = server.clone();
    // An API that sends back what it gets, as it gets it.
    let echo = testing::serve(service_fn(move |request: Request<_>| {
        let token = request.headers().get(header::AUTHORIZATION).cloned();
        let token = token.as_ref().and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        let good = token.is_some_and(|token| live.is_live(token));
        async move {
            let body = if good {
                Body::new(request.into_body())
            } else {
                Body::empty()
            };
            let status = if good { 200 } else { 401 };
            http::Response::builder().status(status).body(body)
        }
    }))
    .await?;

    let token_url = format!("{}{}", tokens.url(), server.token_path());
    let endpoint = OAuthClient::new(token_url)?.client_auth(ClientAuth::client_secret_basic(
        AuthorizationServer::CLIENT_ID,
        AuthorizationServer::CLIENT_SECRET,
    ));
    let source = RefreshTokenSource::new(endpoint, server.issue_refresh_token());
    let client = outbound(BearerAuthLayer::new(source));
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
        "a handler got its answer",
        summary.to_bytes() == "the API says: invoice 7",
    )?;
    println!("GET /summary/7: answered by a handler");

    server.revoke_access_tokens();
    let (pieces, body) = mpsc::channel(1);
    let body = ReceiverStream::new(body).map(|piece| Ok::<_, io::Error>(Frame::data(piece)));
    let request = Request::post(format!("{url}/upload"))
        // Not the API's business, and it would be rejected there.
        .header(header::AUTHORIZATION, "Bearer of the gateway's caller")
        .body(Body::new(StreamBody::new(body)))?;
    // Its beginning was sent with a token that is no longer good, so it is sent twice.
    let pieces_of_it = 40;
    pieces.send(Bytes::from(vec![0; 4096])).await?;
    let response = caller.request(request).await?;
    check("an upload is passed on", response.status() == 200)?;
    let mut echo = response.into_body();
    for n in 0..pieces_of_it {
        // The next piece is sent only after this one has come back: nothing waits for a body's end.
        let mut back = 0;
        while back < 4096 {
            let frame = echo.frame().await.ok_or("the echo ended early")??;
            let data = frame.into_data().map_err(|_| "no data")?;
            check("each piece comes back", data.iter().all(|b| *b == n))?;
            back += data.len();
        }
        if n + 1 < pieces_of_it {
            pieces.send(Bytes::from(vec![n + 1; 4096])).await?;
        }
    }
    drop(pieces);
    check(
        "the echo ends with the upload",
        echo.frame().await.is_none(),
    )?;
    println!("POST /upload, token revoked: {pieces_of_it} pieces went there and back, one by one");
    check("two tokens, two refreshes", server.refreshes() == 2)?;

    // The session is over: that is the gateway's trouble, and its callers are not asked to log in.
    server.revoke_sessions();
    let status = get("/invoices").await?.status();
    println!("GET /invoices, logged out: {status}");
    check("a caller sees 502", status == StatusCode::BAD_GATEWAY)?;
    running.abort();
    Ok(())
}
