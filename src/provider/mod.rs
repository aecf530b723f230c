//! Presets for real systems: endpoint, client identification, body format, quirks, origins and schedule.
//!
//! Each preset takes what is yours and knows the rest. It builds one of the crate's own sources, so whatever those can do
//! can be said of it too; and what was learned from the field instead of the vendor's own pages can be overridden.
//!
//! | Preset | Begins with | Renews by | Tokens go to |
//! |---|---|---|---|
//! | [`Winbooks`] | an exchange token | the refresh token, in `code` | the host it was given |
//! | [`TwoBa`] | a refresh token | the same, rotated | `https://api.2ba.nl` |
//! | [`Xoxoday`] | a refresh token | the same, rotated, as JSON, without traffic too | `https://accounts.xoxoday.com` |

mod two_ba;
mod winbooks;
mod xoxoday;

pub use self::{two_ba::TwoBa, winbooks::Winbooks, xoxoday::Xoxoday};
use crate::{origins::Origins, schedule::Schedule, store::BoxTokenStore};

/// What every preset lets its user say.
#[derive(Clone, Default)]
struct Said {
    token_url: Option<String>,
    origins: Option<Origins>,
    schedule: Option<Schedule>,
    store: Option<BoxTokenStore>,
}

/// What every preset lets its user say, in the same words; `$source` is what it builds.
macro_rules! preset {
    ($preset:ident builds $source:ident) => {
        impl $preset {
            /// Where the session is kept. Default: in memory.
            pub fn store(mut self, store: impl crate::TokenStore) -> Self {
                self.said.store = Some(crate::TokenStore::boxed(store));
                self
            }

            /// Another address for the token endpoint, the whole of it: a sandbox, a newer path.
            pub fn token_url(mut self, url: impl Into<String>) -> Self {
                self.said.token_url = Some(url.into());
                self
            }

            /// Where the tokens may go. Default: to the vendor, see the [module](crate::provider).
            pub fn origins(mut self, origins: crate::Origins) -> Self {
                self.said.origins = Some(origins);
                self
            }

            /// When the tokens are renewed. Default: as fits the vendor, see above.
            pub fn schedule(mut self, schedule: crate::Schedule) -> Self {
                self.said.schedule = Some(schedule);
                self
            }

            /// The source.
            ///
            /// # Errors
            ///
            /// [`Config`](crate::TokenErrorKind::Config) if something is missing or malformed, and
            /// [`InsecureOrigin`](crate::TokenErrorKind::InsecureOrigin) for plain http to another machine.
            #[cfg(feature = "reqwest")]
            pub fn build(self) -> Result<crate::$source, crate::TokenError> {
                let url = self.checked_url()?;
                let endpoint = crate::OAuthClient::new(url)?;
                self.assemble(endpoint)
            }

            /// The source, with a transport of your own for the token requests; see
            /// [`OAuthClient::with_transport`](crate::OAuthClient::with_transport).
            ///
            /// # Errors
            ///
            /// [`Config`](crate::TokenErrorKind::Config) if something is missing or malformed, and
            /// [`InsecureOrigin`](crate::TokenErrorKind::InsecureOrigin) for plain http to another machine.
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
                let url = self.checked_url()?;
                let endpoint = crate::OAuthClient::with_transport(url, transport)?;
                self.assemble(endpoint)
            }
        }
    };
}
use preset;

/// A value that must not be empty, for it would only be rejected by the vendor later.
fn required(vendor: &str, values: &[(&str, &str)]) -> Result<(), crate::TokenError> {
    match values.iter().find(|(_, value)| value.trim().is_empty()) {
        None => Ok(()),
        Some((name, _)) => Err(crate::TokenError::new(
            crate::TokenErrorKind::Config,
            format!("{vendor} needs {name}, and it is empty"),
        )),
    }
}
