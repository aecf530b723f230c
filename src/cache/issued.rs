//! A token as the cache holds it, and what a look at the cache yields.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use http::HeaderValue;

use super::{sharded_header::Spread, wait::Wait};
use crate::{
    clock::Clock,
    error::{TokenError, TokenErrorKind},
    freshness::{Deadline, Deadlines, Freshness},
    token::Token,
};

/// Which token one is, of all that any cache has had: a rejection can come by a policy over another cache. The same secret,
/// issued again, keeps its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(NonZeroUsize);

impl Generation {
    pub(super) fn next() -> Self {
        static ISSUED: AtomicUsize = AtomicUsize::new(0);
        let before = ISSUED.fetch_add(1, Ordering::Relaxed);
        Self(NonZeroUsize::MIN.saturating_add(before))
    }
}

/// What is remembered of the token that a request was sent with: not the token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) generation: Generation,
    /// The API had accepted it before.
    pub(crate) proven: bool,
}

/// A token as the cache holds it.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(super) token: Token,
    headers: Spread,
    pub(super) generation: Generation,
    pub(super) deadlines: Deadlines,
    /// When it ends by the wall clock, as reckoned when it came.
    pub(super) ends: Option<SystemTime>,
    /// The API has accepted it at least once.
    proven: AtomicBool,
    /// The API has rejected it, and nothing better has come.
    pub(super) rejected: bool,
}

impl Issued {
    pub(super) fn new(
        token: Token,
        generation: Generation,
        deadlines: Deadlines,
        ends: Option<SystemTime>,
    ) -> Self {
        Self {
            headers: Spread::of(token.header()),
            token,
            generation,
            deadlines,
            ends,
            proven: AtomicBool::new(false),
            rejected: false,
        }
    }

    /// The same token, to be served on and renewed at `due`.
    pub(super) fn due_at(&self, due: Deadline, rejected: bool) -> Self {
        Self {
            token: self.token.clone(),
            headers: self.headers.clone(),
            generation: self.generation,
            deadlines: self.deadlines.due_at(due),
            ends: self.ends,
            proven: AtomicBool::new(self.is_proven()),
            rejected,
        }
    }

    /// The same token, known to be rejected.
    pub(super) fn as_rejected(&self) -> Self {
        Self {
            token: self.token.clone(),
            headers: self.headers.clone(),
            generation: self.generation,
            deadlines: self.deadlines,
            ends: self.ends,
            proven: AtomicBool::new(self.is_proven()),
            rejected: true,
        }
    }

    #[inline]
    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    /// What goes on a request.
    #[inline]
    pub(crate) fn header(&self) -> &HeaderValue {
        self.headers.here()
    }

    #[inline]
    pub(crate) fn sent(&self) -> Sent {
        Sent {
            generation: self.generation,
            proven: self.is_proven(),
        }
    }

    #[inline]
    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// The API accepted it. Written once, so that the line stays shared between cores.
    pub(super) fn prove(&self) {
        if !self.is_proven() {
            self.proven.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it is another token than the one that was rejected.
    pub(crate) fn replaces(&self, rejected: Generation) -> Result<(), TokenError> {
        if self.generation != rejected {
            return Ok(());
        }
        let message = "the source yields the rejected token again; is it a fixed one, or cached by the server?";
        Err(TokenError::new(TokenErrorKind::Rejected, message))
    }

    #[inline]
    pub(super) fn freshness(&self, clock: &Clock) -> Freshness {
        if self.deadlines.any() {
            self.deadlines.freshness(clock.now())
        } else {
            Freshness::Fresh
        }
    }
}

/// What a look at the cache yields.
pub(crate) enum Lookup {
    Ready(Arc<Issued>),
    Wait(Wait),
    Failed(TokenError),
}

/// What stands for a token that was rejected.
pub(crate) enum Replacement {
    Here(Arc<Issued>),
    Coming(Wait),
}
