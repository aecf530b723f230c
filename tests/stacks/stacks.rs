//! The layer above and below other layers of a Tower stack: each order compiles, services and futures are `Send`, and a
//! request whose token is rejected is replayed.

#[path = "../support/mod.rs"]
mod support;

use std::{future::Ready, time::Duration};

use axum::body::Body as AxumBody;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::Full;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use support::{FullRequest, order, source, text};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    balance::p2c::Balance,
    discover::ServiceList,
    load::Constant,
    retry::Policy,
    service_fn,
    util::{BoxCloneService, BoxCloneSyncService, BoxService},
};
use tower_bearer::{
    AddToken, AddTokenLayer, BearerAuth, BearerAuthFuture, BearerAuthLayer, ReplayBody, TokenCache,
    TokenError, Verdict,
    testing::{AuthorizationServer, Dialect, ProtectedApi},
};
use tower_http::{
    compression::CompressionLayer,
    decompression::DecompressionLayer,
    follow_redirect::{FollowRedirect, FollowRedirectLayer, RequestUri},
    sensitive_headers::{SetSensitiveHeadersLayer, SetSensitiveRequestHeadersLayer},
    trace::TraceLayer,
};

const MINUTE: Duration = Duration::from_secs(60);
/// Long enough to be compressed.
const ORDER: &str = "a bicycle, a bicycle, a bicycle, a bicycle, a bicycle, and a bell";

/// Sends a request through `stack`, and another one after the token was revoked.
async fn check_stack<S, B>(stack: impl FnOnce(BearerAuthLayer, ProtectedApi) -> S)
where
    S: Service<FullRequest, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Send
        + 'static,
    B: Body<Error: std::fmt::Debug>,
{
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server.api();
    let mut stack = stack(BearerAuthLayer::new(source(&server)), api.clone());
    for id in ["first", "revoked"] {
        let ready = stack.ready().await.map_err(Into::into).unwrap();
        let response = ready.call(order(id, ORDER)).await;
        let response = response.map_err(Into::into).unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{id}");
        assert_eq!(text(response).await, ORDER, "{id}");
        server.revoke_access_tokens();
    }
    assert_eq!((api.accepted(), api.rejected()), (2, 1));
}

// ---------------------------------------------------------------------------------------------------------------------
// tower

#[tokio::test(start_paused = true)]
async fn above_a_buffer() {
    check_stack(|bearer, api| {
        let stack = ServiceBuilder::new().layer(bearer);
        stack.buffer::<Request<ReplayBody<_>>>(8).service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_a_buffer() {
    check_stack(|bearer, api| {
        let stack = ServiceBuilder::new().buffer(8).layer(bearer);
        stack.service(api)
    })
    .await;
}

/// Retries requests that the server answered with 503.
#[derive(Clone)]
struct RetryOn503;

impl<B, R, E> Policy<Request<B>, Response<R>, E> for RetryOn503
where
    B: Clone,
{
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<B>,
        answer: &mut Result<Response<R>, E>,
    ) -> Option<Ready<()>> {
        let busy = |answer: &Response<R>| answer.status() == StatusCode::SERVICE_UNAVAILABLE;
        let again = answer.as_ref().is_ok_and(busy);
        again.then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn above_a_retry() {
    // The retry can clone any request, because the bodies are already replayable.
    check_stack(|bearer, api| {
        let stack = ServiceBuilder::new().layer(bearer).retry(RetryOn503);
        stack.service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_a_retry() {
    check_stack(|bearer, api| {
        let stack = ServiceBuilder::new().retry(RetryOn503).layer(bearer);
        stack.service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_a_timeout() {
    // The timeout applies to each attempt, and not to the wait for a token.
    check_stack(|bearer, api| {
        let stack = ServiceBuilder::new().layer(bearer).timeout(MINUTE);
        stack.service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_a_timeout() {
    // The timeout applies to the whole request. A refresh goes on when the request is dropped.
    check_stack(|bearer, api| {
        let stack = ServiceBuilder::new().timeout(MINUTE).layer(bearer);
        stack.service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_a_concurrency_limit() {
    check_stack(|bearer, api| {
        let stack = ServiceBuilder::new().layer(bearer).concurrency_limit(1);
        stack.service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_a_concurrency_limit() {
    check_stack(|bearer, api| {
        let stack = ServiceBuilder::new().concurrency_limit(1).layer(bearer);
        stack.service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_a_rate_limit() {
    // A rate limit is not `Clone`, so it needs a buffer above it.
    check_stack(|bearer, api| {
        ServiceBuilder::new()
            .layer(bearer)
            .buffer::<Request<ReplayBody<_>>>(8)
            .rate_limit(1, MINUTE)
            .service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_a_rate_limit() {
    check_stack(|bearer, api| {
        let stack = ServiceBuilder::new().rate_limit(1, MINUTE).layer(bearer);
        stack.service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_load_shedding() {
    check_stack(|bearer, api| {
        ServiceBuilder::new()
            .layer(bearer)
            .load_shed()
            .concurrency_limit(1)
            .service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_load_shedding() {
    check_stack(|bearer, api| {
        ServiceBuilder::new()
            .load_shed()
            .layer(bearer)
            .concurrency_limit(1)
            .service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_a_balance() {
    // A balance is not `Clone`, so it needs a buffer above it.
    check_stack(|bearer, api| {
        let apis = [api.clone(), api].map(|api| Constant::new(api, 1));
        let stack = ServiceBuilder::new().layer(bearer);
        stack
            .buffer::<Request<ReplayBody<_>>>(8)
            .service(Balance::new(ServiceList::new::<
                Request<ReplayBody<Full<Bytes>>>,
            >(apis)))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_a_balance() {
    check_stack(|bearer, api| {
        let apis = [api.clone(), api].map(|api| Constant::new(bearer.layer(api), 1));
        Balance::new(ServiceList::new::<FullRequest>(apis))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_a_boxed_service() {
    check_stack(|bearer, api| bearer.layer(BoxCloneService::new(api))).await;
    check_stack(|bearer, api| bearer.layer(BoxCloneSyncService::new(api))).await;
    // A service that is not `Clone` needs a buffer above it.
    check_stack(|bearer, api| {
        let stack = ServiceBuilder::new().layer(bearer);
        stack
            .buffer::<Request<ReplayBody<_>>>(8)
            .service(BoxService::new(api))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_a_boxed_service() {
    check_stack(|bearer, api| BoxService::new(bearer.layer(api))).await;
    check_stack(|bearer, api| BoxCloneService::new(bearer.layer(api))).await;
    check_stack(|bearer, api| BoxCloneSyncService::new(bearer.layer(api))).await;
}

// ---------------------------------------------------------------------------------------------------------------------
// tower-http

#[tokio::test(start_paused = true)]
async fn above_a_trace() {
    check_stack(|bearer, api| {
        let stack = ServiceBuilder::new().layer(bearer);
        stack.layer(TraceLayer::new_for_http()).service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_a_trace() {
    check_stack(|bearer, api| {
        let stack = ServiceBuilder::new().layer(TraceLayer::new_for_http());
        stack.layer(bearer).service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_compression() {
    check_stack(|bearer, api| {
        ServiceBuilder::new()
            .layer(bearer)
            .layer(DecompressionLayer::new())
            .layer(CompressionLayer::new())
            .service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_compression() {
    check_stack(|bearer, api| {
        ServiceBuilder::new()
            .layer(DecompressionLayer::new())
            .layer(CompressionLayer::new())
            .layer(bearer)
            .service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn between_decompression_and_compression() {
    check_stack(|bearer, api| {
        ServiceBuilder::new()
            .layer(DecompressionLayer::new())
            .layer(bearer)
            .layer(CompressionLayer::new())
            .service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_redirects() {
    // Here the redirect layer must remove the token for other origins itself, which it does by default.
    check_stack(|bearer, api| {
        let stack = ServiceBuilder::new().layer(bearer);
        stack.layer(FollowRedirectLayer::new()).service(api)
    })
    .await;
}

/// Follows redirects, and marks the responses of other origins.
async fn follow_redirects<S, B, R>(
    client: FollowRedirect<S>,
    request: Request<B>,
) -> Result<Response<R>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: Body + Default,
{
    let origin = |uri: &Uri| (uri.scheme().cloned(), uri.authority().cloned());
    let sent_to = origin(request.uri());
    let mut response = client.oneshot(request).await?;
    let answered = response.extensions().get::<RequestUri>();
    if answered.is_some_and(|RequestUri(uri)| origin(uri) != sent_to) {
        response.extensions_mut().insert(Verdict::Unrelated);
    }
    Ok(response)
}

#[tokio::test]
async fn a_401_of_another_origin_after_a_redirect_below_is_no_rejection() {
    let servers = service_fn(|request: Request<ReplayBody<Full<Bytes>>>| async move {
        let is_api = request.uri().host() == Some("api.example.com");
        let mut response = Response::builder();
        response = match (is_api, request.uri().path()) {
            (true, "/elsewhere") => response
                .status(307)
                .header("location", "https://cdn.example.com/"),
            (true, "/here") => response.status(307).header("location", "/rejected"),
            _ => response.status(401),
        };
        response.body(Full::<Bytes>::default())
    });
    let redirecting = FollowRedirectLayer::new().layer(servers);
    let marking = service_fn(move |request| follow_redirects(redirecting.clone(), request));
    let cache = TokenCache::new(source(&AuthorizationServer::new(Dialect::Rfc6749)));
    let client = BearerAuthLayer::from(cache.clone()).layer(marking);
    for (path, rejected) in [("elsewhere", 0), ("here", 2)] {
        let url = format!("https://api.example.com/{path}");
        let response = client.clone().oneshot(support::get(&url)).await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(cache.status().rejected, rejected, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn below_redirects() {
    // The layer checks its `Origins` for each redirected request.
    check_stack(|bearer, api| {
        let stack = ServiceBuilder::new().layer(FollowRedirectLayer::new());
        stack.layer(bearer).service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_sensitive_headers() {
    check_stack(|bearer, api| {
        let names = [http::header::AUTHORIZATION];
        ServiceBuilder::new()
            .layer(bearer)
            .layer(SetSensitiveRequestHeadersLayer::new(names))
            .service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_sensitive_headers() {
    check_stack(|bearer, api| {
        let names = [http::header::AUTHORIZATION, http::header::SET_COOKIE];
        ServiceBuilder::new()
            .layer(SetSensitiveHeadersLayer::new(names))
            .layer(bearer)
            .service(api)
    })
    .await;
}

// ---------------------------------------------------------------------------------------------------------------------
// Everything together, and the types.

#[tokio::test(start_paused = true)]
async fn in_the_middle_of_a_full_stack() {
    check_stack(|bearer, api| {
        ServiceBuilder::new()
            .boxed_clone()
            .buffer(8)
            .layer(TraceLayer::new_for_http())
            .layer(FollowRedirectLayer::new())
            .load_shed()
            .timeout(MINUTE)
            .retry(RetryOn503)
            .layer(bearer)
            .concurrency_limit(1)
            .layer(TraceLayer::new_for_http())
            .layer(DecompressionLayer::new())
            .layer(CompressionLayer::new())
            .buffer(8)
            .rate_limit(1, Duration::from_millis(1))
            .service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bodies_that_are_not_sync_work() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let bearer = BearerAuthLayer::new(source(&server));
    // A client as a router needs it: `Clone`, `Sync`, and for the bodies of axum.
    let client: BoxCloneSyncService<Request<AxumBody>, Response<AxumBody>, BoxError> =
        BoxCloneSyncService::new(
            ServiceBuilder::new()
                .layer(bearer)
                .map_request(|request: Request<ReplayBody<AxumBody>>| request.map(AxumBody::new))
                .map_response(|response: Response<_>| response.map(AxumBody::new))
                .service(server.api()),
        );
    for id in ["first", "revoked"] {
        let request = order(id, ORDER).map(AxumBody::new);
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(text(response).await, ORDER);
        server.revoke_access_tokens();
    }
}

/// All types can be named.
#[allow(dead_code, reason = "that it compiles is the test")]
struct NameableTypes {
    layer: BearerAuthLayer,
    session: TokenCache,
    orders: BearerAuth<Client<HttpConnector, ReplayBody<Full<Bytes>>>>,
    uploads: AddToken<Client<HttpConnector, AxumBody>>,
    outbound: BearerAuth<BoxCloneSyncService<FullRequest, Response<AxumBody>, BoxError>>,
    last: Option<BearerAuthFuture<ProtectedApi, Full<Bytes>, tower_bearer::testing::ResponseBody>>,
}

fn is_clone_send_sync<T: Clone + Send + Sync + Unpin + std::fmt::Debug + 'static>() {}
fn is_send<T: Send + 'static>(_: &T) {}

#[test]
fn layers_services_and_errors_are_clone_send_and_sync() {
    is_clone_send_sync::<BearerAuthLayer>();
    is_clone_send_sync::<AddTokenLayer>();
    is_clone_send_sync::<TokenCache>();
    is_clone_send_sync::<TokenError>();
    is_clone_send_sync::<tower_bearer::Origins>();
    is_clone_send_sync::<tower_bearer::RefreshOnReject>();
    is_clone_send_sync::<tower_bearer::ReqwestTransport>();
    is_clone_send_sync::<ReplayBody<Full<Bytes>>>();
    is_clone_send_sync::<BearerAuth<ProtectedApi>>();
    is_clone_send_sync::<BearerAuth<Client<HttpConnector, ReplayBody<AxumBody>>>>();
    is_clone_send_sync::<AddToken<ProtectedApi>>();
}

type BoxedBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

#[tokio::test]
async fn futures_and_bodies_are_send() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let bearer = BearerAuthLayer::new(source(&server));
    let mut client = bearer.layer(service_fn(|_: Request<ReplayBody<BoxedBody>>| async {
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
    }));
    let request = Request::new(BoxedBody::default());
    is_send(&client.call(request));
    is_send(&ReplayBody::new(BoxedBody::default(), 1));

    let session = TokenCache::new(source(&server));
    tokio::spawn(async move { session.token().await })
        .await
        .unwrap()
        .unwrap();
}
