//! What the layers do with a [`TokenCache`] for each request.

use std::sync::Arc;

use http::HeaderValue;

use super::{issued::Issued, lookup::Lookup, rejection::SentToken, token_cache::TokenCache};
use crate::{
    challenge::{Challenge, StepUp},
    error::TokenError,
    freshness::Freshness,
};

impl TokenCache {
    /// Takes from the current token what a request needs, if the token is usable. This takes no lock: it is one atomic
    /// load and one reading of the clocks. If the token is due, a refresh starts that the request does not wait for.
    #[inline]
    pub(crate) fn read<T>(&self, take: impl FnOnce(&Arc<Issued>) -> Option<T>) -> Option<T> {
        let published = self.shared.published.load();
        let issued = published.as_ref()?;
        let freshness = issued.freshness(&self.shared.settings.clock);
        if freshness == Freshness::Expired {
            return None;
        }
        let taken = take(issued)?;
        if freshness == Freshness::Due {
            self.shared.refresh_due();
        }
        Some(taken)
    }

    /// Takes the same from the current token if it helps, else from `awaited`, which a caller has waited for.
    pub(crate) fn read_or<T>(&self, awaited: &Issued, mut take: impl FnMut(&Issued) -> T) -> T {
        match self.read(|issued| (!issued.is_rejected()).then(|| take(issued))) {
            Some(taken) => taken,
            None => take(awaited),
        }
    }

    /// Returns the current token, or what to wait for.
    pub(crate) fn lookup(&self) -> Lookup {
        match self.read(|issued| Some(Arc::clone(issued))) {
            Some(issued) => Lookup::Ready(issued),
            None => self.shared.want(None).with_waiter(None),
        }
    }

    /// Reports that the API rejected this token, and returns the one that replaces it, or what to wait for.
    pub(crate) fn replacement(&self, sent: SentToken, challenge: Option<Arc<Challenge>>) -> Lookup {
        self.shared
            .reject(sent.generation, sent.rejected_by(), false, challenge)
            .with_waiter(Some(sent.generation))
    }

    /// Reports that the API asks for more than this token has, and returns one that has more, or what to wait for.
    pub(crate) fn more(&self, sent: SentToken, challenge: &Arc<Challenge>) -> Lookup {
        self.shared
            .want_more(sent.generation, challenge)
            .with_waiter(Some(sent.generation))
    }

    /// What APIs may ask for. `None`: nothing.
    #[inline]
    pub(crate) fn step_up(&self) -> Option<&StepUp> {
        self.shared.settings.step_up.as_deref()
    }

    /// Reports that the API accepted this token. Mostly this takes no lock: a flag of the token remembers it.
    pub(crate) fn accept(&self, sent: SentToken) {
        if let Some(issued) = &*self.shared.published.load()
            && issued.generation == sent.generation
        {
            issued.accept();
            if issued
                .rejection
                .is_some_and(|rejection| rejection.is_disproved_by(sent))
            {
                self.shared.accepted_after_rejection(sent);
            }
        }
    }

    /// Reports that the API rejected this token.
    pub(crate) fn reject_sent(&self, sent: SentToken, challenge: Option<Arc<Challenge>>) {
        drop(
            self.shared
                .reject(sent.generation, sent.rejected_by(), false, challenge),
        );
    }

    /// Reports that the API rejected the token of this header value, which may be an older one. `was_accepted` says
    /// that it had accepted the token at first.
    pub(crate) fn reject_header(&self, sent: &HeaderValue, was_accepted: bool) {
        self.reject_if(|current| current.header() == sent, was_accepted);
    }

    /// Reports that the API rejected the token that a request was sent again with.
    pub(crate) fn replay_rejected(&self, sent: SentToken) {
        self.shared.replay_rejected(sent);
    }

    /// Reports that the API did not reject the token that a request was sent again with.
    pub(crate) fn replay_accepted(&self, sent: Option<SentToken>) {
        self.shared.replay_accepted(sent);
    }

    /// Reports that no response came to a request that was sent again.
    pub(crate) fn replay_failed(&self, sent: Option<SentToken>) {
        self.shared.replay_failed(sent);
    }

    /// Reports that a rejected request is not sent again.
    pub(crate) fn not_replayed(&self, sent: SentToken, reason: &TokenError) {
        self.shared.not_replayed(sent, reason);
    }

    /// Reports that a request has got a token. Only observers of requests are told.
    #[inline]
    pub(crate) fn request_sent(&self, sent: SentToken) {
        if self.shared.events.wants_requests() {
            self.shared.request_sent(sent);
        }
    }
}
