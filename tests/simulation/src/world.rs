//! The state of the simulation, and its log.

use std::{
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use tokio::time::{Instant, sleep_until};

use crate::{
    coverage::Coverage,
    host::HostState,
    oracle::Oracle,
    plan::{Ms, Plan, SECOND},
    server::AuthServer,
    store::StoreServer,
};

/// The simulation. Its lock is never held while anything waits.
#[derive(Clone)]
pub(crate) struct World {
    state: Arc<Mutex<State>>,
    start: Instant,
}

pub(crate) struct State {
    pub(crate) now: Ms,
    pub(crate) rng: Rng,
    pub(crate) log: String,
    pub(crate) plan: Plan,
    pub(crate) hosts: Vec<HostState>,
    pub(crate) store: StoreServer,
    pub(crate) server: AuthServer,
    pub(crate) oracle: Oracle,
    pub(crate) coverage: Coverage,
    /// Faults occur.
    pub(crate) has_faults: bool,
    /// The simulation has ended, and what is left of its processes is dropped.
    pub(crate) is_over: bool,
    /// Until when a request may fail, because something went wrong before.
    pub(crate) trouble_until: Ms,
    /// Until when the API may reject a token that is used for the first time since the server has ended it.
    pub(crate) rejections_until: Ms,
    /// How long the machine of the processes was suspended. Their monotonic clocks do not know of it.
    pub(crate) suspended_for: Ms,
    /// When the wait for all processes to have a token began.
    pub(crate) recovers_since: Ms,
}

/// Writes a line to the log.
macro_rules! note {
    ($state:expr, $($text:tt)*) => {
        $state.note(format_args!($($text)*))
    };
}
pub(crate) use note;

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::new(&mut rng);
        let mut state = State {
            now: 0,
            rng,
            log: String::new(),
            hosts: (0..plan.processes).map(|_| HostState::default()).collect(),
            store: StoreServer::new(plan.store),
            server: AuthServer::new(plan.mode, plan.lifetime),
            oracle: Oracle::default(),
            coverage: Coverage::default(),
            has_faults: true,
            is_over: false,
            trouble_until: 0,
            rejections_until: 0,
            suspended_for: 0,
            recovers_since: 0,
            plan,
        };
        let plan = state.plan.clone();
        note!(state, "seed {seed}: {plan:?}");
        Self {
            state: Arc::new(Mutex::new(state)),
            start: Instant::now(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now().duration_since(self.start).as_millis();
        state.now = Ms::try_from(now).unwrap_or(Ms::MAX);
        state
    }

    pub(crate) async fn sleep_until(&self, at: Ms) {
        sleep_until(self.start + Duration::from_millis(at)).await;
    }
}

impl State {
    pub(crate) fn note(&mut self, text: std::fmt::Arguments<'_>) {
        let (seconds, millis) = (self.now / 1_000, self.now % 1_000);
        // Writing to a string cannot fail.
        let _ = writeln!(self.log, "{seconds:>7}.{millis:03} {text}");
    }

    pub(crate) fn count(&mut self, situation: &'static str) {
        self.coverage.count(situation);
    }

    /// Whether something happens now that is as likely as `rate`.
    pub(crate) fn happens(&mut self, rate: f64) -> bool {
        self.has_faults && rate > 0.0 && self.rng.f64() < rate
    }

    /// A random time with this average, at most four times as long.
    pub(crate) fn about(&mut self, average: Ms) -> Ms {
        let random = -(1.0 - self.rng.f64()).ln();
        // Small and not negative.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let time = (average as f64 * random.min(4.0)) as Ms;
        time.max(1)
    }

    /// Tokens have ended before their time.
    pub(crate) fn tokens_end(&mut self) {
        let until = self.now + self.plan.lifetime + 75 * SECOND;
        self.rejections_until = self.rejections_until.max(until);
    }

    /// Something went wrong that may make requests fail until `after` from now.
    pub(crate) fn trouble(&mut self, after: Ms) {
        self.trouble_until = self.trouble_until.max(self.now + after);
    }
}
