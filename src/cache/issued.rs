//! A token as the cache holds it, and what a look at the cache yields.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use super::{
    freshness::{Deadlines, Freshness, Moment},
    wait::Wait,
};
use crate::{
    clock::Clock,
    error::{TokenError, TokenErrorKind},
    token::Token,
};

/// A token as the cache holds it.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(super) token: Token,
    pub(super) deadlines: Deadlines,
    /// When it ends by the wall clock, as reckoned when it came.
    pub(super) ends: Option<SystemTime>,
    /// The API has accepted it at least once.
    proven: AtomicBool,
    /// The API has refused it, and nothing better has come.
    pub(super) refused: bool,
}

impl Issued {
    pub(super) fn new(token: Token, deadlines: Deadlines, ends: Option<SystemTime>) -> Self {
        Self {
            token,
            deadlines,
            ends,
            proven: AtomicBool::new(false),
            refused: false,
        }
    }

    /// The same token, to be served on and renewed at `due`.
    pub(super) fn due_at(&self, due: Moment, refused: bool) -> Self {
        Self {
            token: self.token.clone(),
            deadlines: Deadlines {
                due: Some(due),
                ..self.deadlines
            },
            ends: self.ends,
            proven: AtomicBool::new(self.is_proven()),
            refused,
        }
    }

    /// The same token, known to be refused.
    pub(super) fn refused(&self) -> Self {
        Self {
            token: self.token.clone(),
            deadlines: self.deadlines,
            ends: self.ends,
            proven: AtomicBool::new(self.is_proven()),
            refused: true,
        }
    }

    #[inline]
    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    #[inline]
    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// The API accepted it. Written once, so that the line stays shared between cores.
    #[inline]
    pub(crate) fn prove(&self) {
        if !self.is_proven() {
            self.proven.store(true, Ordering::Relaxed);
        }
    }

    /// Whether `new` is another token than this one, which was refused.
    pub(crate) fn replaced_by(&self, new: &Issued) -> Result<(), TokenError> {
        if !new.token.same_secret(&self.token) {
            return Ok(());
        }
        let message = "the source yields the refused token again; is it a fixed one, or cached by the server?";
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

/// What stands for a token that was refused.
pub(crate) enum Replacement {
    Here(Arc<Issued>),
    Coming(Wait),
}
