//! [`Warning`]: an error that a usable token comes with.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::error::TokenError;

/// An error that must be reported although the token is usable: its session could not be saved. Clones are the same
/// warning.
#[derive(Clone, Debug)]
pub(crate) struct Warning {
    error: TokenError,
    is_over: Arc<AtomicBool>,
}

impl Warning {
    pub(crate) fn new(error: TokenError) -> Self {
        Self {
            error,
            is_over: Arc::default(),
        }
    }

    /// The cause is gone.
    pub(crate) fn withdraw(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// The error, unless its cause is gone.
    pub(crate) fn error(&self) -> Option<&TokenError> {
        (!self.is_over.load(Ordering::Relaxed)).then_some(&self.error)
    }
}
