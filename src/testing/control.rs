//! Controls of an [`AuthorizationServer`], and its counters.

use super::{
    api::ProtectedApi, faults::Fault, recorded::RecordedRequest, server::AuthorizationServer,
    sessions::Sessions,
};

#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) token_requests: usize,
    pub(super) exchanges: usize,
    pub(super) refreshes: usize,
    pub(super) client_credentials: usize,
    pub(super) jwt_bearers: usize,
    pub(super) token_exchanges: usize,
    pub(super) password_logins: usize,
    pub(super) rejected: usize,
    pub(super) reuse_detected: usize,
    pub(super) metadata_requests: usize,
    pub(super) revocation_requests: usize,
    pub(super) revocations: usize,
    pub(super) authorization_requests: usize,
    pub(super) authorizations: usize,
    pub(super) code_grants: usize,
    pub(super) device_authorization_requests: usize,
    pub(super) device_authorizations: usize,
    pub(super) device_grants: usize,
}

/// Controls and counters.
impl AuthorizationServer {
    /// Creates an API that accepts this server's tokens.
    pub fn api(&self) -> ProtectedApi {
        ProtectedApi::new(self.clone())
    }

    /// Begins a session, as a login would, and returns its first refresh token.
    pub fn issue_refresh_token(&self) -> String {
        self.lock().with_sessions(Sessions::begin_session)
    }

    /// Issues an exchange token. Each use of it begins a session.
    pub fn issue_exchange_token(&self) -> String {
        self.lock().sessions.issue_exchange_token()
    }

    /// Accepts this client assertion (RFC 7523 §2.2), as often as it is sent and whatever it contains: the token of a
    /// workload, which somebody else has issued.
    pub fn accept_client_assertion(&self, assertion: impl Into<String>) {
        let mut state = self.lock();
        state.settings.client_assertions.insert(assertion.into());
    }

    /// Accepts this token as the subject or the actor of a token exchange (RFC 8693), with this type. Access tokens of
    /// the server are accepted anyway.
    pub fn accept_security_token(&self, token: impl Into<String>, token_type: impl Into<String>) {
        let (token, token_type) = (token.into(), token_type.into());
        self.lock()
            .sessions
            .security_tokens
            .insert((token, token_type));
    }

    /// Accepts this assertion in JWT bearer grants (RFC 7523 §2.1), as often as it is sent and whatever it contains.
    pub fn accept_assertion(&self, assertion: impl Into<String>) {
        self.lock().sessions.assertions.insert(assertion.into());
    }

    /// Begins a session without a refresh token and returns its access token.
    pub fn issue_access_token(&self) -> String {
        self.lock()
            .with_sessions(Sessions::begin_access_only_session)
    }

    /// Revokes every access token. Refresh tokens stay valid.
    pub fn revoke_access_tokens(&self) {
        self.lock().sessions.revoke_access();
    }

    /// Lets every access token expire now. Refresh tokens stay valid.
    pub fn expire_access_tokens(&self) {
        self.lock()
            .with_sessions(|sessions, _, now| sessions.expire_access(now));
    }

    /// Ends the session of `token`, a refresh or access token. Returns whether there was one.
    pub fn revoke_session(&self, token: &str) -> bool {
        self.lock().sessions.revoke_session_of(token)
    }

    /// Ends every session, with its access and refresh tokens. Exchange tokens stay valid.
    pub fn revoke_sessions(&self) {
        self.lock().sessions.revoke_sessions();
    }

    /// Revokes every exchange token. Sessions that began with one go on.
    pub fn revoke_exchange_tokens(&self) {
        self.lock().sessions.revoke_exchange();
    }

    /// Adds a fault for one request, after the faults that were added before.
    pub fn fault(&self, fault: Fault) {
        self.lock().faults.next.push_back(fault);
    }

    /// Adds the same fault for `n` requests, after the faults that were added before.
    pub fn fault_next(&self, n: usize, fault: &Fault) {
        let faults = std::iter::repeat_n(fault, n).cloned();
        self.lock().faults.next.extend(faults);
    }

    /// Sets the fault of every request that has none of its own. `None` ends it.
    pub fn fault_always(&self, fault: impl Into<Option<Fault>>) {
        self.lock().faults.always = fault.into();
    }

    /// Adds a fault for one request of a metadata document, after those that were added before. The other faults do not
    /// apply to these requests.
    pub fn metadata_fault(&self, fault: Fault) {
        self.lock().metadata_faults.next.push_back(fault);
    }

    /// Sets the fault of every request of a metadata document that has none of its own. `None` ends it.
    pub fn metadata_fault_always(&self, fault: impl Into<Option<Fault>>) {
        self.lock().metadata_faults.always = fault.into();
    }

    /// Adds a fault for one revocation request, after those that were added before. The other faults do not apply to
    /// these requests.
    pub fn revocation_fault(&self, fault: Fault) {
        self.lock().revocation_faults.next.push_back(fault);
    }

    /// Sets the fault of every revocation request that has none of its own. `None` ends it.
    pub fn revocation_fault_always(&self, fault: impl Into<Option<Fault>>) {
        self.lock().revocation_faults.always = fault.into();
    }

    /// Adds a fault for one request to the authorization endpoint, after those that were added before. The other faults do not
    /// apply to these requests.
    ///
    /// Its response is a redirect: [`Fault::member`] changes a parameter of the URL that it leads to, such as `state`, `iss` or
    /// `error`.
    pub fn authorization_fault(&self, fault: Fault) {
        self.lock().authorization_faults.next.push_back(fault);
    }

    /// Sets the fault of every request to the authorization endpoint that has none of its own. `None` ends it.
    pub fn authorization_fault_always(&self, fault: impl Into<Option<Fault>>) {
        self.lock().authorization_faults.always = fault.into();
    }

    /// The recorded requests, oldest first. Rejected requests and those with a fault are included.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.lock().log.to_vec()
    }

    /// How many token requests arrived, with any result.
    pub fn token_requests(&self) -> usize {
        self.lock().counts.token_requests
    }

    /// How often an exchange token was exchanged, even if the reply was lost.
    pub fn exchanges(&self) -> usize {
        self.lock().counts.exchanges
    }

    /// How many refreshes succeeded, even if the reply was lost.
    pub fn refreshes(&self) -> usize {
        self.lock().counts.refreshes
    }

    /// How many client-credentials requests succeeded, even if the reply was lost.
    pub fn client_credentials(&self) -> usize {
        self.lock().counts.client_credentials
    }

    /// How many JWT bearer requests succeeded, even if the reply was lost.
    pub fn jwt_bearers(&self) -> usize {
        self.lock().counts.jwt_bearers
    }

    /// How many token exchanges succeeded, even if the reply was lost.
    pub fn token_exchanges(&self) -> usize {
        self.lock().counts.token_exchanges
    }

    /// How many password logins succeeded, even if the reply was lost.
    pub fn password_logins(&self) -> usize {
        self.lock().counts.password_logins
    }

    /// How many requests were rejected. Faults are not counted.
    pub fn rejected(&self) -> usize {
        self.lock().counts.rejected
    }

    /// How often a replaced refresh token was used again and ended its session.
    pub fn reuse_detected(&self) -> usize {
        self.lock().counts.reuse_detected
    }

    /// How many requests for metadata documents arrived, with any result.
    pub fn metadata_requests(&self) -> usize {
        self.lock().counts.metadata_requests
    }

    /// How many revocation requests arrived, with any result.
    pub fn revocation_requests(&self) -> usize {
        self.lock().counts.revocation_requests
    }

    /// How many revocation requests succeeded, also of unknown tokens.
    pub fn revocations(&self) -> usize {
        self.lock().counts.revocations
    }

    /// How many requests to the authorization endpoint arrived, with any result.
    pub fn authorization_requests(&self) -> usize {
        self.lock().counts.authorization_requests
    }

    /// How many authorization codes were issued, even if a fault has changed or lost the response.
    pub fn authorizations(&self) -> usize {
        self.lock().counts.authorizations
    }

    /// How many authorization codes were exchanged for tokens, even if the reply was lost.
    pub fn code_grants(&self) -> usize {
        self.lock().counts.code_grants
    }

    /// How many sessions still have a valid token.
    pub fn live_sessions(&self) -> usize {
        self.lock()
            .with_sessions(|sessions, rules, now| sessions.live(rules, now))
    }

    /// Whether `access_token` is valid now.
    pub fn is_live(&self, access_token: &str) -> bool {
        self.check(access_token).is_ok()
    }
}
