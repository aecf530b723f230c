//! [`Issuer`]: the identifier of an authorization server, and where its metadata are.

use super::super::EndpointUrl;
use crate::error::{TokenError, TokenErrorKind};

const OAUTH: &str = "/.well-known/oauth-authorization-server";
const OPENID: &str = "/.well-known/openid-configuration";

/// The identifier of an authorization server (RFC 8414 §2).
pub(super) struct Issuer {
    /// As configured, because it is compared with the document character by character.
    text: String,
    url: EndpointUrl,
}

impl Issuer {
    pub(super) fn parse(text: &str) -> Result<Self, TokenError> {
        let url = EndpointUrl::parse_as("issuer", text)?;
        if url.uri().query().is_some() {
            return Err(TokenError::new(
                TokenErrorKind::Config,
                "the issuer has a query, which no issuer has (RFC 8414 §2); for the URL of a token endpoint, use \
                 `OAuthClient::new`",
            ));
        }
        let text = text.trim();
        if text.contains("/.well-known/") {
            return Err(TokenError::new(
                TokenErrorKind::Config,
                "the issuer is the URL of a metadata document; use the `issuer` in that document",
            ));
        }
        Ok(Self {
            text: text.to_owned(),
            url,
        })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn url(&self) -> &EndpointUrl {
        &self.url
    }

    /// Where the document may be, in the order in which it is looked for.
    pub(super) fn documents(&self) -> Vec<EndpointUrl> {
        let path = self.url.uri().path();
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut documents = vec![format!("{OAUTH}{path}"), format!("{OPENID}{path}")];
        if !path.is_empty() {
            documents.push(format!("{path}{OPENID}"));
        }
        documents
            .iter()
            .map(|path| self.url.with_path(path))
            .collect()
    }
}
