//! One attempt to refresh a marked session: the requests to the token endpoint.

use std::time::SystemTime;

use secrecy::ExposeSecret;

use super::{
    GrantSource, ended::not_sent_again, lease::is_held, session_state::Credential, step_up::More,
};
use crate::{
    clock::Clock,
    error::{Recovery, TokenError, TokenErrorKind},
    grant::{Grant, GrantContext},
    oauth::{MakeParameters, Parameters, RequestTime, TokenResponse, was_not_sent},
    store::{BoxStoreLease, Identity, StoredSession, TokenStore},
    token_source::TokenContext,
};

/// A refresh in progress.
pub(super) struct Attempt {
    /// The session with the mark that a refresh has begun.
    pub(super) session: StoredSession,
    /// The version that saving replaces.
    pub(super) replaces: u64,
    /// The stored session: `session`, or an older one if the mark could not be saved.
    pub(super) stored: Option<StoredSession>,
    /// When the first of those refreshes began whose outcome is unknown.
    pub(super) unknown_since: Option<SystemTime>,
    /// No response came to a refresh token, and it was sent again.
    pub(super) was_resent: bool,
    /// A credential was sent, or may have been.
    pub(super) was_sent: bool,
    /// The credentials that the server has declared dead in this attempt.
    pub(super) dead: Vec<Identity>,
    /// Credentials are sent although they were declared dead before.
    pub(super) is_after_reset: bool,
}

impl Attempt {
    /// An attempt for `session`, which is marked in the store if `replaces` is its version.
    pub(super) fn new(
        session: StoredSession,
        replaces: u64,
        unknown_since: Option<SystemTime>,
        cx: &TokenContext,
    ) -> Self {
        Self {
            session,
            replaces,
            stored: None,
            unknown_since,
            was_resent: false,
            was_sent: false,
            dead: Vec::new(),
            is_after_reset: cx.is_after_reset(),
        }
    }

    /// Remembers whether the request was sent, or may have been.
    fn note_sent(&mut self, outcome: &Result<TokenResponse, TokenError>) {
        self.was_sent |= !outcome.as_ref().is_err_and(TokenError::is_unsent);
    }

    /// Remembers whether the server has declared the credential of `sent` dead.
    fn note_outcome(&mut self, sent: Identity, outcome: &Result<TokenResponse, TokenError>) {
        if outcome.as_ref().is_err_and(TokenError::is_final) {
            self.dead.push(sent);
        }
    }
}

/// New tokens.
pub(super) struct Granted {
    pub(super) response: TokenResponse,
    /// The session that the tokens belong to: the one in the store, or the one that the grant has begun.
    pub(super) session: StoredSession,
    /// The credential that was sent.
    pub(super) sent: Identity,
}

impl<G: Grant> GrantSource<G> {
    /// Sends the credential of the session.
    pub(super) async fn send(
        &self,
        attempt: &mut Attempt,
        lease: &BoxStoreLease,
        clock: &Clock,
    ) -> Result<Granted, TokenError> {
        match self.credential(&attempt.session) {
            Some(Credential::RefreshToken(refresh_token)) => {
                let sent = Identity::of_refresh_token(refresh_token.expose_secret());
                if self.skips(attempt, &sent) {
                    return Err(skipped(attempt, sent));
                }
                let parameters = Parameters::refresh_token(refresh_token.expose_secret());
                let outcome = self
                    .send_refresh_token(attempt, lease, &parameters, clock)
                    .await;
                attempt.note_outcome(sent.clone(), &outcome);
                Ok(Granted {
                    response: outcome?,
                    session: attempt.session.clone(),
                    sent,
                })
            }
            Some(Credential::Grant) if self.skips(attempt, &self.identity) => {
                Err(skipped(attempt, self.identity.clone()))
            }
            Some(Credential::Grant) => self.send_grant(attempt, lease, clock).await,
            None => Err(self.nothing_to_send(&attempt.session)),
        }
    }

    /// Begins a session with the grant.
    pub(super) async fn send_grant(
        &self,
        attempt: &mut Attempt,
        lease: &BoxStoreLease,
        clock: &Clock,
    ) -> Result<Granted, TokenError> {
        let grant = self.grant_parameters(clock, More::default());
        let made = self.client.make(clock, &grant).await?;
        let mut session = StoredSession::begin(self.identity.clone(), Some(&attempt.session))
            .of_client(self.client_identity.clone());
        if let Some(replaced) = attempt.session.refresh_token() {
            session = session.without_dead(&Identity::of_refresh_token(replaced.expose_secret()));
        }
        let outcome = if let Some(refresh_token) = made.parameters.as_refresh_token() {
            // If the server issues no other refresh token, the session keeps this one.
            session = session.with_refresh_token(refresh_token);
            self.send_refresh_token(attempt, lease, &made.parameters, clock)
                .await
        } else {
            let outcome = self.client.request_made(clock, made, &grant).await;
            attempt.note_sent(&outcome);
            outcome
        };
        let outcome = outcome.inspect_err(|error| self.note_rejection(error));
        let outcome = outcome.map_err(|error| self.unless_new_parameters_help(error));
        attempt.note_outcome(self.identity.clone(), &outcome);
        Ok(Granted {
            response: outcome?,
            session,
            sent: self.identity.clone(),
        })
    }

    /// Makes the parameters of the grant.
    pub(super) fn grant_parameters<'a>(
        &'a self,
        clock: &'a Clock,
        more: More,
    ) -> GrantParameters<'a, G> {
        GrantParameters {
            source: self,
            clock,
            more,
        }
    }

    /// Tells the grant if the server has rejected what it sent. The code for a subject token is `invalid_request` (RFC 8693
    /// §2.2.2), and with some servers one of those for other tokens.
    pub(super) fn note_rejection(&self, error: &TokenError) {
        let is_dead = error.kind() == TokenErrorKind::ReauthRequired;
        if is_dead || error.oauth_code() == Some("invalid_request") {
            self.grant.rejected();
        }
    }

    /// A rejection of parameters that are made anew for each request is never final.
    pub(super) fn unless_new_parameters_help(&self, error: TokenError) -> TokenError {
        if error.is_final() && !self.grant.is_fixed() {
            error.with_recovery(Recovery::Slowly)
        } else {
            error
        }
    }

    /// Sends a refresh token. If no response comes, sends it once more at once.
    ///
    /// If the server has rotated it, this is the only chance to receive its successor: servers that accept the old one
    /// again do so for a short time.
    async fn send_refresh_token(
        &self,
        attempt: &mut Attempt,
        lease: &BoxStoreLease,
        parameters: &Parameters,
        clock: &Clock,
    ) -> Result<TokenResponse, TokenError> {
        let error = match self.request(attempt, parameters, clock).await {
            Err(error) if may_have_arrived(&error) => error,
            result => return result,
        };
        // The lease may have ended while we waited. What another process has sent, or may send now, must not be sent twice.
        match self.may_send_more(attempt, lease).await {
            Ok(true) => {}
            Ok(false) => {
                let message = "the lease has ended before a response came";
                return Err(TokenError::new(TokenErrorKind::LeaseLost, message).with_source(error));
            }
            Err(_) => return Err(error),
        }
        tracing::info!(%error, "no response to a refresh, sending the same refresh token again");
        attempt.unknown_since = attempt.unknown_since.or(attempt.session.refreshing_since());
        attempt.was_resent = true;
        self.request(attempt, parameters, clock).await
    }

    /// Whether the attempt can go on with another request: no other process has saved since the mark, or has the lease.
    pub(super) async fn may_send_more(
        &self,
        attempt: &mut Attempt,
        lease: &BoxStoreLease,
    ) -> Result<bool, TokenError> {
        Ok(self.is_unchanged(attempt).await? && is_held(lease).await?)
    }

    /// Whether no other process has saved since the mark. If the mark is there although its save seemed to fail, the next save
    /// replaces it.
    pub(super) async fn is_unchanged(&self, attempt: &mut Attempt) -> Result<bool, TokenError> {
        let stored = self.store.load().await?;
        let is_marked = |stored: &StoredSession| stored.is_written_like(&attempt.session);
        if stored.as_ref().is_some_and(is_marked) {
            attempt.replaces = attempt.session.version();
            attempt.stored.clone_from(&stored);
        }
        Ok(stored.as_ref().map_or(0, StoredSession::version) == attempt.replaces)
    }

    async fn request(
        &self,
        attempt: &mut Attempt,
        parameters: &Parameters,
        clock: &Clock,
    ) -> Result<TokenResponse, TokenError> {
        let outcome = self.client.request(clock, parameters).await;
        attempt.note_sent(&outcome);
        outcome
    }
}

pub(super) struct GrantParameters<'a, G> {
    source: &'a GrantSource<G>,
    clock: &'a Clock,
    more: More,
}

impl<G: Grant> MakeParameters for GrantParameters<'_, G> {
    async fn make(&self, time: &RequestTime) -> Result<Parameters, TokenError> {
        let audience = self.source.client.audience();
        let cx = GrantContext::with_clock(self.clock, time.clone(), &audience);
        let parameters = self.source.grant.parameters(&cx).await?;
        let own = |name: &str| {
            let values: Vec<&str> = self.source.client.own_parameters(name).collect();
            (!values.is_empty()).then(|| values.join(" "))
        };
        Ok(self.more.add_to(parameters, own))
    }
}

/// The error for a credential that is not sent, because it is dead. It may be that the store does not know it yet.
fn skipped(attempt: &mut Attempt, credential: Identity) -> TokenError {
    attempt.dead.push(credential);
    not_sent_again()
}

/// Whether the server may have processed the request, and only the response is missing.
fn may_have_arrived(error: &TokenError) -> bool {
    matches!(
        error.kind(),
        TokenErrorKind::Transport | TokenErrorKind::Timeout
    ) && !error.is_unsent()
        && !was_not_sent(error)
}
