//! What the API says of the tokens it is sent.

use std::sync::Arc;

use http::HeaderValue;

use super::{
    issued::Generation,
    refresh_task::{Boarding, Flight},
    state::{Shared, interrupted},
};
use crate::token::Token;

impl Shared {
    /// The API rejected this token; `served` if it had accepted it at first.
    pub(super) fn reject(self: &Arc<Self>, rejected: Generation, served: bool) -> Boarding {
        self.change(self.control(), |control| {
            // Looked for first: one that is given up as lost puts the token back that it was to replace.
            let boarding = self.under_way(control).map(Flight::board);
            let Some(issued) = self.current.load_full() else {
                // The one that was rejected is being replaced already; or it never was one of this cache.
                let unknown = || interrupted("nothing is known of the rejected token");
                return boarding.unwrap_or_else(|| Boarding::Failed(unknown()));
            };
            // By generation: a late rejection of an old token says nothing about the new one.
            if issued.generation != rejected {
                return Boarding::Here(issued);
            }
            if !issued.rejected {
                control.rejected += 1;
                control.news = true;
                if !served && !issued.is_proven() {
                    control.gate.fruitless(self.now().mono);
                }
            }
            let boarding = self.replace(control, &issued);
            if let Boarding::Flight(_) = boarding {
                self.current.store(None);
                control.suspect = Some(issued);
            } else {
                self.serve_on(control, &issued, true);
            }
            boarding
        })
    }

    /// The API rejected this token, if it is the current one: an older one has been replaced.
    pub(super) fn reject_token(self: &Arc<Self>, token: &Token) {
        let current = self.current.load();
        if let Some(issued) = current
            .as_ref()
            .filter(|issued| issued.token.same_secret(token))
        {
            drop(self.reject(issued.generation, false));
        }
    }

    /// The API rejected the token of this header value, if that is the current one's.
    pub(super) fn reject_header(self: &Arc<Self>, sent: &HeaderValue, served: bool) {
        let current = self.current.load();
        if let Some(issued) = current
            .as_ref()
            .filter(|issued| issued.token.header() == sent)
        {
            drop(self.reject(issued.generation, served));
        }
    }

    /// The token that a rejection brought was rejected as well.
    pub(super) fn replay_rejected(&self, rejected: Generation) {
        self.change(self.control(), |control| {
            let Some(issued) = self.current.load_full() else {
                return;
            };
            if issued.generation == rejected && !issued.rejected {
                control.rejected += 1;
                control.news = true;
                control.gate.fruitless(self.now().mono);
                self.serve_on(control, &issued, true);
            }
        });
    }

    /// The API accepted this token.
    pub(super) fn prove(&self, accepted: Generation) {
        let current = self.current.load();
        if let Some(issued) = current
            .as_ref()
            .filter(|issued| issued.generation == accepted)
        {
            issued.prove();
        }
    }

    /// The API accepted a replay, and with it the token that a rejection brought.
    pub(super) fn replay_accepted(&self) {
        self.control().gate.fruitful();
    }
}
