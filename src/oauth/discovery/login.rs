//! [`LoginMetadata`]: what logins need of the metadata of an authorization server.

use serde::Deserialize;
use serde_json::Value;

use super::{super::EndpointUrl, issuer::Issuer, metadata::endpoint};
use crate::error::TokenError;

/// What logins need of the metadata (RFC 8414 §2, RFC 8628 §4, RFC 9207 §3).
///
/// A wrong member is an error when a login needs it, and not before: token requests work without.
pub(in crate::oauth) struct LoginMetadata {
    authorization: Option<Result<EndpointUrl, TokenError>>,
    device_authorization: Option<Result<EndpointUrl, TokenError>>,
    /// For clients that show a certificate (RFC 8705 §5).
    mtls_device_authorization: Option<Result<EndpointUrl, TokenError>>,
    /// Each authorization response has an `iss`.
    pub(in crate::oauth) names_issuer: bool,
    scopes: Vec<String>,
    challenge_methods: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    authorization_endpoint: Value,
    device_authorization_endpoint: Value,
    mtls_endpoint_aliases: Value,
    authorization_response_iss_parameter_supported: Value,
    scopes_supported: Value,
    code_challenge_methods_supported: Value,
}

impl LoginMetadata {
    pub(super) fn parse(json: &[u8], issuer: &Issuer) -> Self {
        let document: Document = serde_json::from_slice(json).unwrap_or_default();
        let url = |name, value: &Value| Some(endpoint(name, value.as_str()?, issuer));
        let device = "device_authorization_endpoint";
        let alias = document.mtls_endpoint_aliases.get(device);
        Self {
            authorization: url("authorization_endpoint", &document.authorization_endpoint),
            device_authorization: url(device, &document.device_authorization_endpoint),
            mtls_device_authorization: alias.and_then(|value| url(device, value)),
            names_issuer: document.authorization_response_iss_parameter_supported == true,
            scopes: strings(&document.scopes_supported).unwrap_or_default(),
            challenge_methods: strings(&document.code_challenge_methods_supported),
        }
    }

    pub(in crate::oauth) fn authorization_endpoint(
        &self,
    ) -> Option<Result<EndpointUrl, TokenError>> {
        self.authorization.clone()
    }

    pub(in crate::oauth) fn device_authorization_endpoint(
        &self,
        with_mtls: bool,
    ) -> Option<Result<EndpointUrl, TokenError>> {
        let alias = self
            .mtls_device_authorization
            .as_ref()
            .filter(|_| with_mtls);
        alias.or(self.device_authorization.as_ref()).cloned()
    }

    pub(in crate::oauth) fn supports_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|known| known == scope)
    }

    /// Whether codes can be bound to a verifier (RFC 7636 §4.2). A server that does not say what it supports may support it.
    pub(in crate::oauth) fn may_support_s256(&self) -> bool {
        let methods = self.challenge_methods.as_ref();
        methods.is_none_or(|methods| methods.iter().any(|method| method == "S256"))
    }
}

fn strings(value: &Value) -> Option<Vec<String>> {
    let strings = value.as_array()?.iter().filter_map(Value::as_str);
    Some(strings.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> LoginMetadata {
        let issuer = Issuer::parse("https://login.example.com").unwrap();
        LoginMetadata::parse(json.as_bytes(), &issuer)
    }

    #[test]
    fn a_server_without_pkce_is_told_from_one_that_does_not_say() {
        for (member, expected) in [
            ("", true),
            (r#""code_challenge_methods_supported": null"#, true),
            (
                r#""code_challenge_methods_supported": ["plain", "S256"]"#,
                true,
            ),
            (r#""code_challenge_methods_supported": ["plain"]"#, false),
            (r#""code_challenge_methods_supported": ["s256"]"#, false),
            (r#""code_challenge_methods_supported": []"#, false),
        ] {
            let metadata = parse(&format!("{{{member}}}"));
            assert_eq!(metadata.may_support_s256(), expected, "{member}");
        }
    }

    #[test]
    fn a_wrong_endpoint_is_an_error_of_its_own() {
        let metadata = parse(
            r#"{
                "authorization_endpoint": "http://login.example.com/authorize",
                "device_authorization_endpoint": "https://login.example.com/device",
                "mtls_endpoint_aliases": {"device_authorization_endpoint": "https://mtls.example.com/device"},
                "scopes_supported": "openid", "authorization_response_iss_parameter_supported": true
            }"#,
        );
        assert!(metadata.authorization_endpoint().unwrap().is_err());
        for (with_mtls, host) in [(false, "login.example.com"), (true, "mtls.example.com")] {
            let url = metadata.device_authorization_endpoint(with_mtls);
            assert_eq!(url.unwrap().unwrap().uri().host(), Some(host));
        }
        assert!(metadata.names_issuer && !metadata.supports_scope("openid"));
    }
}
