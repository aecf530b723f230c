//! [`Endpoint`]: which endpoint of an [`AuthorizationServer`](super::AuthorizationServer) a request is for.

use http::Response;

use super::{
    body::ResponseBody, dialect::Rejected, faults::Fault, metadata, recorded::RecordedRequest,
    responses, rules::Invalid, server::State,
};

/// The endpoint that a request is for.
#[derive(Clone, Copy)]
enum Endpoint {
    Metadata,
    Revocation,
    Authorization,
    DeviceAuthorization,
    /// Also for paths that are none.
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

    /// Counts and keeps the request. Returns its fault.
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
            Endpoint::Token => match self.grant(request, fault) {
                Ok(issued) => responses::issued(&self.settings, &issued),
                Err(rejected) => {
                    self.counts.rejected += 1;
                    if rejected == Rejected::Invalid(Invalid::Reused) {
                        self.counts.reuse_detected += 1;
                    }
                    responses::rejected(&self.settings, &rejected)
                }
            },
        }
    }
}
