//! What a test can do to an [`AuthorizationServer`], and ask of it.

use super::{
    api::ProtectedApi, faults::Fault, grants::Grants, recorded::RecordedRequest,
    server::AuthorizationServer,
};

/// Control, and what came of it.
impl AuthorizationServer {
    /// An API that takes this server's tokens.
    pub fn api(&self) -> ProtectedApi {
        ProtectedApi::new(self.clone())
    }

    /// Somebody logged in: the first refresh token of a new session.
    pub fn issue_refresh_token(&self) -> String {
        self.lock().with_grants(Grants::log_in)
    }

    /// Somebody was given an exchange token; each use of it begins a session.
    pub fn issue_exchange_token(&self) -> String {
        self.lock().grants.permit_exchange()
    }

    /// An access token, without a way to renew it.
    pub fn issue_access_token(&self) -> String {
        self.lock().with_grants(Grants::let_in)
    }

    /// Revokes every access token; refresh tokens stay good.
    pub fn revoke_access_tokens(&self) {
        self.lock().grants.revoke_access();
    }

    /// Ends the life of every access token now; refresh tokens stay good.
    pub fn expire_access_tokens(&self) {
        self.lock()
            .with_grants(|grants, _, now| grants.expire_access(now));
    }

    /// Ends the session that `token`, a refresh or access token, belongs to; says whether there was one.
    pub fn revoke_session(&self, token: &str) -> bool {
        self.lock().grants.revoke_session_of(token)
    }

    /// Logs everybody out: all access and refresh tokens are dead. Exchange tokens stay good.
    pub fn revoke_sessions(&self) {
        self.lock().grants.revoke_sessions();
    }

    /// Forgets every exchange token; sessions that began with one go on.
    pub fn revoke_exchange_tokens(&self) {
        self.lock().grants.revoke_exchange();
    }

    /// Orders a fault for one request, after those ordered before.
    pub fn fault(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    /// Orders the same fault for each of the next `n` requests, after those ordered before.
    pub fn fault_next(&self, n: usize, fault: &Fault) {
        let faults = std::iter::repeat_n(fault, n).cloned();
        self.lock().faults.extend(faults);
    }

    /// The fault of every request that none was ordered for, or `None` to end it.
    pub fn fault_always(&self, fault: impl Into<Option<Fault>>) {
        self.lock().always = fault.into();
    }

    /// The requests it got, oldest first; rejected ones and those that met a fault are among them.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.lock().log.to_vec()
    }

    /// How many requests it got, whatever became of them.
    pub fn token_requests(&self) -> usize {
        self.lock().counts.token_requests
    }

    /// How many exchange tokens were exchanged, even if the answer was lost.
    pub fn exchanges(&self) -> usize {
        self.lock().counts.exchanges
    }

    /// How many refreshes succeeded, even if the answer was lost.
    pub fn refreshes(&self) -> usize {
        self.lock().counts.refreshes
    }

    /// How many tokens the client got for itself, even if the answer was lost.
    pub fn client_credentials(&self) -> usize {
        self.lock().counts.client_credentials
    }

    /// How many requests it rejected; faults are not counted.
    pub fn rejected(&self) -> usize {
        self.lock().counts.rejected
    }

    /// How often a replaced refresh token came back and ended its session.
    pub fn reuse_detected(&self) -> usize {
        self.lock().counts.reuse_detected
    }

    /// How many sessions still hold a token that is good.
    pub fn live_sessions(&self) -> usize {
        self.lock()
            .with_grants(|grants, rules, now| grants.live(rules, now))
    }

    /// Whether the API may serve the bearer of `access_token` now.
    pub fn is_live(&self, access_token: &str) -> bool {
        self.check(access_token).is_ok()
    }
}
