//! Where a process runs.

use std::{future::pending, sync::Arc};

use tokio::{sync::Notify, task::yield_now};
use tower_bearer::{TokenCache, testing::SimulatedClock};

use crate::{
    network::Party,
    observed::is_within_call,
    plan::{Ms, SECOND, StoreKind},
    store::Look,
    world::{State, World, note},
};

/// One life of a process. A crash ends it: nothing that it does afterwards has an effect.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) world: World,
    pub(crate) process: usize,
    pub(crate) life: u32,
}

/// A process as the simulation knows it.
#[derive(Default)]
pub(crate) struct HostState {
    /// Counts its lives.
    pub(crate) life: u32,
    pub(crate) is_alive: bool,
    pub(crate) suspended_until: Ms,
    /// Until when no message passes between this process and each party.
    pub(crate) cut_until: [Ms; 3],
    /// What it is configured with.
    pub(crate) credential: String,
    /// The credential that the running process was started with.
    pub(crate) started_with: String,
    pub(crate) clock: Option<SimulatedClock>,
    pub(crate) cache: Option<TokenCache>,
    pub(crate) died: Arc<Notify>,
    /// When something last kept it from the store.
    pub(crate) store_trouble: Ms,
    /// When the store was as it said in its last answer to a load or a save under a lease.
    pub(crate) last_look: Ms,
    /// How often the stored session had changed then.
    pub(crate) look_changes: u64,
    /// How many saves it has begun.
    pub(crate) saves: u64,
    /// How many it had begun when a token request was last given up before it was sent.
    pub(crate) unsent: Option<u64>,
    /// The lease that it has taken last.
    pub(crate) lease: Option<OwnLease>,
    /// When the server declared dead what it had sent.
    pub(crate) dead_at: Option<Ms>,
    /// Its session is dead, and how often the stored one had changed when it found out.
    pub(crate) final_changes: Option<u64>,
    /// When a request last failed because its session is dead.
    pub(crate) final_at: Ms,
    /// When a request was last served.
    pub(crate) served_at: Ms,
    /// When its cache was last reset. `None` if a token request has ended the reset.
    pub(crate) reset_at: Option<Ms>,
    /// It has revoked the session, and its cache was not reset since. It goes on only with another session in the store.
    pub(crate) has_revoked: bool,
    /// How often its cache has asked for a token.
    pub(crate) asks: u64,
    /// For which of these a token request last brought a token.
    pub(crate) granted_to: u64,
    /// What the API has accepted last, unless it was rejected since.
    pub(crate) good_token: Option<String>,
    /// What it has rejected last although it was valid.
    pub(crate) rejected_token: String,
    /// It ends in order.
    pub(crate) is_stopping: bool,
    /// Seconds.
    pub(crate) clock_is_wrong_by: i64,
    /// The same, at least and at most, since the process was started.
    pub(crate) clock_was_wrong_by: (i64, i64),
    /// When its clock was last set back.
    pub(crate) set_back_at: Ms,
}

/// A lease as its process knows it.
#[derive(Clone, Copy)]
pub(crate) struct OwnLease {
    pub(crate) number: u64,
    pub(crate) asked_at: Ms,
    /// It was taken for this call, or kept until it. 0: for none.
    pub(crate) asked_by: u64,
    /// That call was one after a reset.
    pub(crate) is_after_reset: bool,
}

/// A step of a process where it may be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    BeforeTokenRequest,
    AfterTokenResponse,
    BeforeSave,
    AfterSave,
    BeforeRelease,
}

impl HostState {
    /// The clock was set.
    pub(crate) fn clock_is_noted(&mut self) {
        let (least, most) = self.clock_was_wrong_by;
        let wrong_by = self.clock_is_wrong_by;
        self.clock_was_wrong_by = (least.min(wrong_by), most.max(wrong_by));
    }
}

impl Host {
    /// Waits while the process is suspended, and forever if it has died.
    pub(crate) async fn gate(&self) {
        loop {
            let until = {
                let state = self.world.lock();
                let host = &state.hosts[self.process];
                if self.is_dead(&state) {
                    None
                } else if host.suspended_until > state.now {
                    Some(host.suspended_until)
                } else {
                    return;
                }
            };
            match until {
                Some(until) => self.world.sleep_until(until).await,
                None => pending().await,
            }
        }
    }

    /// The process has learned what the store was like. A look before it has the lease, as that of another caller, does not
    /// count.
    pub(crate) fn looked(&self, look: Look) {
        if is_within_call() {
            return;
        }
        let mut state = self.world.lock();
        if !self.is_dead(&state) {
            let host = &mut state.hosts[self.process];
            host.last_look = look.at;
            host.look_changes = look.changes;
        }
    }

    pub(crate) fn is_dead(&self, state: &State) -> bool {
        let host = &state.hosts[self.process];
        host.life != self.life || !host.is_alive
    }

    /// A step of the process: it may crash or be suspended here, and other tasks may run first.
    pub(crate) async fn point(&self, point: Point) {
        let yields = {
            let mut state = self.world.lock();
            if self.is_dead(&state) {
                0
            } else {
                let (crash, suspend) = (state.plan.rates.crash, state.plan.rates.suspend);
                if state.happens(crash) {
                    note!(state, "p{} crashes at {point:?}", self.process);
                    state.crash(self.process);
                    state.count(match point {
                        Point::BeforeTokenRequest => "crash between mark and token request",
                        Point::AfterTokenResponse => "crash between token response and save",
                        Point::BeforeSave => "crash before a save",
                        Point::AfterSave => "crash after a save",
                        Point::BeforeRelease => "crash before a release",
                    });
                } else if state.happens(suspend) {
                    let time = state.about(10 * SECOND);
                    note!(
                        state,
                        "p{} is suspended at {point:?} for {time} ms",
                        self.process
                    );
                    state.suspend(self.process, time);
                    if point == Point::BeforeTokenRequest {
                        state.count("suspension between mark and token request");
                    }
                }
                state.rng.u8(..3)
            }
        };
        for _ in 0..yields {
            yield_now().await;
        }
        self.gate().await;
    }
}

impl State {
    pub(crate) fn crash(&mut self, process: usize) {
        let host = &mut self.hosts[process];
        host.is_alive = false;
        host.died.notify_one();
        self.trouble(75 * SECOND);
        // The kernel releases the locks of files.
        if self.plan.store == StoreKind::Local {
            self.store.release_all_of(process);
        }
    }

    pub(crate) fn suspend(&mut self, process: usize, time: Ms) {
        let until = self.now + time;
        let host = &mut self.hosts[process];
        host.suspended_until = host.suspended_until.max(until);
        host.store_trouble = host.store_trouble.max(until);
        self.trouble(time + 75 * SECOND);
    }

    pub(crate) fn is_cut(&self, process: usize, party: Party) -> bool {
        let is_local = party == Party::Store && self.plan.store == StoreKind::Local;
        !is_local && self.hosts[process].cut_until[party as usize] > self.now
    }
}
