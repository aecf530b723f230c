//! The layer above and below the others of a Tower stack: that each order compiles, its services and futures can be sent
//! to other threads, and a request goes through whose token is rejected on the way.

#[path = "../support/mod.rs"]
mod support;

use std::{future::Ready, time::Duration};

use axum::body::Body as AxumBody;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use support::{Ask, order, source, text};
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
    TokenError,
    testing::{AuthorizationServer, Dialect, ProtectedApi},
};
use tower_http::{
    compression::CompressionLayer,
    decompression::DecompressionLayer,
    follow_redirect::FollowRedirectLayer,
    sensitive_headers::{SetSensitiveHeadersLayer, SetSensitiveRequestHeadersLayer},
    trace::TraceLayer,
};

const MINUTE: Duration = Duration::from_secs(60);
/// Long enough for a layer to find it worth compressing.
const ORDER: &str = "a bicycle, a bicycle, a bicycle, a bicycle, a bicycle, and a bell";

/// A request goes through `stack`, and another whose token has been revoked.
async fn heals<S, B>(stack: impl FnOnce(BearerAuthLayer, ProtectedApi) -> S)
where
    S: Service<Ask, Response = Response<B>, Error: Into<BoxError>, Future: Send> + Send + 'static,
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
    heals(|bearer, api| {
        let stack = ServiceBuilder::new().layer(bearer);
        stack.buffer::<Request<ReplayBody<_>>>(8).service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_a_buffer() {
    heals(|bearer, api| {
        let stack = ServiceBuilder::new().buffer(8).layer(bearer);
        stack.service(api)
    })
    .await;
}

/// Sends again what the server was too busy for.
#[derive(Clone)]
struct Busy;

impl<B, R, E> Policy<Request<B>, Response<R>, E> for Busy
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
    // Its requests can be cloned whatever their bodies: those are replayable already.
    heals(|bearer, api| {
        let stack = ServiceBuilder::new().layer(bearer).retry(Busy);
        stack.service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_a_retry() {
    heals(|bearer, api| {
        let stack = ServiceBuilder::new().retry(Busy).layer(bearer);
        stack.service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_a_timeout() {
    // Of each attempt; the wait for a token doesn't count.
    heals(|bearer, api| {
        let stack = ServiceBuilder::new().layer(bearer).timeout(MINUTE);
        stack.service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_a_timeout() {
    // Of the request as its caller sees it. A refresh that it doesn't wait for goes on.
    heals(|bearer, api| {
        let stack = ServiceBuilder::new().timeout(MINUTE).layer(bearer);
        stack.service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_a_concurrency_limit() {
    heals(|bearer, api| {
        let stack = ServiceBuilder::new().layer(bearer).concurrency_limit(1);
        stack.service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_a_concurrency_limit() {
    heals(|bearer, api| {
        let stack = ServiceBuilder::new().concurrency_limit(1).layer(bearer);
        stack.service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_a_rate_limit() {
    // A rate limit is not `Clone`, so it must stand behind a buffer.
    heals(|bearer, api| {
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
    heals(|bearer, api| {
        let stack = ServiceBuilder::new().rate_limit(1, MINUTE).layer(bearer);
        stack.service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_load_shedding() {
    heals(|bearer, api| {
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
    heals(|bearer, api| {
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
    // A balance is not `Clone`, so it must stand behind a buffer.
    heals(|bearer, api| {
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
    heals(|bearer, api| {
        let apis = [api.clone(), api].map(|api| Constant::new(bearer.layer(api), 1));
        Balance::new(ServiceList::new::<Ask>(apis))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_a_boxed_service() {
    heals(|bearer, api| bearer.layer(BoxCloneService::new(api))).await;
    heals(|bearer, api| bearer.layer(BoxCloneSyncService::new(api))).await;
    // One that is not `Clone` must stand behind a buffer.
    heals(|bearer, api| {
        let stack = ServiceBuilder::new().layer(bearer);
        stack
            .buffer::<Request<ReplayBody<_>>>(8)
            .service(BoxService::new(api))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_a_boxed_service() {
    heals(|bearer, api| BoxService::new(bearer.layer(api))).await;
    heals(|bearer, api| BoxCloneService::new(bearer.layer(api))).await;
    heals(|bearer, api| BoxCloneSyncService::new(bearer.layer(api))).await;
}

// ---------------------------------------------------------------------------------------------------------------------
// tower-http

#[tokio::test(start_paused = true)]
async fn above_a_trace() {
    heals(|bearer, api| {
        let stack = ServiceBuilder::new().layer(bearer);
        stack.layer(TraceLayer::new_for_http()).service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_a_trace() {
    heals(|bearer, api| {
        let stack = ServiceBuilder::new().layer(TraceLayer::new_for_http());
        stack.layer(bearer).service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_compression() {
    heals(|bearer, api| {
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
    heals(|bearer, api| {
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
    heals(|bearer, api| {
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
    // What follows redirects here must itself see to it that the token stays home, as this layer does by default.
    heals(|bearer, api| {
        let stack = ServiceBuilder::new().layer(bearer);
        stack.layer(FollowRedirectLayer::new()).service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn below_redirects() {
    // Each request that a redirect brings is judged anew by the layer's `Origins`.
    heals(|bearer, api| {
        let stack = ServiceBuilder::new().layer(FollowRedirectLayer::new());
        stack.layer(bearer).service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_sensitive_headers() {
    heals(|bearer, api| {
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
    heals(|bearer, api| {
        let names = [http::header::AUTHORIZATION, http::header::SET_COOKIE];
        ServiceBuilder::new()
            .layer(SetSensitiveHeadersLayer::new(names))
            .layer(bearer)
            .service(api)
    })
    .await;
}

// ---------------------------------------------------------------------------------------------------------------------
// All together, and as types.

#[tokio::test(start_paused = true)]
async fn in_the_middle_of_everything() {
    heals(|bearer, api| {
        ServiceBuilder::new()
            .boxed_clone()
            .buffer(8)
            .layer(TraceLayer::new_for_http())
            .layer(FollowRedirectLayer::new())
            .load_shed()
            .timeout(MINUTE)
            .retry(Busy)
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
async fn bodies_that_are_not_sync_can_be_sent() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let bearer = BearerAuthLayer::new(source(&server));
    // As a router takes them: it can be cloned, shared, and called with axum's bodies only.
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

/// The types can be written down.
#[allow(dead_code, reason = "that it compiles is the test")]
struct Ledger {
    layer: BearerAuthLayer,
    session: TokenCache,
    orders: BearerAuth<Client<HttpConnector, ReplayBody<Full<Bytes>>>>,
    uploads: AddToken<Client<HttpConnector, AxumBody>>,
    outbound: BearerAuth<BoxCloneSyncService<Ask, Response<AxumBody>, BoxError>>,
    last: Option<BearerAuthFuture<ProtectedApi, Full<Bytes>, tower_bearer::testing::ReplyBody>>,
}

fn everywhere<T: Clone + Send + Sync + Unpin + std::fmt::Debug + 'static>() {}
fn sent<T: Send + 'static>(_: &T) {}

#[test]
fn all_of_it_can_be_cloned_sent_and_shared() {
    everywhere::<BearerAuthLayer>();
    everywhere::<AddTokenLayer>();
    everywhere::<TokenCache>();
    everywhere::<TokenError>();
    everywhere::<tower_bearer::Origins>();
    everywhere::<tower_bearer::RefreshOnReject>();
    everywhere::<tower_bearer::ReqwestTransport>();
    everywhere::<ReplayBody<Full<Bytes>>>();
    everywhere::<BearerAuth<ProtectedApi>>();
    everywhere::<BearerAuth<Client<HttpConnector, ReplayBody<AxumBody>>>>();
    everywhere::<AddToken<ProtectedApi>>();
}

type BoxedBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

#[tokio::test]
async fn futures_can_be_sent() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let bearer = BearerAuthLayer::new(source(&server));
    let mut client = bearer.layer(service_fn(|_: Request<ReplayBody<BoxedBody>>| async {
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
    }));
    let request = Request::new(BoxedBody::default());
    sent(&client.call(request));
    sent(&ReplayBody::new(BoxedBody::default(), 1));

    let session = TokenCache::new(source(&server));
    tokio::spawn(async move { session.token().await })
        .await
        .unwrap()
        .unwrap();
}
