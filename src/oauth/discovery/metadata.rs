//! [`Metadata`]: what a client needs of the metadata of an authorization server.

use serde::Deserialize;

#[cfg(feature = "login")]
use super::LoginMetadata;
use super::{super::EndpointUrl, issuer::Issuer};
use crate::error::{Asked, TokenError, TokenErrorKind};

/// The registered methods of client authentication. Only these are shown in errors.
const METHODS: [&str; 7] = [
    "none",
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
];

/// The endpoints of an authorization server, and how clients authenticate there (RFC 8414 §2).
pub(in crate::oauth) struct Metadata {
    token: EndpointUrl,
    revocation: Option<EndpointUrl>,
    /// For clients that show a certificate (RFC 8705 §5).
    mtls_token: Option<EndpointUrl>,
    mtls_revocation: Option<EndpointUrl>,
    /// The registered methods among those of the token endpoint, if the document names any.
    methods: Vec<&'static str>,
    #[cfg(feature = "login")]
    login: LoginMetadata,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    token_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    #[serde(default)]
    mtls_endpoint_aliases: Option<Aliases>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
struct Aliases {
    token_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
}

impl Metadata {
    /// Reads a document of `issuer`.
    pub(super) fn parse(json: &[u8], issuer: &Issuer) -> Result<Self, TokenError> {
        // The error of `serde_json` quotes the document, so it is no source.
        let document: Document = serde_json::from_slice(json).map_err(|_| {
            invalid("is not a JSON object with `issuer` and URLs of endpoints (RFC 8414 §2)")
        })?;
        if document.issuer != issuer.as_str() {
            let without_slash = |text: &str| text.trim_end_matches('/').to_owned();
            return Err(invalid(
                if without_slash(&document.issuer) == without_slash(issuer.as_str()) {
                    "has another `issuer`, which differs from the configured one only in the slash at its end; configure \
                     it exactly as in the document (RFC 8414 §3.3)"
                } else {
                    "is of another `issuer` than the configured one; configure it exactly as in the document, if that is \
                     the server that you mean (RFC 8414 §3.3)"
                },
            ));
        }
        let Some(token) = &document.token_endpoint else {
            return Err(invalid("has no `token_endpoint`"));
        };
        let endpoint = |name: &'static str, url: &String| endpoint(name, url, issuer);
        let optional =
            |name, url: &Option<String>| url.as_ref().map(|url| endpoint(name, url)).transpose();
        let aliases = document.mtls_endpoint_aliases.unwrap_or_default();
        let supported = document.token_endpoint_auth_methods_supported;
        let supported = supported.unwrap_or_default();
        let is_supported = |method: &&str| supported.iter().any(|it| it == method);
        Ok(Self {
            token: endpoint("token_endpoint", token)?,
            revocation: optional("revocation_endpoint", &document.revocation_endpoint)?,
            mtls_token: optional("token_endpoint", &aliases.token_endpoint)?,
            mtls_revocation: optional("revocation_endpoint", &aliases.revocation_endpoint)?,
            methods: METHODS.into_iter().filter(is_supported).collect(),
            #[cfg(feature = "login")]
            login: LoginMetadata::parse(json, issuer),
        })
    }

    pub(in crate::oauth) fn token_endpoint(&self, with_mtls: bool) -> &EndpointUrl {
        let alias = self.mtls_token.as_ref().filter(|_| with_mtls);
        alias.unwrap_or(&self.token)
    }

    pub(in crate::oauth) fn revocation_endpoint(&self, with_mtls: bool) -> Option<&EndpointUrl> {
        let alias = self.mtls_revocation.as_ref().filter(|_| with_mtls);
        alias.or(self.revocation.as_ref())
    }

    #[cfg(feature = "login")]
    pub(in crate::oauth) fn login(&self) -> &LoginMetadata {
        &self.login
    }

    pub(super) fn has_endpoint(&self, url: &EndpointUrl) -> bool {
        let optional = [&self.revocation, &self.mtls_token, &self.mtls_revocation];
        let mut all = optional.into_iter().flatten().chain([&self.token]);
        all.any(|known| known == url)
    }

    /// The methods that the token endpoint supports, if `method` is a registered one and none of them.
    pub(super) fn other_methods_than(&self, method: &str) -> Option<String> {
        let is_other = METHODS.contains(&method) && !self.methods.contains(&method);
        (is_other && !self.methods.is_empty()).then(|| self.methods.join(", "))
    }
}

/// An endpoint of the document. It is of the same scheme as the issuer, because one transport reaches both.
pub(super) fn endpoint(name: &str, url: &str, issuer: &Issuer) -> Result<EndpointUrl, TokenError> {
    let parsed = EndpointUrl::parse_as(name, url).map_err(|error| {
        let insecure = error.kind() == TokenErrorKind::InsecureOrigin;
        let kind = if insecure {
            TokenErrorKind::InsecureOrigin
        } else {
            TokenErrorKind::InvalidResponse
        };
        let what = if insecure {
            "neither https nor to this machine"
        } else {
            "no URL that secrets may be posted to"
        };
        let message = format!("the server's metadata document has a `{name}` that is {what}");
        TokenError::new(kind, message)
            .with_source(error)
            .asking(Asked::Metadata)
    })?;
    if parsed.is_https() == issuer.url().is_https() {
        return Ok(parsed);
    }
    let (kind, what) = if parsed.is_https() {
        (
            TokenErrorKind::InvalidResponse,
            "is https although the issuer is http",
        )
    } else {
        (
            TokenErrorKind::InsecureOrigin,
            "is http although the issuer is https",
        )
    };
    let message = format!("the `{name}` in the server's metadata document {what}");
    Err(TokenError::new(kind, message).asking(Asked::Metadata))
}

fn invalid(what: &str) -> TokenError {
    let message = format!("the server's metadata document {what}");
    TokenError::new(TokenErrorKind::InvalidResponse, message)
}
