//! Scopes and claims of an [`AuthorizationServer`]: what a token was requested with.

use std::collections::BTreeSet;

use super::{
    dialect::{Grant, Rejected},
    recorded::RecordedRequest,
    server::{AuthorizationServer, State},
    sessions::Sessions,
};

/// What a token was issued with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GrantedScope {
    pub(super) scopes: BTreeSet<String>,
    /// The parameter `claims` of the request.
    pub(super) claims: Option<String>,
}

/// Scopes.
impl AuthorizationServer {
    /// The scopes that are granted. A request for another one is rejected as `invalid_scope` (RFC 6749 §5.2), and responses name
    /// the granted scope. Default: all are granted, and responses name none.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::{ClientAuth, OAuthClient, testing::{AuthorizationServer, Dialect}};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer::TokenError> {
    /// let server = AuthorizationServer::new(Dialect::Rfc6749).public_client("app").grant_scopes(["read"]);
    /// let client = OAuthClient::with_transport("https://login.example.com/token", server)?
    ///     .client_auth(ClientAuth::none("app"));
    ///
    /// let token = client.grant("client_credentials", &[("scope", "read")]).await?;
    /// assert_eq!(token.scope(), Some("read"));
    /// let error = client.grant("client_credentials", &[("scope", "write")]).await.unwrap_err();
    /// assert_eq!(error.oauth_code(), Some("invalid_scope"));
    /// # Ok(()) }
    /// ```
    pub fn grant_scopes(self, scopes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let scopes = scopes.into_iter().map(Into::into).collect();
        self.set(|it| it.scopes = Some(scopes))
    }

    /// Begins a session, as a login with this scope would, and returns its first refresh token. A refresh gets no more than that
    /// scope (RFC 6749 §6).
    pub fn issue_refresh_token_with_scope(&self, scope: &str) -> String {
        let token = self.issue_refresh_token();
        let mut state = self.lock();
        if let Some(refresh) = state.sessions.refresh.get(&token) {
            let session = refresh.session;
            state.sessions.all[session].scopes = Some(names(scope));
        }
        token
    }

    /// What an access token was issued with.
    pub(super) fn granted(&self, access_token: &str) -> GrantedScope {
        let state = self.lock();
        let access = state.sessions.access.get(access_token);
        access.map(|it| it.granted.clone()).unwrap_or_default()
    }
}

impl State {
    /// What a request for `grant` gets, if it may get it.
    pub(super) fn scope_of(
        &self,
        request: &RecordedRequest,
        grant: &Grant,
    ) -> Result<GrantedScope, Rejected> {
        let requested = names(request.param("scope").unwrap_or_default());
        let of_login = match grant {
            Grant::Refresh(token) => self.sessions.login_scopes(token),
            Grant::AuthorizationCode(request) => {
                self.sessions.codes.get(&request.code).map(|it| &it.scopes)
            }
            Grant::DeviceCode(request) => {
                let device = self.sessions.devices.get(&request.device_code);
                device.map(|it| &it.scopes)
            }
            _ => None,
        };
        let scopes = match of_login {
            Some(all) if requested.is_empty() => all.clone(),
            _ => requested,
        };
        let is_granted =
            |all: Option<&BTreeSet<String>>| all.is_none_or(|all| scopes.is_subset(all));
        if !is_granted(of_login) || !is_granted(self.settings.scopes.as_ref()) {
            return Err(Rejected::InvalidScope);
        }
        Ok(GrantedScope {
            scopes,
            claims: request.param("claims").map(str::to_owned),
        })
    }
}

impl Sessions {
    /// The scopes of the login that a refresh token comes from. `None`: any.
    fn login_scopes(&self, refresh_token: &str) -> Option<&BTreeSet<String>> {
        let refresh = self.refresh.get(refresh_token)?;
        self.all[refresh.session].scopes.as_ref()
    }

    pub(super) fn set_granted(&mut self, access_token: &str, granted: GrantedScope) {
        if let Some(access) = self.access.get_mut(access_token) {
            access.granted = granted;
        }
    }
}

pub(super) fn names(scope: &str) -> BTreeSet<String> {
    scope.split_ascii_whitespace().map(str::to_owned).collect()
}
