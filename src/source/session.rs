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
    cache::Schedule,
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
    pub(super) store: Arc<dyn DynStore>,
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
    /// The refresh or exchange token that the server has called dead.
    dead: Option<SecretString>,
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
        let outcome = self.renew(&mut *lease, &request).await;
        lease.release().await;
        outcome
    }

    /// Whether the store has another credential than the one that was called dead.
    pub(super) async fn mended(&self) -> bool {
        let Ok(Some(stored)) = self.store.load().await else {
            return false;
        };
        let alive = self.credential(&stored).expose_secret();
        self.known(|known| {
            known
                .dead
                .as_ref()
                .is_some_and(|dead| dead.expose_secret() != alive)
        })
    }

    /// What would be sent to renew `session`.
    fn credential<'a>(&'a self, session: &'a Session) -> &'a SecretString {
        if session.is_older_than(&self.fingerprint) {
            return self.seed.secret();
        }
        session.refresh_token().unwrap_or(self.seed.secret())
    }

    /// The token of a stored session, if it serves `request`: not older than what this process has, and not the very
    /// token that is to be replaced.
    fn adopt(&self, stored: Option<&Session>, request: &TokenRequest) -> Option<Token> {
        let stored = stored.filter(|stored| !stored.is_older_than(&self.fingerprint))?;
        let token = stored.usable(request.clock().now())?;
        if request
            .previous_token()
            .is_some_and(|previous| previous.same_secret(&token))
        {
            return None;
        }
        self.known(|known| {
            let newest = known.session.as_ref().map_or(0, Session::version);
            (newest <= stored.version()).then(|| known.session = Some(stored.clone()))
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
        let session = self.newest(stored);
        let interrupted = session.refreshing_since();
        let marked = session.refreshing(request.clock().wall());
        lease.save(replaces, &marked).await?;

        let mut turn = Turn {
            replaces: marked.version(),
            session: marked,
        };
        let mut outcome = self.post(&turn.session, request.clock()).await;
        if is_dead(&outcome) {
            // Before that is believed: somebody may have logged in anew meanwhile, who needs no lease for that.
            let newest = self.store.load().await?;
            let other = newest.filter(|newest| {
                let ours = self.credential(&turn.session).expose_secret();
                self.credential(newest).expose_secret() != ours
            });
            if let Some(newest) = other {
                if let Some(token) = self.adopt(Some(&newest), request) {
                    return Ok(token);
                }
                turn.replaces = newest.version();
                turn.session = newest;
                outcome = self.post(&turn.session, request.clock()).await;
            }
        }
        match outcome {
            Ok(answer) => Ok(self.save(lease, turn, answer).await),
            Err(error) => {
                // What the server has judged did not happen. Anything else may have, and the mark stays to tell of it.
                if error.status().is_some() && !error.is_transient() {
                    let settled = turn.session.settled().at(turn.replaces + 1);
                    let saved = lease.save(turn.replaces, &settled).await;
                    if let Err(error) = saved {
                        tracing::warn!(%error, "the outcome of a refresh could not be saved");
                    }
                }
                if error.kind() != TokenErrorKind::ReauthRequired {
                    return Err(error);
                }
                let dead = self.credential(&turn.session).clone();
                self.known(|known| known.dead = Some(dead));
                Err(self.explain(error, interrupted))
            }
        }
    }

    /// What is to be renewed: the newest session, or a new one if the caller has brought a new credential.
    fn newest(&self, stored: Option<Session>) -> Session {
        let own = self.known(|known| known.session.clone());
        let newest = own.into_iter().chain(stored).max_by_key(Session::version);
        match newest {
            Some(session) if !session.is_older_than(&self.fingerprint) => session,
            older => Session::begin(self.fingerprint.clone(), older.as_ref()),
        }
    }

    /// Asks for new tokens: with the refresh token of `session`, else with what the session begins with.
    async fn post(&self, session: &Session, clock: &Clock) -> Result<Answer, TokenError> {
        if let Some(refresh_token) = session.refresh_token() {
            let outcome = self.refresh(refresh_token, clock).await;
            let again = self.seed.is_reusable() && session.began_with(&self.fingerprint);
            if !(again && is_dead(&outcome)) {
                return outcome.map(|response| Answer {
                    response,
                    begins: false,
                });
            }
            tracing::info!("the refresh token is dead; the exchange token begins the session anew");
        }
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
        let base = match &self.seed {
            _ if !begins => turn.session,
            // If no other refresh token comes, the one it began with stays.
            Seed::Refresh(first) => Session::begin(self.fingerprint.clone(), Some(&turn.session))
                .with_refresh_token(first.clone()),
            Seed::Exchange(_) => Session::begin(self.fingerprint.clone(), Some(&turn.session)),
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
            known.dead = None;
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

    fn explain(&self, error: TokenError, interrupted: Option<SystemTime>) -> TokenError {
        let mut advice = self.advice.clone().unwrap_or_else(|| {
            "authorize again, and configure the refresh token that comes of it".into()
        });
        if let Some(since) = interrupted {
            let since = httpdate::fmt_http_date(since);
            advice.push_str("; a refresh begun on ");
            advice.push_str(&since);
            advice.push_str(" was interrupted, and what it brought may be lost");
        }
        error.with_advice(&advice)
    }
}

/// The session being renewed, and the version that saving it replaces.
struct Turn {
    session: Session,
    replaces: u64,
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

impl fmt::Debug for SessionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSource")
            .field("endpoint", &self.endpoint)
            .field("origins", &self.origins)
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}
