//! What happens to processes and servers, and when.

use crate::{
    host::Host,
    network::Party,
    plan::{Event, GrantKind, MINUTE, Ms, SECOND, StoreKind},
    world::{State, World, note},
};

/// How many logins there are at most in one run. A stored session remembers the last eight.
const MAX_LOGINS: usize = 6;

/// Lets things happen until the plan ends.
pub(crate) async fn run(world: &World) {
    loop {
        let (next, until) = {
            let mut state = world.lock();
            let interval = state.plan.event_interval;
            (state.now + state.about(interval), state.plan.faults_until)
        };
        world.sleep_until(next.min(until)).await;
        if next >= until {
            return;
        }
        happen(world);
    }
}

fn happen(world: &World) {
    let (event, process) = {
        let mut state = world.lock();
        let processes = state.hosts.len();
        let process = state.rng.usize(..processes);
        // A dead session shows nothing more: somebody logs in.
        if !state.is_alive() && state.rng.bool() {
            state.new_login(process);
            return;
        }
        if state.plan.events.is_empty() {
            return;
        }
        let events = state.plan.events.len();
        let event = state.rng.usize(..events);
        (state.plan.events[event], process)
    };
    match event {
        Event::Revoke => revoke(world, process),
        Event::Reset => reset(world, process),
        Event::Refresh => refresh(world, process),
        _ => world.lock().happens_to(event, process),
    }
}

/// The cache of a living process.
fn cache(world: &World, process: usize) -> Option<(Host, tower_bearer::TokenCache)> {
    let state = world.lock();
    let host = &state.hosts[process];
    let cache = host
        .cache
        .clone()
        .filter(|_| host.is_alive && !host.is_stopping)?;
    let life = host.life;
    let world = world.clone();
    Some((
        Host {
            world,
            process,
            life,
        },
        cache,
    ))
}

fn revoke(world: &World, process: usize) {
    let Some((host, cache)) = cache(world, process) else {
        return;
    };
    let world = world.clone();
    tokio::spawn(async move {
        note!(world.lock(), "p{process} revokes");
        host.gate().await;
        let result = cache.revoke().await;
        drop(cache);
        let mut state = world.lock();
        note!(state, "p{process} has revoked: {result:?}");
        if result.is_ok() && !host.is_dead(&state) {
            state.hosts[process].has_revoked = true;
            state.count("session revoked");
        }
    });
}

fn reset(world: &World, process: usize) {
    let Some((_, cache)) = cache(world, process) else {
        return;
    };
    {
        let mut state = world.lock();
        note!(state, "p{process} is reset");
        state.count("reset");
        let now = state.now;
        state.hosts[process].reset_at = Some(now);
        state.hosts[process].has_revoked = false;
    }
    cache.reset();
}

fn refresh(world: &World, process: usize) {
    let Some((host, cache)) = cache(world, process) else {
        return;
    };
    let world = world.clone();
    tokio::spawn(async move {
        note!(world.lock(), "p{process} asks for a refresh");
        host.gate().await;
        drop(cache.refresh().await);
    });
}

impl State {
    fn happens_to(&mut self, event: Event, process: usize) {
        note!(self, "p{process} {event:?}");
        let now = self.now;
        match event {
            Event::Crash => {
                if self.hosts[process].is_alive {
                    self.count("crash at any time");
                    self.crash(process);
                }
            }
            Event::Stop => {
                let host = &mut self.hosts[process];
                if host.is_alive && !host.is_stopping {
                    host.is_stopping = true;
                    host.died.notify_one();
                    self.trouble(5 * MINUTE);
                }
            }
            Event::Suspend => {
                let time = self.about(20 * SECOND);
                self.count("suspension at any time");
                self.suspend(process, time);
            }
            Event::CutFromStore => self.cut(process, &[Party::Store]),
            Event::CutFromServer => self.cut(process, &[Party::Server]),
            Event::CutFromAll => self.cut(process, &[Party::Store, Party::Server, Party::Api]),
            Event::ServerDown => {
                self.server.down_until = now + self.about(20 * SECOND);
                self.count("server down");
            }
            Event::StoreDown => {
                self.store.down_until = now + self.about(12 * SECOND);
                self.count("store down");
            }
            Event::StoreFull => {
                self.store.full_until = now + self.about(30 * SECOND);
                self.count("store full");
            }
            Event::StoreSlow => {
                let time = self.about(30 * SECOND);
                self.store.slow_until = now + time;
                self.trouble(time + 75 * SECOND);
                self.count("store slow");
            }
            Event::Failover => {
                if self.plan.store != StoreKind::Local {
                    self.fail_over();
                }
            }
            Event::StepClock => {
                let seconds = [-7_200, -300, -20, 20, 300, 7_200][self.rng.usize(..6)];
                self.step_clock(process, seconds);
            }
            Event::SuspendMachine => self.suspend_machine(),
            Event::Login => self.new_login(process),
            Event::RevokeAccess => {
                self.server.revoke_all_access_tokens();
                self.tokens_end();
                self.count("access tokens revoked");
            }
            Event::EndSession => {
                if self.rng.u8(..4) == 0 {
                    self.server.end_sessions();
                    if self.plan.grant == GrantKind::ExchangeToken && self.rng.bool() {
                        self.server.end_exchange_tokens();
                        self.count("exchange tokens ended by the server");
                    }
                    self.tokens_end();
                    self.count("sessions ended by the server");
                }
            }
            Event::Revoke | Event::Reset | Event::Refresh => {}
        }
    }

    fn cut(&mut self, process: usize, parties: &[Party]) {
        let time = self.about(20 * SECOND);
        let until = self.now + time;
        for party in parties {
            self.hosts[process].cut_until[*party as usize] = until;
        }
        self.count("partition");
        self.trouble(time + 75 * SECOND);
    }

    fn step_clock(&mut self, process: usize, seconds: i64) {
        if let Some(clock) = &self.hosts[process].clock {
            clock.step(seconds);
        }
        self.tokens_end();
        let now = self.now;
        let host = &mut self.hosts[process];
        host.clock_is_wrong_by += seconds;
        host.clock_is_noted();
        if seconds < 0 {
            host.set_back_at = now;
        }
        self.count("clock stepped");
    }

    /// The machine that all processes run on is suspended, and its monotonic clock with it.
    fn suspend_machine(&mut self) {
        if self.plan.store != StoreKind::Local {
            return;
        }
        let seconds = self.rng.u32(1..900);
        self.server.ahead += Ms::from(seconds) * SECOND;
        self.suspended_for += Ms::from(seconds) * SECOND;
        self.tokens_end();
        for host in &mut self.hosts {
            if let Some(clock) = &host.clock {
                clock.step(seconds.into());
            }
        }
        self.trouble(75 * SECOND);
        self.count("machine suspended");
    }

    /// A user logs in, and one process gets the new credential.
    pub(crate) fn new_login(&mut self, process: usize) {
        if self.server.logins >= MAX_LOGINS && self.has_faults {
            return;
        }
        let credential = self.log_in();
        note!(self, "p{process} gets the login {credential}");
        self.count("new login");
        self.hosts[process].credential = credential;
        if self.hosts[process].is_alive {
            self.crash(process);
        }
    }

    pub(crate) fn log_in(&mut self) -> String {
        match self.plan.grant {
            GrantKind::RefreshToken => self.server.log_in(),
            GrantKind::ExchangeToken => self.server.log_in_for_exchange(),
        }
    }

    /// Nothing goes wrong from now on.
    pub(crate) fn ends_faults(&mut self) {
        note!(self, "no more faults");
        self.has_faults = false;
        self.server.down_until = 0;
        self.store.down_until = 0;
        self.store.full_until = 0;
        self.store.slow_until = self.store.slow_until.min(self.now);
        let now = self.now;
        for host in &mut self.hosts {
            host.cut_until = [0; 3];
            host.suspended_until = host.suspended_until.min(now);
            if host.clock_is_wrong_by > 0 {
                host.set_back_at = now;
            }
            if let Some(clock) = &host.clock {
                clock.step(-host.clock_is_wrong_by);
            }
            host.clock_is_wrong_by = 0;
            host.clock_is_noted();
        }
    }
}
