//! [`StepUp`]: what an API may ask for.

use std::{collections::BTreeSet, fmt};

use super::Challenge;

/// What an API may ask for beyond what its token has. For [`TokenCacheBuilder::step_up`](crate::TokenCacheBuilder::step_up),
/// which says what happens then.
///
/// An attacker may control the API, or a server in front of it. So only what is on this list is requested.
///
/// | Challenge | What is requested |
/// |---|---|
/// | `error="insufficient_scope"` (RFC 6750 §3.1) | the scope of the source and that of the challenge, if all of it is allowed |
/// | `claims="…"` with any error (continuous access evaluation) | the same with the parameter `claims`, if [`claims`](Self::claims) are allowed |
/// | `error="insufficient_user_authentication"` (RFC 9470 §3) | nothing: a person must log in. A source of your own may do it |
///
/// # Examples
///
/// ```
/// use tower_bearer::{StepUp, Token, TokenCache, source_fn};
///
/// let source = source_fn(|cx| async move { Token::new(if cx.is_step_up() { "wide" } else { "narrow" }) });
/// let cache = TokenCache::builder(source)
///     .step_up(StepUp::new().scopes(["files:read", "files:write"]))
///     .build();
/// # let _ = cache;
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct StepUp {
    scopes: BTreeSet<Box<str>>,
    claims: bool,
}

impl StepUp {
    /// Allows no scope and no claims.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows these scopes as well. A text with spaces is several of them.
    ///
    /// The scope that the source asks for on its own is always allowed.
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        for text in scopes {
            let names = text.as_ref().split_ascii_whitespace();
            self.scopes.extend(names.map(Box::from));
        }
        self
    }

    /// Whether claims of a challenge are passed on to the authorization server, as they are, in the parameter `claims`.
    ///
    /// They are decoded first: JSON in base64, and an object. If the client has a parameter `claims` of its own, both are
    /// merged. Default: `false`.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::{StepUp, TokenCacheBuilder};
    ///
    /// /// For an API with continuous access evaluation.
    /// fn with_claims(builder: TokenCacheBuilder) -> TokenCacheBuilder {
    ///     builder.step_up(StepUp::new().claims(true))
    /// }
    /// ```
    pub fn claims(mut self, allowed: bool) -> Self {
        self.claims = allowed;
        self
    }

    pub(crate) fn allows(&self, scope: &str) -> bool {
        self.scopes.contains(scope)
    }

    /// Whether a challenge asks for more, and not just for another token.
    pub(crate) fn concerns(&self, challenge: &Challenge) -> bool {
        match challenge.error() {
            Some("insufficient_scope" | "insufficient_user_authentication") => true,
            _ => self.claims && challenge.claims().is_some(),
        }
    }

    pub(super) fn allows_claims(&self) -> bool {
        self.claims
    }
}

impl fmt::Debug for StepUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepUp")
            .field("scopes", &self.scopes)
            .field("claims", &self.claims)
            .finish()
    }
}
