//! The flight: one call of the source, in a task of its own.
//!
//! A refresh must not die with the caller who happened to need it first: an aborted request would lose a rotated
//! refresh token that the server has already put in force. So callers only ever wait for a [`watch`], and the task that
//! answers it belongs to nobody. Its [`Landed`] guard answers also when the task doesn't come to its end.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, time};

use super::{
    issued::{Issued, Lookup},
    state::{Shared, interrupted},
};
use crate::{
    clock::Now,
    error::{TokenError, TokenErrorKind},
    source::{TokenRequest, TokenSource},
    token::Token,
};

type Outcome = Result<Arc<Issued>, TokenError>;
type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How often a caller boards again whose flight was lost with its runtime.
const BOARDINGS: u32 = 3;

/// A source whose type is erased: a refresh may box, a request may not.
pub(super) trait DynSource: Send + Sync {
    fn token(&self, request: TokenRequest) -> BoxFuture<'_, Result<Token, TokenError>>;
    fn mended(&self) -> BoxFuture<'_, bool>;
}

impl<T: TokenSource> DynSource for T {
    fn token(&self, request: TokenRequest) -> BoxFuture<'_, Result<Token, TokenError>> {
        Box::pin(TokenSource::token(self, request))
    }

    fn mended(&self) -> BoxFuture<'_, bool> {
        Box::pin(TokenSource::mended(self))
    }
}

/// A flight under way, as the cache knows it.
pub(super) struct Flight {
    outcome: watch::Receiver<Option<Outcome>>,
    /// The failure that is being looked into. Nobody waits for that.
    probing: Option<TokenError>,
}

/// How a flight ended.
pub(super) struct Landing {
    pub(super) outcome: Result<Token, TokenError>,
    /// Both clocks, from before the source was asked.
    pub(super) asked: Now,
}

impl Flight {
    /// A flight that will call the source after `delay`; if it is a `probe`, only if the source has been mended since.
    pub(super) fn prepare(
        shared: &Arc<Shared>,
        delay: Duration,
        request: TokenRequest,
        probe: Option<TokenError>,
    ) -> Result<(Self, Departure), TokenError> {
        let runtime = Handle::try_current().map_err(|error| {
            let message = "tokens are fetched in a task, so a Tokio runtime is needed here";
            TokenError::new(TokenErrorKind::Config, message).with_source(error)
        })?;
        let (sender, outcome) = watch::channel(None);
        let landed = Landed {
            shared: Arc::clone(shared),
            sender: Some(sender),
        };
        let flight = Self {
            outcome,
            probing: probe.clone(),
        };
        let departure = Departure {
            runtime,
            landed,
            delay,
            request,
            probe,
        };
        Ok((flight, departure))
    }

    pub(super) fn board(&self) -> Boarding {
        match &self.probing {
            Some(error) => Boarding::Failed(error.clone()),
            None => Boarding::Flight(self.outcome.clone()),
        }
    }
}

/// A flight that is ready to take off.
pub(super) struct Departure {
    runtime: Handle,
    landed: Landed,
    delay: Duration,
    request: TokenRequest,
    probe: Option<TokenError>,
}

impl Departure {
    pub(super) fn take_off(self) {
        let flight = fly(self.landed, self.delay, self.request, self.probe);
        self.runtime.spawn(flight);
    }
}

/// What becomes of somebody who needs a token.
pub(super) enum Boarding {
    Here(Arc<Issued>),
    Flight(watch::Receiver<Option<Outcome>>),
    Failed(TokenError),
}

impl Boarding {
    pub(super) fn lookup(self, shared: &Arc<Shared>) -> Lookup {
        match self {
            Self::Here(issued) => Lookup::Ready(issued),
            Self::Flight(outcome) => Lookup::Wait(Wait::new(Arc::clone(shared), outcome)),
            Self::Failed(error) => Lookup::Failed(error),
        }
    }
}

async fn fly(landed: Landed, delay: Duration, request: TokenRequest, probe: Option<TokenError>) {
    if !delay.is_zero() {
        time::sleep(delay).await;
    }
    let shared = &landed.shared;
    let limit = shared.settings.attempt_limit;
    let asked = shared.now();
    let attempt = async {
        match probe {
            Some(error) if !shared.source.mended().await => Err(error),
            _ => shared.source.token(request).await,
        }
    };
    let outcome = time::timeout(limit, attempt).await.unwrap_or_else(|_| {
        let message = format!("the source took longer than {limit:?} and was given up");
        Err(TokenError::new(TokenErrorKind::Timeout, message))
    });
    landed.with(Landing { outcome, asked });
}

/// Sees to it that a flight ends for all, however it ends.
struct Landed {
    shared: Arc<Shared>,
    sender: Option<watch::Sender<Option<Outcome>>>,
}

impl Landed {
    fn with(mut self, landing: Landing) {
        self.land(landing);
    }

    fn land(&mut self, landing: Landing) {
        if let Some(sender) = self.sender.take() {
            match &landing.outcome {
                Ok(_) => tracing::debug!("a new token"),
                Err(error) => tracing::warn!(%error, "no new token"),
            }
            let outcome = self.shared.land(landing);
            // Before this is sent the new token is already there, so nobody who is woken finds the old state.
            sender.send_replace(Some(outcome));
        }
    }
}

impl Drop for Landed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let outcome = Err(interrupted("the token source panicked"));
            let asked = self.shared.now();
            self.land(Landing { outcome, asked });
        } else if let Some(sender) = self.sender.take() {
            self.shared.lost();
            drop(sender);
        }
    }
}

/// Waits for the flight that is under way; resolves for everybody with the same result.
pub(crate) struct Wait {
    inner: BoxFuture<'static, Outcome>,
}

impl Wait {
    fn new(shared: Arc<Shared>, mut flight: watch::Receiver<Option<Outcome>>) -> Self {
        let limit = shared.settings.max_wait;
        let boarding = async move {
            for _ in 0..BOARDINGS {
                let landed = flight
                    .wait_for(Option::is_some)
                    .await
                    .ok()
                    .and_then(|o| o.clone());
                if let Some(landed) = landed {
                    return landed;
                }
                // The flight was lost with its runtime. This caller's still runs, so the next can start here.
                match shared.board() {
                    Boarding::Here(issued) => return Ok(issued),
                    Boarding::Flight(next) => flight = next,
                    Boarding::Failed(error) => return Err(error),
                }
            }
            Err(interrupted(
                "the runtime that was to fetch the token shut down",
            ))
        };
        let inner = Box::pin(async move {
            time::timeout(limit, boarding).await.unwrap_or_else(|_| {
                let message = format!("waited {limit:?} for a token, and it is not here yet");
                Err(TokenError::new(TokenErrorKind::Timeout, message))
            })
        });
        Self { inner }
    }
}

impl Future for Wait {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.inner.as_mut().poll(cx)
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wait")
    }
}
