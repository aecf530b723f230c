//! Whether a request of [`BearerAuth`](crate::BearerAuth) can be sent again: decided here and nowhere else. The rules, which
//! [`RefreshOnReject`](crate::RefreshOnReject) by itself follows too, are in `retry.rs`.

use crate::{
    body::{BodySnapshot, ReplayBody},
    error::TokenError,
    middleware::retry::{ReplaySettings, body_not_kept, rejected_again},
};

/// Whether the request of an attempt can be sent again.
pub(super) enum CanReplay<B> {
    /// No: this attempt is the replay.
    Never,
    /// If its method and its body allow that.
    Once {
        method_allowed: bool,
        body: BodySnapshot<B>,
    },
}

impl<B> CanReplay<B> {
    /// Before a new token is waited for: fails if the request cannot be sent again in any case.
    pub(super) fn check(&self) -> Result<(), TokenError> {
        match self {
            Self::Never => Err(rejected_again()),
            Self::Once {
                method_allowed,
                body,
            } => ReplaySettings::check(*method_allowed, body.can_replay()),
        }
    }

    /// When the new token is there: withdraws from the budget, and returns the body for the replay.
    ///
    /// The body is claimed while the rejected response is still held. The first attempt may still be sending it, and could
    /// exceed the limit a moment later.
    pub(super) fn claim(self, replays: &ReplaySettings) -> Result<ReplayBody<B>, TokenError> {
        self.check()?;
        let Self::Once { body, .. } = self else {
            return Err(rejected_again());
        };
        replays.withdraw()?;
        body.claim().ok_or_else(|| {
            replays.deposit();
            body_not_kept()
        })
    }
}
