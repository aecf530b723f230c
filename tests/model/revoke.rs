//! Revocations: `src/source/revoke.rs`.

use crate::{
    events::Event,
    run::Run,
    session::{Credentials, Session},
    setup::Fault,
    step::{End, Sends, Step},
    store::{SaveError, Saved},
};

impl Run<'_> {
    /// `revoke_under_lease` until it sends something.
    pub(crate) fn revoke_under_lease(&mut self) {
        self.take_lease();
        let (system, stored) = (self.system, self.state.store.session);
        let replaces = stored.map_or(0, |stored| stored.version);
        let session = self.me().newest(&system.setup, stored.as_ref());
        if self.me().is_revoked(&session) {
            self.me().note_revoked(&session);
            let config = self.me().config;
            if stored.is_some_and(|stored| stored.is_revoked && stored.knows(config)) {
                return self.go(Step::Releasing(End::Revoked));
            }
            let session = session.with_login(config);
            return self.go(Step::SavingRevoked {
                session: session.at(replaces + 1),
                replaces,
            });
        }
        let would_send = self.me().would_send(stored.as_ref());
        // `tokens_of`
        let mut tokens = Credentials::default();
        if let Some(refresh_token) = session.refresh_token {
            tokens = tokens.with(refresh_token);
        }
        if self.me().sends(&session) == Sends::Grant && !system.setup.grant_can_repeat {
            tokens = tokens.with(self.me().config);
        }
        self.go(Step::Revoking {
            session,
            replaces,
            stored: would_send,
            tokens,
        });
    }

    /// The server revokes the tokens, and its answer is read.
    pub(crate) fn revoke_tokens(&mut self, is_answered: bool) {
        let Step::Revoking {
            session,
            replaces,
            stored,
            tokens,
        } = self.me().step
        else {
            return;
        };
        for token in 0..=self.state.server.last() {
            if tokens.contains(token) {
                self.state.server.revoke(token);
            }
        }
        if !is_answered {
            return self.go(Step::Releasing(End::NotRevoked));
        }
        let config = self.me().config;
        let session = if self.me().is_new_login(&session) {
            Session::begin(config, Some(&session))
        } else {
            session
        };
        let credentials = tokens.with(session.identity);
        let session = session.at(replaces).of_client().revoked(credentials);
        let session = session.with_login(config);
        self.me().supersede(stored, &session);
        self.me().note_revoked(&session);
        self.go(Step::SavingRevoked { session, replaces });
    }

    /// `save_revoked`.
    pub(crate) fn save_revoked(&mut self, saved: Saved) {
        let Step::SavingRevoked { session, replaces } = self.me().step else {
            return;
        };
        let result = if self.has(Fault::RevokesInMemoryOnly) {
            Ok(())
        } else {
            self.save_session(replaces, session, saved)
        };
        self.keep_unsaved(session, replaces, result);
        let end = match result {
            Ok(()) => {
                self.state.note_revoked(&session);
                self.saw(Event::RevocationSaved);
                End::Revoked
            }
            Err(SaveError::LeaseLost) => End::RevokeAgain,
            Err(SaveError::Store) => End::NotRevoked,
        };
        self.go(Step::Releasing(end));
    }
}
