//! What the vendors' examples share: a vendor on this machine, a session with it, and a call to the real vendor.

#![allow(dead_code, reason = "not every example uses all of it")]

pub(crate) mod local_vendor;
mod session;
pub(crate) mod token_requests;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_bearer::{BearerAuthLayer, ReqwestTransport, TokenCache, TokenError, TokenSource};

/// Gets a token from the real vendor and, if there is a URL, sends a GET there with it.
pub(crate) async fn call(source: impl TokenSource, url: Option<&str>) -> Result<(), BoxError> {
    let cache = TokenCache::new(source);
    cache.token().await?;
    // No part of the token is printed: terminals are recorded, and their text is pasted.
    match cache.status().expires_at {
        Some(end) => println!(
            "Got a token, which expires at {}.",
            httpdate::fmt_http_date(end)
        ),
        None => println!("Got a token. The vendor does not say when it expires."),
    }
    let Some(url) = url else {
        println!("Give --url to call the API with it.");
        return Ok(());
    };
    // Redirects are shown, not followed.
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::from(cache))
        .service(ReqwestTransport::from_client(client));
    let response = get(client, url).await?;
    let status = response.status();
    println!("GET {url}: {status}");
    if let Some(error) = response.extensions().get::<TokenError>() {
        println!("  {error}");
    }
    let body = response.into_body().collect().await?.to_bytes();
    println!("  {} bytes", body.len());
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("the API answered {status}").into())
    }
}

async fn get<S, B>(client: S, url: &str) -> Result<Response<B>, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = BoxError>,
{
    let request = Request::get(url).body(Full::default())?;
    client.oneshot(request).await
}
