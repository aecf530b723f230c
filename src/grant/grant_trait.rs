//! The trait [`Grant`].

use std::{future::Future, sync::Arc};

use super::GrantContext;
use crate::{error::TokenError, oauth::Parameters, store::Identity};

/// How a session obtains its first tokens.
///
/// A [`GrantSource`](crate::GrantSource) sends the [`parameters`](Grant::parameters) to the token endpoint once. After
/// that it refreshes the session with the refresh tokens that the server issues. If the server issues none, or if the grant
/// does not [use them](Grant::uses_refresh_tokens), the grant is used each time.
///
/// Implement it for a grant that this crate does not have: read an assertion from a file, or sign one.
///
/// # Examples
///
/// [`JwtBearer`](crate::JwtBearer) sends an assertion (RFC 7523 §2.1). A grant that is a little different, with the assertion
/// in a file that another process replaces every hour:
///
/// ```
/// use std::path::PathBuf;
/// use tower_bearer::{
///     Grant, GrantContext, GrantSource, Identity, OAuthClient, Parameters, TokenError,
/// };
///
/// struct AssertionFile(PathBuf);
///
/// impl Grant for AssertionFile {
///     async fn parameters(&self, _cx: &GrantContext<'_>) -> Result<Parameters, TokenError> {
///         let assertion = std::fs::read_to_string(&self.0).map_err(|error| {
///             TokenError::new(
///                 tower_bearer::TokenErrorKind::Source,
///                 "the file with the assertion cannot be read",
///             )
///             .with_source(error)
///         })?;
///         Ok(Parameters::new("assertion").with("signed_assertion", assertion.trim()))
///     }
///
///     fn identity(&self) -> Identity {
///         Identity::new("assertion-file", &self.0.to_string_lossy())
///     }
///
///     fn can_repeat(&self) -> bool {
///         true
///     }
/// }
///
/// # #[cfg(feature = "reqwest")] {
/// let client = OAuthClient::new("https://login.example.com/token")?;
/// let source = GrantSource::with_grant(client, AssertionFile("/run/assertion".into()));
/// # let _ = source;
/// # }
/// # Ok::<(), TokenError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a grant",
    label = "this obtains no first tokens",
    note = "`ClientCredentials`, `RefreshTokenGrant`, `JwtBearer` and others are grants; implement `Grant` for others"
)]
pub trait Grant: Send + Sync + 'static {
    /// Makes the parameters of a token request. Called for each request.
    ///
    /// # Errors
    ///
    /// Any error fails the refresh, and no request is sent. A [transient](TokenError::is_transient) one is retried later.
    fn parameters(
        &self,
        cx: &GrantContext<'_>,
    ) -> impl Future<Output = Result<Parameters, TokenError>> + Send;

    /// Identifies the session in a store. Called once, when the source is made.
    ///
    /// It must stay the same as long as the same login is configured, across restarts. A different identity is a new
    /// login: it replaces the stored session. The [`OAuthClient`](crate::OAuthClient) is no part of it: a session is stored
    /// with its client as well.
    fn identity(&self) -> Identity;

    /// Whether the grant has a credential, so that it can begin a session.
    ///
    /// Default: `true`. With `false`, sessions come only from the store, where a [login](crate::TokenCache::login) puts them, and
    /// [`parameters`](Grant::parameters) is not called.
    fn can_begin(&self) -> bool {
        true
    }

    /// Whether the grant may begin the session anew after its refresh token has become invalid.
    ///
    /// `false` for credentials that work once, and for refresh tokens.
    fn can_repeat(&self) -> bool;

    /// Whether [`parameters`](Grant::parameters) always makes the same ones, so that a server that has rejected them as
    /// `invalid_grant` will reject them again.
    ///
    /// Default: `false`. Then a rejection is never [final](TokenError::is_final), and not marked in the store: the next
    /// request has new parameters.
    fn is_fixed(&self) -> bool {
        false
    }

    /// Called after the server has rejected the [`parameters`](Grant::parameters) that were made last (`invalid_grant`,
    /// `invalid_request`, or a code like them), so that the next ones are not made from the same token again. Default: does nothing.
    fn rejected(&self) {}

    /// Whether the session keeps the refresh tokens that the server issues, and refreshes with them.
    ///
    /// Default: `true`. With `false`, each token is requested with the grant, and a refresh token in a response is neither
    /// kept nor sent. Then a request uses nothing up, so a store and its lease only spare requests: if the store fails, the
    /// token is requested all the same.
    fn uses_refresh_tokens(&self) -> bool {
        true
    }

    /// Names and values that tell the sessions of this grant apart if their client and [`identity`](Grant::identity) are the
    /// same, such as `scope`.
    ///
    /// They are stored as a part of a hash. A source with other values neither uses nor overwrites the stored session. The
    /// parameters `scope`, `resource` and `audience` replace those of the client. Default: none.
    fn session_parts(&self) -> Vec<(&str, &str)> {
        Vec::new()
    }

    /// The name of the grant for logs and metrics, such as `refresh_token`. It tells nothing of one session. Default:
    /// `custom`.
    fn name(&self) -> &'static str {
        "custom"
    }
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        impl<G: Grant> Grant for $pointer<G> {
            fn parameters(
                &self,
                cx: &GrantContext<'_>,
            ) -> impl Future<Output = Result<Parameters, TokenError>> + Send {
                (**self).parameters(cx)
            }

            fn identity(&self) -> Identity {
                (**self).identity()
            }

            fn can_begin(&self) -> bool {
                (**self).can_begin()
            }

            fn can_repeat(&self) -> bool {
                (**self).can_repeat()
            }

            fn is_fixed(&self) -> bool {
                (**self).is_fixed()
            }

            fn rejected(&self) {
                (**self).rejected();
            }

            fn uses_refresh_tokens(&self) -> bool {
                (**self).uses_refresh_tokens()
            }

            fn session_parts(&self) -> Vec<(&str, &str)> {
                (**self).session_parts()
            }

            fn name(&self) -> &'static str {
                (**self).name()
            }
        }
    )*};
}

forward!(Arc, Box);
