//! The endpoints of an [`AuthorizationServer`](super::AuthorizationServer): which one a request is for, and what it does.

use http::Response;

use super::{
    body::ResponseBody,
    dialect::{Grant, Rejected},
    faults::Fault,
    metadata,
    recorded::RecordedRequest,
    responses,
    rules::{Invalid, Issued},
    server::State,
};

enum Endpoint {
    Metadata,
    Revocation,
    Authorization,
    DeviceAuthorization,
    /// And whatever has no endpoint.
    Token,
}

impl State {
    fn endpoint(&self, request: &RecordedRequest) -> Endpoint {
        if metadata::is_well_known(&self.settings, request) {
            Endpoint::Metadata
        } else if self.is_revocation(request) {
            Endpoint::Revocation
        } else if self.is_authorization(request) {
            Endpoint::Authorization
        } else if self.is_device_authorization(request) {
            Endpoint::DeviceAuthorization
        } else {
            Endpoint::Token
        }
    }

    /// Records and counts the request, and returns its fault.
    pub(super) fn record(&mut self, request: RecordedRequest) -> Option<Fault> {
        let endpoint = self.endpoint(&request);
        let counts = &mut self.counts;
        let (count, faults) = match endpoint {
            Endpoint::Metadata => (&mut counts.metadata_requests, &mut self.metadata_faults),
            Endpoint::Revocation => (&mut counts.revocation_requests, &mut self.revocation_faults),
            Endpoint::Authorization => (
                &mut counts.authorization_requests,
                &mut self.authorization_faults,
            ),
            Endpoint::DeviceAuthorization => (
                &mut counts.device_authorization_requests,
                &mut self.device_authorization_faults,
            ),
            Endpoint::Token => (&mut counts.token_requests, &mut self.faults),
        };
        *count += 1;
        let fault = faults.take();
        self.log.push(request);
        fault
    }

    pub(super) fn respond(
        &mut self,
        request: &RecordedRequest,
        fault: Option<&Fault>,
    ) -> Response<ResponseBody> {
        match self.endpoint(request) {
            Endpoint::Metadata => metadata::respond(&self.settings, request),
            Endpoint::Revocation => self.revoke(request),
            Endpoint::Authorization => self.authorize(request),
            Endpoint::DeviceAuthorization => self.authorize_device(request),
            Endpoint::Token => self.issue(request, fault),
        }
    }

    fn issue(
        &mut self,
        request: &RecordedRequest,
        fault: Option<&Fault>,
    ) -> Response<ResponseBody> {
        match self.grant(request, fault) {
            Ok(issued) => responses::issued(&self.settings, &issued),
            Err(rejected) => {
                self.counts.rejected += 1;
                if rejected == Rejected::Invalid(Invalid::Reused) {
                    self.counts.reuse_detected += 1;
                }
                responses::rejected(&self.settings, &rejected)
            }
        }
    }

    fn grant(
        &mut self,
        request: &RecordedRequest,
        fault: Option<&Fault>,
    ) -> Result<Issued, Rejected> {
        let grant = self.read(request)?;
        if let Grant::JwtBearer(assertion) = &grant {
            self.check_grant(request, assertion)?;
        }
        let now = self.settings.now();
        let mut rules = self.settings.rules.clone();
        if let Some(fault) = fault {
            fault.adjust_rules(&mut rules);
        }
        let (issued, count) = match grant {
            Grant::Exchange(code) => (
                self.sessions.exchange(&code, &rules, now),
                &mut self.counts.exchanges,
            ),
            Grant::Refresh(token) => (
                self.sessions.refresh(&token, &rules, now),
                &mut self.counts.refreshes,
            ),
            Grant::ClientCredentials => (
                Ok(self.sessions.client_credentials(&rules, now)),
                &mut self.counts.client_credentials,
            ),
            Grant::JwtBearer(_) => (
                Ok(self.sessions.begin_without_refresh(&rules, now)),
                &mut self.counts.jwt_bearers,
            ),
            Grant::TokenExchange(exchange) => (
                self.sessions.token_exchange(&exchange, &rules, now),
                &mut self.counts.token_exchanges,
            ),
            Grant::AuthorizationCode(request) => (
                self.sessions.exchange_code(&request, &rules, now)?,
                &mut self.counts.code_grants,
            ),
            Grant::DeviceCode(request) => (
                self.sessions.exchange_device_code(&request, &rules, now)?,
                &mut self.counts.device_grants,
            ),
            Grant::Password(login) => (
                self.sessions
                    .log_in(&login, self.settings.user.as_ref(), &rules, now),
                &mut self.counts.password_logins,
            ),
        };
        let issued = issued.map_err(Rejected::Invalid)?;
        *count += 1;
        Ok(issued)
    }
}
