//! The one way a session is renewed, whatever it began with.
//!
//! load, adopt what another process got; else lease, load again, adopt; else POST, merge, save, publish, release.

mod renewal;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use secrecy::{ExposeSecret, SecretString};

use super::seed::{Exchange, Seed};
use crate::{
    error::{TokenError, TokenErrorKind},
    freshness::{Deadlines, Freshness},
    oauth::OAuthClient,
    origins::Origins,
    schedule::Schedule,
    store::{BoxTokenStore, Identity, MemoryStore, StoreLease, StoredSession, TokenStore},
    token::Token,
    token_source::TokenContext,
};

/// How many times in one call the turn is taken: whoever finds that another has saved meanwhile starts over.
const TURNS: u32 = 3;

/// Renews one session.
#[derive(Clone)]
pub(super) struct SessionSource {
    pub(super) endpoint: OAuthClient,
    /// Some vendors refresh elsewhere.
    pub(super) refresh_endpoint: Option<OAuthClient>,
    seed: Seed,
    identity: Identity,
    store: BoxTokenStore,
    pub(super) origins: Origins,
    pub(super) schedule: Schedule,
    /// What a person must do when the session has ended, in the vendor's terms.
    pub(super) reauth_hint: Option<String>,
    known: Arc<Mutex<Known>>,
}

/// What this process knows of the session.
#[derive(Default)]
struct Known {
    /// The newest session seen or made here; ahead of the store if it could not be saved.
    session: Option<StoredSession>,
    /// What a renewal failed with for good: the generation of the session, and its credential.
    failed: Option<(u64, SecretString)>,
}

impl SessionSource {
    pub(super) fn new(endpoint: OAuthClient, seed: Seed) -> Self {
        Self {
            endpoint,
            refresh_endpoint: None,
            identity: seed.identity(),
            seed,
            store: MemoryStore::new().boxed(),
            origins: Origins::any_https(),
            schedule: Schedule::default(),
            reauth_hint: None,
            known: Arc::default(),
        }
    }

    /// Another store is another session: what is known of the last one doesn't count there.
    pub(super) fn store(&mut self, store: BoxTokenStore) {
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

    pub(super) async fn token(&self, request: TokenContext) -> Result<Token, TokenError> {
        let mut turn = 1;
        loop {
            let outcome = self.turn(&request).await;
            match outcome {
                // Nothing has been spent: whoever has saved instead has brought something newer, or is about to.
                Err(error) if error.kind() == TokenErrorKind::LeaseLost && turn < TURNS => {
                    tracing::debug!(%error, "starting over");
                    turn += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// Adopts what is stored, or waits for the turn to renew it.
    async fn turn(&self, request: &TokenContext) -> Result<Token, TokenError> {
        let stored = self.store.load().await?;
        if let Some(token) = self.adopt(stored.as_ref(), request) {
            return Ok(token);
        }
        let mut lease = self.store.lease().await?;
        // From here on a refresh token may be spent: whoever gives up waiting must not take its successor along.
        let (source, request) = (self.clone(), request.clone());
        let turn = tokio::spawn(async move {
            let outcome = source.renew(&mut lease, &request).await;
            lease.release().await;
            outcome
        });
        turn.await.unwrap_or_else(|error| {
            let message = "the task that was renewing the session ended before it was done";
            Err(TokenError::new(TokenErrorKind::Interrupted, message).with_source(error))
        })
    }

    /// Whether the store has another session by now than the one that could not be renewed.
    pub(super) async fn has_changed(&self) -> bool {
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
    fn is_new_to(&self, session: &StoredSession) -> bool {
        session.is_older_than(&self.identity) && self.known(|known| known.session.is_none())
    }

    /// What is sent to renew `session`. Its refresh token; or what we were configured with, if the session is to begin with
    /// that, or has begun with it. A credential of long ago is never sent again.
    fn credential<'a>(&'a self, session: &'a StoredSession) -> Option<&'a SecretString> {
        let begins = self.is_new_to(session);
        let ours = begins || session.began_with(&self.identity);
        let refresh_token = session.refresh_token().filter(|_| !begins);
        refresh_token.or(ours.then(|| self.seed.secret()))
    }

    /// The token of a stored session, if it serves `request`: not older than what this process has, still usable, and not
    /// the very token that is to be replaced.
    fn adopt(&self, stored: Option<&StoredSession>, request: &TokenContext) -> Option<Token> {
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
            let newest = known.session.as_ref().map_or(0, StoredSession::generation);
            (newest <= stored.generation()).then(|| {
                known.session = Some(stored.clone());
                known.failed = None;
            })
        })?;
        Some(token)
    }

    /// What is to be renewed: the newer of what is stored and of what could not be saved.
    fn newest(&self, stored: Option<StoredSession>) -> StoredSession {
        let own = self.known(|known| known.session.clone());
        let newest = own
            .into_iter()
            .chain(stored)
            .max_by_key(StoredSession::generation);
        newest.unwrap_or_else(|| StoredSession::begin(self.identity.clone(), None))
    }

    fn differs(&self, a: &StoredSession, b: &StoredSession) -> bool {
        self.credential(a).map(ExposeSecret::expose_secret)
            != self.credential(b).map(ExposeSecret::expose_secret)
    }
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

/// What can be said of every source of sessions, and what it does; the source has a `session` to say it of.
macro_rules! session_source {
    ($source:ident) => {
        impl $source {
            /// Where the session is kept. Default: a [`MemoryStore`](crate::MemoryStore) of its own.
            pub fn store(mut self, store: impl crate::TokenStore) -> Self {
                self.session.store(crate::TokenStore::boxed(store));
                self
            }

            /// Where the tokens may go. Default: [`Origins::any_https`](crate::Origins::any_https).
            pub fn origins(mut self, origins: crate::Origins) -> Self {
                self.session.origins = origins;
                self
            }

            /// When the tokens are renewed. Default: [`Schedule::default`](crate::Schedule::default).
            pub fn schedule(mut self, schedule: crate::Schedule) -> Self {
                self.session.schedule = schedule;
                self
            }

            /// What a person must do when the session has ended, to be said in the error.
            pub fn reauth_hint(mut self, reauth_hint: impl Into<String>) -> Self {
                self.session.reauth_hint = Some(reauth_hint.into());
                self
            }
        }

        impl crate::TokenSource for $source {
            /// # Errors
            ///
            /// [`ReauthRequired`](crate::TokenErrorKind::ReauthRequired) if the session has ended; else what the endpoint
            /// or the store failed with.
            async fn token(
                &self,
                request: crate::TokenContext,
            ) -> Result<crate::Token, crate::TokenError> {
                self.session.token(request).await
            }

            async fn has_changed(&self) -> bool {
                self.session.has_changed().await
            }

            fn origins(&self) -> crate::Origins {
                self.session.origins.clone()
            }

            fn schedule(&self) -> crate::Schedule {
                self.session.schedule.clone()
            }
        }
    };
}
pub(super) use session_source;
