//! Who may sign assertions for an [`AuthorizationServer`], and that they did.

use super::{
    assertion::{Assertion, Purpose, VerifyingKey},
    authentication::Credential,
    metadata,
    recorded::RecordedRequest,
    server::{AuthorizationServer, State},
};
use crate::SigningKey;

/// Signed assertions, with the feature `jwt`.
///
/// The server is strict. The algorithm is that of the registered key, and `kid` and `x5t#S256` name that key. `aud` is
/// one string: the [issuer](Self::issuer) or the URL of the token endpoint. By the server's [clock](Self::clock) and
/// its [skew](Self::skew), `exp` is in the next hour, and neither `iat` nor `nbf` is in the future. A `jti` is accepted
/// once. A client's assertion must have one, and the client id as `sub`, and as `iss` unless a
/// [known issuer](Self::assertion_issuer) has signed it. The `error_description` of a rejection says what is wrong.
///
/// # Examples
///
/// ```
/// use tower_bearer::{
///     ClientAuth, JwtAlgorithm, OAuthClient, SigningKey,
///     testing::{AuthorizationServer, Dialect},
/// };
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer::TokenError> {
/// # let pem = "-----BEGIN PRIVATE KEY-----
/// # MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
/// # -----END PRIVATE KEY-----";
/// let key = SigningKey::from_pem(JwtAlgorithm::EdDsa, pem)?.key_id("2026-11");
/// let server = AuthorizationServer::new(Dialect::Rfc6749).client_key("my-app", &key);
///
/// let client = OAuthClient::with_transport("https://login.example.com/token", server.clone())?
///     .client_auth(ClientAuth::private_key_jwt("my-app", key));
/// client.grant("client_credentials", &[]).await?;
/// assert_eq!(server.client_credentials(), 1);
/// # Ok(()) }
/// ```
impl AuthorizationServer {
    /// Expects the client to authenticate with assertions that `key` has signed (`private_key_jwt`, RFC 7523 §2.2).
    /// Only the public key is kept. It replaces the client's secret or older key.
    ///
    /// A client that has a secret may sign assertions with it: HS256, `client_secret_jwt`.
    #[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
    pub fn client_key(self, id: impl Into<String>, key: &SigningKey) -> Self {
        let credential = Credential::Key(key.into());
        self.set(|it| (it.client_id, it.credential) = (id.into(), credential))
    }

    /// Accepts assertions that `issuer` has signed with `key`: in JWT bearer grants (RFC 7523 §2.1) about any subject,
    /// and in place of the client's own ones about the client, as clouds issue them for workloads (RFC 7521 §4.2).
    #[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
    pub fn assertion_issuer(self, issuer: impl Into<String>, key: &SigningKey) -> Self {
        self.set(|it| {
            it.assertion_issuers.insert(issuer.into(), key.into());
        })
    }
}

/// Checks a client assertion (RFC 7523 §2.2, `OpenID` Connect Core §9).
pub(super) fn verify_client(
    state: &mut State,
    request: &RecordedRequest,
    assertion: &str,
) -> Result<(), &'static str> {
    let now = state.settings.now();
    let settings = &state.settings;
    let purpose = Purpose::ClientAuthentication;
    let assertion = Assertion::parse(assertion)?;
    let id = Some(&*settings.client_id);
    let issuer = assertion.issuer();
    if let Some(key) = issuer.and_then(|issuer| settings.assertion_issuers.get(issuer)) {
        assertion.verify(key, purpose)?;
    } else {
        let key = match &settings.credential {
            Credential::None => return Err("the client has no key"),
            Credential::Secret(secret) => &VerifyingKey::of_secret(secret)?,
            Credential::Key(key) => key,
        };
        assertion.verify(key, purpose)?;
        if issuer != id {
            return Err("`iss` is neither the client id nor a known issuer");
        }
    }
    if assertion.subject() != id {
        return Err("`sub` is not the client id");
    }
    let audiences = metadata::audiences(settings, request);
    assertion.check_claims(&audiences, purpose, now, &mut state.seen_ids)
}

/// Checks the assertion of a grant (RFC 7523 §2.1).
pub(super) fn verify_grant(
    state: &mut State,
    request: &RecordedRequest,
    assertion: &str,
) -> Result<(), &'static str> {
    let now = state.settings.now();
    let settings = &state.settings;
    let purpose = Purpose::AuthorizationGrant;
    let assertion = Assertion::parse(assertion)?;
    let issuers = &settings.assertion_issuers;
    let key = assertion.issuer().and_then(|issuer| issuers.get(issuer));
    assertion.verify(key.ok_or("`iss` is not a known issuer")?, purpose)?;
    assertion.subject().ok_or("`sub` is missing")?;
    let audiences = metadata::audiences(settings, request);
    assertion.check_claims(&audiences, purpose, now, &mut state.seen_ids)
}
