//! [`TokenCacheBuilder`].

use std::{fmt, sync::Arc, time::Duration};

use super::{
    background,
    shared::{Settings, Shared},
    token_cache::TokenCache,
};
#[cfg(feature = "metrics")]
use crate::events::Metrics;
use crate::{
    challenge::StepUp,
    clock::Clock,
    events::{Events, Names, Observer},
    origins::Origins,
    schedule::Schedule,
    token_source::{BoxTokenSource, TokenSource},
};

/// Configures a [`TokenCache`]. Made by [`TokenCache::builder`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::{Schedule, Token, TokenCache, source_fn};
///
/// let source = source_fn(|_| async { Token::new("abc") });
/// let cache = TokenCache::builder(source)
///     .schedule(Schedule::default().refresh_ahead(0.5, Duration::from_secs(3_600)))
///     .max_wait(Duration::from_secs(10))
///     .build();
/// assert!(cache.peek().is_none());
/// ```
#[must_use]
pub struct TokenCacheBuilder {
    source: BoxTokenSource,
    name: Option<String>,
    group: Option<String>,
    observers: Vec<Box<dyn Observer>>,
    #[cfg(feature = "metrics")]
    has_metrics: bool,
    pub(crate) settings: Settings,
}

impl TokenCacheBuilder {
    pub(super) fn new(source: impl TokenSource) -> Self {
        Self {
            settings: Settings {
                schedule: source.schedule(),
                origins: source.origins(),
                step_up: None,
                own_scopes: Vec::new(),
                max_wait: Duration::from_secs(30),
                refresh_timeout: Duration::from_secs(120),
                clock: Clock::System,
                seed: None,
            },
            source: source.boxed(),
            name: None,
            group: None,
            observers: Vec::new(),
            #[cfg(feature = "metrics")]
            has_metrics: false,
        }
    }

    /// When tokens are refreshed. Default: what the source says.
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.settings.schedule = schedule;
        self
    }

    /// Where tokens may be sent by layers over this cache. Default: what the source says.
    pub fn origins(mut self, origins: Origins) -> Self {
        self.settings.origins = origins;
        self
    }

    /// Obtains a token that has more when an API asks for it, and sends the request again with it, once. Default: no, and the
    /// response is the caller's.
    ///
    /// - An API asks with 401 or 403 and a challenge. [`StepUp`] says which of them count, and what may be asked for. Anything
    ///   else is refused.
    /// - However many requests need more, one token request runs. The token before stays in use while it runs, and if it fails.
    /// - The source requests its own scope together with what has been asked for. From then on all requests use that token, and
    ///   later refreshes request the same, also those of another process that shares the store, if its own list allows it.
    /// - If more cannot be had, the caller gets the API's own response, with a [`TokenError`](crate::TokenError) of kind
    ///   [`InsufficientScope`](crate::TokenErrorKind::InsufficientScope) in its extensions. What could not be had is not
    ///   requested again for 15 minutes, or until a [login](TokenCache::login) or a [reset](TokenCache::reset). In any case, there
    ///   are at most ten step-ups at once, and one more each minute.
    /// - If the API also rejects the token, as with `error="invalid_token", claims="…"`, and more cannot be had, an ordinary
    ///   refresh replaces it.
    ///
    /// [`ClientCredentialsSource`](crate::ClientCredentialsSource), [`JwtBearerSource`](crate::JwtBearerSource) and
    /// [`TokenExchangeSource`](crate::TokenExchangeSource) request more. With a refresh token that cannot be done: it never gets
    /// more than was granted (RFC 6749 §6), so the error says that a person must log in: with the scope before and that of the
    /// response's [`Challenge`](crate::Challenge) together, and then [`TokenCache::login`]. A source of your own sees
    /// [`TokenContext::is_step_up`](crate::TokenContext::is_step_up).
    ///
    /// [`BearerAuthLayer`](crate::BearerAuthLayer) sends the request again. [`AddTokenLayer`](crate::AddTokenLayer) obtains the
    /// token for later requests, and does not.
    ///
    /// A process without this that shares the store uses the token as any other. When it refreshes, it requests its own scope.
    /// The processes with it do not adopt that token, and each of them requests one of its own. So give all of them the same
    /// list.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use http::{Request, Response};
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    /// use tower_bearer::{
    ///     BearerAuthLayer, ClientAuth, ClientCredentialsSource, OAuthClient, ReplayBody, StepUp, TokenCache,
    /// };
    /// # use tower_bearer::testing::{AuthorizationServer, Dialect};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), tower::BoxError> {
    /// # let server = AuthorizationServer::new(Dialect::Rfc6749).client("app", "s3cr3t")
    /// #     .grant_scopes(["invoices:read", "reports:read"]);
    /// # let api = server.api().require_scope("/reports", "reports:read");
    /// let client = OAuthClient::with_transport("https://login.example.com/token", server.clone())?
    ///     .client_auth(ClientAuth::client_secret_basic("app", "s3cr3t"));
    /// let cache = TokenCache::builder(ClientCredentialsSource::new(client).scope("invoices:read"))
    ///     .step_up(StepUp::new().scopes(["reports:read"]))
    ///     .build();
    /// let http = ServiceBuilder::new().layer(BearerAuthLayer::from(cache.clone())).service(api);
    ///
    /// // The API answers 403, and names the scope `reports:read`.
    /// let request = Request::get("https://api.example.com/reports").body(String::new())?;
    /// assert_eq!(http.oneshot(request).await?.status(), 200);
    /// assert_eq!(cache.peek().unwrap().scope(), Some("invoices:read reports:read"));
    /// # Ok(()) }
    /// # main().unwrap();
    /// # }
    /// ```
    pub fn step_up(mut self, step_up: StepUp) -> Self {
        self.settings.step_up = Some(Arc::new(step_up));
        self
    }

    /// How long a caller waits for a token. The refresh goes on without that caller.
    ///
    /// Default: 30 seconds.
    pub fn max_wait(mut self, limit: Duration) -> Self {
        self.settings.max_wait = limit;
        self
    }

    /// How long one refresh may take before it is dropped.
    ///
    /// It is for sources that may hang. The sources of this crate have time limits of their own, and dropping one of them
    /// can lose a rotated refresh token. Default: 2 minutes.
    pub fn refresh_timeout(mut self, limit: Duration) -> Self {
        self.settings.refresh_timeout = limit;
        self
    }

    /// What logs call this session. It may name the user or the tenant, but must not contain a secret. Default: the
    /// [group](TokenCacheBuilder::group).
    ///
    /// Metrics do not have it: there would be time series for each user.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// What metrics and logs call the sessions that belong together, for example all of one API. Default: what the source
    /// [is called](TokenSource::name), which is the host of the token endpoint for the sources of this crate.
    ///
    /// There should be few groups: each has time series of its own. Caches that a factory of `Sessions` makes belong
    /// together if it gives all of them the same group, and each a name:
    ///
    /// ```
    /// use tower_bearer::{TokenCache, TokenSource};
    ///
    /// fn cache_of(tenant: &str, source: impl TokenSource) -> TokenCache {
    ///     TokenCache::builder(source).group("invoices").name(tenant).build()
    /// }
    /// # let cache = cache_of("north", tower_bearer::source_fn(|_| async { tower_bearer::Token::new("abc") }));
    /// # assert_eq!((cache.group(), cache.name()), ("invoices", "north"));
    /// ```
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Adds an observer, which gets each [event](crate::events::Event). Several can be added. Default: none.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// Reports metrics to the recorder of the crate [`metrics`](https://docs.rs/metrics). The [module](crate::events#metrics)
    /// lists them. Default: none.
    ///
    /// Install the recorder before the cache is built: a cache that finds none reports nothing.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn metrics(mut self) -> Self {
        self.has_metrics = true;
        self
    }

    /// Builds the cache. If its schedule refreshes in the background, and this is called inside a Tokio runtime, that
    /// starts now.
    #[must_use = "a cache that is dropped refreshes nothing"]
    pub fn build(mut self) -> TokenCache {
        if self.settings.step_up.is_some() {
            self.settings.own_scopes = self.source.scopes();
        }
        let group = match &self.group {
            Some(group) => group,
            None => self.source.name(),
        };
        let names = Names {
            name: self.name.as_deref().unwrap_or(group).into(),
            group: group.into(),
            grant: self.source.grant(),
        };
        #[cfg_attr(not(feature = "metrics"), allow(unused_mut))]
        let mut observers = self.observers;
        #[cfg(feature = "metrics")]
        if self.has_metrics {
            observers.push(Box::new(Metrics::new(&names)));
        }
        let events = Events::new(names, observers);
        let shared = Arc::new(Shared::new(self.source, self.settings, events));
        background::start(&shared);
        TokenCache::from_shared(shared)
    }
}

impl fmt::Debug for TokenCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCacheBuilder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
