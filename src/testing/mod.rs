//! An authorization server and a protected API to test against, in memory or on a loopback port, with faults to order.
//!
//! A client of a real server meets its worst days only in production: the reply that is lost after the refresh token was
//! spent, the second process that used it first, the gateway that answers in HTML. Here a test orders them:
//!
//! - [`AuthorizationServer`] issues tokens in the [`Dialect`] of a vendor, and is as strict about it as the vendor. It
//!   rotates refresh tokens, detects their reuse, and meets a [`Fault`] when told to.
//! - [`ProtectedApi`] takes its tokens, and rejects in the way of a chosen [`Rejection`]. It can hold requests back until
//!   something has happened meanwhile.
//! - [`store_conformance`] runs a [`TokenStore`](crate::TokenStore) against its contract.
//! - [`serve`] puts either, or any other service, behind a real socket.
//!
//! Both are `tower::Service`s over any body, always ready, and cheap to clone; all clones are the same server. They count
//! what happens and keep each [`RecordedRequest`]. Time is Tokio's, so a test that pauses it sees tokens expire without
//! waiting. Token values are made up, the same in every run, and hold characters that want encoding where they travel in
//! bodies.
//!
//! # Examples
//!
//! A reply is lost after the refresh token was spent, and the server takes the second try for a theft:
//!
//! ```
//! use http::Request;
//! use tower::ServiceExt;
//! use tower_bearer::testing::{AuthorizationServer, Dialect, Fault};
//! use form_urlencoded::byte_serialize;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! let server = AuthorizationServer::new(Dialect::TwoBa).detect_reuse(true).public_client("app");
//! let token = server.issue_refresh_token();
//! server.fault(Fault::DropReplyAfterCommit);
//!
//! let refresh = || {
//!     let token: String = byte_serialize(token.as_bytes()).collect();
//!     Request::post("/OAuth/Token")
//!         .header("content-type", "application/x-www-form-urlencoded")
//!         .body(format!("grant_type=refresh_token&refresh_token={token}&client_id=app"))
//!         .unwrap()
//! };
//! assert!(server.clone().oneshot(refresh()).await.is_err());
//! assert_eq!((server.refreshes(), server.live_sessions()), (1, 1));
//!
//! assert_eq!(server.clone().oneshot(refresh()).await?.status(), 400);
//! assert_eq!((server.reuse_detected(), server.live_sessions()), (1, 0));
//! # Ok(()) }
//! ```

mod answers;
mod api;
mod body;
mod calls;
mod conformance;
mod control;
mod dialect;
mod faults;
mod gate;
mod grants;
mod recorded;
mod rejection;
mod rules;
mod serve;
mod server;
mod settings;

pub use api::ProtectedApi;
pub use body::{ReplyBody, ReplyFuture};
pub use conformance::{sample_session, store_conformance};
pub use dialect::Dialect;
pub use faults::Fault;
pub use recorded::RecordedRequest;
pub use rejection::Rejection;
pub use serve::{Served, serve};
pub use server::AuthorizationServer;
pub use settings::Printed;

#[cfg(test)]
mod tests;
