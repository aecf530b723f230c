//! The flight: one call of the source, in a task of its own.
//!
//! A refresh must not die with the caller who happened to need it first: an aborted request would lose a rotated
//! refresh token that the server has already put in force. So callers only ever wait for its [`Arrival`], and the task
//! that tells of it belongs to nobody. Its [`Pilot`] guard tells also when the task doesn't come to its end.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    time::{self, Instant},
};

use super::{
    issued::{Generation, Issued, Lookup},
    state::{Shared, interrupted},
    wait::{Arrival, Wait},
};
use crate::{
    clock::Now,
    error::{TokenError, TokenErrorKind},
    token::Token,
    token_source::{TokenContext, TokenSource},
};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A source whose type is erased: a refresh may box, a request may not.
pub(super) trait DynSource: Send + Sync {
    fn token(&self, request: TokenContext) -> BoxFuture<'_, Result<Token, TokenError>>;
    fn has_changed(&self) -> BoxFuture<'_, bool>;
}

impl<T: TokenSource> DynSource for T {
    fn token(&self, request: TokenContext) -> BoxFuture<'_, Result<Token, TokenError>> {
        Box::pin(TokenSource::token(self, request))
    }

    fn has_changed(&self) -> BoxFuture<'_, bool> {
        Box::pin(TokenSource::has_changed(self))
    }
}

/// A flight under way, as the cache knows it.
pub(super) struct Flight {
    arrival: Arc<Arrival>,
    /// The failure that is being looked into. Nobody waits for that.
    probing: Option<TokenError>,
    pub(super) numbers: Numbers,
}

/// What tells one flight from another.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    pub(super) id: u64,
    /// The resets before it.
    pub(super) epoch: u32,
    /// When it is no longer believed in.
    pub(super) lost_at: Instant,
}

/// How a flight ended.
pub(super) struct Landing {
    pub(super) id: u64,
    pub(super) outcome: Outcome,
}

pub(super) enum Outcome {
    Token {
        token: Token,
        /// Both clocks, from before the source was asked.
        asked: Now,
    },
    Failed(TokenError),
    /// The source was only asked whether it has been has_changed since it failed like this, and it has not.
    NotMended(TokenError),
}

impl Flight {
    /// A flight that will call the source after `delay`; if it is a `probe`, only if the source has been has_changed since.
    pub(super) fn prepare(
        shared: &Arc<Shared>,
        numbers: Numbers,
        delay: Duration,
        request: TokenContext,
        probe: Option<TokenError>,
    ) -> Result<(Self, Departure), TokenError> {
        let runtime = runtime()?;
        let arrival = Arc::new(Arrival::new(Arc::clone(shared)));
        let pilot = Pilot {
            arrival: Arc::clone(&arrival),
            id: numbers.id,
            landing: false,
        };
        let flight = Self {
            arrival,
            probing: probe.clone(),
            numbers,
        };
        let departure = Departure {
            runtime,
            pilot,
            delay,
            request,
            probe,
        };
        Ok((flight, departure))
    }

    pub(super) fn board(&self) -> Boarding {
        match &self.probing {
            Some(error) => Boarding::Failed(error.clone()),
            None => Boarding::Flight(Arc::clone(&self.arrival)),
        }
    }
}

/// A flight that is ready to take off.
pub(super) struct Departure {
    runtime: Handle,
    pilot: Pilot,
    delay: Duration,
    request: TokenContext,
    probe: Option<TokenError>,
}

impl Departure {
    pub(super) fn take_off(self) {
        let flight = fly(self.pilot, self.delay, self.request, self.probe);
        self.runtime.spawn(flight);
    }
}

/// What becomes of somebody who needs a token.
pub(super) enum Boarding {
    Here(Arc<Issued>),
    Flight(Arc<Arrival>),
    Failed(TokenError),
}

impl Boarding {
    /// What it is for who waits: for any token, or for one unlike that which was rejected or is too old.
    pub(super) fn lookup(self, unlike: Option<Generation>) -> Lookup {
        match self {
            Self::Here(issued) => Lookup::Ready(issued),
            Self::Failed(error) => Lookup::Failed(error),
            Self::Flight(arrival) => match runtime() {
                Ok(_) => Lookup::Wait(Wait::new(arrival, unlike)),
                Err(error) => Lookup::Failed(error),
            },
        }
    }
}

fn runtime() -> Result<Handle, TokenError> {
    Handle::try_current().map_err(|error| {
        let message = "tokens are fetched in a task, so a Tokio runtime is needed here";
        TokenError::new(TokenErrorKind::Config, message).with_source(error)
    })
}

async fn fly(pilot: Pilot, delay: Duration, request: TokenContext, probe: Option<TokenError>) {
    if !delay.is_zero() {
        time::sleep(delay).await;
    }
    let shared = &pilot.arrival.shared;
    let limit = shared.settings.refresh_timeout;
    let asked = shared.now();
    let attempt = async {
        if let Some(error) = probe
            && !shared.source.has_changed().await
        {
            return Outcome::NotMended(error);
        }
        match shared.source.token(request).await {
            Ok(token) => Outcome::Token { token, asked },
            Err(error) => Outcome::Failed(error),
        }
    };
    let outcome = time::timeout(limit, attempt).await.unwrap_or_else(|_| {
        let message = format!("the source took longer than {limit:?} and was given up");
        Outcome::Failed(TokenError::new(TokenErrorKind::Timeout, message))
    });
    pilot.land(outcome);
}

/// Sees to it that a flight ends for all, however it ends.
struct Pilot {
    arrival: Arc<Arrival>,
    id: u64,
    landing: bool,
}

impl Pilot {
    fn land(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        self.landing = true;
        match &outcome {
            Outcome::Token { .. } => tracing::debug!("a new token"),
            Outcome::Failed(error) => tracing::warn!(%error, "no new token"),
            Outcome::NotMended(error) => tracing::debug!(%error, "still no new token"),
        }
        let id = self.id;
        let landed = self.arrival.shared.land(Landing { id, outcome });
        // Before this is told the new token is already there, so nobody who is woken finds the old state.
        self.arrival.tell(Some(landed));
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        if self.arrival.has_ended() {
            return;
        }
        // Who panics at the landing itself, as a subscriber of `tracing` can, isn't asked to land again.
        if std::thread::panicking() && !self.landing {
            self.end(Outcome::Failed(interrupted("the token source panicked")));
        } else {
            self.arrival.shared.lost(self.id);
            self.arrival.tell(None);
        }
    }
}
