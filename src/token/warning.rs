//! [`Warning`]: an error that a usable token comes with.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::error::TokenError;

/// An error that must be reported although the token is usable: its session could not be saved. Clones are the same
/// warning.
#[derive(Clone, Debug)]
pub(crate) struct Warning {
    error: TokenError,
    state: Arc<Mutex<State>>,
}

enum State {
    /// Called when it is over.
    InForce(Vec<Box<dyn FnOnce() + Send>>),
    Over,
}

impl Warning {
    pub(crate) fn new(error: TokenError) -> Self {
        Self {
            error,
            state: Arc::new(Mutex::new(State::InForce(Vec::new()))),
        }
    }

    /// The cause is gone.
    pub(crate) fn withdraw(&self) {
        if let State::InForce(callbacks) = self.replace_state() {
            // Without the lock.
            for callback in callbacks {
                callback();
            }
        }
    }

    fn replace_state(&self) -> State {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *state, State::Over)
    }

    /// Calls `callback` when the cause is gone, or now if it is.
    pub(crate) fn when_over(&self, callback: impl FnOnce() + Send + 'static) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State::InForce(callbacks) => callbacks.push(Box::new(callback)),
            State::Over => {
                drop(state);
                callback();
            }
        }
    }

    /// The error, unless its cause is gone.
    pub(crate) fn error(&self) -> Option<&TokenError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*state, State::InForce(_)).then_some(&self.error)
    }

    /// The error, also if its cause is gone.
    pub(crate) fn cause(&self) -> &TokenError {
        &self.error
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InForce(_) => "InForce",
            Self::Over => "Over",
        })
    }
}
