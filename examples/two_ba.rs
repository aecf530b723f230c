//! 2BA: a refresh token that is replaced with each use, with client id and secret.
//!
//! `cargo run --example two_ba`, or with `-- --help` to learn how to reach the vendor.

mod support;

use std::process::ExitCode;

use form_urlencoded::byte_serialize;
use support::{check, local_vendor::LocalVendor, options::Options, show::header};
use tower::BoxError;
use tower_bearer::{
    FileStore, Origins,
    provider::TwoBa,
    testing::{AuthorizationServer, Dialect},
};

const OPTIONS: Options = Options {
    name: "two_ba",
    about: "Renews a 2BA session by its refresh token, and calls the API with its access token.",
    credentials: &[
        ("client-id", "from 2BA"),
        ("refresh-token", "from the user's login"),
    ],
    extras: &[
        ("client-secret", "from 2BA, unless the client is public"),
        (
            "token-url",
            "another token endpoint, such as one ending in /connect/token",
        ),
        (
            "session",
            "the file that keeps the session [two_ba.session.json]",
        ),
        ("url", "what to GET with the token, at https://api.2ba.nl"),
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
        let (id, refresh_token) = (given.value("client-id"), given.value("refresh-token"));
        let mut two_ba = match given.find("client-secret") {
            Some(secret) => TwoBa::new(id, secret, refresh_token),
            None => TwoBa::public_client(id, refresh_token),
        };
        if let Some(url) = given.find("token-url") {
            two_ba = two_ba.token_url(url);
        }
        let file = given.find("session").unwrap_or("two_ba.session.json");
        println!("The refresh token given is good once; what replaces it is kept in {file}.");
        let source = two_ba.store(FileStore::new(file)?).build()?;
        support::call(source, given.find("url")).await
    })
    .await
}

async fn embedded() -> Result<(), BoxError> {
    let vendor = LocalVendor::open(AuthorizationServer::new(Dialect::TwoBa)).await?;
    let first = vendor.server.issue_refresh_token();
    let (id, secret) = (
        AuthorizationServer::CLIENT_ID,
        AuthorizationServer::CLIENT_SECRET,
    );

    // As with the vendor, but for where it is.
    let source = TwoBa::new(id, secret, first.as_str())
        .token_url(format!("{}/OAuth/Token", vendor.url()))
        .origins(Origins::only([vendor.url()])?)
        .build()?;
    let spoken = vendor.walk_through(source).await?;

    let [once, again] = &spoken[..] else {
        return Err("there should have been two refreshes".into());
    };
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let body = format!(
        "grant_type=refresh_token&refresh_token={}&client_id={}&client_secret={}",
        encoded(&first),
        encoded(id),
        encoded(secret)
    );
    check("all of the vendor's form, encoded", once.body == body)?;
    for request in [once, again] {
        check(
            "POST to /OAuth/Token",
            request.method == "POST" && request.uri.path() == "/OAuth/Token",
        )?;
        check(
            "a form, and no other identification",
            header(request, "content-type") == Some("application/x-www-form-urlencoded")
                && header(request, "authorization").is_none(),
        )?;
    }
    let next = again.param("refresh_token");
    check(
        "the second refresh is by the token that came of the first",
        next.is_some() && next != Some(&first) && vendor.server.refreshes() == 2,
    )
}
