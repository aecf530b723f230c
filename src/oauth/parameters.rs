//! [`Parameters`]: what a token request asks for.

use std::{fmt, future::Future};

use secrecy::{ExposeSecret, SecretString};

use super::{ExpectedExchange, RequestTime};
use crate::{error::TokenError, zeroize::secret};

/// The name of both the grant type and its parameter (RFC 6749 §6).
const REFRESH_TOKEN: &str = "refresh_token";

/// The parameters of a token request: the grant type, and names with values in the order in which they are sent.
///
/// The values are secrets: `Debug` shows names only, and the values are zeroized when dropped. So is the body of the request,
/// but not the copies that the HTTP client makes of it.
///
/// # Examples
///
/// ```
/// use tower_bearer::Parameters;
///
/// // RFC 6749 §4.4
/// let parameters = Parameters::new("client_credentials").with("scope", "invoices:read");
///
/// assert_eq!(parameters.grant_type(), "client_credentials");
/// assert_eq!(parameters.expose_secret("scope"), Some("invoices:read"));
/// assert!(!format!("{parameters:?}").contains("invoices"));
/// ```
#[derive(Clone)]
pub struct Parameters {
    grant_type: String,
    fields: Vec<(String, SecretString)>,
    /// What the response must have, if these are the parameters of a token exchange.
    exchange: Option<ExpectedExchange>,
}

impl Parameters {
    /// Parameters with a grant type and nothing else.
    #[must_use]
    pub fn new(grant_type: impl Into<String>) -> Self {
        Self {
            grant_type: grant_type.into(),
            fields: Vec::new(),
            exchange: None,
        }
    }

    /// The parameters of a refresh (RFC 6749 §6).
    ///
    /// A request with these is a refresh for the whole crate: it goes to the
    /// [refresh URL](crate::OAuthClient::refresh_url) if there is one, is sent once more at once if no response comes,
    /// and if the response has no new refresh token, the session keeps this one.
    #[must_use]
    pub fn refresh_token(refresh_token: impl Into<String>) -> Self {
        Self::new(REFRESH_TOKEN).with(REFRESH_TOKEN, refresh_token)
    }

    /// Adds a parameter. A name may be added several times, like `resource` (RFC 8707).
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.push(name, secret(value));
        self
    }

    pub(crate) fn with_secret(mut self, name: impl Into<String>, value: SecretString) -> Self {
        self.push(name, value);
        self
    }

    /// Sets a parameter, and removes others of its name.
    pub(crate) fn replacing(mut self, name: &str, value: String) -> Self {
        self.fields.retain(|(known, _)| known != name);
        self.with(name, value)
    }

    pub(crate) fn expecting(mut self, exchange: ExpectedExchange) -> Self {
        self.exchange = Some(exchange);
        self
    }

    pub(super) fn expected_exchange(&self) -> Option<ExpectedExchange> {
        self.exchange
    }

    /// The grant type.
    pub fn grant_type(&self) -> &str {
        &self.grant_type
    }

    /// The names of the parameters, without `grant_type`, in the order in which they are sent.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| name.as_str())
    }

    /// The value of the first parameter of this name. Keep it out of logs, errors and `Debug`.
    pub fn expose_secret(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(known, _)| known == name)?;
        Some(value.expose_secret())
    }

    pub(crate) fn is_refresh(&self) -> bool {
        self.grant_type == REFRESH_TOKEN
    }

    /// The refresh token, if these are the parameters of a refresh.
    pub(crate) fn as_refresh_token(&self) -> Option<&str> {
        self.is_refresh()
            .then(|| self.expose_secret(REFRESH_TOKEN))
            .flatten()
    }

    /// Whether `code` shows one of the values: it is one, contains one, or is a part of one.
    pub(super) fn shows_a_value(&self, code: &str) -> bool {
        self.fields
            .iter()
            .any(|(_, value)| shows(code, value.expose_secret()))
    }

    pub(super) fn push(&mut self, name: impl Into<String>, value: SecretString) {
        self.fields.push((name.into(), value));
    }

    /// Adds those of `defaults` whose name is not taken yet.
    pub(super) fn push_missing<'a>(
        &mut self,
        defaults: impl IntoIterator<Item = &'a (String, SecretString)>,
    ) {
        let taken = self.fields.len();
        for (name, value) in defaults {
            if !self.fields[..taken].iter().any(|(known, _)| known == name) {
                self.fields.push((name.clone(), value.clone()));
            }
        }
    }

    /// Sends the refresh token by another name.
    pub(super) fn rename_refresh_token(&mut self, name: &str) {
        let is_refresh = self.is_refresh();
        for (known, _) in &mut self.fields {
            if is_refresh && known == REFRESH_TOKEN {
                name.clone_into(known);
            }
        }
    }

    /// All names and values, `grant_type` first.
    pub(super) fn pairs(&self) -> Vec<(&str, &str)> {
        let fields = self
            .fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose_secret()));
        let mut pairs = vec![("grant_type", self.grant_type.as_str())];
        pairs.extend(fields);
        pairs
    }
}

/// Whether `code` shows `secret`. Short texts occur in others by chance, so only a whole one counts.
pub(super) fn shows(code: &str, secret: &str) -> bool {
    const LONG: usize = 8;

    code.eq_ignore_ascii_case(secret)
        || (secret.len() >= LONG && code.contains(secret))
        || (code.len() >= LONG && secret.contains(code))
}

/// Makes the parameters of a token request. If the server's clock shows that they were made for a wrong time, makes
/// them again.
pub(crate) trait MakeParameters: Sync {
    fn make(
        &self,
        time: &RequestTime,
    ) -> impl Future<Output = Result<Parameters, TokenError>> + Send;
}

/// Parameters that are always the same.
impl MakeParameters for Parameters {
    async fn make(&self, _: &RequestTime) -> Result<Parameters, TokenError> {
        Ok(self.clone())
    }
}

/// Parameters, and the time for which they were made.
pub(crate) struct MadeParameters {
    pub(crate) parameters: Parameters,
    pub(super) time: RequestTime,
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parameters")
            .field("grant_type", &self.grant_type)
            .field("names", &self.names().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_names_and_no_values() {
        let parameters = Parameters::refresh_token("hunter2").with("scope", "hunter2");
        let shown = format!("{parameters:?}{parameters:#?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("scope"), "{shown}");
    }

    #[test]
    fn a_default_gives_way_to_a_parameter_of_its_name() {
        let mut parameters = Parameters::new("x").with("scope", "write");
        let defaults = [("scope", "read"), ("resource", "a"), ("resource", "b")];
        let defaults = defaults.map(|(name, value)| (name.to_owned(), value.into()));
        parameters.push_missing(&defaults);
        assert_eq!(
            parameters.pairs(),
            [
                ("grant_type", "x"),
                ("scope", "write"),
                ("resource", "a"),
                ("resource", "b")
            ]
        );
    }

    #[test]
    fn only_the_parameter_of_a_refresh_is_renamed() {
        let mut refresh = Parameters::refresh_token("r").with("scope", "s");
        assert_eq!(refresh.as_refresh_token(), Some("r"));
        refresh.rename_refresh_token("code");
        assert_eq!(refresh.names().collect::<Vec<_>>(), ["code", "scope"]);

        let mut other = Parameters::new("x").with("refresh_token", "r");
        assert_eq!(other.as_refresh_token(), None);
        other.rename_refresh_token("code");
        assert_eq!(other.names().collect::<Vec<_>>(), ["refresh_token"]);
    }
}
