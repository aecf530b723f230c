//! An authorization server and a protected API to test against, in memory or on a loopback port, with faults on demand.
//!
//! Some failures happen to a client in production only: a reply is lost after the refresh token was used up, a second
//! process used the token first, a gateway answers in HTML. Here a test can cause each of them:
//!
//! - [`AuthorizationServer`] issues tokens in the [`Dialect`] of a vendor, and is as strict as that vendor. It rotates
//!   refresh tokens, detects their reuse, and causes a [`Fault`] on demand.
//!   With an [`issuer`](AuthorizationServer::issuer) it publishes metadata, and it has a
//!   [revocation endpoint](AuthorizationServer::revocation_path), an
//!   [authorization endpoint](AuthorizationServer::authorization_path) and a
//!   [device authorization endpoint](AuthorizationServer::device_authorization_path). With the feature `jwt` it verifies
//!   signed assertions (`AuthorizationServer::client_key`); without it, none is accepted unless its text is
//!   [known](AuthorizationServer::accept_assertion).
//! - [`ProtectedApi`] accepts its tokens, and rejects others with a [`RejectionResponse`]. It can hold requests back
//!   until the test has done something else, [require](ProtectedApi::require_scope) scopes and claims, and publish
//!   [metadata](ProtectedApi::resource_metadata).
//! - [`store_conformance`] checks a [`TokenStore`](crate::TokenStore) against its contract.
//! - [`serve`] puts any of these services, or another one, behind a real socket.
//!
//! Both servers are `tower::Service`s over any body. They are always ready and cheap to clone, and all clones are the
//! same server. They count what happens and keep each request as a [`RecordedRequest`]. They use Tokio's time, so
//! tokens expire without waiting in a test that pauses it. Token values are the same in every run, and contain
//! characters that must be encoded in request bodies.
//!
//! # Examples
//!
//! A reply is lost after the refresh token was used up, and the server takes the second attempt for a theft:
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

mod api;
mod api_service;
#[cfg(feature = "jwt")]
mod assertion;
mod authentication;
mod authorization;
mod body;
mod clock;
mod conformance;
mod control;
mod device;
mod dialect;
mod endpoint;
mod faults;
mod grants;
mod metadata;
mod params;
mod pause;
mod recorded;
mod rejection_response;
mod requirements;
mod responses;
mod revocation;
mod rules;
mod scopes;
mod serve;
mod server;
mod sessions;
mod settings;
#[cfg(feature = "jwt")]
mod verification;

pub use api::ProtectedApi;
pub use body::{ResponseBody, ResponseFuture};
pub use clock::SimulatedClock;
pub use conformance::{sample_session, store_conformance};
pub use dialect::Dialect;
pub use faults::Fault;
pub use metadata::MetadataForm;
pub use recorded::RecordedRequest;
pub use rejection_response::RejectionResponse;
pub use serve::{Served, serve};
pub use server::AuthorizationServer;
pub use settings::NumberFormat;

#[cfg(test)]
mod tests;
