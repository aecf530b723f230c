//! First logins: how the session of a person begins.
//!
//! A [`RefreshTokenSource`](crate::RefreshTokenSource) goes on with a session. Its first refresh token comes from a login, which
//! gives a [`StoredSession`](crate::StoredSession). Which kind of login fits depends on where the person is:
//!
//! | The person | Use |
//! |---|---|
//! | is at the machine of the program | [`AuthorizationCode::in_browser`]: opens a browser, and listens on a port for its answer |
//! | uses the program over SSH | the same, with [`pasted`](BrowserLogin::pasted): copies the last address from a browser elsewhere |
//! | uses a web application | [`AuthorizationCode::begin`] and [`finish`](AuthorizationCode::finish), in two routes |
//! | uses an app with a URL scheme of its own | the same |
//! | is at a machine without a browser, such as a television | [`DeviceCode`]: enters a short code in a browser elsewhere |
//!
//! A program that acts for itself, and for no person, needs no login: see
//! [`ClientCredentialsSource`](crate::ClientCredentialsSource).
//!
//! # A program on the person's machine
//!
//! The session stays in a store. The program asks for a login only if there is no session, or if it has ended:
//!
//! ```no_run
//! use tower_bearer::{
//!     ClientAuth, OAuthClient, RefreshTokenSource, TokenCache, TokenError, TokenStore, login::AuthorizationCode,
//! };
//!
//! # #[cfg(feature = "reqwest")]
//! async fn session(store: impl TokenStore) -> Result<TokenCache, TokenError> {
//!     let client = OAuthClient::discover("https://login.example.com")?.client_auth(ClientAuth::none("my-app"));
//!     let cache = TokenCache::new(RefreshTokenSource::stored(client.clone()).store(store));
//!     if cache.token().await.is_err_and(|error| error.is_final()) {
//!         let login = AuthorizationCode::new(client).scope("openid invoices:read");
//!         cache.login(login.in_browser().log_in().await?).await?;
//!     }
//!     Ok(cache)
//! }
//! ```
//!
//! A session may also end later. Then the layer's error, or the [`TokenError`](crate::TokenError) in the extensions of the API's
//! response, is of kind [`ReauthRequired`](crate::TokenErrorKind::ReauthRequired). The example `login` logs the person in again.
//!
//! Register the program as a public client (`none`) with the redirect URI `http://127.0.0.1/callback`. RFC 8252 §7.3 lets it
//! come back to any port. If the server compares the port, [set](BrowserLogin::port) one.
//!
//! # A web application
//!
//! [`AuthorizationCode`] has an example with two routes. Such a program is usually a confidential client, and has a session for
//! each person: see `Sessions`, with the feature of that name. The example `web_login` is a whole application.
//!
//! - Keep the [`PendingLogin`] at the server, in the session of the browser that is sent away: under a random cookie that is
//!   `HttpOnly`, `Secure` and `SameSite=Lax`. With `Strict`, the browser comes back without it. Keep several, by their
//!   [`state`](PendingLogin::state), because people open two tabs, and remove the one that comes back.
//! - When the login is finished, give the browser another cookie, and forget the old one. Otherwise an attacker who has planted
//!   a cookie in the browser before the login is logged in as that person afterwards (session fixation).
//! - `sessions.get(&user).await?.login(session).await?` begins the session of that user, or goes on with it if it has ended.
//!   Who the user is, the browser's session says, never the query.
//! - A person who has denied the access must not be sent to the server again at once. Show a page with a button.
//!
//! # A machine without a browser
//!
//! The person opens a page on a phone, and enters the code that the program shows. Choose it only where no browser can reach the
//! program. An attacker who persuades a person to enter a code gets that person's access, and no program can detect it.
//! [`DeviceCode`] replaces `in_browser` in the example above:
//!
//! ```
//! use tower_bearer::{OAuthClient, TokenCache, TokenError, login::DeviceCode};
//!
//! async fn log_in(client: OAuthClient, cache: &TokenCache) -> Result<(), TokenError> {
//!     let login = DeviceCode::new(client).scope("openid invoices:read");
//!     let mut pending = login.begin().await?;
//!     println!("{pending}"); // an address and a code
//!     cache.login(login.finish(&mut pending).await?).await
//! }
//! ```
//!
//! Register the program for the device code grant, mostly as a public client without a redirect URI. The example `device_login`
//! shows what the person sees.
//!
//! # Refresh tokens
//!
//! Servers give a refresh token under conditions of their own. `offline_access` is asked for where the metadata name it.
//! If a login still gives none, the session lasts as long as its access token, and a warning in the log says so. What is often
//! missing: the [`parameter`](AuthorizationCode::parameter) `prompt` with `consent` (`OpenID` Connect), `access_type` with
//! `offline` (Google), or the permission of the client to use refresh tokens.

mod authorization_code;
mod begin;
mod browser_login;
mod callback;
mod checks;
mod device_code;
mod finish;
mod listener;
mod log_in;
mod open;
mod pace;
mod page;
mod pending;
mod pending_device;
mod prompt;
mod random;
mod scope;
mod secret_text;
mod shown;
mod stored_login;

pub use self::{
    authorization_code::AuthorizationCode, browser_login::BrowserLogin, device_code::DeviceCode,
    pending::PendingLogin, pending_device::PendingDeviceLogin, prompt::LoginPrompt,
};
