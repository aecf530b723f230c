//! 2BA: a refresh token that each refresh replaces, with client id and secret in the form.
//!
//! `cargo run --example two_ba`. With `-- --help` it says how to use the vendor's servers.

mod support;
mod vendor;

use std::process::ExitCode;

use support::{Arguments, Options, check};
use tower::BoxError;
use tower_bearer::{
    FileStore, Origins,
    provider::TwoBa,
    testing::{AuthorizationServer, Dialect},
};
use url::form_urlencoded;
use vendor::{
    local_vendor::LocalVendor,
    token_requests::{check_posts, check_rotation},
};

const OPTIONS: Options = Options {
    credentials: &[
        ("client-id", "from 2BA"),
        ("refresh-token", "from the user's login"),
    ],
    optional: &[
        ("client-secret", "from 2BA, unless the client is public"),
        (
            "token-url",
            "another token endpoint, such as one that ends in /connect/token",
        ),
        (
            "session",
            "the file that keeps the session [two_ba.session.json]",
        ),
        ("url", "what to GET with the token, at https://api.2ba.nl"),
    ],
    ..Options::new(
        "--example two_ba",
        "Refreshes a 2BA session and calls the API with its access token.",
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
    let client_id = arguments.value("client-id");
    let refresh_token = arguments.value("refresh-token");
    let mut two_ba = match arguments.find("client-secret") {
        Some(secret) => TwoBa::new(client_id, secret, refresh_token),
        None => TwoBa::public_client(client_id, refresh_token),
    };
    if let Some(url) = arguments.find("token-url") {
        two_ba = two_ba.token_url(url);
    }
    let file = arguments.find("session").unwrap_or("two_ba.session.json");
    println!("The refresh token works once. The one that replaces it is kept in {file}.");
    let source = two_ba.store(FileStore::new(file)?).build()?;
    vendor::call(source, arguments.find("url")).await
}

async fn on_this_machine() -> Result<(), BoxError> {
    let vendor = LocalVendor::start(Dialect::TwoBa).await?;
    let refresh_token = vendor.server.issue_refresh_token();
    let client_id = AuthorizationServer::CLIENT_ID;
    let client_secret = AuthorizationServer::CLIENT_SECRET;

    // Only the URL and the allowed origin differ from the vendor's.
    let source = TwoBa::new(client_id, client_secret, refresh_token.as_str())
        .token_url(format!("{}/OAuth/Token", vendor.url()))
        .origins(Origins::only([vendor.url()])?)
        .build()?;
    let requests = vendor.run_session(source).await?;

    check_posts(
        &requests,
        "/OAuth/Token",
        "application/x-www-form-urlencoded",
        None,
    )?;
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("refresh_token", &refresh_token)
        .append_pair("client_id", client_id)
        .append_pair("client_secret", client_secret)
        .finish();
    check(
        "the form has the vendor's parameters and no others",
        requests[0].body == form,
    )?;
    check_rotation(&vendor.server, &refresh_token, &requests[1])
}
