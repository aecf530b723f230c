//! The life of a session, from its first token to its end.

use http::StatusCode;
use tower::{BoxError, ServiceBuilder};
use tower_bearer::{
    BearerAuthLayer, ReqwestTransport, TokenError, TokenErrorKind, TokenSource,
    testing::RecordedRequest,
};

use super::{check, get, local_vendor::LocalVendor, show};

impl LocalVendor {
    /// Calls the API with a first token, with one that replaces a revoked one, and when no other can be had. Gives what
    /// the token endpoint was asked before that end.
    pub(crate) async fn walk_through(
        &self,
        source: impl TokenSource,
    ) -> Result<Vec<RecordedRequest>, BoxError> {
        // Nothing of this is meant for a proxy.
        let client = reqwest::Client::builder().no_proxy().build()?;
        let client = ServiceBuilder::new()
            .layer(BearerAuthLayer::new(source))
            .service(ReqwestTransport::new(client));
        let url = format!("{}/invoices", self.url());

        let first = get(client.clone(), &url).await?.status();
        println!("with a first token:          {first}");
        check("the first token is good", first == StatusCode::OK)?;

        self.server.revoke_access_tokens();
        let healed = get(client.clone(), &url).await?.status();
        println!("after the token was revoked: {healed}");
        check(
            "a new token replaces the revoked one",
            healed == StatusCode::OK,
        )?;
        check(
            "one request in two was rejected, and none was sent a third time",
            (self.api.received(), self.api.rejected()) == (3, 1),
        )?;
        let spoken = self.server.requests();

        self.server.revoke_exchange_tokens();
        self.server.revoke_sessions();
        let end = get(client, &url).await?;
        println!("after the session ended:     {}", end.status());
        check(
            "the caller gets the API's own answer",
            end.status() == StatusCode::UNAUTHORIZED,
        )?;
        let reason = end.extensions().get::<TokenError>();
        let reason = reason.ok_or("the answer should tell why there is no other token")?;
        println!("  {reason}\n");
        check(
            "the reason is that a person must act",
            reason.kind() == TokenErrorKind::ReauthRequired,
        )?;

        println!("What was spoken with the token endpoint:");
        show::spoken(&spoken);
        Ok(spoken)
    }
}
