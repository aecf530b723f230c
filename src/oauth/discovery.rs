//! Discovery: the endpoints of an authorization server, from the document that it publishes (RFC 8414), and the authorization
//! servers of an API, from its own (RFC 9728).

mod client;
mod issuer;
#[cfg(feature = "login")]
mod login;
mod metadata;
mod read;
mod resource;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::StatusCode;
use tokio::time::Instant;

use self::issuer::Issuer;
#[cfg(feature = "login")]
pub(super) use self::login::LoginMetadata;
pub(super) use self::metadata::Metadata;
pub use self::resource::ProtectedResource;
use super::{EndpointUrl, settings::Settings, transport::was_not_sent};
use crate::{
    clock::Clock,
    error::{TokenError, TokenErrorKind},
};

/// The least time between two reads of a document whose endpoint has disappeared.
const REREAD_INTERVAL: Duration = Duration::from_secs(60);

/// The metadata of an issuer, as far as they are known.
pub(super) struct Discovery {
    issuer: Issuer,
    known: Mutex<Known>,
    /// Held by the one that reads the document.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    metadata: Option<Arc<Metadata>>,
    /// An endpoint has disappeared since they were read.
    is_stale: bool,
    /// How often the document was read, successfully or not.
    reads: u64,
    last_read: Option<Instant>,
    /// Why the last read failed.
    error: Option<TokenError>,
}

impl Discovery {
    fn new(issuer: Issuer) -> Self {
        Self {
            issuer,
            known: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn issuer(&self) -> &str {
        self.issuer.as_str()
    }

    pub(super) fn host(&self) -> &str {
        self.issuer.url().host()
    }

    pub(super) fn is_https(&self) -> bool {
        self.issuer.url().is_https()
    }

    pub(super) fn known(&self) -> Option<Arc<Metadata>> {
        self.lock().metadata.clone()
    }

    /// The metadata. Reads the document if it was never read.
    pub(super) async fn metadata(
        &self,
        settings: &Settings,
        clock: &Clock,
    ) -> Result<Arc<Metadata>, TokenError> {
        match self.known() {
            Some(metadata) => Ok(metadata),
            None => self.refreshed(settings, clock).await,
        }
    }

    /// The metadata. Reads the document if it was never read, or if an endpoint has disappeared since.
    async fn refreshed(
        &self,
        settings: &Settings,
        clock: &Clock,
    ) -> Result<Arc<Metadata>, TokenError> {
        let before = match self.lock().current() {
            Ok(metadata) => return Ok(metadata),
            Err(reads) => reads,
        };
        let _reading = self.reading.lock().await;
        if let Some(result) = self.lock().read_since(before) {
            return result;
        }
        let read = read::document(&self.issuer, settings, clock).await;
        self.lock().record(read)
    }

    /// Remembers that the endpoint at `url` has disappeared, if `error` says so.
    fn note(&self, url: &EndpointUrl, error: &TokenError) {
        let mut known = self.lock();
        if has_disappeared(error)
            && known
                .metadata
                .as_ref()
                .is_some_and(|metadata| metadata.has_endpoint(url))
        {
            known.is_stale = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The metadata if they need not be read, or else how often they were read.
    fn current(&self) -> Result<Arc<Metadata>, u64> {
        let is_due = |last: Instant| last + REREAD_INTERVAL <= Instant::now();
        match &self.metadata {
            Some(metadata) if !self.is_stale || !self.last_read.is_some_and(is_due) => {
                Ok(Arc::clone(metadata))
            }
            _ => Err(self.reads),
        }
    }

    /// The result of a read that ended after there had been `before` of them.
    fn read_since(&self, before: u64) -> Option<Result<Arc<Metadata>, TokenError>> {
        (self.reads != before).then(|| self.result())?
    }

    fn result(&self) -> Option<Result<Arc<Metadata>, TokenError>> {
        let known = self.metadata.clone().map(Ok);
        known.or_else(|| self.error.clone().map(Err))
    }

    fn record(&mut self, read: Result<Metadata, TokenError>) -> Result<Arc<Metadata>, TokenError> {
        self.reads += 1;
        self.last_read = Some(Instant::now());
        match read {
            Ok(metadata) => {
                self.is_stale = false;
                self.error = None;
                Ok(Arc::clone(self.metadata.insert(Arc::new(metadata))))
            }
            Err(error) => {
                self.error = Some(error.clone());
                let Some(metadata) = &self.metadata else {
                    return Err(error);
                };
                tracing::warn!(%error, "the server's metadata were not read again, the known endpoints stay in use");
                Ok(Arc::clone(metadata))
            }
        }
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("issuer", self.issuer.url())
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Compares the failure of a request to `url` with the metadata: has the endpoint moved, is the method of the client
    /// authentication a supported one?
    pub(super) fn explain_by_metadata(&self, url: &EndpointUrl, error: TokenError) -> TokenError {
        let Some(discovery) = self.endpoints.discovery() else {
            return error;
        };
        discovery.note(url, &error);
        let supported = self
            .known_metadata()
            .filter(|_| error.kind() == TokenErrorKind::InvalidClient)
            .and_then(|metadata| metadata.other_methods_than(self.client_auth.name()));
        match supported {
            Some(methods) => error.with_more(&format!(
                "the client sent `{}`, and the server's metadata name {methods}",
                self.client_auth.name()
            )),
            None => error,
        }
    }
}

/// Whether an endpoint is no longer where it was: it is not found, redirects, or its host takes no connection.
fn has_disappeared(error: &TokenError) -> bool {
    let is_gone = |status: StatusCode| {
        status.is_redirection()
            || matches!(
                status,
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE
            )
    };
    match error.status() {
        Some(status) => is_gone(status) && error.oauth_code().is_none(),
        None => error.kind() == TokenErrorKind::Transport && was_not_sent(error),
    }
}
