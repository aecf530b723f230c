//! [`TokenExchange`].

use super::{Grant, GrantContext, Requested, SecurityToken, requested::requested_setters};
use crate::{
    error::{TokenError, TokenErrorKind},
    oauth::{ExpectedExchange, Parameters},
    store::Identity,
};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Exchanges the token of a subject for another one (RFC 8693): for another API, or on behalf of a user.
///
/// The subject token, and the actor token if there is one, are obtained anew for each request. Each token is requested with
/// an exchange. A refresh token in a response is ignored, so the tokens end with those of the subject.
///
/// - The response must have an `issued_token_type` (§2.2.1).
/// - A response without `expires_in` is used no longer than the subject token lives, as far as that is known.
/// - `token_type` is `N_A` if the issued token cannot be used as an access token (§2.2.1). That is an error, unless
///   [`requested_token_type`](Self::requested_token_type) asked for another type. Then the token is the input of another
///   grant, through [`SecurityToken::from_source`]: no API accepts it as a bearer token.
/// - A rejected subject token never ends the session: the next request has another one.
///
/// # Examples
///
/// ```
/// use tower_bearer::{Grant, SecurityToken, TokenExchange};
///
/// let subject = SecurityToken::from_file("/var/run/secrets/tokens/workload");
/// let grant = TokenExchange::new("workload", subject, TokenExchange::JWT)?
///     .audience("https://api.example.com");
/// assert!(!grant.uses_refresh_tokens());
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TokenExchange {
    key: String,
    subject: TypedToken,
    actor: Option<TypedToken>,
    requested_token_type: Option<String>,
    requested: Requested,
}

/// A token and its type (RFC 8693 §3).
#[derive(Clone, Debug)]
struct TypedToken {
    token: SecurityToken,
    token_type: String,
}

requested_setters!(TokenExchange);

impl TokenExchange {
    /// The type of an OAuth access token (RFC 8693 §3).
    pub const ACCESS_TOKEN: &str = ACCESS_TOKEN;
    /// The type of an `OpenID` Connect ID token (RFC 8693 §3).
    pub const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
    /// The type of any JWT (RFC 8693 §3).
    pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

    /// A grant that exchanges the tokens of `subject`, which are of the type `subject_token_type`.
    ///
    /// `key` tells the session of one subject from that of another in a store. It must stay the same while the subject is the
    /// same, and be another for each other subject: a user id, for example. It is stored as a part of a hash.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if `key` or the type is empty.
    pub fn new(
        key: impl Into<String>,
        subject: SecurityToken,
        subject_token_type: impl Into<String>,
    ) -> Result<Self, TokenError> {
        let key = key.into();
        let token_type = subject_token_type.into();
        let empty = |what: &str| {
            let message = format!("the token exchange has an empty {what}");
            Err(TokenError::new(TokenErrorKind::Config, message))
        };
        if key.trim().is_empty() {
            return empty("key; give it one that identifies the subject, such as a user id");
        }
        if token_type.trim().is_empty() {
            return empty("subject token type; see RFC 8693 §3 for the types");
        }
        Ok(Self {
            key,
            subject: TypedToken {
                token: subject,
                token_type,
            },
            actor: None,
            requested_token_type: None,
            requested: Requested::default(),
        })
    }

    /// Sets the token of the party that acts on behalf of the subject, and its type (RFC 8693 §1.1). Default: none.
    pub fn actor(mut self, actor: SecurityToken, actor_token_type: impl Into<String>) -> Self {
        self.actor = Some(TypedToken {
            token: actor,
            token_type: actor_token_type.into(),
        });
        self
    }

    /// Sets the type of token to be issued (RFC 8693 §2.1). Default: none is sent, and the server decides.
    pub fn requested_token_type(mut self, token_type: impl Into<String>) -> Self {
        self.requested_token_type = Some(token_type.into());
        self
    }
}

impl Grant for TokenExchange {
    async fn parameters(&self, cx: &GrantContext<'_>) -> Result<Parameters, TokenError> {
        let subject = self.subject.token.obtain(cx).await?;
        let mut parameters = Parameters::new(GRANT_TYPE)
            .with_secret("subject_token", subject.text)
            .with("subject_token_type", &self.subject.token_type);
        if let Some(actor) = &self.actor {
            let token = actor.token.obtain(cx).await?;
            parameters = parameters
                .with_secret("actor_token", token.text)
                .with("actor_token_type", &actor.token_type);
        }
        if let Some(token_type) = &self.requested_token_type {
            parameters = parameters.with("requested_token_type", token_type);
        }
        let requested = self.requested_token_type.as_deref();
        Ok(self
            .requested
            .add_to(parameters)
            .expecting(ExpectedExchange {
                is_bearer: requested.is_none_or(|requested| requested == ACCESS_TOKEN),
                subject_expires: subject.expires,
            }))
    }

    fn identity(&self) -> Identity {
        // Also with a name of the session, a token of one subject is never used for another one.
        Identity::new("token-exchange", &self.key)
    }

    fn can_repeat(&self) -> bool {
        true
    }

    fn rejected(&self) {
        self.subject.token.rejected();
        if let Some(actor) = &self.actor {
            actor.token.rejected();
        }
    }

    fn uses_refresh_tokens(&self) -> bool {
        false
    }

    fn session_parts(&self) -> Vec<(&str, &str)> {
        let requested = self.requested_token_type.as_deref();
        let mut parts = self.requested.parts();
        parts.push(("subject_key", &self.key));
        parts.extend(requested.map(|requested| ("requested_token_type", requested)));
        // A token that is issued to an actor says so. One that is not may do more.
        let actor = self.actor.as_ref();
        parts.extend(actor.map(|actor| ("actor_token_type", &*actor.token_type)));
        parts
    }

    fn name(&self) -> &'static str {
        "token_exchange"
    }
}
