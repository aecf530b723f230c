//! The revocation endpoint of an [`AuthorizationServer`](super::AuthorizationServer) (RFC 7009), and how tokens are
//! revoked and expire.

use std::time::SystemTime;

use http::{Response, StatusCode};

use super::{
    body::ResponseBody,
    faults,
    recorded::RecordedRequest,
    responses,
    rules::Rules,
    server::{AuthorizationServer, State},
    sessions::{Sessions, is_past},
};

/// The path of the endpoint, after the prefix.
pub(super) const PATH: &str = "/revoke";

impl AuthorizationServer {
    /// The path of the revocation endpoint (RFC 7009), with the prefix.
    ///
    /// It authenticates clients like the token endpoint. A refresh token ends its session, with all access tokens. An
    /// access token ends alone. An unknown token is no error (RFC 7009 §2.2), and a refresh token that was replaced is an
    /// unknown one.
    pub fn revocation_path(&self) -> String {
        format!("{}{PATH}", self.lock().settings.prefix)
    }
}

impl State {
    pub(super) fn is_revocation(&self, request: &RecordedRequest) -> bool {
        let path = request.uri.path().strip_prefix(&*self.settings.prefix);
        path == Some(PATH)
    }

    pub(super) fn revoke(&mut self, request: &RecordedRequest) -> Response<ResponseBody> {
        let params = self.client_params(request);
        match params.and_then(|params| params.required("token").map(str::to_owned)) {
            Ok(token) => {
                self.with_sessions(|sessions, rules, now| sessions.revoke(&token, rules, now));
                self.counts.revocations += 1;
                faults::with_status(StatusCode::OK, ResponseBody::empty())
            }
            Err(rejected) => {
                self.counts.rejected += 1;
                responses::rejected(&self.settings, &rejected)
            }
        }
    }
}

impl Sessions {
    pub(super) fn revoke_access(&mut self) {
        self.access
            .values_mut()
            .for_each(|token| token.revoked = true);
    }

    pub(super) fn expire_access(&mut self, now: SystemTime) {
        self.access
            .values_mut()
            .filter(|token| !is_past(token.expires, now))
            .for_each(|token| token.expires = Some(now));
    }

    pub(super) fn revoke_session_of(&mut self, token: &str) -> bool {
        let by_refresh = self.refresh.get(token).map(|token| token.session);
        let by_access = || self.session_of_access(token);
        let Some(session) = by_refresh.or_else(by_access) else {
            return false;
        };
        !std::mem::replace(&mut self.all[session].revoked, true)
    }

    /// Revokes `token` as its client asked (RFC 7009 §2.1).
    pub(super) fn revoke(&mut self, token: &str, rules: &Rules, now: SystemTime) {
        if let Some(access) = self.access.get_mut(token) {
            access.revoked = true;
        } else if let Some(refresh) = self.refresh.get(token)
            && !refresh.is_spent(rules, now)
        {
            self.all[refresh.session].revoked = true;
        }
    }

    pub(super) fn revoke_sessions(&mut self) {
        self.all
            .iter_mut()
            .for_each(|session| session.revoked = true);
    }

    pub(super) fn revoke_exchange(&mut self) {
        self.exchange.clear();
    }
}
