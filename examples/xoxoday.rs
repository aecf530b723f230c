//! Xoxoday (Plum): JSON token requests, and a refresh token that each refresh replaces.
//!
//! `cargo run --example xoxoday`. With `-- --help` it says how to use the vendor's servers.

mod support;
mod vendor;

use std::{process::ExitCode, time::Duration};

use serde_json::{Value, json};
use support::{Arguments, Options, check};
use tower::BoxError;
use tower_bearer::{
    FileStore, Origins,
    provider::Xoxoday,
    testing::{AuthorizationServer, Dialect},
};
use vendor::{
    local_vendor::LocalVendor,
    token_requests::{check_posts, check_rotation},
};

const OPTIONS: Options = Options {
    credentials: &[
        ("client-id", "from the dashboard"),
        ("client-secret", "from the dashboard"),
        ("refresh-token", "from the dashboard"),
    ],
    optional: &[
        ("token-url", "another token endpoint, such as a sandbox's"),
        (
            "origin",
            "another origin that the token may go to, such as a sandbox's",
        ),
        (
            "session",
            "the file that keeps the session [xoxoday.session.json]",
        ),
        (
            "url",
            "what to GET with the token, at https://accounts.xoxoday.com",
        ),
    ],
    switches: &[("company", "the credentials are a company's, not a user's")],
    ..Options::new(
        "--example xoxoday",
        "Refreshes a Xoxoday session and calls the API with its access token.",
    )
};

#[tokio::main]
async fn main() -> ExitCode {
    support::run(&OPTIONS, async |arguments| {
        if arguments.has_credentials {
            at_the_vendor(&arguments).await
        } else {
            on_this_machine().await
        }
    })
    .await
}

async fn at_the_vendor(arguments: &Arguments) -> Result<(), BoxError> {
    let mut xoxoday = Xoxoday::new(
        arguments.value("client-id"),
        arguments.value("client-secret"),
        arguments.value("refresh-token"),
    );
    if arguments.is_on("company") {
        xoxoday = xoxoday.company();
    }
    if let Some(url) = arguments.find("token-url") {
        xoxoday = xoxoday.token_url(url);
    }
    if let Some(origin) = arguments.find("origin") {
        xoxoday = xoxoday.origins(Origins::only([origin])?);
    }
    let file = arguments.find("session").unwrap_or("xoxoday.session.json");
    println!("The refresh token works once. The one that replaces it is kept in {file}.");
    let source = xoxoday.store(FileStore::new(file)?).build()?;
    vendor::call(source, arguments.find("url")).await
}

async fn on_this_machine() -> Result<(), BoxError> {
    let vendor = LocalVendor::start(Dialect::Xoxoday).await?;
    let refresh_token = vendor.server.issue_refresh_token();
    let client_id = AuthorizationServer::CLIENT_ID;
    let client_secret = AuthorizationServer::CLIENT_SECRET;

    // The URL and the allowed origin differ from the vendor's, and so does the time between refreshes: the vendor allows
    // one a minute.
    let source = Xoxoday::new(client_id, client_secret, refresh_token.as_str())
        .token_url(format!("{}/chef/v1/oauth/token/user", vendor.url()))
        .origins(Origins::only([vendor.url()])?)
        .schedule(Xoxoday::default_schedule().min_interval(Duration::ZERO))
        .build()?;
    let requests = vendor.run_session(source).await?;

    check_posts(
        &requests,
        "/chef/v1/oauth/token/user",
        "application/json",
        None,
    )?;
    let body: Value = serde_json::from_slice(&requests[0].body)?;
    let expected = json!({
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": client_id,
        "client_secret": client_secret,
    });
    check(
        "the JSON has the vendor's members and no others",
        body == expected,
    )?;
    check_rotation(&vendor.server, &refresh_token, &requests[1])
}
