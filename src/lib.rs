//! One Tower layer that keeps a session with an OAuth-style API alive: it gets tokens, puts them on requests, renews them
//! before they run out, and when the server rejects one, gets another and sends the request again. Your code sees an
//! ordinary [`tower::Service`] and never thinks of tokens.
//!
//! # How to use it
//!
//! Say where tokens come from, and put [`BearerAuthLayer`] around the service that sends your requests:
//!
//! ```
//! use std::time::Duration;
//! use http::{Request, Response, StatusCode};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_bearer::{BearerAuthLayer, ReplayBody, Token, source_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), tower::BoxError> {
//! // Anything that yields tokens; there are sources for refresh and exchange tokens, and presets for vendors.
//! let source = source_fn(|request| async move {
//!     let secret = if request.rejected_token().is_some() { "second" } else { "first" };
//!     Ok(Token::new(secret)?.expires_in(Duration::from_secs(900)))
//! });
//!
//! // An API that has revoked the first token. In your program this is a hyper, reqwest or tonic client.
//! let api = service_fn(|request: Request<ReplayBody<String>>| async move {
//!     let revoked = request.headers()["authorization"] == "Bearer first";
//!     let status = if revoked { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
//!     Response::builder().status(status).body(String::new())
//! });
//!
//! let mut client = ServiceBuilder::new().layer(BearerAuthLayer::new(source)).service(api);
//!
//! let request = Request::post("https://api.example.com/orders").body(String::from("one of each"))?;
//! let response = client.ready().await?.call(request).await?;
//! assert_eq!(response.status(), StatusCode::OK); // rejected, renewed, sent again
//! # Ok(()) }
//! ```
//!
//! | You have | Use |
//! |---|---|
//! | an account at Winbooks, 2BA or Xoxoday | a preset of [`provider`] |
//! | a refresh token, and a token endpoint | [`RefreshTokenSource`] with a [`OAuthClient`] |
//! | a long-lived token or assertion to exchange | [`ExchangeTokenSource`] |
//! | something else that yields tokens | [`source_fn`], or [`TokenSource`] for a type of your own |
//! | more than one use for the same session | a [`TokenCache`], and layers [from](BearerAuthLayer::from) it |
//! | a refresh token that rotates | a [`store`], so that a restart doesn't lose it |
//! | tests to write | the servers of the module `testing`, with the feature of that name |
//!
//! # The way of a request
//!
//! ```text
//!  caller ──Request<B>──► BearerAuth<S>             keeps a flat snapshot of the head, and ReplayBody<B>
//!                           │                                                         ▲ the answer, or the
//!                         tower::retry::Retry<RefreshOnReject, …>                     │ server's own 401
//!                           │                                                         │
//!                         AddToken<S>              may this token go to this origin? │
//!                           │        token? ─► TokenCache ─ fresh: lock-free read ────┘
//!                           │                     │         due: served, and renewed behind
//!                           ▼                     │         none, expired or rejected: waits for the one flight
//!                         inner S                 ▼
//!                                               flight      a detached task, one per cache
//!                                                 ▼
//!                                   TokenSource     ExchangeTokenSource, RefreshTokenSource, source_fn
//!                                                 │  lease → load → adopt what another process got, or:
//!                                                 │  POST → merge → save durably → publish → release
//!                                                 ▼
//!                                   OAuthClient (any Service)    TokenStore
//! ```
//!
//! Three parts make the whole, and each is of use alone: [`AddTokenLayer`] puts the token on and never retries,
//! [`RefreshOnReject`] is a [`tower::retry::Policy`], and [`ReplayBody`] makes any body replayable up to a limit.
//!
//! # What it promises
//!
//! - *One flight*: however many requests need a token, one call gets it, and a caller who leaves does not abort it.
//! - *By generation*: a late rejection of an old token never costs the new one.
//! - *Fail-soft*: while the current token is usable, a failing refresh disturbs nobody; and nothing hammers a server that
//!   fails, limits, or rejects all it issues.
//! - *The caller's answer*: a request that can't be healed gets the server's own response, unread, with the reason, a
//!   [`TokenError`], in its extensions.
//! - *Durable before visible*: a rotated refresh token is saved before its access token is used.
//! - *Tokens stay home*: only https, or this machine; only the [`Origins`] allowed; never in a log, an error or `Debug`.
//! - *Bounded*: answers, buffers, waits and retries have limits, with defaults and names.
//!
//! What no client can promise: a server that takes each refresh token once may answer, and the answer may be lost on the
//! way. Then the session is lost with it, unless the server grants some grace. The same refresh token is sent again at once,
//! since that is the only chance; if it fails, the error says that a rotation was interrupted, and when. The documentation
//! of [`store`] has all the windows in which a session can be lost, and what you can do about them.
//!
//! # Features
//!
//! | Feature | Default | What for |
//! |---|---|---|
//! | `reqwest` | yes | the default transport of token requests, over rustls: `OAuthClient::new` and the presets' `build` |
//! | `file-store` | no | `FileStore`: a session that the processes of one machine share, and that survives them |
//! | `redis-store` | no | `RedisStore`: a session that processes on many hosts share |
//! | `testing` | no | an authorization server and a protected API as in-memory services, with faults to order |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
mod cache;
mod challenge;
mod clock;
mod error;
mod freshness;
mod middleware;
mod oauth;
mod origins;
pub mod provider;
mod schedule;
mod source;
mod store;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod token;
mod token_source;

#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use self::oauth::{ReqwestFuture, ReqwestTransport};
#[cfg(feature = "file-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "file-store")))]
pub use self::store::{FileLease, FileStore};
#[cfg(feature = "redis-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis-store")))]
pub use self::store::{RedisLease, RedisStore};
pub use self::{
    body::{PEEK_LIMIT, Peek, PeekBody, REPLAY_LIMIT, ReplayBody, ReplayError},
    cache::{CacheStatus, TokenCache, TokenCacheBuilder, TokenState},
    challenge::{BearerChallenge, ClassifyRejection, ResponseHead, Verdict},
    clock::Clock,
    error::{TokenError, TokenErrorKind},
    middleware::{
        AddToken, AddTokenFuture, AddTokenLayer, BearerAuth, BearerAuthFuture, BearerAuthLayer,
        Drain, InspectBody, InspectBodyFuture, InspectBodyLayer, InspectFn, RefreshOnReject,
        RejectOnTrailers, RejectOnTrailersBody, RejectOnTrailersFuture, RejectOnTrailersLayer,
        Renewed,
    },
    oauth::{BodyFormat, ClientAuth, OAuthClient},
    origins::Origins,
    schedule::Schedule,
    source::{ExchangeTokenSource, RefreshTokenSource},
    store::{Identity, MemoryLease, MemoryStore, StoreLease, StoredSession, TokenStore},
    token::Token,
    token_source::{SourceFn, TokenContext, TokenSource, source_fn},
};
