//! The lease, saves, and sessions that could not be saved: `src/source/unsaved.rs`.

use crate::{
    events::Event,
    process::{Process, Unsaved},
    run::Run,
    session::Session,
    setup::Fault,
    step::{End, Step},
    store::{SaveError, Saved},
};

impl Run<'_> {
    /// Whether `take_lease` of `unsaved.rs` would return.
    pub(crate) fn can_take_lease(&self) -> bool {
        let lease = self.state.store.lease;
        lease.is_none() || lease == Some(self.number())
    }

    pub(crate) fn take_lease(&mut self) {
        let number = self.number();
        if !self.me().has_lease || !self.is_held() {
            self.state.store.lease = Some(number);
            self.me().has_lease = true;
            self.me().is_retaken = false;
            self.me().past.has_lost_lease = false;
            self.me().past.is_loss_unseen = false;
        }
    }

    pub(crate) fn release_lease(&mut self) {
        if self.state.store.lease == Some(self.number()) {
            self.state.store.lease = None;
        }
        self.me().has_lease = false;
        self.me().is_retaken = false;
    }

    pub(crate) fn is_held(&self) -> bool {
        let is_retaken = self.state.processes[self.id].is_retaken;
        self.state.store.lease == Some(self.number()) && !is_retaken
    }

    pub(crate) fn keep_unsaved(
        &mut self,
        session: Session,
        replaces: u8,
        result: Result<(), SaveError>,
    ) {
        if result == Err(SaveError::LeaseLost) {
            self.saw(Event::FencedSave);
        }
        let is_held = self.is_held();
        self.me().unsaved = result.err().map(|error| Unsaved {
            session,
            replaces,
            is_lease_lost: error == SaveError::LeaseLost && !is_held,
        });
        if result.is_ok() {
            self.me().past.has_lost_lease = false;
        }
    }

    /// `put_back`, and what the cache does with the result.
    pub(crate) fn release(&mut self) {
        let Step::Releasing(end) = self.me().step else {
            return;
        };
        let is_lost = matches!(end, End::Again | End::LoginAgain(_) | End::RevokeAgain);
        let has_lost = is_lost && (!self.is_held() || self.has(Fault::ReleasesWhenOvertaken));
        let keeps = self.me().unsaved.is_some_and(|it| !it.is_lease_lost)
            && !has_lost
            && !self.has(Fault::ReleasesWhileUnsaved);
        if !keeps {
            self.release_lease();
        }
        if let Some(unsaved) = &mut self.state.processes[self.id].unsaved
            && !self.system.setup.has(Fault::KeepsNoSecondLease)
        {
            unsaved.is_lease_lost = false;
        }
        self.finish(end);
    }

    /// Whether `LeaseSlot::save` in `unsaved.rs` has something to do, and would not wait for the lease.
    pub(crate) fn can_save_in_background(&self) -> bool {
        let process = &self.state.processes[self.id];
        let Some(unsaved) = &process.unsaved else {
            return false;
        };
        let is_accepted = self.state.store.accepts(unsaved.replaces, &unsaved.session);
        process.step == Step::Idle && (self.can_take_lease() || (process.has_lease && is_accepted))
    }

    /// `LeaseSlot::save`.
    pub(crate) fn save_in_background(&mut self) {
        let Some(mut unsaved) = self.me().unsaved else {
            return;
        };
        if !self.me().has_lease {
            self.take_lease();
        }
        let store = &self.state.store;
        let stored = store.session;
        if store.accepts(unsaved.replaces, &unsaved.session) {
            self.write(unsaved.session);
            self.saw(Event::SavedInBackground);
        } else {
            self.take_lease();
            let is_newer = stored
                .is_none_or(|it| Process::is_before(&self.system.setup, &it, &unsaved.session));
            if is_newer || self.has(Fault::SavesInBackgroundOverAnything) {
                let replaces = self.state.store.version();
                unsaved.session = unsaved.session.at(replaces + 1);
                if let Some(stored) = stored {
                    unsaved.session = unsaved.session.with_dead_of(&stored);
                }
                self.write(unsaved.session);
                self.saw(Event::SavedInBackground);
            } else {
                self.saw(Event::NotSavedInBackground);
                if let Some(stored) = &stored {
                    self.check_given_up(&unsaved.session, stored);
                }
            }
        }
        let is_stored = self.state.store.session == Some(unsaved.session);
        if is_stored && unsaved.session.is_revoked {
            self.state.note_revoked(&unsaved.session);
        }
        self.me().unsaved = None;
        self.me().past.has_lost_lease = false;
        self.release_lease();
    }

    /// `save_repeatedly`.
    pub(crate) fn save_session(
        &mut self,
        replaces: u8,
        session: Session,
        saved: Saved,
    ) -> Result<(), SaveError> {
        let is_accepted = self.state.store.accepts(replaces, &session);
        if saved == Saved::No {
            return Err(SaveError::Store);
        }
        if !is_accepted && !self.has(Fault::SavesWithoutVersion) {
            return Err(SaveError::LeaseLost);
        }
        self.write(session);
        match saved {
            Saved::Unknown => Err(SaveError::Store),
            Saved::Released => {
                if self.state.store.lease == Some(self.number()) {
                    self.state.store.lease = None;
                }
                Err(SaveError::Store)
            }
            Saved::Yes | Saved::No => Ok(()),
        }
    }

    pub(crate) fn write(&mut self, session: Session) {
        let lease = self.state.store.lease;
        for (number, process) in (0..).zip(&mut self.state.processes) {
            let Step::Sending(attempt) = &process.step else {
                continue;
            };
            // A lease that was extended after it had ended protects nothing.
            let is_held = lease == Some(number) && !process.is_retaken;
            let is_protected = is_held && attempt.is_marked();
            let is_excused = is_held || process.past.is_loss_unseen;
            process.past.is_overtaken |=
                usize::from(number) != self.id && !is_protected && is_excused;
        }
        self.state.write(session, self.system);
    }
}
