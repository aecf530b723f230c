//! What all presets have in common: their settings, and how they build a source.

use crate::{
    error::{TokenError, TokenErrorKind},
    grant::Grant,
    oauth::{EndpointUrl, OAuthClient},
    origins::Origins,
    schedule::Schedule,
    source::GrantSource,
    store::BoxTokenStore,
};

/// What the user of any preset may set. `None` means the default of the vendor.
#[derive(Clone, Default)]
pub(super) struct Settings {
    pub(super) token_url: Option<String>,
    pub(super) origins: Option<Origins>,
    pub(super) schedule: Option<Schedule>,
    pub(super) store: Option<BoxTokenStore>,
}

/// The defaults of a vendor.
pub(super) struct Defaults<'a> {
    /// The only origin that gets the tokens.
    pub(super) origin: &'a str,
    pub(super) schedule: Schedule,
    /// What a person must do when the session has ended.
    pub(super) reauth_hint: &'static str,
}

impl Settings {
    pub(super) fn token_url_or(
        &self,
        default: impl FnOnce() -> Result<EndpointUrl, TokenError>,
    ) -> Result<EndpointUrl, TokenError> {
        match &self.token_url {
            Some(url) => EndpointUrl::parse(url),
            None => default(),
        }
    }

    pub(super) fn source<G: Grant>(
        self,
        client: OAuthClient,
        grant: G,
        defaults: Defaults<'_>,
    ) -> Result<GrantSource<G>, TokenError> {
        let origins = match self.origins {
            Some(origins) => origins,
            None => Origins::only([defaults.origin])?,
        };
        let source = GrantSource::with_grant(client, grant)
            .origins(origins)
            .schedule(self.schedule.unwrap_or(defaults.schedule))
            .reauth_hint(defaults.reauth_hint);
        Ok(match self.store {
            Some(store) => source.store(store),
            None => source,
        })
    }
}

/// Rejects empty values. The vendor would reject them too, but only at the first request and without the name.
pub(super) fn check_not_empty(vendor: &str, values: &[(&str, &str)]) -> Result<(), TokenError> {
    match values.iter().find(|(_, value)| value.trim().is_empty()) {
        None => Ok(()),
        Some((name, _)) => Err(TokenError::new(
            TokenErrorKind::Config,
            format!("{vendor} needs {name}, and it is empty"),
        )),
    }
}

/// The setters and constructors that all presets have. The preset has a field `settings` and two methods: `endpoint`
/// returns the URL of the token endpoint, `source` configures a client for it and makes the source.
macro_rules! common_methods {
    ($preset:ident builds $source:ident) => {
        impl $preset {
            /// Sets where the session is kept. Default: in memory.
            pub fn store(mut self, store: impl crate::TokenStore) -> Self {
                self.settings.store = Some(crate::TokenStore::boxed(store));
                self
            }

            /// Sets the whole URL of the token endpoint, for example of a sandbox. Default: the one of the vendor.
            pub fn token_url(mut self, url: impl Into<String>) -> Self {
                self.settings.token_url = Some(url.into());
                self
            }

            /// Sets where the tokens may go. Default: to the vendor, see the [module](crate::provider).
            pub fn origins(mut self, origins: crate::Origins) -> Self {
                self.settings.origins = Some(origins);
                self
            }

            /// Sets when the tokens are refreshed. Default: as fits the vendor, see above.
            pub fn schedule(mut self, schedule: crate::Schedule) -> Self {
                self.settings.schedule = Some(schedule);
                self
            }

            /// Builds the source.
            ///
            /// # Errors
            ///
            /// - [`Config`](crate::TokenErrorKind::Config): a value is empty or malformed.
            /// - [`InsecureOrigin`](crate::TokenErrorKind::InsecureOrigin): plain http to another machine.
            #[cfg(feature = "reqwest")]
            pub fn build(self) -> Result<crate::$source, crate::TokenError> {
                let client = crate::OAuthClient::with_reqwest(self.endpoint()?)?;
                self.source(client)
            }

            /// Builds the source with a transport of your own for the token requests, see
            /// [`OAuthClient::with_transport`](crate::OAuthClient::with_transport).
            ///
            /// # Errors
            ///
            /// - [`Config`](crate::TokenErrorKind::Config): a value is empty or malformed.
            /// - [`InsecureOrigin`](crate::TokenErrorKind::InsecureOrigin): plain http to another machine.
            pub fn build_with<S, B>(self, transport: S) -> Result<crate::$source, crate::TokenError>
            where
                S: tower_service::Service<
                        http::Request<http_body_util::Full<bytes::Bytes>>,
                        Response = http::Response<B>,
                    > + Clone
                    + Send
                    + Sync
                    + 'static,
                S::Error: Into<tower::BoxError>,
                S::Future: Send + 'static,
                B: http_body::Body + Send + 'static,
                B::Data: Send,
                B::Error: Into<tower::BoxError>,
            {
                let transport = crate::oauth::erase(transport);
                let client = crate::OAuthClient::from_parts(self.endpoint()?, transport);
                self.source(client)
            }
        }
    };
}
pub(super) use common_methods;
