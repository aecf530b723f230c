//! Who needs a token, or reports that one was rejected, boards the flight that brings the next; or has it take off.

use std::{sync::Arc, time::Duration};

use super::{
    issued::{Generation, Issued, Lookup},
    refresh_task::{Boarding, Flight, Numbers},
    state::{Control, Shared},
    throttle::Admission,
};
use crate::{
    clock,
    error::{TokenError, TokenErrorKind},
    freshness::Freshness,
    token_source::TokenContext,
};

/// How much longer than it may take a flight is waited for to say so, before it is taken for lost.
const GRACE: Duration = Duration::from_secs(10);

impl Shared {
    /// Nobody waits for this one, and nobody waits for the lock: most who hold it are at the same thing.
    #[cold]
    pub(super) fn renew_behind(self: &Arc<Self>) {
        Self::background_refresh(self);
        let Ok(control) = self.control.try_lock() else {
            return;
        };
        self.change(control, |control| {
            let now = self.now();
            let current = self.current.load_full();
            // Between the look and the lock a new token may have come.
            let fresh = |issued: &Arc<Issued>| issued.deadlines.freshness(now) == Freshness::Fresh;
            if self.under_way(control).is_some() || current.as_ref().is_some_and(fresh) {
                return;
            }
            let probe = match control.gate.admit(now.mono, self.floor(), false) {
                Admission::After(wait) if wait.is_zero() => None,
                Admission::Probe(error) => Some(error),
                Admission::After(_) | Admission::Rejected(_) => return,
            };
            let request = self.request(current.as_deref());
            self.take_off(control, Duration::ZERO, request, probe);
        });
    }

    /// There is no usable token, or only one that is to be replaced: wait for the flight, begin one, or hear why not.
    #[cold]
    pub(super) fn board(self: &Arc<Self>, unlike: Option<Generation>) -> Boarding {
        Self::background_refresh(self);
        self.change(self.control(), |control| {
            let current = self.current.load_full();
            let usable = self.is_usable(current.as_deref());
            let other = |issued: &Arc<Issued>| unlike != Some(issued.generation);
            match current {
                Some(issued) if usable && other(&issued) => Boarding::Here(issued),
                current => {
                    let request = self.request(current.as_deref());
                    self.board_or_take_off(control, request, !usable)
                }
            }
        })
    }

    pub(super) fn refresh(self: &Arc<Self>) -> Lookup {
        let current = self.current.load().as_ref().map(|issued| issued.generation);
        self.board(current).lookup(current)
    }

    /// The flight that is under way, if it can still land: one whose runtime stands still is given up.
    pub(super) fn under_way<'a>(&self, control: &'a mut Control) -> Option<&'a Flight> {
        let now = self.now().mono;
        if control
            .flight
            .take_if(|flight| flight.numbers.lost_at <= now)
            .is_some()
        {
            self.restore(control);
        }
        control.flight.as_ref()
    }

    fn board_or_take_off(
        self: &Arc<Self>,
        control: &mut Control,
        request: TokenContext,
        needed: bool,
    ) -> Boarding {
        if let Some(flight) = self.under_way(control) {
            return flight.board();
        }
        match control.gate.admit(self.now().mono, self.floor(), needed) {
            Admission::After(delay) => self.take_off(control, delay, request, None),
            Admission::Rejected(error) => Boarding::Failed(error),
            Admission::Probe(error) => self.take_off(control, Duration::ZERO, request, Some(error)),
        }
    }

    /// Boards whatever brings another token than `rejected`.
    pub(super) fn replace(self: &Arc<Self>, control: &mut Control, rejected: &Issued) -> Boarding {
        if let Some(flight) = self.under_way(control) {
            return flight.board();
        }
        let now = self.now().mono;
        if let Admission::Rejected(error) | Admission::Probe(error) =
            control.gate.admit(now, self.floor(), true)
        {
            return Boarding::Failed(error);
        }
        match control.gate.admit_rejection(now, self.floor()) {
            Ok(delay) if delay <= self.settings.max_wait => {
                let request = self
                    .request(Some(rejected))
                    .rejected(rejected.token.clone());
                self.take_off(control, delay, request, None)
            }
            Ok(wait) => later(
                "the last attempt was too short a time ago for the next",
                wait,
            ),
            Err(wait) => later(
                "new tokens have not helped, so the next is fetched later",
                wait,
            ),
        }
    }

    fn request(&self, current: Option<&Issued>) -> TokenContext {
        let request = TokenContext::with_clock(self.settings.clock.clone());
        match current {
            // Until another comes: a source with a cache of its own must go past it.
            Some(issued) if issued.rejected => request.rejected(issued.token.clone()),
            Some(issued) => request.replacing(issued.token.clone()),
            None => request,
        }
    }

    fn take_off(
        self: &Arc<Self>,
        control: &mut Control,
        delay: Duration,
        request: TokenContext,
        probe: Option<TokenError>,
    ) -> Boarding {
        let start = clock::later(self.now().mono, delay);
        control.flights += 1;
        let (id, epoch) = (control.flights, control.gate.epoch());
        let lost_at = clock::later(start, self.settings.refresh_timeout.saturating_add(GRACE));
        let numbers = Numbers { id, epoch, lost_at };
        match Flight::prepare(self, numbers, delay, request, probe) {
            Ok((flight, departure)) => {
                control.gate.started(start);
                control.departure = Some(departure);
                control.flight.insert(flight).board()
            }
            Err(error) => Boarding::Failed(error),
        }
    }
}

/// Nobody can wait so long, so the server's own answer must do until then.
fn later(message: &'static str, wait: Duration) -> Boarding {
    let error = TokenError::new(TokenErrorKind::Rejected, message);
    Boarding::Failed(error.with_retry_after(wait))
}
