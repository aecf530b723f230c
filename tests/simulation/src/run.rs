//! One seed from beginning to end, and many seeds.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use tokio::runtime::Builder;

use crate::{
    chaos,
    coverage::Coverage,
    plan::{MINUTE, Ms, SECOND},
    process,
    sends::{Fate, Sent},
    trace::Trace,
    world::{State, World, note},
};

/// How long after the last trouble all processes must have a token again.
const RECOVERY: Ms = 3 * MINUTE;
/// How long all of that may take.
const MAX_RECOVERY: Ms = 60 * MINUTE;

/// What one seed has shown.
#[derive(Debug)]
pub struct Report {
    /// The number that determines everything.
    pub seed: u64,
    /// What must hold and did not.
    pub violations: Vec<String>,
    /// Everything that happened, one event a line.
    pub log: String,
    /// How often each situation occurred.
    pub coverage: Coverage,
}

/// Runs one seed. `is_traced` writes the crate's own log events into the log as well.
///
/// # Panics
///
/// If the simulation or the crate panics.
#[must_use]
pub fn run(seed: u64, is_traced: bool) -> Report {
    fastrand::seed(seed);
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let world = runtime.block_on(async {
        let world = World::new(seed);
        if is_traced {
            let trace = tracing::subscriber::set_default(Trace(world.clone()));
            simulate(&world).await;
            drop(trace);
        } else {
            simulate(&world).await;
        }
        world.lock().is_over = true;
        world
    });
    drop(runtime);
    let mut state = world.lock();
    Report {
        seed,
        violations: std::mem::take(&mut state.oracle.violations),
        log: std::mem::take(&mut state.log),
        coverage: std::mem::take(&mut state.coverage),
    }
}

async fn simulate(world: &World) {
    let processes = {
        let mut state = world.lock();
        let credential = state.log_in();
        let processes = state.hosts.len();
        for host in &mut state.hosts {
            host.credential.clone_from(&credential);
        }
        processes
    };
    for process in 0..processes {
        tokio::spawn(process::supervise(world.clone(), process));
    }
    chaos::run(world).await;
    world.lock().ends_faults();
    if recover(world).await {
        return;
    }
    {
        let mut state = world.lock();
        let mut processes = 0..state.hosts.len();
        if !processes.all(|process| state.has_recovered(process) || state.is_hopeless(process)) {
            let why = state.why_alive();
            state.violation(&format!("not all processes have a token, although {why}"));
            return;
        }
    }
    stay_dead(world).await;
    {
        let mut state = world.lock();
        state.count("new login after the end");
        state.new_login(0);
    }
    if !recover(world).await {
        let mut state = world.lock();
        let mut processes = 0..state.hosts.len();
        if !processes.all(|process| state.has_recovered(process) || state.has_dead_login(process)) {
            state.violation("not all processes have a token after a new login");
        }
    }
}

/// Waits until a request of each process was served. Returns `false` if that takes too long, or if the session is dead.
async fn recover(world: &World) -> bool {
    {
        let mut state = world.lock();
        state.recovers_since = state.now;
    }
    loop {
        let wake = {
            let state = world.lock();
            let (now, since) = (state.now, state.recovers_since);
            let mut processes = 0..state.hosts.len();
            if processes.all(|process| state.has_recovered(process)) {
                return true;
            }
            let mut processes = 0..state.hosts.len();
            let is_dead = processes.all(|process| {
                let is_final = state.hosts[process].final_at > since;
                state.has_recovered(process) || (is_final && state.is_hopeless(process))
            });
            let limit = state.trouble_until.max(since) + RECOVERY + 8 * state.plan.request_interval;
            if now > limit.min(since + MAX_RECOVERY) || (is_dead && now > since + MINUTE) {
                return false;
            }
            now + SECOND
        };
        world.sleep_until(wake).await;
    }
}

impl State {
    /// Whether a request of this process was served since it was last waited for.
    fn has_recovered(&self, process: usize) -> bool {
        let host = &self.hosts[process];
        host.is_alive && host.served_at > self.recovers_since
    }
}

/// The session is dead, and every process knows it: nothing is sent to the token endpoint.
async fn stay_dead(world: &World) {
    let (before, until) = {
        let mut state = world.lock();
        if state.is_alive() {
            note!(state, "a process has a dead login");
            return;
        }
        note!(state, "the session is dead");
        (state.oracle.sent.len(), state.now + 10 * MINUTE)
    };
    world.sleep_until(until).await;
    let mut state = world.lock();
    // A refresh that takes longer than its time limit brings the cache nothing, so the reset goes on.
    let is_after_reset = |sent: &Sent| sent.lease.is_some_and(|lease| lease.is_after_reset);
    // A process whose access token was valid for longer may be the first to find out.
    let is_known_to_be_dead = |number: usize| {
        let all = &state.oracle.sent;
        let is_same = |sent: &&Sent| sent.credential == all[number].credential;
        let mut earlier = all[..number].iter().filter(is_same);
        earlier.any(|sent| matches!(sent.fate, Fate::Dead))
    };
    let sent = (before..state.oracle.sent.len())
        .filter(|number| !is_after_reset(&state.oracle.sent[*number]))
        .filter(|number| is_known_to_be_dead(*number))
        .count();
    if sent > 0 {
        state.violation(&format!("{sent} token requests for a dead session"));
    }
}

/// Runs seeds on all processors. Calls `done` for each, in any order.
///
/// # Panics
///
/// If the simulation or the crate panics.
pub fn run_many(seeds: Range<u64>, done: impl Fn(Report) + Sync) {
    let next = AtomicU64::new(seeds.start);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    done(run(seed, false));
                }
            });
        }
    });
}
