//! The token request: its headers, and its body in either format.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header::CONTENT_TYPE};
use http_body_util::Full;
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use serde::Serialize;

use super::{
    EndpointUrl, Parameters, client_auth::AuthTarget, parameters::shows, settings::Settings,
};
use crate::{
    error::TokenError,
    zeroize::{to_json, zeroized},
};

/// The body format of token requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyFormat {
    /// `application/x-www-form-urlencoded`, as RFC 6749 requires. The default.
    #[default]
    Form,
    /// `application/json`: an object of strings. A parameter that occurs several times becomes an array of strings.
    Json,
}

/// What a request with client authentication asks for.
#[derive(Clone, Copy)]
pub(super) enum RequestKind {
    /// A token (RFC 6749 §3.2).
    Token,
    /// The revocation of one (RFC 7009 §2.1).
    Revocation,
    /// The codes of a login with another device (RFC 8628 §3.1).
    #[cfg(feature = "login")]
    DeviceAuthorization,
}

impl RequestKind {
    /// Whether a parameter of the client itself is sent. Some describe a token to be issued.
    fn takes(self, name: &str) -> bool {
        !matches!(self, Self::Revocation) || !["scope", "resource", "audience"].contains(&name)
    }
}

/// What a request contains.
pub(super) struct Sent {
    parameters: Parameters,
    headers: HeaderMap,
    /// The secret that authenticates its client, before it was encoded.
    pub(super) secret: Option<SecretString>,
}

impl Sent {
    /// Whether `code`, from the response, shows a part of the request.
    pub(super) fn is_shown_by(&self, code: &str) -> bool {
        let secret = self.secret.as_ref();
        let mut headers = self.headers.values().filter(|it| it.is_sensitive());
        self.parameters.shows_a_value(code)
            || secret.is_some_and(|it| shows(code, it.expose_secret()))
            || headers.any(|it| it.to_str().is_ok_and(|it| shows(code, it)))
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Field<'a> {
    One(&'a str),
    Many(Vec<&'a str>),
}

impl Settings {
    /// Builds the request to `url` that sends `parameters`, the client authentication, and the parameters of the client
    /// itself. Returns what it contains as well.
    pub(super) async fn authenticated_request(
        &self,
        kind: RequestKind,
        auth: &AuthTarget<'_>,
        url: &EndpointUrl,
        parameters: &Parameters,
    ) -> Result<(Request<Full<Bytes>>, Sent), TokenError> {
        let mut parameters = parameters.clone();
        if let Some(name) = &self.refresh_parameter {
            parameters.rename_refresh_token(name);
        }
        let mut headers = self.headers.clone();
        let secret = self
            .client_auth
            .apply(auth, &mut parameters, &mut headers)
            .await?;
        let own = self.parameters.iter().filter(|(name, _)| kind.takes(name));
        parameters.push_missing(own);
        let pairs = parameters.pairs();
        // The grant type comes first, and only token requests have one.
        let pairs = if matches!(kind, RequestKind::Token) {
            &pairs[..]
        } else {
            &pairs[1..]
        };
        headers.insert(CONTENT_TYPE, self.body_format.content_type());
        let mut request = Request::new(Full::new(self.body_format.encode(pairs)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.uri().clone();
        request.headers_mut().clone_from(&headers);
        let sent = Sent {
            parameters,
            headers,
            secret,
        };
        Ok((request, sent))
    }
}

impl BodyFormat {
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Form => "application/x-www-form-urlencoded",
            Self::Json => "application/json",
        })
    }

    pub(super) fn encode(self, parameters: &[(&str, &str)]) -> Bytes {
        // Room for each byte percent-encoded: a buffer that grows leaves unwiped copies of secrets behind.
        let room = |(name, value): &(&str, &str)| 3 * (name.len() + value.len()) + 8;
        let room = 2 + parameters.iter().map(room).sum::<usize>();
        match self {
            Self::Form => zeroized(form(room, parameters)),
            Self::Json => zeroized(json(room, parameters)),
        }
    }
}

fn form(room: usize, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut form = form_urlencoded::Serializer::new(String::with_capacity(room));
    form.extend_pairs(parameters).finish().into_bytes()
}

fn json(room: usize, parameters: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let mut fields = BTreeMap::new();
    for (name, value) in parameters {
        fields
            .entry(name)
            .and_modify(|field| match field {
                Field::One(first) => *field = Field::Many(vec![*first, value]),
                Field::Many(all) => all.push(value),
            })
            .or_insert(Field::One(value));
    }
    // Writing a map of strings to memory cannot fail.
    to_json(&fields, room).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_percent_encodes_reserved_characters() {
        let body = BodyFormat::Form.encode(&[
            ("grant_type", "exchange_token"),
            ("code", "7j/N+c==&x=ü é%"),
        ]);
        assert_eq!(
            body,
            "grant_type=exchange_token&code=7j%2FN%2Bc%3D%3D%26x%3D%C3%BC+%C3%A9%25"
        );
        let back: Vec<_> = form_urlencoded::parse(&body).collect();
        assert_eq!(back[1].1, "7j/N+c==&x=ü é%");
    }

    #[test]
    fn json_is_an_object_of_strings() {
        let body = BodyFormat::Json.encode(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", "a\"b\\+/="),
        ]);
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"grant_type": "refresh_token", "refresh_token": "a\"b\\+/="})
        );
    }

    #[test]
    fn a_repeated_parameter_is_lost_in_neither_format() {
        let twice = [
            ("resource", "a"),
            ("x", "y"),
            ("resource", "b"),
            ("resource", "c"),
        ];
        assert_eq!(
            BodyFormat::Form.encode(&twice),
            "resource=a&x=y&resource=b&resource=c"
        );
        let value: serde_json::Value =
            serde_json::from_slice(&BodyFormat::Json.encode(&twice)).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"resource": ["a", "b", "c"], "x": "y"})
        );
    }
}
