//! What only this crate says of a [`TokenError`].

use super::{Asked, Recovery, TokenError, TokenErrorKind};

impl TokenError {
    pub(crate) fn recovery(&self) -> Recovery {
        self.inner
            .recovery
            .unwrap_or_else(|| self.inner.kind.recovery())
    }

    /// Sets when the refresh is tried again, if not as the kind says.
    #[must_use]
    pub(crate) fn with_recovery(self, recovery: Recovery) -> Self {
        self.edit(|inner| inner.recovery = Some(recovery))
    }

    /// Says which endpoint was asked. Default: the token endpoint.
    #[must_use]
    pub(crate) fn asking(self, asked: Asked) -> Self {
        self.edit(|inner| inner.asked = asked)
    }

    /// The error of something that a token request depends on, such as a secret or the HTTP client. It says nothing about the
    /// grant: only the server can declare that dead.
    #[must_use]
    pub(crate) fn of_a_dependency(self) -> Self {
        let recovery = match self.recovery() {
            Recovery::Never => Recovery::Slowly,
            recovery => recovery,
        };
        self.edit(|inner| {
            if inner.kind == TokenErrorKind::ReauthRequired {
                inner.kind = TokenErrorKind::Source;
            }
            inner.recovery = Some(recovery);
            inner.status = None;
            inner.oauth_code = None;
        })
    }

    /// Says that the request could not be made, so that nothing was sent.
    #[must_use]
    pub(crate) fn unsent(self) -> Self {
        self.edit(|inner| inner.is_unsent = true)
    }

    pub(crate) fn is_unsent(&self) -> bool {
        self.inner.is_unsent
    }

    /// Adds a description of the response: where it came from, its content type and its size.
    #[must_use]
    pub(crate) fn with_response(self, response: String) -> Self {
        self.edit(|inner| inner.response = Some(response.into()))
    }

    /// Removes the server's error code.
    #[must_use]
    pub(crate) fn without_oauth_code(self) -> Self {
        self.edit(|inner| inner.oauth_code = None)
    }

    /// Appends to the message.
    #[must_use]
    pub(crate) fn with_more(self, more: &str) -> Self {
        self.edit(|inner| inner.message = format!("{}; {more}", inner.message).into())
    }
}
