//! Xoxoday (Plum): JSON, a refresh token that is replaced with each use, and a limit on using it.
//!
//! `cargo run --example xoxoday`, or with `-- --help` to learn how to reach the vendor.

mod support;

use std::{process::ExitCode, time::Duration};

use serde_json::{Value, json};
use support::{check, local_vendor::LocalVendor, options::Options, show::header};
use tower::BoxError;
use tower_bearer::{
    FileStore, Origins,
    provider::Xoxoday,
    testing::{AuthorizationServer, Dialect},
};

const OPTIONS: Options = Options {
    name: "xoxoday",
    about: "Renews a Xoxoday session by its refresh token, and calls the API with its access token.",
    credentials: &[
        ("client-id", "from the dashboard"),
        ("client-secret", "from the dashboard"),
        ("refresh-token", "from the dashboard"),
    ],
    extras: &[
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
        let mut xoxoday = Xoxoday::new(
            given.value("client-id"),
            given.value("client-secret"),
            given.value("refresh-token"),
        );
        if given.is_on("company") {
            xoxoday = xoxoday.company();
        }
        if let Some(url) = given.find("token-url") {
            xoxoday = xoxoday.token_url(url);
        }
        if let Some(origin) = given.find("origin") {
            xoxoday = xoxoday.origins(Origins::only([origin])?);
        }
        let file = given.find("session").unwrap_or("xoxoday.session.json");
        println!("The refresh token given is good once; what replaces it is kept in {file}.");
        let source = xoxoday.store(FileStore::new(file)?).build()?;
        support::call(source, given.find("url")).await
    })
    .await
}

async fn embedded() -> Result<(), BoxError> {
    let vendor = LocalVendor::open(AuthorizationServer::new(Dialect::Xoxoday)).await?;
    let first = vendor.server.issue_refresh_token();
    let (id, secret) = (
        AuthorizationServer::CLIENT_ID,
        AuthorizationServer::CLIENT_SECRET,
    );

    // As with the vendor, but for where it is; and the vendor wants a minute between two refreshes.
    let source = Xoxoday::new(id, secret, first.as_str())
        .token_url(format!("{}/chef/v1/oauth/token/user", vendor.url()))
        .origins(Origins::only([vendor.url()])?)
        .schedule(Xoxoday::default_schedule().min_interval(Duration::ZERO))
        .build()?;
    let spoken = vendor.walk_through(source).await?;

    let [once, again] = &spoken[..] else {
        return Err("there should have been two refreshes".into());
    };
    let body: Value = serde_json::from_slice(&once.body)?;
    let expected = json!({
        "grant_type": "refresh_token",
        "refresh_token": first,
        "client_id": id,
        "client_secret": secret,
    });
    check("the vendor's JSON, and nothing beside it", body == expected)?;
    for request in [once, again] {
        check(
            "POST to /chef/v1/oauth/token/user",
            request.method == "POST" && request.uri.path() == "/chef/v1/oauth/token/user",
        )?;
        check(
            "JSON, and no other identification",
            header(request, "content-type") == Some("application/json")
                && header(request, "authorization").is_none(),
        )?;
    }
    let next = again.param("refresh_token");
    check(
        "the second refresh is by the token that came of the first",
        next.is_some() && next != Some(&first) && vendor.server.refreshes() == 2,
    )
}
