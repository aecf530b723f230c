//! The revocation endpoint of an [`AuthorizationServer`](super::AuthorizationServer) (RFC 7009).

use http::{Response, StatusCode};

use super::{
    body::ResponseBody,
    dialect, faults,
    recorded::RecordedRequest,
    responses,
    server::{AuthorizationServer, State},
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
        let params = dialect::client_params(&self.settings, request);
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
