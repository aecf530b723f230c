//! A program on a machine without a browser: a person logs in with a phone.
//!
//! `cargo run -p stack-examples --example device_login` runs it with a phone that is a part of the example, checks what it does,
//! and ends. It shows what the person sees.
//!
//! [`session`] and [`log_in`] are what a program of yours would contain. The rest is a server on this machine, a phone, and
//! checks.

#[path = "../support/mod.rs"]
mod support;

use std::{path::Path, process::ExitCode, time::Duration};

use support::{Arguments, Options, check};
use tokio::time::sleep;
use tower::BoxError;
use tower_bearer::{
    ClientAuth, FileStore, OAuthClient, RefreshTokenSource, TokenCache, TokenError, TokenErrorKind,
    login::DeviceCode,
    testing::{self, AuthorizationServer, Dialect},
};

/// The session in `folder`.
fn session(oauth: &OAuthClient, folder: &Path) -> Result<TokenCache, TokenError> {
    let source = RefreshTokenSource::stored(oauth.clone())
        // The authorization server of this example has another port each time. One that stays needs no name.
        .session_name("television")
        .store(FileStore::new(folder.join("session.json"))?);
    Ok(TokenCache::new(source))
}

/// Lets a person log in. `show` puts the address and the code on the screen. If nobody is there in time, it shows others.
async fn log_in(
    cache: &TokenCache,
    oauth: &OAuthClient,
    show: impl Fn(&str, &str),
) -> Result<(), TokenError> {
    let login = DeviceCode::new(oauth.clone()).scope("films:watch");
    loop {
        let mut pending = login.begin().await?;
        show(pending.verification_uri(), pending.user_code());
        match login.finish(&mut pending).await {
            Err(error) if error.kind() == TokenErrorKind::Timeout => println!("  {error}"),
            session => return cache.login(session?).await,
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A server on this machine, a phone, and checks.

const OPTIONS: Options = Options::new(
    "-p stack-examples --example device_login",
    "A program on a machine without a browser: a person logs in with a phone.",
);

/// What the person does with the code on the screen.
#[derive(Clone, Copy)]
enum Phone {
    Allow,
    Deny,
    /// It takes two codes until the person is there.
    AllowTheSecond,
}

/// Logs in with a person who does `phone`.
async fn with_phone(
    phone: Phone,
    server: &AuthorizationServer,
    cache: &TokenCache,
    oauth: &OAuthClient,
) -> Result<(), TokenError> {
    let shown_before = server.device_authorizations();
    let show = |address: &str, code: &str| {
        println!("  On the screen: open {address} on your phone, and enter {code}");
        let is_first = server.device_authorizations() == shown_before + 1;
        let (server, code) = (server.clone(), code.to_owned());
        tokio::spawn(async move {
            sleep(Duration::from_millis(500)).await;
            match phone {
                Phone::AllowTheSecond if is_first => println!("  On the phone: nothing"),
                Phone::Allow | Phone::AllowTheSecond => {
                    println!("  On the phone: {code}, allow");
                    server.approve_device(&code);
                }
                Phone::Deny => {
                    println!("  On the phone: {code}, deny");
                    server.deny_device(&code);
                }
            }
        });
    };
    log_in(cache, oauth, show).await
}

async fn example(_: Arguments) -> Result<(), BoxError> {
    let server = AuthorizationServer::new(Dialect::Rfc6749)
        .public_client("television")
        // So that nobody has to wait for this example: a person needs minutes.
        .device_lifetime(Duration::from_secs(3))
        .device_interval(Duration::from_secs(1));
    let login_page = testing::serve(server.clone()).await?;
    let issuer = login_page.url();
    let server = server.issuer(&issuer);
    let folder = tempfile::tempdir()?;
    // Each start of the program makes these anew.
    let start = || -> Result<_, TokenError> {
        let oauth = OAuthClient::discover(&issuer)?.client_auth(ClientAuth::none("television"));
        Ok((session(&oauth, folder.path())?, oauth))
    };

    println!("The first start:");
    let (cache, oauth) = start()?;
    let error = cache
        .token()
        .await
        .err()
        .ok_or("nobody has logged in yet")?;
    println!("  {error}");
    with_phone(Phone::Allow, &server, &cache, &oauth).await?;
    println!("  logged in");
    check("it has a token", cache.token().await.is_ok())?;

    println!("The second start, when an API rejects the access token:");
    server.expire_access_tokens();
    let (cache, oauth) = start()?;
    let rejected = cache.token().await?;
    // The layer of this crate does this when a response says so.
    cache.reject(&rejected);
    let token = cache.token().await?;
    check("it has another one", server.is_live(token.expose_secret()))?;
    check("one refresh", server.refreshes() == 1)?;
    check("no other login", server.device_grants() == 1)?;
    println!("  still logged in");

    println!("The person logs out, and nobody is there when the code is shown:");
    cache.revoke().await?;
    with_phone(Phone::AllowTheSecond, &server, &cache, &oauth).await?;
    println!("  logged in");
    check("another login", server.device_grants() == 2)?;
    check("with another code", server.device_authorizations() == 3)?;

    println!("The person denies the access:");
    cache.revoke().await?;
    let denied = with_phone(Phone::Deny, &server, &cache, &oauth).await;
    let error = denied.err().ok_or("the login should have failed")?;
    println!("  {error}");
    check("it says why", error.kind() == TokenErrorKind::LoginDenied)?;
    check("no other login", server.device_grants() == 2)?;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    support::run(&OPTIONS, example).await
}
