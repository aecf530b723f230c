//! Whether a session that can live goes on: a search for a way, without faults, from a quiet state to a new token in every
//! process.
//!
//! stateright's `eventually` takes no account of cycles, and of fairness. This is a rule for each single state instead.

use crate::{
    events::Event,
    run::Run,
    session::Session,
    state::{State, System},
    step::{Answer, Step},
    store::Saved,
};

/// How often each process is asked for a token. A dead process looks into the store before it is asked again.
const ROUNDS: usize = 2;

impl State {
    /// If the store or a process has a credential that the server accepts, every process gets a new token when nothing goes
    /// wrong any more. Not a process whose own new login is dead.
    pub(crate) fn goes_on(&self, system: &System) -> bool {
        if !self.is_quiet() || self.is_store_unreliable(system) || !self.can_live() {
            return true;
        }
        let mut state = *self;
        let expired = state.server.last();
        state.expired = Some(expired);
        for id in 0..system.setup.processes {
            if system.run(&mut state, id).can_save_in_background() {
                system.run(&mut state, id).save_in_background();
            }
        }
        for _ in 0..ROUNDS {
            for id in 0..system.setup.processes {
                state.refresh(system, id, expired);
            }
        }
        system.saw(Event::GoesOn);
        let stored = state.store.session;
        (0..system.setup.processes).all(|id| {
            let process = &state.processes[id];
            let has_dead_login = stored.is_some_and(|stored| process.is_new_login(&stored));
            has_dead_login || process.published.is_some_and(|token| token > expired)
        })
    }

    /// Whether there is a credential that the server accepts, where it should be: in the store, or in a process that could
    /// not save it and has its lease. Not while a process that has lost its lease has yet to save its session.
    fn can_live(&self) -> bool {
        let processes = || self.processes.iter();
        let mut unsaved = processes().filter_map(|it| it.unsaved);
        if unsaved.any(|unsaved| unsaved.session.is_revoked) {
            return false;
        }
        if processes().any(|it| it.unsaved.is_some() && it.past.has_lost_lease) {
            return false;
        }
        let stored = self.store.session;
        if stored.is_some_and(|stored| stored.is_revoked) {
            return false;
        }
        let is_live = |session: Session| {
            session
                .refresh_token
                .is_some_and(|it| self.server.accepts(it))
        };
        // It replaces the stored one, as soon as it is saved.
        let mut kept = processes().filter_map(|it| it.unsaved_in_its_lease(stored.as_ref()));
        kept.next().or(stored).is_some_and(is_live)
    }

    /// A caller needs a token, and nothing goes wrong.
    fn refresh(&mut self, system: &System, id: usize, expired: u8) {
        let process = &self.processes[id];
        let stored = self.store.session;
        let is_done = process.published.is_some_and(|token| token > expired);
        if is_done || (process.is_dead && !process.has_changed(stored.as_ref())) {
            return;
        }
        let mut run = Run {
            system,
            state: self,
            id,
        };
        run.begin();
        loop {
            let step = run.me().step;
            match step {
                Step::WantsLease if run.can_take_lease() => run.refresh_under_lease(),
                Step::Marking { .. } => run.mark(Saved::Yes),
                Step::Sending(_) => run.send(),
                Step::Waiting(_, Answer::Pending) => run.arrive(),
                Step::Waiting(..) => run.read(),
                Step::Saving { .. } => run.save(Saved::Yes),
                Step::Recording { .. } => run.record(Saved::Yes),
                Step::Releasing(_) => run.release(),
                _ => return,
            }
        }
    }
}
