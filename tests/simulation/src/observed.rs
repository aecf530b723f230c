//! What a cache asks of its source, and what it gets.

use tower_bearer::{
    Origins, Schedule, Token, TokenContext, TokenError, TokenErrorKind, TokenSource,
};

use crate::{
    host::Host,
    plan::{MINUTE, Ms},
    world::State,
};

/// A source whose cache is observed.
pub(crate) struct Observed<S> {
    pub(crate) host: Host,
    pub(crate) source: S,
}

tokio::task_local! {
    /// The call of a source that runs in this task. What a source does under a lease for a token, it does in another task.
    static CALL: Option<Asked>;
}

/// Whether this task is one of a call of a source, and not one that the source has spawned.
pub(crate) fn is_within_call() -> bool {
    CALL.try_with(|_| ()).is_ok()
}

/// The request of a cache for a token that this task is about.
pub(crate) fn asked() -> Option<Asked> {
    CALL.try_with(|asked| *asked).ok().flatten()
}

/// When a cache asked for a token.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    at: Ms,
    pub(crate) is_after_reset: bool,
    /// The number of this call.
    pub(crate) number: u64,
}

impl State {
    /// A cache asks for a token.
    fn asks(&mut self, host: &Host, is_after_reset: bool) -> Asked {
        let asks = &mut self.hosts[host.process].asks;
        *asks += 1;
        let asked = Asked {
            at: self.now,
            is_after_reset,
            number: *asks,
        };
        if !host.is_dead(self) {
            let process = host.process;
            let state = &mut self.hosts[process];
            if is_after_reset && state.reset_at.is_none() {
                self.violation(&format!("the reset of p{process} has not ended"));
            }
        }
        asked
    }

    /// It gets an answer before it stops waiting. A new token or a dead session ends a reset.
    fn gets(&mut self, host: &Host, asked: &Asked, result: &Result<Token, TokenError>) {
        if host.is_dead(self) {
            return;
        }
        let state = &mut self.hosts[host.process];
        let ends = match result {
            // A token of another process does not, nor one of an earlier call that the cache did not wait for.
            Ok(_) => state.granted_to == asked.number,
            Err(error) => error.kind() == TokenErrorKind::ReauthRequired,
        };
        // Within a minute, it may have been another reset that the call was about.
        let is_known = |reset_at: Ms| reset_at + MINUTE < asked.at;
        if ends && asked.is_after_reset && state.reset_at.is_some_and(is_known) {
            state.reset_at = None;
        }
    }
}

impl<S: TokenSource> TokenSource for Observed<S> {
    async fn token(&self, cx: TokenContext) -> Result<Token, TokenError> {
        let host = &self.host;
        let asked = host.world.lock().asks(host, cx.is_after_reset());
        let result = CALL.scope(Some(asked), self.source.token(cx)).await;
        host.world.lock().gets(host, &asked, &result);
        result
    }

    async fn has_changed(&self) -> bool {
        CALL.scope(None, self.source.has_changed()).await
    }

    async fn stored_token(&self, cx: TokenContext) -> Option<Token> {
        CALL.scope(None, self.source.stored_token(cx)).await
    }

    async fn revoke(&self, cx: TokenContext) -> Result<(), TokenError> {
        self.source.revoke(cx).await
    }

    async fn flush(&self) -> Result<(), TokenError> {
        self.source.flush().await
    }

    fn origins(&self) -> Origins {
        self.source.origins()
    }

    fn schedule(&self) -> Schedule {
        self.source.schedule()
    }
}
