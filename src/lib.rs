//! One Tower layer that keeps a session with an OAuth-style API alive. It obtains tokens, adds them to requests, refreshes
//! them before they expire, and when the API rejects one, obtains another and sends the request again. The caller sees an
//! ordinary [`tower::Service`].
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
//! // Anything that yields tokens. There are sources for refresh and exchange tokens, and presets for vendors.
//! let source = source_fn(|cx| async move {
//!     let secret = if cx.rejected_token().is_some() { "second" } else { "first" };
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
//! assert_eq!(response.status(), StatusCode::OK); // rejected, refreshed, sent again
//! # Ok(()) }
//! ```
//!
//! | You have | Use |
//! |---|---|
//! | an account at Winbooks, 2BA or Xoxoday | a preset of [`provider`] |
//! | a program that acts for itself | [`ClientCredentialsSource`] with an [`OAuthClient`] |
//! | a person who must log in | the module `login`, with the feature of that name |
//! | a refresh token and a token endpoint | [`RefreshTokenSource`] with an [`OAuthClient`] |
//! | a long-lived token to exchange | [`ExchangeTokenSource`] |
//! | a key, or a file with an assertion | [`JwtBearerSource`] with a [`SecurityToken`] |
//! | the token of a user, for another API | [`TokenExchangeSource`] |
//! | something else that yields tokens | [`source_fn`], or [`TokenSource`] for a type of your own |
//! | several uses of one session | a [`TokenCache`], and layers [from](BearerAuthLayer::from) it |
//! | a session for each of many users | `Sessions`, and `BearerAuthLayer::keyed`, with the feature `sessions` |
//! | a refresh token that rotates | a [`TokenStore`], so that a restart does not lose it |
//! | tests to write | the servers of the module `testing`, with the feature of that name |
//!
//! Three parts of the layer are also useful alone: [`AddTokenLayer`] adds the token and never sends a request again,
//! [`RefreshOnReject`] is a [`tower::retry::Policy`], and [`ReplayBody`] makes any body replayable up to a limit.
//!
//! # All items
//!
//! | For | Items |
//! |---|---|
//! | requests | [`BearerAuthLayer`], [`AddTokenLayer`], [`WithoutToken`], [`Origins`] |
//! | rejections | [`ClassifyRejection`], [`BearerChallenge`], [`ResponseHead`], [`Verdict`], [`InspectBodyLayer`], [`RejectOnTrailersLayer`] |
//! | sending again | [`RefreshOnReject`], [`TokenRejected`], [`ReplayBody`], [`ReplayError`], [`PeekBody`] |
//! | a session in memory | [`TokenCache`], [`CacheStatus`], [`TokenState`], [`Schedule`], [`Token`] |
//! | a session for each key, with the feature `sessions` | `Sessions`, `SessionKey` |
//! | sources of tokens | [`TokenSource`], [`TokenContext`], [`source_fn`], [`BoxTokenSource`] |
//! | grants | [`ClientCredentialsSource`], [`RefreshTokenSource`], [`ExchangeTokenSource`], [`JwtBearerSource`], [`TokenExchangeSource`], [`LegacyPasswordSource`], [`SecurityToken`], [`GrantSource`], [`Grant`] |
//! | the token endpoint | [`OAuthClient`], [`ClientAuth`], [`BodyFormat`], [`Parameters`], [`DeadGrant`] |
//! | logins of people, with the feature `login` | `AuthorizationCode`, `PendingLogin`, `BrowserLogin`, `LoginPrompt`, `DeviceCode`, `PendingDeviceLogin` in `login` |
//! | stores | [`TokenStore`], [`StoreLease`], [`StoredSession`], [`Identity`], [`MemoryStore`], [`BoxTokenStore`], with features `FileStore`, `RedisStore`, `PostgresStore`, `SqliteStore` and `EncryptedStore` |
//! | errors | [`TokenError`], [`TokenErrorKind`] |
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
//! # The way of a request
//!
//! For readers of the source: the files that a request passes. Each is named where the request first reaches it. Derived
//! code is left out.
//!
//! A fresh token:
//!
//! | File | What happens |
//! |---|---|
//! | `middleware/bearer/service.rs` | `BearerAuth::call`: has the caller set an `Authorization`, or opted out? |
//! | `origins.rs` | may the token go to this origin? |
//! | `body/replay/body.rs` | the body becomes replayable; one that is not empty also in `body/replay/shared.rs` |
//! | `middleware/bearer/attempt.rs` | `Retry` asks the policy for a snapshot of the head |
//! | `middleware/bearer/send.rs` | `SendWithToken::call` |
//! | `middleware/sending.rs` | adds the token and calls the inner service |
//! | `cache/token_cache.rs` | reads the published token without a lock |
//! | `cache/issued.rs` | its deadlines, and the header value of this thread |
//! | `freshness.rs`, `clock.rs` | fresh, due or expired? |
//! | `challenge/classify.rs` | does the response reject the token? |
//!
//! An expired token, from `cache/token_cache.rs` on:
//!
//! | File | What happens |
//! |---|---|
//! | `cache/shared.rs`, `cache/effects.rs` | takes the lock, makes one transition, and does afterwards what it leaves to be done |
//! | `cache/state.rs` | starts a refresh, or joins the running one |
//! | `cache/throttle.rs` | may it start? |
//! | `cache/lookup.rs`, `cache/waiter.rs` | the request waits |
//! | `cache/refresh_task.rs`, `token_source/boxed.rs` | meanwhile, a task calls the source |
//! | `middleware/sending.rs` | adds the new token and calls the inner service |
//!
//! A rejected token, from `challenge/classify.rs` on, which uses `challenge/parser.rs`:
//!
//! | File | What happens |
//! |---|---|
//! | `middleware/bearer/send.rs` | holds the response, and reports the rejection to the cache: as above, from `cache/shared.rs` on |
//! | `middleware/bearer/replay.rs`, `middleware/retry.rs` | can the request be sent again? |
//! | `cache/waiter.rs` | waits for the new token |
//! | `middleware/bearer/attempt.rs` | the policy puts token and body into the snapshot, and takes the response |
//! | `middleware/drain.rs` | reads the rest of the response |
//! | `middleware/bearer/send.rs` | `Retry` sends the snapshot, once more, as in the first table |
//!
//! # Features
//!
//! | Feature | Default | What for |
//! |---|---|---|
//! | `reqwest` | yes | the default transport of token requests, over rustls: `OAuthClient::new` and the presets' `build` |
//! | `file-store` | no | `FileStore`: a session that the processes of one machine share, and that survives them |
//! | `redis-store` | no | `RedisStore`: a session that processes on many hosts share |
//! | `postgres-store` | no | `PostgresStore`: a session that processes on many hosts share. Needs Rust 1.94 |
//! | `sqlite-store` | no | `SqliteStore`: a session that the processes of one machine share. Needs Rust 1.94 and a C compiler |
//! | `sessions` | no | `Sessions` and `BearerAuthLayer::keyed`: a session for each user or tenant, in bounded memory |
//! | `encrypted-store` | no | `EncryptedStore`: any store, which has sessions only encrypted |
//! | `jwt` | no | signed assertions: `ClientAuth::private_key_jwt`, `JwtAssertion`, and `SigningKey` |
//! | `login` | no | the module `login`: first logins of people, in a browser or with a code on another device |
//! | `testing` | no | an authorization server and a protected API as in-memory services, with faults to order |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
mod cache;
mod challenge;
mod clock;
mod error;
mod freshness;
mod grant;
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
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use self::oauth::{ReqwestFuture, ReqwestTransport};
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
    challenge::{BearerChallenge, ClassifyRejection, ResponseHead, Verdict},
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
        Parameters,
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
