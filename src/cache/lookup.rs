//! [`Lookup`]: the answer to "is there a token?".

use std::sync::Arc;

use tokio::runtime::Handle;

use super::{
    issued::{Generation, Issued},
    waiter::{SharedResult, Waiter},
};
use crate::error::{TokenError, TokenErrorKind};

/// Is there a token? `W` is what to wait for if there is none yet.
pub(crate) enum Lookup<W = Waiter> {
    Ready(Arc<Issued>),
    Wait(W),
    Failed(TokenError),
}

impl Lookup<Arc<SharedResult>> {
    /// Turns the result to wait for into a waiter, which needs a runtime for its time limit.
    pub(super) fn with_waiter(self, other_than: Option<Generation>) -> Lookup {
        match self {
            Self::Ready(issued) => Lookup::Ready(issued),
            Self::Failed(error) => Lookup::Failed(error),
            Self::Wait(result) => match runtime() {
                Ok(_) => Lookup::Wait(Waiter::new(result, other_than)),
                Err(error) => Lookup::Failed(error),
            },
        }
    }
}

/// The runtime of the caller, which the refresh task and the waiters' timers run in.
pub(super) fn runtime() -> Result<Handle, TokenError> {
    Handle::try_current().map_err(|error| {
        let message =
            "a refresh runs in a task, but there is no Tokio runtime here; call from within one";
        TokenError::new(TokenErrorKind::Config, message).with_source(error)
    })
}

pub(super) fn interrupted(message: &'static str) -> TokenError {
    TokenError::new(TokenErrorKind::Interrupted, message)
}
