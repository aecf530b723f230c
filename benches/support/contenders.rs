//! The contenders: this crate's layers, and layers of tower and tower-http that do a part of the same work.

use std::{
    future::{Ready, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::Body;
use http_body_util::{Empty, Full};
use tower::{BoxError, ServiceBuilder, retry::Policy};
use tower_bearer::{
    AddTokenLayer, BearerAuthLayer, Token, TokenCache, TokenCacheBuilder, source_fn,
};
use tower_http::auth::AddAuthorizationLayer;

use super::work::{Bare, Chunks, Model, Runner, TOKEN, contender};

/// Positions in [`contenders`].
pub(crate) const BARE: usize = 0;
pub(crate) const ADD: usize = 1;
pub(crate) const RETRY_ADD: usize = 3;
pub(crate) const ADD_TOKEN: usize = 4;
pub(crate) const FULL: usize = 5;

/// The body of the requests, and whether the inner service reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    Empty,
    /// 1 KiB that the service does not read: only the preparation of a replay is measured.
    Kilobyte,
    KilobyteRead,
    /// 1 KiB in four chunks, without a content length.
    StreamRead,
}

impl Load {
    pub(crate) const ALL: [Self; 4] = [
        Self::Empty,
        Self::Kilobyte,
        Self::KilobyteRead,
        Self::StreamRead,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "no body",
            Self::Kilobyte => "1 KiB, not read",
            Self::KilobyteRead => "1 KiB, read",
            Self::StreamRead => "1 KiB streamed in 4 chunks, read",
        }
    }

    pub(crate) fn contenders(self, session: &TokenCache, headers: usize) -> Vec<Box<dyn Runner>> {
        let kilobyte = || Full::new(Bytes::from_static(&[7; 1024]));
        match self {
            Self::Empty => contenders(session, headers, Empty::<Bytes>::new(), false),
            Self::Kilobyte => contenders(session, headers, kilobyte(), false),
            Self::KilobyteRead => contenders(session, headers, kilobyte(), true),
            Self::StreamRead => contenders(session, headers, Chunks(4), true),
        }
    }
}

/// A session whose token outlives the bench. Must run in a Tokio runtime.
pub(crate) async fn session() -> TokenCache {
    session_with(|builder| builder).await
}

/// The same with settings.
pub(crate) async fn session_with(
    set: impl FnOnce(TokenCacheBuilder) -> TokenCacheBuilder,
) -> TokenCache {
    let source =
        source_fn(|_| async { Ok(Token::new(TOKEN)?.expires_in(Duration::from_secs(3_600))) });
    let cache = set(TokenCache::builder(source)).build();
    cache.token().await.expect("the source yields a token");
    cache
}

pub(crate) fn contenders<B>(
    session: &TokenCache,
    headers: usize,
    body: B,
    reads: bool,
) -> Vec<Box<dyn Runner>>
where
    B: Body + Clone + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let model = &Model::new(headers, body);
    let bare = Bare { reads };
    let stack = ServiceBuilder::new;
    let add = AddAuthorizationLayer::bearer(TOKEN);
    vec![
        contender("bare service", bare, model),
        contender(
            "AddAuthorization",
            stack().layer(add.clone()).service(bare),
            model,
        ),
        contender(
            "Retry, cloning",
            stack().retry(CloneRetry).service(bare),
            model,
        ),
        contender(
            "Retry + AddAuthorization",
            stack().retry(CloneRetry).layer(add).service(bare),
            model,
        ),
        contender(
            "AddTokenLayer",
            stack()
                .layer(AddTokenLayer::from(session.clone()))
                .service(bare),
            model,
        ),
        contender(
            "BearerAuthLayer",
            stack()
                .layer(BearerAuthLayer::from(session.clone()))
                .service(bare),
            model,
        ),
    ]
}

/// The usual policy for [`Retry`](tower::retry::Retry): it clones each request in advance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CloneRetry;

impl<B: Clone, R, E> Policy<Request<B>, R, E> for CloneRetry {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request<B>, result: &mut Result<R, E>) -> Option<Ready<()>> {
        result.is_err().then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        let mut copy = Request::new(request.body().clone());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        Some(copy)
    }
}
