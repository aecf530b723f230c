//! What all handles of a cache share, and the one place that changes it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::sync::watch;

use super::{
    backoff::{Admission, Gate},
    flight::{Boarding, DynSource, Flight, Landing, Wait},
    freshness::{Deadlines, Freshness, Moment},
    schedule::Schedule,
    status::{CacheStatus, TokenState},
};
use crate::{
    authorize::Origins,
    clock::{Clock, Now},
    error::{TokenError, TokenErrorKind},
    source::TokenRequest,
    token::Token,
};

/// A token as the cache holds it.
#[derive(Debug)]
pub(crate) struct Issued {
    token: Token,
    deadlines: Deadlines,
    /// The API has accepted it at least once.
    proven: AtomicBool,
    /// The API has refused it, and nothing better has come.
    refused: bool,
}

impl Issued {
    #[inline]
    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    #[inline]
    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// The API accepted it. Written once, so that the line stays shared between cores.
    #[inline]
    pub(crate) fn prove(&self) {
        if !self.is_proven() {
            self.proven.store(true, Ordering::Relaxed);
        }
    }

    /// Whether `new` is another token than this one, which was refused.
    pub(crate) fn replaced_by(&self, new: &Issued) -> Result<(), TokenError> {
        if !new.token.same_secret(&self.token) {
            return Ok(());
        }
        let message = "the source yields the refused token again; is it a fixed one, or cached by the server?";
        Err(TokenError::new(TokenErrorKind::Rejected, message))
    }

    #[inline]
    fn freshness(&self, clock: &Clock) -> Freshness {
        if self.deadlines.any() {
            self.deadlines.freshness(clock.now())
        } else {
            Freshness::Fresh
        }
    }
}

/// What a look at the cache yields.
pub(crate) enum Lookup {
    Ready(Arc<Issued>),
    Wait(Wait),
    Failed(TokenError),
}

/// What stands for a token that was refused.
pub(crate) enum Replacement {
    Here(Arc<Issued>),
    Coming(Wait),
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) schedule: Schedule,
    pub(super) max_wait: Duration,
    pub(super) attempt_limit: Duration,
    pub(super) clock: Clock,
    pub(super) seed: Option<u64>,
}

impl Settings {
    pub(super) fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            max_wait: Duration::from_secs(30),
            attempt_limit: Duration::from_secs(120),
            clock: Clock::system(),
            seed: None,
        }
    }
}

pub(crate) struct Shared {
    /// The token to be used, read without a lock. Written under `control` only.
    current: ArcSwapOption<Issued>,
    control: Mutex<Control>,
    pub(super) source: Arc<dyn DynSource>,
    pub(super) settings: Settings,
    origins: Origins,
    status: watch::Sender<CacheStatus>,
    pub(super) kept_warm: AtomicBool,
}

struct Control {
    flight: Option<Flight>,
    /// The token that was refused and that the running flight is to replace.
    suspect: Option<Arc<Issued>>,
    gate: Gate,
    rng: fastrand::Rng,
    issued: u64,
    failed: u64,
    refused: u64,
    warning: Option<TokenError>,
}

impl Shared {
    pub(super) fn new(source: Arc<dyn DynSource>, settings: Settings, origins: Origins) -> Self {
        let rng = settings
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self {
            current: ArcSwapOption::empty(),
            control: Mutex::new(Control {
                flight: None,
                suspect: None,
                gate: Gate::default(),
                rng,
                issued: 0,
                failed: 0,
                refused: 0,
                warning: None,
            }),
            source,
            settings,
            origins,
            status: watch::Sender::new(CacheStatus::default()),
            kept_warm: AtomicBool::new(false),
        }
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Now {
        self.settings.clock.now()
    }

    pub(super) fn origins(&self) -> &Origins {
        &self.origins
    }

    fn floor(&self) -> Duration {
        self.settings.schedule.min_interval
    }

    /// The token to send a request with, or how to get one.
    #[inline]
    pub(super) fn lookup(self: &Arc<Self>) -> Lookup {
        if let Some(issued) = self.current.load_full() {
            match issued.freshness(&self.settings.clock) {
                Freshness::Fresh => return Lookup::Ready(issued),
                Freshness::Due => {
                    self.renew_behind();
                    return Lookup::Ready(issued);
                }
                Freshness::Expired => {}
            }
        }
        self.board().lookup(self)
    }

    pub(super) fn peek(&self) -> Option<Token> {
        let issued = self.current.load_full()?;
        let usable = issued.freshness(&self.settings.clock) != Freshness::Expired;
        usable.then(|| issued.token.clone())
    }

    /// Nobody waits for this one, and nobody waits for the lock: whoever holds it is at the same thing.
    #[cold]
    pub(super) fn renew_behind(self: &Arc<Self>) {
        let Ok(mut control) = self.control.try_lock() else {
            return;
        };
        if control.flight.is_some() {
            return;
        }
        let now = self.now();
        // Between the look and the lock a new token may have come.
        let current = self.current.load_full();
        if current
            .as_ref()
            .is_some_and(|c| c.deadlines.freshness(now) == Freshness::Fresh)
        {
            return;
        }
        match control.gate.admit(now.mono, self.floor(), false) {
            Admission::After(wait) if wait.is_zero() => {
                let request = self.request(current.as_deref());
                self.take_off(&mut control, Duration::ZERO, request, None);
            }
            Admission::Probe(error) => {
                let request = self.request(current.as_deref());
                self.take_off(&mut control, Duration::ZERO, request, Some(error));
            }
            Admission::After(_) | Admission::Refused(_) => {}
        }
    }

    /// There is no usable token: wait for the flight, begin one, or hear why not.
    #[cold]
    pub(super) fn board(self: &Arc<Self>) -> Boarding {
        Self::keep_warm(self);
        let mut control = self.control();
        let current = self.current.load_full();
        match current {
            Some(issued) if self.is_usable(Some(&issued)) => Boarding::Here(issued),
            expired => {
                let request = self.request(expired.as_deref());
                self.board_or_take_off(&mut control, request, true)
            }
        }
    }

    pub(super) fn refresh(self: &Arc<Self>) -> Boarding {
        let mut control = self.control();
        let current = self.current.load_full();
        let needed = !self.is_usable(current.as_deref());
        let request = self.request(current.as_deref());
        self.board_or_take_off(&mut control, request, needed)
    }

    fn board_or_take_off(
        self: &Arc<Self>,
        control: &mut Control,
        request: TokenRequest,
        needed: bool,
    ) -> Boarding {
        if let Some(flight) = &control.flight {
            return flight.board();
        }
        match control.gate.admit(self.now().mono, self.floor(), needed) {
            Admission::After(delay) => self.take_off(control, delay, request, None),
            Admission::Refused(error) => Boarding::Failed(error),
            Admission::Probe(error) => self.take_off(control, Duration::ZERO, request, Some(error)),
        }
    }

    /// The API refused `token`; `fruitless` if it had never accepted it.
    pub(super) fn reject(self: &Arc<Self>, token: &Token, fruitless: bool) -> Boarding {
        let mut control = self.control();
        let Some(issued) = self.current.load_full() else {
            // The one that was refused is being replaced already, or there never was one.
            return self.board_or_take_off(&mut control, self.request(None), true);
        };
        // By generation: a late refusal of an old token says nothing about the new one.
        if !issued.token.same_secret(token) {
            return Boarding::Here(issued);
        }
        if !issued.refused {
            control.refused += 1;
            if fruitless {
                control.gate.fruitless(self.now().mono);
            }
        }
        let boarding = self.replace(&mut control, &issued);
        if let Boarding::Flight(_) = boarding {
            self.current.store(None);
            control.suspect = Some(issued);
        } else {
            self.serve_on(&mut control, &issued);
        }
        boarding
    }

    /// The API refused the token of this header value. It stands for a token only if it is the current one's: by then
    /// an older one has been replaced.
    pub(super) fn reject_sent(self: &Arc<Self>, sent: &HeaderValue, served: bool) {
        if let Some(issued) = self.current.load_full()
            && issued.token.header() == sent
        {
            drop(self.reject(&issued.token, !served && !issued.is_proven()));
        }
    }

    /// Boards whatever brings another token than `refused`.
    fn replace(self: &Arc<Self>, control: &mut Control, refused: &Issued) -> Boarding {
        if let Some(flight) = &control.flight {
            return flight.board();
        }
        let now = self.now().mono;
        if let Admission::Refused(error) | Admission::Probe(error) =
            control.gate.admit(now, self.floor(), true)
        {
            return Boarding::Failed(error);
        }
        match control.gate.admit_refusal(now, self.floor()) {
            Ok(delay) => {
                let request = self.request(Some(refused)).refused(refused.token.clone());
                self.take_off(control, delay, request, None)
            }
            Err(wait) => {
                let message = "new tokens have not helped, so the next is fetched later";
                let error = TokenError::new(TokenErrorKind::Rejected, message);
                Boarding::Failed(error.with_retry_after(wait))
            }
        }
    }

    /// The token that a refusal brought was refused as well.
    pub(super) fn replay_refused(&self, token: &Token) {
        let mut control = self.control();
        let Some(issued) = self.current.load_full() else {
            return;
        };
        if issued.token.same_secret(token) && !issued.refused {
            control.refused += 1;
            control.gate.fruitless(self.now().mono);
            self.serve_on(&mut control, &issued);
        }
    }

    pub(super) fn replay_accepted(&self) {
        self.control().gate.fruitful();
    }

    /// Keeps a refused token in use, and has it renewed when the next attempt may start: whom nothing better can be given
    /// is best told by the server itself, and perhaps it was not the token's fault.
    fn serve_on(&self, control: &mut Control, issued: &Issued) {
        let now = self.now();
        let hold = control.gate.hold_left(now.mono, self.floor());
        let wait = hold.max(control.gate.opens_in(now.mono, self.floor()));
        self.current.store(Some(Arc::new(Issued {
            token: issued.token.clone(),
            deadlines: Deadlines {
                due: Some(Moment {
                    mono: now.mono + wait,
                    wall: now.wall + wait,
                }),
                ..issued.deadlines
            },
            proven: AtomicBool::new(issued.is_proven()),
            refused: true,
        })));
    }

    fn request(&self, current: Option<&Issued>) -> TokenRequest {
        let request = TokenRequest::with_clock(self.settings.clock.clone());
        match current {
            Some(issued) => request.replacing(issued.token.clone()),
            None => request,
        }
    }

    fn take_off(
        self: &Arc<Self>,
        control: &mut Control,
        delay: Duration,
        request: TokenRequest,
        probe: Option<TokenError>,
    ) -> Boarding {
        let start = self.now().mono + delay;
        match Flight::take_off(self, delay, request, probe) {
            Ok(flight) => {
                control.gate.started(start);
                control.flight.insert(flight).board()
            }
            Err(error) => Boarding::Failed(error),
        }
    }

    /// The one place where the outcome of a flight changes anything. Returns what its waiters are told.
    pub(super) fn land(&self, landing: Landing) -> Result<Arc<Issued>, TokenError> {
        let now = self.now();
        let mut control = self.control();
        control.flight = None;
        let suspect = control.suspect.take();
        let outcome = match landing.outcome {
            Ok(token) => Ok(self.publish(&mut control, token, landing.asked, now, suspect)),
            Err(error) => {
                control.failed += 1;
                let current = self.current.load_full();
                let needed = !self.is_usable(current.as_deref());
                let random = control.rng.f64();
                control.gate.failed(&error, now.mono, needed, random);
                if let Some(suspect) = suspect {
                    self.serve_on(&mut control, &suspect);
                }
                Err(error)
            }
        };
        let status = self.describe(&control, now);
        drop(control);
        // Wakers run outside of the lock.
        self.status.send_replace(status);
        outcome
    }

    fn publish(
        &self,
        control: &mut Control,
        token: Token,
        asked: Now,
        now: Now,
        suspect: Option<Arc<Issued>>,
    ) -> Arc<Issued> {
        control.issued += 1;
        control.warning = token.warning().cloned();
        control.gate.succeeded();
        let random = control.rng.f64();
        let expires = token.expires(asked, now);
        let deadlines = Deadlines::new(expires, &self.settings.schedule, random, now);
        let replaced = suspect.or_else(|| self.current.load_full());
        let same = replaced.is_some_and(|old| old.token.same_secret(&token));
        let issued = Arc::new(Issued {
            token,
            deadlines,
            proven: AtomicBool::new(false),
            refused: false,
        });
        self.current.store(Some(Arc::clone(&issued)));
        if same {
            control.gate.fruitless(now.mono);
            self.serve_on(control, &issued);
        }
        issued
    }

    /// The flight ended without an outcome: its runtime shut down. Whoever comes next begins anew.
    pub(super) fn lost(&self) {
        let mut control = self.control();
        control.flight = None;
        if let Some(suspect) = control.suspect.take() {
            self.current.store(Some(suspect));
        }
    }

    fn is_usable(&self, issued: Option<&Issued>) -> bool {
        issued.is_some_and(|i| i.freshness(&self.settings.clock) != Freshness::Expired)
    }

    pub(super) fn reset(&self) {
        self.control().gate.reset();
    }

    pub(super) fn status(&self) -> CacheStatus {
        self.describe(&self.control(), self.now())
    }

    fn describe(&self, control: &Control, now: Now) -> CacheStatus {
        let current = self.current.load_full();
        let issued = current.as_ref().or(control.suspect.as_ref());
        let state = match issued {
            None => TokenState::Empty,
            Some(issued) if issued.refused || current.is_none() => TokenState::Refused,
            Some(issued) => match issued.deadlines.freshness(now) {
                Freshness::Fresh => TokenState::Fresh,
                Freshness::Due => TokenState::Due,
                Freshness::Expired => TokenState::Expired,
            },
        };
        CacheStatus {
            state,
            expires_at: issued
                .and_then(|issued| issued.token.expires(now, now))
                .map(|e| e.wall),
            last_error: control.gate.error().or(control.warning.as_ref()).cloned(),
            issued: control.issued,
            failed: control.failed,
            refused: control.refused,
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<CacheStatus> {
        self.status.subscribe()
    }

    /// How long until there is something to renew, if a clock can tell.
    pub(super) fn due_in(&self, now: Now) -> Option<Duration> {
        let control = self.control();
        let gate = control.gate.opens_in(now.mono, self.floor());
        match self.current.load_full() {
            None => Some(gate),
            Some(issued) => {
                let due = issued.deadlines.due.or(issued.deadlines.unusable)?;
                Some(due.left(now).max(gate))
            }
        }
    }
}

pub(super) fn interrupted(message: &'static str) -> TokenError {
    TokenError::new(TokenErrorKind::Interrupted, message)
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
