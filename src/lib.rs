//! One Tower layer that keeps a session with an OAuth-style API alive. It obtains tokens, adds them to requests, refreshes
//! them before they expire, and when the API rejects one, obtains another and sends the request again. The caller sees an
//! ordinary [`tower::Service`].
//!
//! # The first request
//!
//! Say where tokens come from and where they may go, and put [`BearerAuthLayer`] around the service that sends your requests:
//!
#![cfg_attr(feature = "reqwest", doc = "```no_run")]
#![cfg_attr(not(feature = "reqwest"), doc = "```ignore")]
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tower::{BoxError, ServiceBuilder, ServiceExt};
//! use tower_bearer::{
//!     BearerAuthLayer, ClientAuth, ClientCredentialsSource, OAuthClient, Origins,
//!     ReqwestTransport,
//! };
//!
//! # #[tokio::main] async fn main() -> Result<(), BoxError> {
//! let oauth = OAuthClient::new("https://login.example.com/token")?
//!     .client_auth(ClientAuth::client_secret_basic("my-service", "my-secret"));
//! let source = ClientCredentialsSource::new(oauth)
//!     .scope("invoices:read")
//!     .origins(Origins::only(["https://api.example.com"])?);
//!
//! let client = ServiceBuilder::new()
//!     .layer(BearerAuthLayer::new(source))
//!     .service(ReqwestTransport::new()?); // or hyper's client, or any other
//!
//! let request = Request::get("https://api.example.com/invoices");
//! let request = request.body(Full::<Bytes>::default())?;
//! let response = client.oneshot(request).await?;
//! # drop(response);
//! # Ok(()) }
//! ```
//!
//! # Tasks
//!
//! | To | Read |
//! |---|---|
//! | act as a program, without a user | [`ClientCredentialsSource`], [`ClientAuth`] |
//! | go on with the session of a user | [`RefreshTokenSource`]; if refresh tokens rotate, with a [`TokenStore`] |
//! | use Winbooks, 2BA or Xoxoday | [`provider`] |
//! | use another grant: an exchange token, an assertion, the token of a user for another API | [`ExchangeTokenSource`], [`JwtBearerSource`], [`TokenExchangeSource`], or a [`Grant`] of your own |
//! | get tokens from something else, such as a sidecar | [`source_fn`], or [`TokenSource`] for a type of your own |
//! | send requests with reqwest alone | `send_with` of `RequestBuilderExt`; with the crate `reqwest-middleware`, the feature of that name |
//! | set a header or metadata where nothing can wait | [`TokenCache::try_token`] |
//! | share a session between several clients | [`TokenCache`], and layers [from](BearerAuthLayer::from) it |
//! | survive restarts, share a session between processes and hosts | [`TokenStore`] and its implementations |
//! | have a session for each of many users | `Sessions` and `BearerAuthLayer::keyed`, with the feature `sessions` |
//! | let a person log in, in a browser or with a code on another device | the module `login`, with the feature of that name |
//! | obtain more permission when an API asks for it | [`TokenCacheBuilder::step_up`] with a [`StepUp`] |
//! | read which authorization servers an API names | [`ProtectedResource`], with a list of those that you know |
//! | go on with a new login, log out | [`TokenCache::login`], [`TokenCache::revoke`] |
//! | operate a service: health, metrics, log lines and alerts | [`events`], [`TokenCache::status`] |
//! | know why a request failed | [`TokenError`] |
//! | decide when tokens are refreshed | [`Schedule`] |
//! | decide where tokens may go | [`Origins`] |
//! | recognize rejections that are no 401 | [`ClassifyRejection`], [`InspectBodyLayer`], [`RejectOnTrailersLayer`] |
//! | decide which requests are sent again | [`BearerAuthLayer::replay_limit`], [`BearerAuthLayer::replay_only_idempotent`], [`RefreshOnReject`] |
//! | test all of that | the servers of the module `testing`, with the feature of that name |
//!
//! The README has recipes for reqwest, tonic and axum, and what to do if a stack does not compile.
//! [`guide::comparison`] compares this crate with others, some of which do what this one does not. [`guide::secrets`] says
//! which copies of secrets there are.
//!
//! # What happens when a token is rejected
//!
//! ```
//! use std::time::Duration;
//! use http::{Request, Response, StatusCode};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_bearer::{BearerAuthLayer, ReplayBody, Token, source_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), tower::BoxError> {
//! // Anything that yields tokens.
//! let source = source_fn(|cx| async move {
//!     let secret = if cx.rejected_token().is_some() { "second" } else { "first" };
//!     Ok(Token::new(secret)?.expires_in(Duration::from_secs(900)))
//! });
//!
//! // An API that has revoked the first token.
//! let api = service_fn(|request: Request<ReplayBody<String>>| async move {
//!     let revoked = request.headers()["authorization"] == "Bearer first";
//!     let status = if revoked { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
//!     Response::builder().status(status).body(String::new())
//! });
//!
//! let mut client = ServiceBuilder::new().layer(BearerAuthLayer::new(source)).service(api);
//!
//! let request = Request::post("https://api.example.com/orders");
//! let request = request.body(String::from("one of each"))?;
//! let response = client.ready().await?.call(request).await?;
//! assert_eq!(response.status(), StatusCode::OK); // rejected, refreshed, sent again
//! # Ok(()) }
//! ```
//!
//! Three parts of the layer are also useful alone: [`AddTokenLayer`] adds the token and never sends a request again,
//! [`RefreshOnReject`] is a [`tower::retry::Policy`], and [`ReplayBody`] makes any body replayable up to a limit.
//!
//! # What it promises
//!
//! - *One refresh*: however many requests need a token, one refresh runs, and no caller can cancel it.
//! - *Late rejections*: a rejection of an old token does not affect the new one.
//! - *Failing refreshes*: while the current token is usable, a failing refresh disturbs no request. A server that fails,
//!   limits, or rejects everything that it issues gets few requests, further and further apart.
//! - *The caller's answer*: if a rejected request cannot be sent again, the caller gets the server's own response, unread,
//!   with the reason, a [`TokenError`], in its extensions.
//! - *Saved before used*: a rotated refresh token is saved before its access token is used.
//! - *Where tokens go*: over https or to this machine, and only to the allowed [`Origins`]. Never to logs, errors or
//!   `Debug`.
//! - *Bounded*: responses, buffers, waits and retries have limits, each with a name and a default.
//!
//! What no client can promise: a server that accepts each refresh token once may answer, and the answer may be lost on the
//! way. Then the session is lost too, unless the server accepts the old token for some time longer. The same refresh token
//! is sent again at once, because that is the only chance. If that fails, the error says that a rotation was interrupted,
//! and when. The documentation of [`TokenStore`] lists all cases in which a session can be lost, and what you can do about
//! them.
//!
//! # Main items
//!
//! | For | Items |
//! |---|---|
//! | requests | [`BearerAuthLayer`], [`AddTokenLayer`], [`WithoutToken`], [`Origins`] |
//! | requests of reqwest, with the feature `reqwest` | `RequestBuilderExt`, `SendError`, `ReqwestTransport` |
//! | rejections | [`ClassifyRejection`], [`StandardRejections`], [`ResponseHead`], [`Verdict`], [`InspectBodyLayer`], [`RejectOnTrailersLayer`] |
//! | more permission | [`Challenge`], [`StepUp`], [`ProtectedResource`] |
//! | sending again | [`RefreshOnReject`], [`TokenRejected`], [`ReplayBody`], [`ReplayError`], [`PeekBody`] |
//! | a session in memory | [`TokenCache`], [`CacheStatus`], [`TokenState`], [`Schedule`], [`Token`] |
//! | a session for each key, with the feature `sessions` | `Sessions`, `SessionKey` |
//! | what happens to a session | [`events::Observer`], [`events::Event`] |
//! | sources of tokens | [`TokenSource`], [`TokenContext`], [`source_fn`], [`BoxTokenSource`] |
//! | grants | [`ClientCredentialsSource`], [`RefreshTokenSource`], [`ExchangeTokenSource`], [`JwtBearerSource`], [`TokenExchangeSource`], [`LegacyPasswordSource`], [`SecurityToken`], [`GrantSource`], [`Grant`] |
//! | the token endpoint | [`OAuthClient`], [`ClientAuth`], [`BodyFormat`], [`Parameters`], [`DeadGrant`] |
//! | logins of people, with the feature `login` | `AuthorizationCode`, `PendingLogin`, `BrowserLogin`, `LoginPrompt`, `DeviceCode`, `PendingDeviceLogin` in `login` |
//! | stores | [`TokenStore`], [`StoreLease`], [`StoredSession`], [`Identity`], [`MemoryStore`], [`BoxTokenStore`], with features `FileStore`, `RedisStore`, `PostgresStore`, `SqliteStore` and `EncryptedStore` |
//! | errors | [`TokenError`], [`TokenErrorKind`] |
//!
//! # Features
//!
//! | Feature | Default | What for |
//! |---|---|---|
//! | `reqwest` | yes | the default transport of token requests, over rustls: `OAuthClient::new` and the presets' `build`; and `RequestBuilderExt::send_with` for requests of reqwest |
//! | `reqwest-middleware` | no | `BearerAuthLayer` as a middleware of the crate `reqwest-middleware` |
//! | `file-store` | no | `FileStore`: a session that the processes of one machine share, and that survives them |
//! | `redis-store` | no | `RedisStore`: a session that processes on many hosts share |
//! | `postgres-store` | no | `PostgresStore`: a session that processes on many hosts share. Needs Rust 1.94 |
//! | `sqlite-store` | no | `SqliteStore`: a session that the processes of one machine share. Needs Rust 1.94 and a C compiler |
//! | `sessions` | no | `Sessions` and `BearerAuthLayer::keyed`: a session for each user or tenant, in bounded memory |
//! | `encrypted-store` | no | `EncryptedStore`: any store, which has sessions only encrypted |
//! | `jwt` | no | signed assertions: `ClientAuth::private_key_jwt`, `JwtAssertion`, and `SigningKey` |
//! | `login` | no | the module `login`: first logins of people, in a browser or with a code on another device |
//! | `metrics` | no | `TokenCacheBuilder::metrics`: counters, gauges and histograms, for Prometheus and others |
//! | `testing` | no | an authorization server and a protected API as in-memory services, with faults to order |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
mod cache;
mod challenge;
mod clock;
mod error;
pub mod events;
mod freshness;
mod grant;
#[cfg(doc)]
pub mod guide;
mod host;
mod http_url;
#[cfg(feature = "login")]
#[cfg_attr(docsrs, doc(cfg(feature = "login")))]
pub mod login;
mod middleware;
mod oauth;
mod origins;
pub mod provider;
mod race;
mod schedule;
mod secret_file;
#[cfg(feature = "sessions")]
mod sessions;
mod source;
mod store;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod token;
mod token_source;
mod zeroize;

#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub use self::oauth::{JwtAlgorithm, JwtAssertion, JwtSigner, SigningKey};
#[cfg(feature = "postgres-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres-store")))]
pub use self::store::PostgresStore;
#[cfg(feature = "sqlite-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite-store")))]
pub use self::store::SqliteStore;
#[cfg(feature = "encrypted-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "encrypted-store")))]
pub use self::store::{EncryptedLease, EncryptedStore, EncryptionKey};
#[cfg(feature = "file-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "file-store")))]
pub use self::store::{FileLease, FileStore};
#[cfg(feature = "redis-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis-store")))]
pub use self::store::{RedisLease, RedisStore};
#[cfg(any(feature = "postgres-store", feature = "sqlite-store"))]
#[cfg_attr(
    docsrs,
    doc(cfg(any(feature = "postgres-store", feature = "sqlite-store")))
)]
pub use self::store::{SqlLease, SqlStore};
pub use self::{
    body::{PEEK_LIMIT, Peek, PeekBody, REPLAY_LIMIT, ReplayBody, ReplayError},
    cache::{CacheStatus, TokenCache, TokenCacheBuilder, TokenState},
    challenge::{Challenge, ClassifyRejection, ResponseHead, StandardRejections, StepUp, Verdict},
    error::{TokenError, TokenErrorKind},
    grant::{
        ClientCredentials, ExchangeTokenGrant, Grant, GrantContext, JwtBearer, LegacyPassword,
        RefreshTokenGrant, SecurityToken, TokenExchange,
    },
    middleware::{
        AddToken, AddTokenFuture, AddTokenLayer, BearerAuth, BearerAuthFuture, BearerAuthLayer,
        InspectBody, InspectBodyFuture, InspectBodyLayer, InspectFn, RefreshOnReject,
        RefreshOnRejectFuture, RejectOnTrailers, RejectOnTrailersBody, RejectOnTrailersFuture,
        RejectOnTrailersLayer, TokenRejected, WithoutToken,
    },
    oauth::{
        AuthParts, BodyFormat, ClientAuth, ClientAuthContext, ClientSecret, DeadGrant, OAuthClient,
        Parameters, ProtectedResource,
    },
    origins::Origins,
    schedule::Schedule,
    source::{
        ClientCredentialsSource, ExchangeTokenSource, GrantSource, JwtBearerSource,
        LegacyPasswordSource, RefreshTokenSource, TokenExchangeSource,
    },
    store::{
        BoxStoreLease, BoxTokenStore, Identity, MemoryLease, MemoryStore, StoreLease,
        StoredSession, TokenStore,
    },
    token::Token,
    token_source::{BoxTokenSource, SourceFn, TokenContext, TokenSource, source_fn},
};
#[cfg(feature = "sessions")]
#[cfg_attr(docsrs, doc(cfg(feature = "sessions")))]
pub use self::{
    middleware::{KeyedBearerAuthFuture, KeyedSessions, SessionKey},
    sessions::{Sessions, SessionsBuilder},
};
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use self::{
    middleware::{RequestBuilderExt, SendError},
    oauth::{ReqwestFuture, ReqwestTransport},
};
