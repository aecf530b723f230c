//! A session with the vendor on this machine, from its first token to its end.

use http::StatusCode;
use tower::{BoxError, ServiceBuilder};
use tower_bearer::{
    BearerAuthLayer, ReqwestTransport, TokenError, TokenErrorKind, TokenSource,
    testing::RecordedRequest,
};

use super::{get, local_vendor::LocalVendor, token_requests};
use crate::support::check;

impl LocalVendor {
    /// Calls the API with a first token, with the token that replaces it after it was revoked, and after the session has
    /// ended. Returns the token requests of the first two.
    pub(crate) async fn run_session(
        &self,
        source: impl TokenSource,
    ) -> Result<[RecordedRequest; 2], BoxError> {
        // A system's proxy cannot reach this machine's loopback ports.
        let client = reqwest::Client::builder().no_proxy().build()?;
        let client = ServiceBuilder::new()
            .layer(BearerAuthLayer::new(source))
            .service(ReqwestTransport::from_client(client));
        let url = format!("{}/invoices", self.url());

        let status = get(client.clone(), &url).await?.status();
        println!("with a first token:          {status}");
        check("the API accepts the first token", status == StatusCode::OK)?;

        self.server.revoke_access_tokens();
        let status = get(client.clone(), &url).await?.status();
        println!("after the token was revoked: {status}");
        check(
            "a new token replaces the revoked one",
            status == StatusCode::OK,
        )?;
        check(
            "of two requests one was rejected and sent once more",
            (self.api.received(), self.api.rejected()) == (3, 1),
        )?;
        let requests = self.server.requests();

        self.server.revoke_exchange_tokens();
        self.server.revoke_sessions();
        let response = get(client, &url).await?;
        println!("after the session ended:     {}", response.status());
        check(
            "the caller gets the API's own response",
            response.status() == StatusCode::UNAUTHORIZED,
        )?;
        let error = response.extensions().get::<TokenError>();
        let error = error.ok_or("the response should say why there is no new token")?;
        println!("  {error}\n");
        check(
            "the error says that a person must log in again",
            error.kind() == TokenErrorKind::ReauthRequired,
        )?;

        println!("The token requests:");
        token_requests::print(&requests);
        <[RecordedRequest; 2]>::try_from(requests)
            .map_err(|requests| format!("expected 2 token requests, got {}", requests.len()).into())
    }
}
