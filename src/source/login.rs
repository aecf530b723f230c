//! A new login: its session takes the place of the one before it, in the store and in this process.
//!
//! An error means that nothing was taken, so the login can be tried again. Once saving has begun, the outcome of a save may
//! be unknown, and another process may have the new session already: trying again could bring a spent refresh token back. So
//! from then on the session is taken in any case. If it cannot be saved, it goes on from memory, as after a refresh.

use secrecy::ExposeSecret;
use tracing::Instrument;

use super::{
    GrantSource,
    lease::{AtLease, IsLast},
    owner::{has_ended, of_another_client},
    unsaved::{LeaseSlot, Unsaved},
};
use crate::{
    error::{TokenError, TokenErrorKind},
    freshness::{Deadlines, Freshness},
    grant::Grant,
    store::{BoxStoreLease, Identity, StoredSession},
    token::{Token, Warning},
    token_source::TokenContext,
};

/// How often one call begins. It begins again if another process has saved in between.
const MAX_ROUNDS: u32 = 3;

impl<G: Grant> GrantSource<G> {
    /// Takes the session of a new login. Returns its access token if that can be used. Once begun, this is finished although
    /// its future is dropped.
    pub(super) async fn take_login(
        &self,
        login: StoredSession,
        cx: &TokenContext,
    ) -> Result<Option<Token>, TokenError> {
        self.check_login(&login, cx)?;
        let (source, cx) = (self.clone(), cx.clone());
        let task = tokio::spawn(
            async move {
                let (mut round, mut tried) = (1, None);
                loop {
                    match source.lease_and_take(&login, &mut tried, &cx).await {
                        Err(error)
                            if error.kind() == TokenErrorKind::LeaseLost && round < MAX_ROUNDS =>
                        {
                            tracing::debug!(%error, "lease lost, starting over");
                            round += 1;
                        }
                        result => return result,
                    }
                }
            }
            .in_current_span(),
        );
        task.await.unwrap_or_else(|error| {
            let message = "the task that was taking the login ended early";
            Err(TokenError::new(TokenErrorKind::Interrupted, message).with_source(error))
        })
    }

    /// Fails if no session could go on with `login`, or none of ours.
    fn check_login(&self, login: &StoredSession, cx: &TokenContext) -> Result<(), TokenError> {
        let message = if !self.grant.uses_refresh_tokens() {
            "the grant of this source requests each token, so it has no use for the session of a login"
        } else if !self.is_ours(login) && !self.is_of_our_settings(login) {
            "the session of the login belongs to another client; log in with this `OAuthClient` or a clone of it"
        } else if !login.has_tokens() {
            "the session of the login has neither a refresh token nor an access token"
        } else if login.refresh_token().is_none() && self.usable_token(login, cx).is_none() {
            "the session of the login has no refresh token, and its access token cannot be used or has expired"
        } else {
            return Ok(());
        };
        Err(TokenError::new(TokenErrorKind::Config, message))
    }

    /// Whether `login` was made with the settings of our client. It knows nothing of the name that the session may have instead.
    fn is_of_our_settings(&self, login: &StoredSession) -> bool {
        login.client() == Some(&self.client.identity(&self.grant.session_parts()))
    }

    async fn lease_and_take(
        &self,
        login: &StoredSession,
        tried: &mut Option<Identity>,
        cx: &TokenContext,
    ) -> Result<Option<Token>, TokenError> {
        // A refresh of this process holds the slot, and one of another process the lease. What they save comes before.
        let mut slot = self.lease_slot().lock_owned().await;
        let (mut lease, at_lease) = self.take_lease(&mut slot).await?;
        let result = self
            .take_under_lease(&mut lease, at_lease, &mut slot, login, tried, cx)
            .await;
        let was_overtaken = result
            .as_ref()
            .is_err_and(|error| error.kind() == TokenErrorKind::LeaseLost);
        self.put_back(lease, &mut slot, was_overtaken).await;
        result
    }

    async fn take_under_lease(
        &self,
        lease: &mut BoxStoreLease,
        at_lease: AtLease,
        slot: &mut LeaseSlot,
        login: &StoredSession,
        tried: &mut Option<Identity>,
        cx: &TokenContext,
    ) -> Result<Option<Token>, TokenError> {
        let stored = self.load_under_lease(at_lease).await?;
        if let Some(stored) = &stored {
            self.check_may_be_replaced(stored)?;
        }
        let newest = self.with_state(|state| state.newest.clone());
        let is_taken =
            |it: &&StoredSession| tried.as_ref() == Some(it.identity()) || is_refreshed(login, it);
        if let Some(taken) = stored.iter().chain(&newest).find(is_taken) {
            self.go_on_with(taken);
            return Ok(self.usable_token(taken, cx));
        }
        let replaces = stored.as_ref().map_or(0, StoredSession::version);
        let known = || stored.iter().chain(&newest);
        let session = login
            .clone()
            .of_login(
                self.login_identity(login, &known()),
                known(),
                &self.identity,
            )
            .at(replaces.saturating_add(1))
            .of_client(self.client_identity.clone());
        *tried = Some(session.identity().clone());
        let saved = Self::save_repeatedly(lease, replaces, &session, IsLast::Yes).await;
        if let Err(error) = &saved
            && error.kind() == TokenErrorKind::LeaseLost
        {
            return saved.map(|()| None);
        }
        self.go_on_with(&session);
        let token = self.usable_token(&session, cx);
        let Err(error) = saved else {
            slot.saved();
            self.supersede(None, &session);
            return Ok(token);
        };
        if token.is_none() {
            // No token takes the error along.
            tracing::error!(%error, "the session of the login was not saved, it goes on from memory");
        }
        self.supersede(stored.as_ref(), &session);
        let warning = Warning::new(error);
        slot.unsaved = Some(Unsaved {
            session,
            replaces,
            is_lease_lost: false,
            warning: warning.clone(),
        });
        Ok(token.map(|token| token.with_warning(warning)))
    }

    /// Makes `session` the one that this process knows of, unless it knows a later one.
    fn go_on_with(&self, session: &StoredSession) {
        self.with_state(|state| {
            let is_later = |newest: &StoredSession| session.is_before(newest);
            if !state.newest.as_ref().is_some_and(is_later) {
                state.newest = Some(session.clone());
            }
            state.failed = None;
            state.has_seen_another_client = false;
        });
    }

    /// Fails if `stored` is the living session of another client. A login passes everything else.
    fn check_may_be_replaced(&self, stored: &StoredSession) -> Result<(), TokenError> {
        let is_replaceable = self.is_ours(stored)
            || stored.is_revoked()
            || !stored.has_tokens()
            || has_ended(stored);
        is_replaceable.then_some(()).ok_or_else(of_another_client)
    }

    /// The identity of `login`: its own, if no session has had it yet, or that of its refresh token.
    ///
    /// A session with an identity of earlier ones would not be told from them, and ours is that of an earlier credential.
    fn login_identity<'a>(
        &self,
        login: &StoredSession,
        known: &(impl Iterator<Item = &'a StoredSession> + Clone),
    ) -> Identity {
        let is_new = |identity: &Identity| {
            *identity != self.identity && known.clone().all(|it| it.is_older_than(identity))
        };
        let candidates = [Some(login.identity().clone()), refresh_identity(login)];
        let identity = candidates.into_iter().flatten().find(is_new);
        identity.unwrap_or_else(|| Identity::new("login", &fastrand::u128(..).to_string()))
    }

    /// The access token of `session`, if it can be used now.
    fn usable_token(&self, session: &StoredSession, cx: &TokenContext) -> Option<Token> {
        let token = session.token()?;
        let now = cx.clock().now();
        let deadlines = Deadlines::new(token.expires(now, now), &self.schedule, 0.0, now);
        (deadlines.freshness(now) != Freshness::Expired).then(|| token.into_adopted())
    }
}

/// Whether `session` began with `login`, and has been refreshed since. Then the tokens of `login` are spent.
fn is_refreshed(login: &StoredSession, session: &StoredSession) -> bool {
    let is_other = |token: &secrecy::SecretString| {
        login
            .refresh_token()
            .is_some_and(|sent| sent.expose_secret() != token.expose_secret())
    };
    let began = refresh_identity(login).is_some_and(|identity| session.began_with(&identity));
    began && session.refresh_token().is_some_and(is_other) && !has_ended(session)
}

fn refresh_identity(session: &StoredSession) -> Option<Identity> {
    let token = session.refresh_token()?;
    Some(Identity::of_refresh_token(token.expose_secret()))
}
