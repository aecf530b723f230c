//! What the vendors' examples share: their options, a stage on this machine, and how they show what was spoken.

#![allow(dead_code, reason = "each example uses some of it")]

pub(crate) mod local_vendor;
pub(crate) mod options;
pub(crate) mod show;
pub(crate) mod walkthrough;

use std::{future::Future, process::ExitCode, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::timeout;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_bearer::{BearerAuthLayer, ReqwestTransport, TokenCache, TokenError, TokenSource};

/// No example takes as long.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs an example, and says what went wrong with all its causes.
pub(crate) async fn run(example: impl Future<Output = Result<(), BoxError>>) -> ExitCode {
    let outcome = timeout(LIMIT, example)
        .await
        .unwrap_or_else(|_| Err(format!("not done after {LIMIT:?}").into()));
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    eprintln!("{error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
    ExitCode::FAILURE
}

/// Fails unless what the example promises holds.
pub(crate) fn check(promise: &str, kept: bool) -> Result<(), BoxError> {
    if kept {
        Ok(())
    } else {
        Err(format!("this should hold, and does not: {promise}").into())
    }
}

/// Gets a token from the vendor and, if there is a URL, sends a GET there with it.
pub(crate) async fn call(source: impl TokenSource, url: Option<&str>) -> Result<(), BoxError> {
    let cache = TokenCache::new(source);
    cache.token().await?;
    // Not the token, nor what it begins with: terminals are recorded, and their text is pasted.
    match cache.status().expires_at {
        Some(end) => println!(
            "A token came; it lives until {}.",
            httpdate::fmt_http_date(end)
        ),
        None => println!("A token came; the vendor does not say how long it lives."),
    }
    let Some(url) = url else {
        println!("Give --url to call the API with it.");
        return Ok(());
    };
    // As with the token requests: what is redirected is shown, not followed.
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::from(cache))
        .service(ReqwestTransport::new(client));
    let response = get(client, url).await?;
    println!("GET {url}: {}", response.status());
    if let Some(error) = response.extensions().get::<TokenError>() {
        println!("  {error}");
    }
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    println!("  {} bytes", body.len());
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("the API answered {status}").into())
    }
}

/// A GET by any client.
pub(crate) async fn get<S, B>(client: S, url: &str) -> Result<Response<B>, BoxError>
where
    S: tower::Service<Request<Full<Bytes>>, Response = Response<B>, Error = BoxError>,
{
    let request = Request::get(url).body(Full::default())?;
    client.oneshot(request).await
}
