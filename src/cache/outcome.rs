//! What the outcome of a flight changes, and what is told of it.

use std::sync::Arc;

use super::{
    flight::Landing,
    freshness::{Deadlines, Freshness, Moment},
    issued::Issued,
    state::{Control, Shared},
    status::{CacheStatus, TokenState},
};
use crate::{clock::Now, error::TokenError, token::Token};

impl Shared {
    /// The one place where the outcome of a flight changes anything. Returns what its waiters are told.
    pub(super) fn land(&self, landing: Landing) -> Result<Arc<Issued>, TokenError> {
        let now = self.now();
        let mut control = self.control();
        control.flight = None;
        let suspect = control.suspect.take();
        let outcome = match landing.outcome {
            Ok(token) => Ok(self.publish(&mut control, token, landing.asked, now, suspect)),
            Err(error) => {
                control.failed += 1;
                let current = self.current.load_full();
                let needed = !self.is_usable(current.as_deref());
                let random = control.rng.f64();
                control.gate.failed(&error, now.mono, needed, random);
                if let Some(suspect) = suspect {
                    self.serve_on(&mut control, &suspect, true);
                }
                Err(error)
            }
        };
        let status = self.describe(&control, now);
        drop(control);
        // Wakers run outside of the lock.
        self.status.send_replace(status);
        outcome
    }

    fn publish(
        &self,
        control: &mut Control,
        token: Token,
        asked: Now,
        now: Now,
        suspect: Option<Arc<Issued>>,
    ) -> Arc<Issued> {
        control.issued += 1;
        control.warning = token.warning().cloned();
        control.gate.succeeded();
        let random = control.rng.f64();
        let expires = token.expires(asked, now);
        let deadlines = Deadlines::new(expires, &self.settings.schedule, random, now);
        let refused = suspect.is_some();
        let replaced = suspect.or_else(|| self.current.load_full());
        let again = replaced.filter(|old| old.token.same_secret(&token));
        let issued = Arc::new(Issued::new(token, deadlines));
        self.current.store(Some(Arc::clone(&issued)));
        if let Some(old) = again {
            control.gate.fruitless(now.mono);
            self.serve_on(control, &issued, refused || old.refused);
        }
        issued
    }

    /// The flight ended without an outcome: its runtime shut down. Whoever comes next begins anew.
    pub(super) fn lost(&self) {
        let mut control = self.control();
        control.flight = None;
        if let Some(suspect) = control.suspect.take() {
            self.current.store(Some(suspect));
        }
    }

    /// Keeps a token in use that is of little worth, and has it renewed when the next attempt may start: whom nothing better
    /// can be given is best told by the server itself, and perhaps it was not the token's fault.
    pub(super) fn serve_on(&self, control: &mut Control, issued: &Issued, refused: bool) {
        let now = self.now();
        let hold = control.gate.hold_left(now.mono, self.floor());
        let wait = hold.max(control.gate.opens_in(now.mono, self.floor()));
        let due = Moment {
            mono: now.mono + wait,
            wall: now.wall + wait,
        };
        self.current
            .store(Some(Arc::new(issued.due_at(due, refused))));
    }

    pub(super) fn status(&self) -> CacheStatus {
        self.describe(&self.control(), self.now())
    }

    fn describe(&self, control: &Control, now: Now) -> CacheStatus {
        let current = self.current.load_full();
        let issued = current.as_ref().or(control.suspect.as_ref());
        let state = match issued {
            None => TokenState::Empty,
            Some(issued) if issued.refused || current.is_none() => TokenState::Refused,
            Some(issued) => match issued.deadlines.freshness(now) {
                Freshness::Fresh => TokenState::Fresh,
                Freshness::Due => TokenState::Due,
                Freshness::Expired => TokenState::Expired,
            },
        };
        CacheStatus {
            state,
            expires_at: issued
                .and_then(|issued| issued.token.expires(now, now))
                .map(|e| e.wall),
            last_error: control.gate.error().or(control.warning.as_ref()).cloned(),
            issued: control.issued,
            failed: control.failed,
            refused: control.refused,
        }
    }
}
