//! What the outcome of a flight changes, and what is told of it.

use std::sync::Arc;

use super::{
    issued::{Generation, Issued},
    refresh_task::{Landing, Outcome},
    state::{Control, Shared},
    status::{CacheStatus, TokenState},
};
use crate::{
    clock::Now,
    error::TokenError,
    freshness::{Deadline, Deadlines, Freshness},
    token::Token,
};

impl Shared {
    /// The one place where the outcome of a flight changes anything. Returns what its waiters are told.
    pub(super) fn land(&self, landing: Landing) -> Result<Arc<Issued>, TokenError> {
        let now = self.now();
        self.change(self.control(), |control| {
            let Some(flight) = control
                .flight
                .take_if(|flight| flight.numbers.id == landing.id)
            else {
                // Given up as lost long ago. Its waiters are told what came, and nobody else.
                return match landing.outcome {
                    Outcome::Token { token, asked } => Ok(self.issue(control, token, asked, now)),
                    Outcome::Failed(error) | Outcome::NotMended(error) => Err(error),
                };
            };
            match landing.outcome {
                Outcome::Token { token, asked } => {
                    control.news = true;
                    let issued = self.issue(control, token, asked, now);
                    self.publish(control, &issued);
                    Ok(issued)
                }
                Outcome::Failed(error) => {
                    control.news = true;
                    control.failed += 1;
                    // Who has reset the cache meanwhile wants the next attempt, whatever became of this one.
                    if flight.numbers.epoch == control.gate.epoch() {
                        let needed = !self.is_usable(self.current.load_full().as_deref());
                        let random = control.rng.f64();
                        control.gate.failed(&error, now.mono, needed, random);
                    }
                    if let Some(suspect) = control.suspect.take() {
                        self.serve_on(control, &suspect, true);
                    }
                    Err(error)
                }
                Outcome::NotMended(error) => {
                    control.gate.not_mended(now.mono);
                    Err(error)
                }
            }
        })
    }

    fn issue(&self, control: &mut Control, token: Token, asked: Now, now: Now) -> Arc<Issued> {
        let expires = token.expires(asked, now);
        let random = control.rng.f64();
        let deadlines = Deadlines::new(expires, &self.settings.schedule, random, now);
        let before = self.current.load();
        let before = before.as_ref().or(control.suspect.as_ref());
        let generation = match before {
            Some(before) if before.token.same_secret(&token) => before.generation,
            _ => Generation::next(),
        };
        Arc::new(Issued::new(
            token,
            generation,
            deadlines,
            expires.map(|expires| expires.wall),
        ))
    }

    fn publish(&self, control: &mut Control, issued: &Arc<Issued>) {
        let suspect = control.suspect.take();
        control.issued += 1;
        control.warning = issued.token.warning().cloned();
        control.gate.succeeded();
        let rejected = suspect.is_some();
        let replaced = suspect.or_else(|| self.current.load_full());
        self.current.store(Some(Arc::clone(issued)));
        match replaced {
            Some(old) if old.generation == issued.generation => {
                control.gate.fruitless(self.now().mono);
                self.serve_on(control, issued, rejected || old.rejected);
            }
            Some(old) if !rejected && !old.rejected => control.gate.fruitful(),
            _ => {}
        }
    }

    /// A flight ended without an outcome: its runtime shut down. Whoever comes next begins anew.
    pub(super) fn lost(&self, id: u64) {
        self.change(self.control(), |control| {
            if control
                .flight
                .take_if(|flight| flight.numbers.id == id)
                .is_some()
            {
                self.restore(control);
            }
        });
    }

    /// Puts a rejected token back that is being replaced no longer.
    pub(super) fn restore(&self, control: &mut Control) {
        if let Some(suspect) = control.suspect.take() {
            self.current.store(Some(Arc::new(suspect.as_rejected())));
        }
    }

    /// Keeps a token in use that is of little worth, and has it renewed when the next attempt may start: whom nothing better
    /// can be given is best told by the server itself, and perhaps it was not the token's fault.
    pub(super) fn serve_on(&self, control: &mut Control, issued: &Issued, rejected: bool) {
        let now = self.now();
        let hold = control.gate.hold_left(now.mono, self.floor());
        let wait = hold.max(control.gate.opens_in(now.mono, self.floor()));
        let due = Deadline::after(wait, now);
        self.current
            .store(Some(Arc::new(issued.due_at(due, rejected))));
    }

    pub(super) fn status(&self) -> CacheStatus {
        self.describe(&self.control(), self.now())
    }

    pub(super) fn describe(&self, control: &Control, now: Now) -> CacheStatus {
        let current = self.current.load_full();
        let issued = current.as_ref().or(control.suspect.as_ref());
        let state = match issued {
            None => TokenState::Empty,
            Some(issued) if issued.rejected || current.is_none() => TokenState::Rejected,
            Some(issued) => match issued.deadlines.freshness(now) {
                Freshness::Fresh => TokenState::Fresh,
                Freshness::Due => TokenState::Due,
                Freshness::Expired => TokenState::Expired,
            },
        };
        CacheStatus {
            state,
            expires_at: issued.and_then(|issued| issued.ends),
            last_error: control.gate.error().or(control.warning.as_ref()).cloned(),
            issued: control.issued,
            failed: control.failed,
            rejected: control.rejected,
            told: control.told,
        }
    }
}
