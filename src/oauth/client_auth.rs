//! [`ClientAuth`]: how the client says who it is.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded::byte_serialize;

use crate::error::{TokenError, TokenErrorKind};

/// How a client says who it is when it asks for a token (RFC 6749 §2.3).
///
/// `Debug` names the method, and neither the id nor the secret. What cannot be sent, such as an empty id, is told by
/// the first request as a [`Config`](TokenErrorKind::Config) error.
///
/// # Examples
///
/// ```
/// use tower_bearer::ClientAuth;
///
/// let auth = ClientAuth::client_secret_basic("my-app", "s3cr3t");
/// assert_eq!(format!("{auth:?}"), "ClientAuth(client_secret_basic)");
/// ```
#[derive(Clone, Default)]
pub struct ClientAuth(Method);

#[derive(Clone, Default)]
enum Method {
    #[default]
    Anonymous,
    Basic(String, SecretString),
    BasicRaw(String, SecretString),
    Post(String, SecretString),
    None(String),
    UserOnly(SecretString),
}

impl ClientAuth {
    /// Nothing is said; the grant itself is proof enough. The default.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// HTTP Basic, with id and secret form-encoded first, as RFC 6749 §2.3.1 has it.
    ///
    /// Id and secret of letters and digits look the same with [`client_secret_basic_raw`](Self::client_secret_basic_raw); if a server rejects one
    /// with `+ / = : %` in it, try that.
    pub fn client_secret_basic(id: impl Into<String>, secret: impl Into<SecretString>) -> Self {
        Self(Method::Basic(id.into(), secret.into()))
    }

    /// HTTP Basic as RFC 7617 has it: id and secret as they are, for the many servers that skip the encoding of
    /// RFC 6749. The id can have no colon.
    pub fn client_secret_basic_raw(id: impl Into<String>, secret: impl Into<SecretString>) -> Self {
        Self(Method::BasicRaw(id.into(), secret.into()))
    }

    /// `client_id` and `client_secret` in the body (RFC 6749 §2.3.1).
    pub fn client_secret_post(id: impl Into<String>, secret: impl Into<SecretString>) -> Self {
        Self(Method::Post(id.into(), secret.into()))
    }

    /// `client_id` alone in the body: a public client, which has no secret (RFC 6749 §3.2.1).
    pub fn none(id: impl Into<String>) -> Self {
        Self(Method::None(id.into()))
    }

    /// HTTP Basic of a user name alone, with no colon and no password: Winbooks wants the user's e-mail like that.
    pub fn basic_user_only(user: impl Into<SecretString>) -> Self {
        Self(Method::UserOnly(user.into()))
    }

    fn name(&self) -> &'static str {
        match self.0 {
            Method::Anonymous => "anonymous",
            Method::Basic(..) => "client_secret_basic",
            Method::BasicRaw(..) => "client_secret_basic_raw",
            Method::Post(..) => "client_secret_post",
            Method::None(_) => "none",
            Method::UserOnly(_) => "basic_user_only",
        }
    }

    /// The parameters that this adds to the body.
    pub(super) fn parameters(&self) -> Vec<(&str, &str)> {
        match &self.0 {
            Method::Post(id, secret) => {
                vec![("client_id", id), ("client_secret", secret.expose_secret())]
            }
            Method::None(id) => vec![("client_id", id)],
            Method::Anonymous | Method::Basic(..) | Method::BasicRaw(..) | Method::UserOnly(_) => {
                vec![]
            }
        }
    }

    /// Puts the header on, if this is a method with one.
    pub(super) fn authorize(&self, headers: &mut HeaderMap) -> Result<(), TokenError> {
        let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let (id, credentials) = match &self.0 {
            Method::Anonymous => return Ok(()),
            Method::Post(id, _) | Method::None(id) => (id.as_str(), None),
            Method::Basic(id, secret) => {
                let secret = encode(secret.expose_secret());
                (id.as_str(), Some(format!("{}:{secret}", encode(id))))
            }
            Method::BasicRaw(id, _) if id.contains(':') => {
                return Err(TokenError::new(
                    TokenErrorKind::Config,
                    "the client id has a colon, which raw HTTP Basic cannot carry (RFC 7617 §2); \
                     use `ClientAuth::client_secret_basic` or `client_secret_post`",
                ));
            }
            Method::BasicRaw(id, secret) => (
                id.as_str(),
                Some(format!("{id}:{}", secret.expose_secret())),
            ),
            Method::UserOnly(user) => {
                let user = user.expose_secret();
                (user, Some(user.to_owned()))
            }
        };
        if id.is_empty() {
            return Err(TokenError::new(
                TokenErrorKind::Config,
                format!(
                    "`ClientAuth::{}` got an empty client id or user name",
                    self.name()
                ),
            ));
        }
        let Some(credentials) = credentials.map(SecretString::from) else {
            return Ok(());
        };
        let value = SecretString::from(format!(
            "Basic {}",
            STANDARD.encode(credentials.expose_secret())
        ));
        let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|error| {
            TokenError::new(
                TokenErrorKind::Config,
                "the client's identification fits no header",
            )
            .with_source(error)
        })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok(())
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientAuth({})", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(auth: &ClientAuth) -> Option<HeaderValue> {
        let mut headers = HeaderMap::new();
        auth.authorize(&mut headers).unwrap();
        headers.remove(AUTHORIZATION)
    }

    fn credentials(auth: &ClientAuth) -> String {
        let header = header(auth).unwrap();
        assert!(header.is_sensitive());
        let encoded = header
            .to_str()
            .unwrap()
            .strip_prefix("Basic ")
            .unwrap()
            .to_owned();
        String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
    }

    #[test]
    fn each_method_says_who_the_client_is_in_its_own_way() {
        assert_eq!(header(&ClientAuth::anonymous()), None);
        assert_eq!(
            credentials(&ClientAuth::client_secret_basic("a b:c", "p+/=%ü")),
            "a+b%3Ac:p%2B%2F%3D%25%C3%BC"
        );
        assert_eq!(
            credentials(&ClientAuth::client_secret_basic_raw("a b", "p+/=:%ü")),
            "a b:p+/=:%ü"
        );
        assert_eq!(
            credentials(&ClientAuth::client_secret_basic("app", "")),
            "app:"
        );
        assert_eq!(
            credentials(&ClientAuth::basic_user_only("ann@books.example")),
            "ann@books.example"
        );

        let post = ClientAuth::client_secret_post("app", "p+/=");
        assert_eq!(header(&post), None);
        assert_eq!(
            post.parameters(),
            [("client_id", "app"), ("client_secret", "p+/=")]
        );
        let public = ClientAuth::none("app");
        assert_eq!(header(&public), None);
        assert_eq!(public.parameters(), [("client_id", "app")]);
    }

    #[test]
    fn who_has_no_name_is_told_so() {
        for auth in [
            ClientAuth::client_secret_basic("", "hunter2"),
            ClientAuth::client_secret_basic_raw("", "hunter2"),
            ClientAuth::client_secret_basic_raw("a:b", "hunter2"),
            ClientAuth::client_secret_post("", "hunter2"),
            ClientAuth::none(""),
            ClientAuth::basic_user_only(""),
        ] {
            let error = auth.authorize(&mut HeaderMap::new()).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Config, "{auth:?}");
            assert!(!format!("{error}{error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn debug_shows_neither_id_nor_secret() {
        for auth in [
            ClientAuth::client_secret_basic("hunter1", "hunter2"),
            ClientAuth::client_secret_basic_raw("hunter1", "hunter2"),
            ClientAuth::client_secret_post("hunter1", "hunter2"),
            ClientAuth::none("hunter1"),
            ClientAuth::basic_user_only("hunter1"),
        ] {
            assert!(!format!("{auth:?}{auth:#?}").contains("hunter"));
        }
    }
}
