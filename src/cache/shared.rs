//! What all handles of a cache share: the published token, and the lock around the state.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, atomic::AtomicBool},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex as AsyncMutex, watch};

use super::{
    background,
    effects::Input,
    issued::{Generation, Issued},
    listener,
    lookup::Lookup,
    refresh_task::{RefreshOutcome, RefreshRun},
    rejection::{RejectedBy, SentToken},
    state::{State, session_revoked},
    status::CacheStatus,
    waiter::{Completed, SharedResult},
};
use crate::{
    challenge::{Challenge, StepUp},
    clock::{Clock, Now},
    error::TokenError,
    events::{EventKind, Events, Record},
    origins::Origins,
    schedule::Schedule,
    token::{Token, Warning},
    token_source::BoxTokenSource,
};

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(super) schedule: Schedule,
    pub(super) origins: Origins,
    /// What APIs may ask for. `None`: nothing.
    pub(super) step_up: Option<Arc<StepUp>>,
    /// The scopes that the source requests on its own.
    pub(super) own_scopes: Vec<String>,
    pub(super) max_wait: Duration,
    pub(super) refresh_timeout: Duration,
    pub(crate) clock: Clock,
    pub(crate) seed: Option<u64>,
}

pub(super) struct Shared {
    /// The token that requests use. Always that of the state: written under its lock only.
    pub(super) published: ArcSwapOption<Issued>,
    state: Mutex<State>,
    pub(super) source: BoxTokenSource,
    pub(super) settings: Settings,
    pub(super) events: Events,
    subscribers: watch::Sender<CacheStatus>,
    pub(super) refreshes_in_background: AtomicBool,
    /// A task listens to the source, or the source has said that it cannot tell of changes.
    pub(super) listens: AtomicBool,
    /// Held by a login or a revocation until the state knows of it: what the source has done last counts.
    pub(super) replacing_session: AsyncMutex<()>,
}

impl Shared {
    pub(super) fn new(source: BoxTokenSource, settings: Settings, events: Events) -> Self {
        let rng = settings
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self {
            published: ArcSwapOption::empty(),
            state: Mutex::new(State::new(rng)),
            source,
            settings,
            events,
            subscribers: watch::Sender::new(CacheStatus::default()),
            refreshes_in_background: AtomicBool::new(false),
            listens: AtomicBool::new(false),
            replacing_session: AsyncMutex::default(),
        }
    }

    /// Starts a refresh of a due token. Does not wait for the lock: the thread that holds it is most likely starting the refresh.
    #[cold]
    pub(super) fn refresh_due(self: &Arc<Self>) {
        background::start(self);
        let state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        self.change(state, State::token_due);
    }

    #[cold]
    pub(super) fn want(
        self: &Arc<Self>,
        other_than: Option<Generation>,
    ) -> Lookup<Arc<SharedResult>> {
        background::start(self);
        listener::start(self);
        self.change(self.lock(), |state, input| {
            state.token_wanted(input, other_than)
        })
    }

    pub(super) fn reject(
        self: &Arc<Self>,
        rejected: Generation,
        by: RejectedBy,
        was_accepted: bool,
        challenge: Option<Arc<Challenge>>,
    ) -> Lookup<Arc<SharedResult>> {
        self.change(self.lock(), |state, input| {
            state.token_rejected(input, rejected, by, was_accepted, challenge)
        })
    }

    pub(super) fn want_more(
        self: &Arc<Self>,
        sent: Generation,
        challenge: &Arc<Challenge>,
    ) -> Lookup<Arc<SharedResult>> {
        self.change(self.lock(), |state, input| {
            state.more_wanted(input, sent, challenge)
        })
    }

    pub(super) fn replay_rejected(self: &Arc<Self>, sent: SentToken) {
        self.change(self.lock(), |state, input| {
            state.replay_rejected(input, sent);
        });
    }

    pub(super) fn replay_accepted(self: &Arc<Self>, sent: Option<SentToken>) {
        self.change(self.lock(), |state, input| {
            state.replay_accepted(input, sent);
        });
    }

    #[cold]
    pub(super) fn replay_failed(self: &Arc<Self>, sent: Option<SentToken>) {
        self.change(self.lock(), |state, input| state.replay_failed(input, sent));
    }

    #[cold]
    pub(super) fn not_replayed(self: &Arc<Self>, sent: SentToken, reason: &TokenError) {
        self.change(self.lock(), |state, input| {
            state.not_replayed(input, sent, reason);
        });
    }

    #[cold]
    pub(super) fn accepted_after_rejection(self: &Arc<Self>, sent: SentToken) {
        self.change(self.lock(), |state, _| state.accepted_after_rejection(sent));
    }

    pub(super) fn complete_refresh(
        self: &Arc<Self>,
        run: &RefreshRun,
        outcome: RefreshOutcome,
    ) -> Option<Completed> {
        self.change(self.lock(), |state, input| {
            state.refresh_completed(input, run, outcome)
        })
    }

    pub(super) fn lose_refresh(self: &Arc<Self>, run: &RefreshRun) {
        self.change(self.lock(), |state, input| state.refresh_lost(input, run));
    }

    pub(super) fn reset(self: &Arc<Self>) {
        self.change(self.lock(), |state, _| state.reset());
    }

    pub(super) fn revoked(self: &Arc<Self>) {
        self.change(self.lock(), |state, input| {
            state.revoked(input, &session_revoked());
        });
    }

    pub(super) fn logged_in(self: &Arc<Self>, token: Option<Token>, asked: Now) {
        self.change(self.lock(), |state, input| {
            state.logged_in(input, token, asked);
        });
    }

    /// Looks whether the store has another session. Returns the refresh that runs, if that must end first.
    pub(super) fn look(self: &Arc<Self>) -> Option<Arc<SharedResult>> {
        self.change(self.lock(), State::session_may_have_changed)
    }

    pub(super) fn running_result(self: &Arc<Self>) -> Option<Arc<SharedResult>> {
        self.change(self.lock(), |state, input| state.running_result(input.now))
    }

    pub(super) fn status(&self) -> CacheStatus {
        CacheStatus::of(
            &self.lock(),
            self.now(),
            self.settings.schedule.min_interval,
        )
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<CacheStatus> {
        self.subscribers.subscribe()
    }

    pub(super) fn due_in(self: &Arc<Self>) -> Option<Duration> {
        let input = Input {
            shared: self,
            now: self.now(),
        };
        self.lock().due_in(input)
    }

    pub(super) fn now(&self) -> Now {
        self.settings.clock.now()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one transition. Then publishes its token, releases the lock, and does what must not be done under it:
    /// wakers run, and a task is spawned.
    fn change<T>(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        transition: impl FnOnce(&mut State, Input<'_>) -> T,
    ) -> T {
        let now = self.now();
        let out = transition(&mut state, Input { shared: self, now });
        let effects = std::mem::take(&mut state.effects);
        if effects.publish {
            self.published.store(state.token.in_use().cloned());
        }
        let status = effects.notify.then(|| {
            state.counts.notified += 1;
            CacheStatus::of(&state, now, self.settings.schedule.min_interval)
        });
        self.events.queue(&effects.events);
        drop(state);
        if let Some(status) = status {
            // Two threads may get here in the wrong order: the later status stays.
            self.subscribers.send_if_modified(|last| {
                let is_later = status.number > last.number;
                if is_later {
                    *last = status;
                }
                is_later
            });
        }
        if let Some(task) = effects.spawn {
            task.spawn();
        }
        for (result, completed) in effects.wake {
            result.set(completed);
        }
        if !effects.events.is_empty() {
            self.events.deliver(&effects.events);
        }
        if let Some(warning) = effects.unsaved {
            self.tell_when_saved(&warning, now);
        }
        out
    }

    #[cold]
    fn tell_when_saved(self: &Arc<Self>, warning: &Warning, since: Now) {
        let shared = Arc::downgrade(self);
        warning.when_over(move || {
            if let Some(shared) = shared.upgrade() {
                shared.change(shared.lock(), |state, input| {
                    state.saved_late(input, since.mono);
                });
            }
        });
    }

    /// Tells observers that want requests of one that has got the token `sent`.
    #[cold]
    pub(super) fn request_sent(&self, sent: SentToken) {
        let mut record = Record::new(EventKind::RequestSent, self.settings.clock.wall());
        record.generation = Some(sent.generation.number());
        self.events.request(&record);
    }

    /// Tells observers that want requests that a caller has waited.
    #[cold]
    pub(super) fn waited(&self, duration: Duration, result: &Completed) {
        let mut record = Record::new(EventKind::Waited, self.settings.clock.wall());
        record.duration = Some(duration);
        match result {
            Ok(issued) => record.generation = Some(issued.generation.number()),
            Err(error) => record.error = Some(error.clone()),
        }
        self.events.request(&record);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
