//! Sessions without refresh tokens: each token is requested with the grant.
//!
//! A request uses nothing up, so it needs no mark in the store, and no lease. Both only spare requests: processes that share
//! a store wait for each other for a while, and adopt each other's tokens. If the store fails or takes too long, or a lease
//! cannot be had, the token is requested all the same, and not shared.

use std::{
    future::Future,
    time::{Duration, SystemTime},
};

use tokio::time::timeout;

use super::{
    GrantSource,
    step_up::{More, check_requestable, is_too_much, not_granted},
};
use crate::{
    clock::Clock,
    error::{Recovery, TokenError, TokenErrorKind},
    grant::Grant,
    store::{BoxStoreLease, NewTokens, StoreLease, StoredSession, TokenStore},
    token::Token,
    token_source::TokenContext,
};

/// How long the store may take, also while another process is requesting a token. A token must not be late because of it.
const MAX_STORE_WAIT: Duration = Duration::from_secs(5);

/// What the store has.
enum Shared {
    Usable(Token),
    /// A session that may be replaced, if there is one.
    Replaceable(Option<Box<StoredSession>>),
    /// A session that a later login has begun, or one that cannot be read. It stays as it is.
    Untouchable,
}

impl<G: Grant> GrantSource<G> {
    /// Uses the stored token, or requests one with the grant.
    pub(super) async fn adopt_or_request(&self, cx: &TokenContext) -> Result<Token, TokenError> {
        check_requestable(cx.wanted())?;
        let revocations = self.revocations();
        let before = match self.shared(in_time(self.store.load()).await, cx)? {
            Shared::Usable(token) => return Ok(token),
            Shared::Replaceable(before) => before,
            Shared::Untouchable => return self.request_unshared(None, cx).await,
        };
        let Some((mut lease, stored)) = self.lease_or_none().await else {
            return self.request_unshared(before.as_deref(), cx).await;
        };
        let cx = &self.after_revocations(revocations, cx);
        // The last holder of the lease may have requested a token.
        let result = match self.shared(Ok(stored), cx) {
            Ok(Shared::Usable(token)) => Ok(token),
            Ok(Shared::Replaceable(before)) => {
                let before = before.as_deref();
                let requested = self.request_with_grant(before, cx).await;
                if let Ok((_, session)) = &requested {
                    share(&mut lease, before, session).await;
                }
                requested.map(|(token, _)| token)
            }
            Ok(Shared::Untouchable) => self.request_unshared(None, cx).await,
            Err(error) => Err(error),
        };
        drop(timeout(MAX_STORE_WAIT, lease.release()).await);
        result
    }

    /// What `loaded` is to this source.
    fn shared(
        &self,
        loaded: Result<Option<StoredSession>, TokenError>,
        cx: &TokenContext,
    ) -> Result<Shared, TokenError> {
        let stored = match loaded {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, "the store cannot be read, the token will not be shared");
                self.check_not_revoked(&self.newest(None), cx)?;
                return Ok(Shared::Untouchable);
            }
        };
        self.with_state(|state| state.has_seen_another_client = false);
        self.check_owner(stored.as_ref())?;
        if let Some(token) = self.adopt(stored.as_ref(), cx) {
            return Ok(Shared::Usable(token));
        }
        self.check_not_revoked(&self.newest(stored.clone()), cx)?;
        Ok(match stored {
            Some(stored) if self.is_of_later_login(&stored) => {
                tracing::warn!(
                    "the store has the session of a later login, the token is not shared"
                );
                Shared::Untouchable
            }
            stored => Shared::Replaceable(stored.map(Box::new)),
        })
    }

    async fn lease_or_none(&self) -> Option<(BoxStoreLease, Option<StoredSession>)> {
        let lease = in_time(self.store.lease_and_load()).await;
        lease
            .inspect_err(|error| tracing::warn!(%error, "no lease, the token will not be shared"))
            .ok()
    }

    async fn request_unshared(
        &self,
        before: Option<&StoredSession>,
        cx: &TokenContext,
    ) -> Result<Token, TokenError> {
        let (token, _) = self.request_with_grant(before, cx).await?;
        Ok(token)
    }

    /// Requests a token. A refresh token in the response is neither kept nor sent.
    async fn request_with_grant(
        &self,
        before: Option<&StoredSession>,
        cx: &TokenContext,
    ) -> Result<(Token, StoredSession), TokenError> {
        let more = More::of(before, cx);
        let mut added = more.scope();
        let mut requested = self.request_with(more.clone(), cx.clock()).await;
        if let Err(error) = &requested
            && !cx.is_step_up()
            && !more.is_nothing()
            && is_too_much(error)
        {
            tracing::warn!(%error, "what APIs have asked for is no longer granted, requesting a token without it");
            added.clear();
            requested = self.request_with(More::default(), cx.clock()).await;
        }
        let (mut token, expires_at, lifetime) = match (requested, cx.wanted()) {
            (Ok(granted), None) => granted,
            (Ok(granted), Some(wanted)) => {
                // Otherwise other processes would get it.
                wanted.check_granted(cx.previous_token(), &granted.0)?;
                granted
            }
            (Err(error), Some(wanted)) => return Err(not_granted(wanted, error)),
            (Err(error), None) => {
                return Err(self.failed(self.unless_new_parameters_help(error), before));
            }
        };
        if !more.is_nothing() {
            token = token.with_added_scope(added);
        }
        let session = StoredSession::begin(self.identity.clone(), before)
            .of_client(self.client_identity.clone())
            .without_dead(&self.identity)
            .merged(NewTokens {
                token: Some(token.clone()),
                expires_at,
                lifetime,
                refresh_token: None,
                refresh_expires_at: None,
            });
        self.with_state(|state| {
            state.newest = Some(session.clone());
            state.failed = None;
        });
        Ok((token, session))
    }

    async fn request_with(
        &self,
        more: More,
        clock: &Clock,
    ) -> Result<(Token, Option<SystemTime>, Option<Duration>), TokenError> {
        self.client.prepare(clock).await?;
        let grant = self.grant_parameters(clock, more);
        let made = self.client.make(clock, &grant).await?;
        let response = self.client.request_made(clock, made, &grant).await;
        let response = response.inspect_err(|error| self.note_rejection(error))?;
        Ok((response.token?, response.expires_at, response.lifetime))
    }

    fn failed(&self, error: TokenError, before: Option<&StoredSession>) -> TokenError {
        if error.recovery() != Recovery::Soon {
            let begun = StoredSession::begin(self.identity.clone(), None);
            self.note_failed(before.unwrap_or(&begun), &[], error.is_final());
        }
        match &self.reauth_hint {
            Some(hint) if error.kind() == TokenErrorKind::ReauthRequired => error.with_more(hint),
            _ => error,
        }
    }
}

/// Saves `session` for other processes, in place of `before`. Nothing is lost if that fails.
async fn share(lease: &mut BoxStoreLease, before: Option<&StoredSession>, session: &StoredSession) {
    let replaces = before.map_or(0, StoredSession::version);
    if let Err(error) = in_time(lease.save_and_release(replaces, session)).await {
        tracing::warn!(%error, "the token was not saved, so it is not shared");
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, TokenError>>) -> Result<T, TokenError> {
    timeout(MAX_STORE_WAIT, call)
        .await
        .unwrap_or_else(|elapsed| {
            let message = format!("the store did not respond within {MAX_STORE_WAIT:?}");
            Err(TokenError::new(TokenErrorKind::Timeout, message).with_source(elapsed))
        })
}
