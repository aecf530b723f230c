//! Winbooks: an exchange token for the first tokens, refresh tokens afterwards.
//!
//! `cargo run --example winbooks`. With `-- --help` it says how to use the vendor's servers.

mod support;
mod vendor;

use std::process::ExitCode;

use base64::{Engine, prelude::BASE64_STANDARD};
use support::{Arguments, Options, check};
use tower::BoxError;
use tower_bearer::{
    FileStore,
    provider::Winbooks,
    testing::{AuthorizationServer, Dialect},
};
use url::form_urlencoded;
use vendor::{
    local_vendor::LocalVendor,
    token_requests::{check_posts, header},
};

const OPTIONS: Options = Options {
    credentials: &[
        ("host", "such as https://rapi.winbooksonweb.be"),
        ("email", "of the user that the exchange token was issued to"),
        ("exchange-token", "from Winbooks"),
    ],
    optional: &[
        (
            "session",
            "the file that keeps the session [winbooks.session.json]",
        ),
        ("url", "what to GET with the token"),
    ],
    ..Options::new(
        "--example winbooks",
        "Begins a Winbooks session with an exchange token and calls the API with its access token.",
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
    let file = arguments.find("session").unwrap_or("winbooks.session.json");
    println!("The refresh token that the exchange brings is kept in {file}.");
    let source = Winbooks::new(
        arguments.value("host"),
        arguments.value("email"),
        arguments.value("exchange-token"),
    )
    .store(FileStore::new(file)?)
    .build()?;
    vendor::call(source, arguments.find("url")).await
}

async fn on_this_machine() -> Result<(), BoxError> {
    let vendor = LocalVendor::start(Dialect::Winbooks).await?;
    let exchange_token = vendor.server.issue_exchange_token();

    // Only the host differs from the vendor's.
    let source = Winbooks::new(
        vendor.url(),
        AuthorizationServer::EMAIL,
        exchange_token.as_str(),
    )
    .build()?;
    let requests = vendor.run_session(source).await?;

    let basic = format!(
        "Basic {}",
        BASE64_STANDARD.encode(AuthorizationServer::EMAIL)
    );
    check_posts(
        &requests,
        "/OAuth20/Token",
        "application/x-www-form-urlencoded",
        Some(&basic),
    )?;
    let [exchange, refresh] = &requests;
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "exchange_token")
        .append_pair("code", &exchange_token)
        .finish();
    check(
        "the exchange token is in `code`, percent-encoded",
        exchange.body == form && !form.contains(&exchange_token),
    )?;
    check(
        "the refresh token is in `code`, and there is no other parameter",
        refresh.param("grant_type") == Some("refresh_token")
            && refresh.param("code").is_some()
            && refresh.params.len() == 2,
    )?;
    check(
        "both requests ask for JSON",
        requests
            .iter()
            .all(|request| header(request, "accept") == Some("application/json")),
    )
}
