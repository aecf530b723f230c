//! One Tower layer that keeps a session with an OAuth-style API alive.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod authorize;
pub mod body;
pub mod cache;
pub mod clock;
pub mod endpoint;
pub mod error;
pub mod layer;
pub mod provider;
pub mod retry;
pub mod service;
pub mod source;
pub mod store;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
pub mod token;

pub use authorize::{Authorize, AuthorizeLayer, Origins};
pub use body::ReplayBody;
pub use cache::{CacheStatus, Schedule, TokenCache, TokenState};
pub use clock::Clock;
#[cfg(feature = "reqwest")]
pub use endpoint::ReqwestTransport;
pub use endpoint::{BodyFormat, ClientAuth, TokenEndpoint};
pub use error::{TokenError, TokenErrorKind};
pub use layer::BearerAuthLayer;
pub use retry::{BearerChallenge, ClassifyResponse, RefreshOnReject, ResponseHead, Verdict};
pub use service::BearerAuth;
pub use source::{ExchangeTokenSource, RefreshTokenSource, TokenRequest, TokenSource, source_fn};
#[cfg(feature = "file-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "file-store")))]
pub use store::FileStore;
#[cfg(feature = "redis-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis-store")))]
pub use store::RedisStore;
pub use store::{MemoryStore, Session, StoreLease, TokenStore};
pub use token::Token;
