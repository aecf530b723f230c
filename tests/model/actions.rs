//! Everything that can happen next, and what it does.

use crate::{
    events::Event,
    process::Process,
    run::{Failure, Run},
    session::Session,
    state::{State, System},
    step::{Answer, Step},
    store::{Saved, Undo},
};

/// What can happen. The number is that of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A caller needs a token other than the one in use.
    Refresh(usize),
    /// A request was rejected, and the process may only adopt.
    Look(usize),
    TakeLease(usize),
    Mark(usize, Saved),
    Send(usize),
    Arrive(usize),
    Read(usize),
    /// The request or its answer is lost.
    Lose(usize),
    /// The process gives up, and the request arrives later.
    GiveUp(usize),
    /// A gateway answers: 400, or another status.
    Page(usize, bool),
    Save(usize, Saved),
    Record(usize, Saved),
    Release(usize),
    SaveInBackground(usize),
    Crash(usize),
    /// The same, and its request arrives later.
    CrashAndSend(usize),
    /// The process is given a new login.
    TakeLogin(usize),
    SaveLogin(usize, Saved),
    Revoke(usize),
    RevokeTokens(usize, bool),
    SaveRevoked(usize, Saved),
    /// The process starts again with the new login.
    Deploy(usize),
    EndLease(usize),
    /// A lease ends so soon after it was taken that its holder does not look after the mark.
    EndNewLease(usize),
    /// A lease that has ended, and that no other process has, is extended again.
    ExtendLease(usize),
    ArriveLate,
    LogIn,
    Import,
    FailOver,
    Expire,
    EndGrace,
    EndFamily,
    EndLogin,
}

impl System {
    pub(crate) fn process_actions(&self, state: &State, id: usize, actions: &mut Vec<Action>) {
        let (process, left) = (&state.processes[id], &state.left);
        let mut copy = *state;
        let run = Run {
            system: self,
            state: &mut copy,
            id,
        };
        let save = |actions: &mut Vec<Action>, save: fn(usize, Saved) -> Action| {
            actions.push(save(id, Saved::Yes));
            if left.failed_saves > 0 {
                actions.push(save(id, Saved::No));
                actions.push(save(id, Saved::Unknown));
                if !matches!(process.step, Step::Marking { .. }) {
                    actions.push(save(id, Saved::Released));
                }
            }
        };
        match &process.step {
            Step::Idle => {
                let stored = state.store.session.as_ref();
                if left.refreshes > 0 && (!process.is_dead || process.has_changed(stored)) {
                    actions.push(Action::Refresh(id));
                }
                if process.is_dead && process.published.is_some() {
                    actions.push(Action::Look(id));
                }
                if left.process_logins > 0 {
                    actions.push(Action::TakeLogin(id));
                }
                if left.revocations > 0 {
                    actions.push(Action::Revoke(id));
                }
                if run.can_save_in_background() {
                    actions.push(Action::SaveInBackground(id));
                }
                if process.config != state.login && process.unsaved.is_none() {
                    actions.push(Action::Deploy(id));
                }
            }
            Step::WantsLease | Step::LoginWantsLease(_) | Step::RevocationWantsLease => {
                if run.can_take_lease() {
                    actions.push(Action::TakeLease(id));
                }
            }
            Step::Marking { .. } => save(actions, Action::Mark),
            Step::Sending(_) => actions.push(Action::Send(id)),
            Step::Waiting(_, answer) => {
                if *answer == Answer::Pending {
                    actions.push(Action::Arrive(id));
                    if left.late_requests > 0 && state.late.is_none() {
                        actions.push(Action::GiveUp(id));
                    }
                } else {
                    actions.push(Action::Read(id));
                }
                if left.losses > 0 {
                    actions.push(Action::Lose(id));
                }
                if left.pages > 0 {
                    actions.push(Action::Page(id, true));
                    actions.push(Action::Page(id, false));
                }
            }
            Step::Saving { .. } => save(actions, Action::Save),
            Step::SavingLogin { .. } => save(actions, Action::SaveLogin),
            Step::Recording { .. } => save(actions, Action::Record),
            Step::Releasing(_) => actions.push(Action::Release(id)),
            Step::Revoking { .. } => {
                actions.push(Action::RevokeTokens(id, true));
                if left.losses > 0 {
                    actions.push(Action::RevokeTokens(id, false));
                }
            }
            Step::SavingRevoked { .. } => save(actions, Action::SaveRevoked),
        }
        let is_new = *process == Process::new(process.config);
        if left.crashes > 0 && !is_new {
            actions.push(Action::Crash(id));
            let is_pending = matches!(process.step, Step::Waiting(_, Answer::Pending));
            if is_pending && left.late_requests > 0 && state.late.is_none() {
                actions.push(Action::CrashAndSend(id));
            }
        }
        if process.has_lease {
            if state.store.lease.is_none() {
                actions.push(Action::ExtendLease(id));
            } else if left.ended_leases > 0 && run.can_take_lease() {
                actions.push(Action::EndLease(id));
                if matches!(
                    process.step,
                    Step::Marking {
                        is_second: false,
                        ..
                    }
                ) {
                    actions.push(Action::EndNewLease(id));
                }
            }
        }
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "there are at most three processes"
    )]
    pub(crate) fn apply(&self, state: &mut State, action: Action) {
        match action {
            Action::Refresh(id) => {
                state.left.refreshes -= 1;
                self.run(state, id).begin();
            }
            Action::Look(id) => self.run(state, id).look(),
            Action::TakeLease(id) => {
                let step = state.processes[id].step;
                let mut run = self.run(state, id);
                match step {
                    Step::LoginWantsLease(login) => run.take_under_lease(login),
                    Step::RevocationWantsLease => run.revoke_under_lease(),
                    _ => run.refresh_under_lease(),
                }
            }
            Action::Mark(id, saved) => {
                state.count_save(saved);
                self.run(state, id).mark(saved);
            }
            Action::Send(id) => self.run(state, id).send(),
            Action::Arrive(id) => self.run(state, id).arrive(),
            Action::Read(id) => self.run(state, id).read(),
            Action::Lose(id) => {
                state.left.losses -= 1;
                self.run(state, id).fail(Failure::Transport);
            }
            Action::GiveUp(id) => {
                state.send_late(id);
                self.run(state, id).fail(Failure::Transport);
            }
            Action::Page(id, is_400) => {
                state.left.pages -= 1;
                let failure = if is_400 {
                    Failure::Unexplained
                } else {
                    Failure::Page
                };
                self.run(state, id).fail(failure);
            }
            Action::Save(id, saved) => {
                state.count_save(saved);
                self.run(state, id).save(saved);
            }
            Action::Record(id, saved) => {
                state.count_save(saved);
                self.run(state, id).record(saved);
            }
            Action::Release(id) => self.run(state, id).release(),
            Action::SaveInBackground(id) => self.run(state, id).save_in_background(),
            Action::Crash(id) => {
                state.left.crashes -= 1;
                state.restart(id, state.processes[id].config);
            }
            Action::CrashAndSend(id) => {
                state.left.crashes -= 1;
                state.send_late(id);
                state.restart(id, state.processes[id].config);
            }
            Action::TakeLogin(id) => {
                state.left.process_logins -= 1;
                let login = state.server.log_in(false);
                state.processes[id].step = Step::LoginWantsLease(login);
            }
            Action::SaveLogin(id, saved) => {
                state.count_save(saved);
                self.run(state, id).save_login(saved);
            }
            Action::Revoke(id) => {
                state.left.revocations -= 1;
                state.processes[id].step = Step::RevocationWantsLease;
            }
            Action::RevokeTokens(id, is_answered) => {
                if !is_answered {
                    state.left.losses -= 1;
                }
                self.run(state, id).revoke_tokens(is_answered);
            }
            Action::SaveRevoked(id, saved) => {
                state.count_save(saved);
                self.run(state, id).save_revoked(saved);
            }
            Action::Deploy(id) => state.restart(id, state.login),
            Action::EndLease(id) => {
                let is_loss_unseen = matches!(state.processes[id].step, Step::Sending(_));
                state.end_lease(id, is_loss_unseen);
            }
            Action::EndNewLease(id) => state.end_lease(id, true),
            Action::ExtendLease(id) => {
                state.store.lease = Some(id as u8);
                state.processes[id].is_retaken = true;
            }
            action => self.apply_other(state, action),
        }
    }

    /// What happens outside of the processes.
    fn apply_other(&self, state: &mut State, action: Action) {
        match action {
            Action::ArriveLate => {
                if let Some(credential) = state.late.take() {
                    state.server.handle(credential, self.setup.reuse);
                    self.saw(Event::LateRequest);
                }
            }
            Action::LogIn => {
                state.left.logins -= 1;
                state.login = state.server.log_in(self.setup.grant_can_repeat);
            }
            Action::Import => {
                state.left.imports -= 1;
                let refresh_token = state.server.log_in(false);
                state.forget_dead_logins();
                let session = Session::import(refresh_token, state.store.session.as_ref());
                state.write(session, self);
            }
            Action::FailOver => {
                state.left.failovers -= 1;
                if let Undo::To(before) = std::mem::take(&mut state.store.undo) {
                    state.store.session = before;
                    state.history.has_failed_over = true;
                    self.saw(Event::LostWrite);
                }
            }
            Action::Expire => {
                state.left.expiries -= 1;
                state.expired = Some(state.server.last());
            }
            Action::EndGrace => {
                state.left.grace_ends -= 1;
                state.server.end_grace();
            }
            Action::EndFamily => {
                state.left.ended_families -= 1;
                if let Some(refresh_token) = state.store.session.and_then(|it| it.refresh_token) {
                    state.server.end_family(refresh_token);
                }
            }
            Action::EndLogin => {
                state.left.ended_logins -= 1;
                if let Some(stored) = state.store.session {
                    state.server.end_family(stored.identity);
                }
            }
            _ => {}
        }
    }
}
