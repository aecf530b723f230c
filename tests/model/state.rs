//! The whole system, and everything that can happen next.

use std::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};

use stateright::{Model, Property, Representative};

use crate::{
    actions::Action,
    events::Event,
    process::Process,
    rules::{Rule, Rules},
    run::Run,
    server::Server,
    session::{Credential, Credentials, Session},
    setup::{Limits, Setup},
    step::Step,
    store::{Saved, Store, Undo},
};

pub(crate) const MAX_PROCESSES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) server: Server,
    pub(crate) store: Store,
    pub(crate) processes: [Process; MAX_PROCESSES],
    /// The credential of the last login that is to be configured.
    pub(crate) login: Credential,
    /// The last access token that has expired.
    pub(crate) expired: Option<Credential>,
    /// A request whose sender has died or given up.
    pub(crate) late: Option<Credential>,
    pub(crate) left: Limits,
    pub(crate) history: History,
}

/// What has happened, as far as a rule or its exceptions need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct History {
    /// The logins that have begun a session.
    pub(crate) used: Credentials,
    /// The refresh tokens that were saved.
    pub(crate) saved: Credentials,
    /// The credentials that the store has said are dead.
    pub(crate) declared: Credentials,
    /// The logins whose session was revoked, and that was saved.
    pub(crate) revoked: Credentials,
    /// The store has lost a write.
    pub(crate) has_failed_over: bool,
    /// An unexplained 400 was taken for the end of the session.
    pub(crate) has_guessed: bool,
    pub(crate) broken: Rules,
}

/// The model, and what was seen while it was explored.
pub(crate) struct System {
    pub(crate) setup: Setup,
    /// What must be seen.
    pub(crate) events: &'static [Event],
    seen: AtomicU32,
}

impl System {
    pub(crate) fn new(setup: Setup, events: &'static [Event]) -> Self {
        Self {
            setup,
            events,
            seen: AtomicU32::new(0),
        }
    }

    pub(crate) fn saw(&self, event: Event) {
        // Written once: the threads of the checker share it.
        if !self.has_seen(event) {
            self.seen.fetch_or(1 << event as u32, Ordering::Relaxed);
        }
    }

    pub(crate) fn has_seen(&self, event: Event) -> bool {
        self.seen.load(Ordering::Relaxed) & (1 << event as u32) != 0
    }

    pub(crate) fn first_state(&self) -> State {
        let mut server = Server::default();
        let login = server.log_in(self.setup.grant_can_repeat);
        State {
            server,
            store: Store::default(),
            processes: [Process::new(login); MAX_PROCESSES],
            login,
            expired: None,
            late: None,
            left: self.setup.limits,
            history: History::default(),
        }
    }

    pub(crate) fn run<'a>(&'a self, state: &'a mut State, id: usize) -> Run<'a> {
        Run {
            system: self,
            state,
            id,
        }
    }
}

impl State {
    pub(crate) fn count_save(&mut self, saved: Saved) {
        if saved != Saved::Yes {
            self.left.failed_saves -= 1;
        }
    }

    pub(crate) fn end_lease(&mut self, id: usize, is_loss_unseen: bool) {
        self.left.ended_leases -= 1;
        self.store.lease = None;
        let past = &mut self.processes[id].past;
        past.has_lost_lease = true;
        past.is_loss_unseen = is_loss_unseen;
    }

    /// The request of this process is still on its way when the process does not wait for it any more.
    pub(crate) fn send_late(&mut self, id: usize) {
        let process = &self.processes[id];
        if let Step::Waiting(attempt, _) = &process.step {
            self.late = process.credential_of(attempt);
        }
        self.left.late_requests -= 1;
    }

    /// The process ends, and another one starts in its place.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "there are at most three processes"
    )]
    pub(crate) fn restart(&mut self, id: usize, config: Credential) {
        if self.store.lease == Some(id as u8) {
            self.store.lease = None;
        }
        self.processes[id] = Process::new(config);
    }
}

impl Model for System {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first_state()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for id in 0..self.setup.processes {
            self.process_actions(state, id, actions);
        }
        let left = &state.left;
        let has_session = state.store.session.is_some();
        let others = [
            (state.late.is_some(), Action::ArriveLate),
            (left.logins > 0, Action::LogIn),
            (
                left.imports > 0 && has_session && state.store.lease.is_none(),
                Action::Import,
            ),
            (
                left.failovers > 0 && state.store.undo != Undo::Impossible,
                Action::FailOver,
            ),
            (
                left.expiries > 0 && state.expired != Some(state.server.last()),
                Action::Expire,
            ),
            (
                left.grace_ends > 0 && state.server.has_grace(),
                Action::EndGrace,
            ),
            (left.ended_families > 0 && has_session, Action::EndFamily),
            (left.ended_logins > 0 && has_session, Action::EndLogin),
        ];
        actions.extend(others.iter().filter(|it| it.0).map(|it| it.1));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.apply(&mut next, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! never_broken {
            ($($rule:ident),*) => {
                [$(Property::always(Rule::$rule.name(), |_: &Self, state: &State| {
                    !state.history.broken.contains(Rule::$rule)
                })),*]
            };
        }
        macro_rules! seen {
            ($($event:ident),*) => {
                [$((Event::$event, Property::sometimes(Event::$event.name(), |system: &Self, _: &State| {
                    system.has_seen(Event::$event)
                }))),*]
            };
        }
        let steps = never_broken![
            SpentToken,
            OneAtATime,
            SavedBeforeUse,
            LaterLoginStays,
            RevocationHolds,
            RevokedNotSent,
            DeadNotSent,
            ToldOnce
        ];
        let states = [
            Property::always(Rule::Agreement.name(), |system: &Self, state: &State| {
                state.agrees(system)
            }),
            Property::always(Rule::OneFamily.name(), |system: &Self, state: &State| {
                state.has_one_family(system)
            }),
            Property::always(Rule::NotGivenUp.name(), |system: &Self, state: &State| {
                state.gives_up_nothing(system)
            }),
            Property::always(Rule::GoesOn.name(), |system: &Self, state: &State| {
                state.goes_on(system)
            }),
        ];
        let events = seen![
            Adopted,
            AnswerLost,
            AcceptedAgain,
            NotSentAgain,
            NoLeaseToSendAgain,
            NoLeaseToBeginAnew,
            NoLeaseAfterMark,
            FencedMark,
            FencedSave,
            SentWithoutMark,
            SavedInBackground,
            NotSavedInBackground,
            SecondCredential,
            BegunAnew,
            RotationHidden,
            DeadRecorded,
            NotSent,
            RevocationSaved,
            LoginTaken,
            LoginUnsaved,
            FencedLogin,
            LoginPassesRevocation,
            LoginReplacesSession,
            LateRequest,
            LostWrite,
            GoesOn
        ];
        let events = events
            .into_iter()
            .filter(|(event, _)| self.events.contains(event))
            .map(|(_, property)| property);
        steps.into_iter().chain(states).chain(events).collect()
    }

    fn format_action(&self, action: &Action) -> String {
        format!("{action:?}")
    }
}

/// Processes have no names: states that differ only in their order are one.
impl Representative for State {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "there are at most three processes"
    )]
    fn representative(&self) -> Self {
        let mut order: Vec<usize> = (0..MAX_PROCESSES).collect();
        let lease = self.store.lease.map(usize::from);
        order.sort_unstable_by_key(|id| (self.processes[*id], lease == Some(*id)));
        let rename = |id: u8| {
            order
                .iter()
                .position(|old| *old == usize::from(id))
                .map_or(id, |new| new as u8)
        };
        let in_session = |session: Session| Session {
            mark: session.mark.map(rename),
            ..session
        };
        let mut state = *self;
        state.processes = std::array::from_fn(|id| self.processes[order[id]]);
        for process in &mut state.processes {
            process.rename(rename);
        }
        state.store.lease = self.store.lease.map(rename);
        state.store.session = self.store.session.map(in_session);
        if let Undo::To(before) = self.store.undo {
            state.store.undo = Undo::To(before.map(in_session));
        }
        state
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System")
            .field("setup", &self.setup)
            .finish_non_exhaustive()
    }
}
