//! What all handles of a cache share, and how it is read and changed.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::{
    issued::{Issued, Lookup},
    refresh_task::{Departure, DynSource, Flight},
    status::CacheStatus,
    throttle::Gate,
};
use crate::{
    clock::{Clock, Now},
    error::{TokenError, TokenErrorKind},
    freshness::Freshness,
    origins::Origins,
    schedule::Schedule,
    token::Token,
};

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(super) schedule: Schedule,
    pub(super) max_wait: Duration,
    pub(super) refresh_timeout: Duration,
    pub(crate) clock: Clock,
    pub(crate) seed: Option<u64>,
}

impl Settings {
    pub(super) fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            max_wait: Duration::from_secs(30),
            refresh_timeout: Duration::from_secs(120),
            clock: Clock::System,
            seed: None,
        }
    }
}

pub(crate) struct Shared {
    /// The token to be used, read without a lock. Written under `control` only.
    pub(super) current: ArcSwapOption<Issued>,
    pub(super) control: Mutex<Control>,
    pub(super) source: Arc<dyn DynSource>,
    pub(super) settings: Settings,
    origins: Origins,
    pub(super) status: watch::Sender<CacheStatus>,
    pub(super) kept_warm: AtomicBool,
}

pub(super) struct Control {
    pub(super) flight: Option<Flight>,
    /// Counts the flights.
    pub(super) flights: u64,
    /// There is something to tell as soon as the lock is free.
    pub(super) news: bool,
    pub(super) told: u64,
    /// The flight that takes off as soon as the lock is free.
    pub(super) departure: Option<Departure>,
    /// The token that was rejected and that the running flight is to replace.
    pub(super) suspect: Option<Arc<Issued>>,
    pub(super) gate: Gate,
    pub(super) rng: fastrand::Rng,
    pub(super) issued: u64,
    pub(super) failed: u64,
    pub(super) rejected: u64,
    pub(super) warning: Option<TokenError>,
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
                departure: None,
                flights: 0,
                news: false,
                told: 0,
                suspect: None,
                gate: Gate::default(),
                rng,
                issued: 0,
                failed: 0,
                rejected: 0,
                warning: None,
            }),
            source,
            settings,
            origins,
            status: watch::Sender::new(CacheStatus::default()),
            kept_warm: AtomicBool::new(false),
        }
    }

    pub(super) fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is shared, and then does what must not be done under the lock: wakers run, and a flight takes off. (A
    /// runtime that is shutting down drops a task right where it is spawned, and a flight that is dropped takes the lock.)
    pub(super) fn change<T>(
        &self,
        mut control: MutexGuard<'_, Control>,
        f: impl FnOnce(&mut Control) -> T,
    ) -> T {
        let out = f(&mut control);
        let departure = control.departure.take();
        let news = std::mem::take(&mut control.news).then(|| {
            control.told += 1;
            self.describe(&control, self.now())
        });
        drop(control);
        if let Some(news) = news {
            self.status.send_if_modified(|status| {
                let later = news.told > status.told;
                if later {
                    *status = news;
                }
                later
            });
        }
        if let Some(departure) = departure {
            departure.take_off();
        }
        out
    }

    pub(super) fn now(&self) -> Now {
        self.settings.clock.now()
    }

    pub(super) fn origins(&self) -> &Origins {
        &self.origins
    }

    pub(super) fn floor(&self) -> Duration {
        self.settings.schedule.min_interval
    }

    /// Takes from the current token what is needed, if it is usable. If it is due, and something was taken, it is renewed
    /// behind the caller's back.
    #[inline]
    pub(super) fn read<T>(
        self: &Arc<Self>,
        take: impl FnOnce(&Arc<Issued>) -> Option<T>,
    ) -> Option<T> {
        let current = self.current.load();
        let issued = current.as_ref()?;
        let freshness = issued.freshness(&self.settings.clock);
        if freshness == Freshness::Expired {
            return None;
        }
        let taken = take(issued)?;
        if freshness == Freshness::Due {
            self.renew_behind();
        }
        Some(taken)
    }

    pub(super) fn usable(self: &Arc<Self>) -> Option<Arc<Issued>> {
        self.read(|issued| Some(Arc::clone(issued)))
    }

    /// The token to send a request with, or how to get one.
    pub(super) fn lookup(self: &Arc<Self>) -> Lookup {
        match self.usable() {
            Some(issued) => Lookup::Ready(issued),
            None => self.board(None).lookup(None),
        }
    }

    pub(super) fn peek(&self) -> Option<Token> {
        let issued = self.current.load_full()?;
        let usable = issued.freshness(&self.settings.clock) != Freshness::Expired;
        usable.then(|| issued.token.clone())
    }

    pub(super) fn is_usable(&self, issued: Option<&Issued>) -> bool {
        issued.is_some_and(|i| i.freshness(&self.settings.clock) != Freshness::Expired)
    }

    pub(super) fn reset(&self) {
        self.change(self.control(), |control| {
            control.gate.reset();
            control.news = true;
        });
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
