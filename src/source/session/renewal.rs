//! What is done under the lease: mark, POST, merge, save; and what is said when it comes to nothing.

use std::time::{Duration, SystemTime};

use secrecy::{ExposeSecret, SecretString};
use tokio::time::sleep;

use super::{Seed, SessionSource};
use crate::{
    clock::Clock,
    error::{TokenError, TokenErrorKind},
    oauth::{TokenResponse, never_left},
    store::{BoxStoreLease, NewTokens, StoreLease, StoredSession, TokenStore},
    token::Token,
    token_source::TokenContext,
};

/// A rotated refresh token is worth more than one try to save it.
const SAVES: u32 = 3;
const BETWEEN_SAVES: Duration = Duration::from_millis(100);

impl SessionSource {
    /// Renews the session. The lease is held.
    pub(super) async fn renew(
        &self,
        lease: &mut BoxStoreLease,
        request: &TokenContext,
    ) -> Result<Token, TokenError> {
        // Whoever held the lease before may have renewed it already.
        let stored = self.store.load().await?;
        if let Some(token) = self.adopt(stored.as_ref(), request) {
            return Ok(token);
        }
        let replaces = stored.as_ref().map_or(0, StoredSession::version);
        let mut turn = self
            .mark(lease, self.newest(stored), replaces, request)
            .await?;
        let mut outcome = self.post(&mut turn, request.clock()).await;

        // Before a dead grant is believed: somebody may have renewed the session, or logged in anew, meanwhile.
        if is_dead(&outcome)
            && let Ok(Some(newest)) = self.store.load().await
            && self.differs(&newest, &turn.session)
        {
            if let Some(token) = self.adopt(Some(&newest), request) {
                return Ok(token);
            }
            let replaces = newest.version();
            if replaces != turn.replaces && newest.refreshing_since().is_some() {
                let message = "another process is renewing the session";
                return Err(TokenError::new(TokenErrorKind::LeaseLost, message));
            }
            turn = self.mark(lease, newest, replaces, request).await?;
            outcome = self.post(&mut turn, request.clock()).await;
        }
        if is_dead(&outcome) && self.begins_anew(&turn.session) {
            tracing::info!("the refresh token is dead; the exchange token begins the session anew");
            outcome = self.begin(&mut turn, request.clock()).await;
        }
        match outcome {
            Ok(answer) => self.save(lease, turn, answer).await,
            Err(error) => Err(self.give_up(lease, turn, error, request.clock()).await),
        }
    }

    /// Says in the store that a refresh has begun. That is also the proof that the lease still holds.
    async fn mark(
        &self,
        lease: &mut BoxStoreLease,
        session: StoredSession,
        replaces: u64,
        request: &TokenContext,
    ) -> Result<Turn, TokenError> {
        let doubtful_since = session.refreshing_since();
        let session = session.at(replaces).refreshing(request.clock().wall());
        lease.save(replaces, &session).await?;
        Ok(Turn {
            replaces: session.version(),
            session,
            doubtful_since,
            answer_lost: false,
        })
    }

    /// Whether the credential that the session began with can begin it once more.
    fn begins_anew(&self, session: &StoredSession) -> bool {
        let refreshed = session.refresh_token().is_some() && session.began_with(&self.identity);
        refreshed && self.seed.is_reusable()
    }

    /// Asks for new tokens: with the refresh token of the session, else with what it begins with.
    async fn post(&self, turn: &mut Turn, clock: &Clock) -> Result<Answer, TokenError> {
        let begins = self.is_new_to(&turn.session);
        match turn.session.refresh_token().cloned() {
            Some(refresh_token) if !begins => {
                let response = self.refresh(turn, &refresh_token, clock).await?;
                Ok(Answer {
                    response,
                    begins: false,
                })
            }
            None if !begins && !turn.session.began_with(&self.identity) => Err(TokenError::new(
                TokenErrorKind::ReauthRequired,
                "the stored session has no refresh token, and began with another credential than this process has",
            )),
            _ => self.begin(turn, clock).await,
        }
    }

    /// Asks for the first tokens of a session.
    async fn begin(&self, turn: &mut Turn, clock: &Clock) -> Result<Answer, TokenError> {
        let response = match &self.seed {
            Seed::Refresh(token) => self.refresh(turn, token, clock).await?,
            Seed::Exchange(exchange) => {
                let parameters = [(exchange.parameter.as_str(), exchange.token.expose_secret())];
                self.endpoint
                    .request(clock, &exchange.grant_type, &parameters)
                    .await?
            }
        };
        Ok(Answer {
            response,
            begins: true,
        })
    }

    /// Sends a refresh token; and if no answer comes, once more: if the server has replaced it, this is the only chance, and
    /// where it is forgiven at all, it is not for long.
    async fn refresh(
        &self,
        turn: &mut Turn,
        refresh_token: &SecretString,
        clock: &Clock,
    ) -> Result<TokenResponse, TokenError> {
        let endpoint = self.refresh_endpoint.as_ref().unwrap_or(&self.endpoint);
        let name = endpoint.refresh_parameter_name();
        let parameters = [(name, refresh_token.expose_secret())];
        let first = endpoint.request(clock, "refresh_token", &parameters).await;
        let Err(error) = first else { return first };
        if !is_lost(&error) {
            return Err(error);
        }
        // Waiting may have outlasted the lease: what another sends by now must not be sent again.
        match self.store.load().await {
            Ok(stored) if stored.as_ref().map_or(0, StoredSession::version) == turn.replaces => {}
            Ok(_) => {
                let message = "another process has saved before an answer came";
                return Err(TokenError::new(TokenErrorKind::LeaseLost, message).with_source(error));
            }
            Err(_) => return Err(error),
        }
        tracing::info!(%error, "no answer to a refresh; the same refresh token is sent again");
        turn.doubtful_since = turn.doubtful_since.or(turn.session.refreshing_since());
        turn.answer_lost = true;
        endpoint.request(clock, "refresh_token", &parameters).await
    }

    /// Saves before anybody sees the token. If that can't be, the session goes on from memory, and the token says so.
    async fn save(
        &self,
        lease: &mut BoxStoreLease,
        turn: Turn,
        answer: Answer,
    ) -> Result<Token, TokenError> {
        let Answer { response, begins } = answer;
        let token = response.token.clone();
        let base = if begins {
            let anew = StoredSession::begin(self.identity.clone(), Some(&turn.session));
            match &self.seed {
                // If no other refresh token comes, the one it began with stays.
                Seed::Refresh(first) => anew.with_secret_refresh_token(first.clone()),
                Seed::Exchange(_) => anew,
            }
        } else {
            turn.session
        };
        let session = base.at(turn.replaces).merged(NewTokens {
            token: response.token.ok(),
            expires_at: response.expires_at,
            lifetime: response.lifetime,
            refresh_token: response.refresh_token,
            refresh_expires_at: response.refresh_expires_at,
        });
        self.known(|known| {
            known.session = Some(session.clone());
            known.failed = None;
        });
        let mut saved = lease.save(turn.replaces, &session).await;
        for _ in 1..SAVES {
            match &saved {
                Err(error) if error.kind() != TokenErrorKind::LeaseLost => {
                    sleep(BETWEEN_SAVES).await;
                    saved = lease.save(turn.replaces, &session).await;
                }
                _ => break,
            }
        }
        match saved {
            Ok(()) => token,
            Err(error) => {
                tracing::error!(%error, "a renewed session could not be saved; it goes on from memory");
                token.map(|token| token.with_warning(error))
            }
        }
    }

    /// No new tokens. What the server has judged did not happen; anything else may have, and the mark stays to tell of it.
    async fn give_up(
        &self,
        lease: &mut BoxStoreLease,
        turn: Turn,
        error: TokenError,
        clock: &Clock,
    ) -> TokenError {
        let judged = matches!(
            error.kind(),
            TokenErrorKind::ReauthRequired
                | TokenErrorKind::InvalidClient
                | TokenErrorKind::InvalidRequest
                | TokenErrorKind::RateLimited
        );
        if judged {
            let settled = turn.session.settled(turn.doubtful_since);
            if let Err(error) = lease.save(turn.replaces, &settled).await {
                tracing::warn!(%error, "the outcome of a refresh could not be saved");
            }
        }
        if !error.is_transient() {
            let credential = self.credential(&turn.session).unwrap_or(self.seed.secret());
            let failed = (turn.session.generation(), credential.clone());
            self.known(|known| known.failed = Some(failed));
        }
        if error.kind() == TokenErrorKind::ReauthRequired {
            return self.explain(error, &turn, clock.wall());
        }
        if turn.answer_lost {
            return error.with_more(
                "the same refresh token was sent twice, for the answer to the first time was lost, so nobody knows \
                 whether the server has replaced it",
            );
        }
        error
    }

    /// Says what a person must do, and what may have led to it.
    fn explain(&self, mut error: TokenError, turn: &Turn, now: SystemTime) -> TokenError {
        if let Some(reauth_hint) = &self.reauth_hint {
            error = error.with_reauth_hint(reauth_hint.clone());
        }
        if let Some(since) = turn.doubtful_since.and_then(shown) {
            let more = "was interrupted, and what it brought may be lost";
            error = error.with_more(&format!("a refresh begun on {since} {more}"));
        }
        if turn.answer_lost {
            error = error.with_more(
                "no answer to it came, and the same refresh token was rejected when it was tried again",
            );
        }
        let ended = turn.session.refresh_expires_at().filter(|at| *at <= now);
        match ended.and_then(shown) {
            Some(at) => error.with_more(&format!("the refresh token ended on {at}")),
            None => error,
        }
    }
}

/// A session under renewal: as it is marked in the store, and the version that saving it replaces.
struct Turn {
    session: StoredSession,
    replaces: u64,
    /// Since when nobody knows how an earlier refresh ended.
    doubtful_since: Option<SystemTime>,
    /// No answer came to the refresh of this turn, which was then sent again.
    answer_lost: bool,
}

/// What the token endpoint gave.
struct Answer {
    response: TokenResponse,
    /// For the credential that the session begins with.
    begins: bool,
}

fn is_dead<T>(outcome: &Result<T, TokenError>) -> bool {
    outcome
        .as_ref()
        .is_err_and(|error| error.kind() == TokenErrorKind::ReauthRequired)
}

/// Whether the request may have done its work, and only its answer is missing.
fn is_lost(error: &TokenError) -> bool {
    matches!(
        error.kind(),
        TokenErrorKind::Transport | TokenErrorKind::Timeout
    ) && !never_left(error)
}

/// A date as people read it, if it is one that HTTP can write.
fn shown(time: SystemTime) -> Option<String> {
    const YEAR_9999: u64 = 253_402_300_800;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since.as_secs() < YEAR_9999).then(|| httpdate::fmt_http_date(time))
}
