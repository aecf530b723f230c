//! The one way a session is renewed, whatever it began with.
//!
//! load, adopt what another process got; else lease, load again, adopt; else POST, merge, save, publish, release.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use secrecy::{ExposeSecret, SecretString};
use tokio::time::sleep;

use super::TokenRequest;
use crate::{
    authorize::Origins,
    cache::{Deadlines, Freshness, Schedule},
    clock::Clock,
    endpoint::{TokenEndpoint, TokenResponse},
    error::{TokenError, TokenErrorKind},
    store::{DynLease, DynStore, Fingerprint, MemoryStore, NewTokens, Session},
    token::Token,
};

/// A rotated refresh token is worth more than one try to save it.
const SAVES: u32 = 3;
const BETWEEN_SAVES: Duration = Duration::from_millis(100);

/// What a session begins with.
#[derive(Clone)]
pub(super) enum Seed {
    Refresh(SecretString),
    Exchange(Exchange),
}

#[derive(Clone)]
pub(super) struct Exchange {
    token: SecretString,
    pub(super) grant_type: String,
    pub(super) parameter: String,
    /// It can begin a session anew when the refresh token of the last one is dead.
    pub(super) reusable: bool,
}

impl Exchange {
    pub(super) fn new(token: SecretString) -> Self {
        Self {
            token,
            grant_type: "exchange_token".into(),
            parameter: "code".into(),
            reusable: true,
        }
    }
}

impl Seed {
    fn fingerprint(&self) -> Fingerprint {
        let kind = match self {
            Self::Refresh(_) => "refresh",
            Self::Exchange(_) => "exchange",
        };
        Fingerprint::of(kind, self.secret())
    }

    fn is_reusable(&self) -> bool {
        matches!(self, Self::Exchange(exchange) if exchange.reusable)
    }

    fn secret(&self) -> &SecretString {
        match self {
            Self::Refresh(token) | Self::Exchange(Exchange { token, .. }) => token,
        }
    }
}

/// Renews one session.
#[derive(Clone)]
pub(super) struct SessionSource {
    pub(super) endpoint: TokenEndpoint,
    /// Some vendors refresh elsewhere.
    pub(super) refresh_endpoint: Option<TokenEndpoint>,
    seed: Seed,
    fingerprint: Fingerprint,
    store: Arc<dyn DynStore>,
    pub(super) origins: Origins,
    pub(super) schedule: Schedule,
    /// What a person must do when the session has ended, in the vendor's terms.
    pub(super) advice: Option<String>,
    known: Arc<Mutex<Known>>,
}

/// What this process knows of the session.
#[derive(Default)]
struct Known {
    /// The newest session seen or made here; ahead of the store if it could not be saved.
    session: Option<Session>,
    /// What a renewal failed with for good: the generation of the session, and its credential.
    failed: Option<(u64, SecretString)>,
}

impl SessionSource {
    pub(super) fn new(endpoint: TokenEndpoint, seed: Seed) -> Self {
        Self {
            endpoint,
            refresh_endpoint: None,
            fingerprint: seed.fingerprint(),
            seed,
            store: Arc::new(MemoryStore::new()),
            origins: Origins::any_secure(),
            schedule: Schedule::default(),
            advice: None,
            known: Arc::default(),
        }
    }

    /// Another store is another session: what is known of the last one doesn't count there.
    pub(super) fn store(&mut self, store: Arc<dyn DynStore>) {
        self.store = store;
        self.known = Arc::default();
    }

    pub(super) fn edit_exchange(&mut self, edit: impl FnOnce(&mut Exchange)) {
        if let Seed::Exchange(exchange) = &mut self.seed {
            edit(exchange);
        }
    }

    fn known<T>(&self, f: impl FnOnce(&mut Known) -> T) -> T {
        f(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn token(&self, request: TokenRequest) -> Result<Token, TokenError> {
        let stored = self.store.load().await?;
        if let Some(token) = self.adopt(stored.as_ref(), &request) {
            return Ok(token);
        }
        let mut lease = self.store.lease().await?;
        // From here on a refresh token may be spent: whoever gives up waiting must not take its successor along.
        let source = self.clone();
        let turn = tokio::spawn(async move {
            let outcome = source.renew(&mut *lease, &request).await;
            lease.release().await;
            outcome
        });
        turn.await.unwrap_or_else(|error| {
            let message = "the task that was renewing the session ended before it was done";
            Err(TokenError::new(TokenErrorKind::Interrupted, message).with_source(error))
        })
    }

    /// Whether the store has another session by now than the one that could not be renewed.
    pub(super) async fn mended(&self) -> bool {
        let Ok(Some(stored)) = self.store.load().await else {
            return false;
        };
        let alive = self.credential(&stored).map(ExposeSecret::expose_secret);
        self.known(|known| {
            known
                .failed
                .as_ref()
                .is_some_and(|(generation, credential)| {
                    stored.generation() != *generation || alive != Some(credential.expose_secret())
                })
        })
    }

    /// Whether our credential is a new login, of which `session` has not heard yet. Once it has been used it isn't.
    fn is_new_to(&self, session: &Session) -> bool {
        session.is_older_than(&self.fingerprint) && self.known(|known| known.session.is_none())
    }

    /// What is sent to renew `session`. Its refresh token; or what we were configured with, if the session is to begin with
    /// that, or has begun with it. A credential of long ago is never sent again.
    fn credential<'a>(&'a self, session: &'a Session) -> Option<&'a SecretString> {
        let begins = self.is_new_to(session);
        let ours = begins || session.began_with(&self.fingerprint);
        let refresh_token = session.refresh_token().filter(|_| !begins);
        refresh_token.or(ours.then(|| self.seed.secret()))
    }

    /// The token of a stored session, if it serves `request`: not older than what this process has, still usable, and not
    /// the very token that is to be replaced.
    fn adopt(&self, stored: Option<&Session>, request: &TokenRequest) -> Option<Token> {
        let stored = stored.filter(|stored| !self.is_new_to(stored))?;
        let token = stored.token()?;
        let now = request.clock().now();
        let deadlines = Deadlines::new(token.expires(now, now), &self.schedule, 0.0, now);
        let expired = deadlines.freshness(now) == Freshness::Expired;
        if expired
            || request
                .previous_token()
                .is_some_and(|previous| previous.same_secret(&token))
        {
            return None;
        }
        self.known(|known| {
            let newest = known.session.as_ref().map_or(0, Session::generation);
            (newest <= stored.generation()).then(|| {
                known.session = Some(stored.clone());
                known.failed = None;
            })
        })?;
        Some(token)
    }

    /// Renews the session. The lease is held.
    async fn renew(
        &self,
        lease: &mut dyn DynLease,
        request: &TokenRequest,
    ) -> Result<Token, TokenError> {
        // Whoever held the lease before may have renewed it already.
        let stored = self.store.load().await?;
        if let Some(token) = self.adopt(stored.as_ref(), request) {
            return Ok(token);
        }
        let replaces = stored.as_ref().map_or(0, Session::version);
        let mut turn = self
            .mark(lease, self.newest(stored), replaces, request)
            .await?;
        let mut outcome = self.post(&turn.session, request.clock()).await;

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
            outcome = self.post(&turn.session, request.clock()).await;
        }
        if is_dead(&outcome) && self.begins_anew(&turn.session) {
            tracing::info!("the refresh token is dead; the exchange token begins the session anew");
            outcome = self.begin(request.clock()).await;
        }
        match outcome {
            Ok(answer) => Ok(self.save(lease, turn, answer).await),
            Err(error) => Err(self.give_up(lease, turn, error, request.clock()).await),
        }
    }

    /// What is to be renewed: the newer of what is stored and of what could not be saved.
    fn newest(&self, stored: Option<Session>) -> Session {
        let own = self.known(|known| known.session.clone());
        let newest = own
            .into_iter()
            .chain(stored)
            .max_by_key(Session::generation);
        newest.unwrap_or_else(|| Session::begin(self.fingerprint.clone(), None))
    }

    fn differs(&self, a: &Session, b: &Session) -> bool {
        self.credential(a).map(ExposeSecret::expose_secret)
            != self.credential(b).map(ExposeSecret::expose_secret)
    }

    /// Says in the store that a refresh has begun. That is also the proof that the lease still holds.
    async fn mark(
        &self,
        lease: &mut dyn DynLease,
        session: Session,
        replaces: u64,
        request: &TokenRequest,
    ) -> Result<Turn, TokenError> {
        let doubtful_since = session.refreshing_since();
        let session = session.at(replaces).refreshing(request.clock().wall());
        lease.save(replaces, &session).await?;
        Ok(Turn {
            replaces: session.version(),
            session,
            doubtful_since,
        })
    }

    /// Whether the credential that the session began with can begin it once more.
    fn begins_anew(&self, session: &Session) -> bool {
        let refreshed = session.refresh_token().is_some() && session.began_with(&self.fingerprint);
        refreshed && self.seed.is_reusable()
    }

    /// Asks for new tokens: with the refresh token of `session`, else with what it begins with.
    async fn post(&self, session: &Session, clock: &Clock) -> Result<Answer, TokenError> {
        let begins = self.is_new_to(session);
        match session.refresh_token() {
            Some(refresh_token) if !begins => {
                let response = self.refresh(refresh_token, clock).await?;
                Ok(Answer {
                    response,
                    begins: false,
                })
            }
            None if !begins && !session.began_with(&self.fingerprint) => Err(TokenError::new(
                TokenErrorKind::ReauthRequired,
                "the stored session has no refresh token, and began with another credential than this process has",
            )),
            _ => self.begin(clock).await,
        }
    }

    /// Asks for the first tokens of a session.
    async fn begin(&self, clock: &Clock) -> Result<Answer, TokenError> {
        let response = match &self.seed {
            Seed::Refresh(token) => self.refresh(token, clock).await?,
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

    async fn refresh(
        &self,
        refresh_token: &SecretString,
        clock: &Clock,
    ) -> Result<TokenResponse, TokenError> {
        let endpoint = self.refresh_endpoint.as_ref().unwrap_or(&self.endpoint);
        let parameters = [(
            endpoint.refresh_parameter_name(),
            refresh_token.expose_secret(),
        )];
        endpoint.request(clock, "refresh_token", &parameters).await
    }

    /// Saves before anybody sees the token. If that can't be, the session goes on from memory, and the token says so.
    async fn save(&self, lease: &mut dyn DynLease, turn: Turn, answer: Answer) -> Token {
        let Answer { response, begins } = answer;
        let token = response.token.clone();
        let base = if begins {
            let anew = Session::begin(self.fingerprint.clone(), Some(&turn.session));
            match &self.seed {
                // If no other refresh token comes, the one it began with stays.
                Seed::Refresh(first) => anew.with_refresh_token(first.clone()),
                Seed::Exchange(_) => anew,
            }
        } else {
            turn.session
        };
        let session = base.at(turn.replaces).merged(NewTokens {
            token: response.token,
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
                token.with_warning(error)
            }
        }
    }

    /// No new tokens. What the server has judged did not happen; anything else may have, and the mark stays to tell of it.
    async fn give_up(
        &self,
        lease: &mut dyn DynLease,
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
            return error.with_advice(&self.explain(&turn, clock.wall()));
        }
        error
    }

    /// What a person must do, and what may have led to it.
    fn explain(&self, turn: &Turn, now: SystemTime) -> String {
        let mut advice = self.advice.clone().unwrap_or_else(|| {
            "authorize again, and configure the refresh token that comes of it".into()
        });
        if let Some(since) = turn.doubtful_since.and_then(shown) {
            advice.push_str("; a refresh begun on ");
            advice.push_str(&since);
            advice.push_str(" was interrupted, and what it brought may be lost");
        }
        let ended = turn.session.refresh_expires_at().filter(|at| *at <= now);
        if let Some(at) = ended.and_then(shown) {
            advice.push_str("; the refresh token ended on ");
            advice.push_str(&at);
        }
        advice
    }
}

/// A session under renewal: as it is marked in the store, and the version that saving it replaces.
struct Turn {
    session: Session,
    replaces: u64,
    /// Since when nobody knows how an earlier refresh ended.
    doubtful_since: Option<SystemTime>,
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

/// A date as people read it, if it is one that HTTP can write.
fn shown(time: SystemTime) -> Option<String> {
    const YEAR_9999: u64 = 253_402_300_800;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since.as_secs() < YEAR_9999).then(|| httpdate::fmt_http_date(time))
}

impl fmt::Debug for SessionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSource")
            .field("endpoint", &self.endpoint)
            .field("origins", &self.origins)
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}
