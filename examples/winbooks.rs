//! Winbooks: an exchange token once, refresh tokens afterwards.
//!
//! `cargo run --example winbooks`, or with `-- --help` to learn how to reach the vendor.

mod support;

use std::process::ExitCode;

use base64::{Engine, prelude::BASE64_STANDARD};
use form_urlencoded::byte_serialize;
use support::{check, local_vendor::LocalVendor, options::Options, show::header};
use tower::BoxError;
use tower_bearer::{
    FileStore,
    provider::Winbooks,
    testing::{AuthorizationServer, Dialect},
};

const OPTIONS: Options = Options {
    name: "winbooks",
    about: "Begins a Winbooks session with an exchange token, and calls the API with its access token.",
    credentials: &[
        ("host", "such as https://rapi.winbooksonweb.be"),
        ("email", "whom the exchange token was given to"),
        ("exchange-token", "what Winbooks gave"),
    ],
    extras: &[
        (
            "session",
            "the file that keeps the session [winbooks.session.json]",
        ),
        ("url", "what to GET with the token"),
    ],
    switches: &[],
};

#[tokio::main]
async fn main() -> ExitCode {
    support::run(async {
        let Some(given) = OPTIONS.read()? else {
            return Ok(());
        };
        if !given.real {
            return embedded().await;
        }
        let winbooks = Winbooks::new(
            given.value("host"),
            given.value("email"),
            given.value("exchange-token"),
        );
        let file = given.find("session").unwrap_or("winbooks.session.json");
        println!("The refresh token that the exchange brings is kept in {file}.");
        let source = winbooks.store(FileStore::new(file)?).build()?;
        support::call(source, given.find("url")).await
    })
    .await
}

async fn embedded() -> Result<(), BoxError> {
    let vendor = LocalVendor::open(AuthorizationServer::new(Dialect::Winbooks)).await?;
    let exchange_token = vendor.server.issue_exchange_token();

    // As with the vendor, but for the host.
    let source = Winbooks::new(
        vendor.url(),
        AuthorizationServer::EMAIL,
        exchange_token.as_str(),
    )
    .build()?;
    let spoken = vendor.walk_through(source).await?;

    let [exchange, refresh] = &spoken[..] else {
        return Err("there should have been an exchange and a refresh".into());
    };
    let basic = format!(
        "Basic {}",
        BASE64_STANDARD.encode(AuthorizationServer::EMAIL)
    );
    let code: String = byte_serialize(exchange_token.as_bytes()).collect();
    let body = format!("grant_type=exchange_token&code={code}");
    check(
        "the exchange token wants encoding: it has `+`, `/` or `=`",
        code != exchange_token,
    )?;
    check(
        "the exchange token goes percent-encoded in `code`",
        exchange.body == body,
    )?;
    for request in [exchange, refresh] {
        check(
            "POST to /OAuth20/Token",
            request.method == "POST" && request.uri.path() == "/OAuth20/Token",
        )?;
        check(
            "Basic of the e-mail alone",
            header(request, "authorization") == Some(&basic),
        )?;
        check(
            "JSON is asked for",
            header(request, "accept") == Some("application/json"),
        )?;
    }
    check(
        "the refresh token goes in `code`, and nowhere else",
        refresh.param("grant_type") == Some("refresh_token")
            && refresh.param("code").is_some()
            && refresh.params.len() == 2,
    )
}
