//! [`ExpectedExchange`]: what the response to a token exchange must have.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{EndpointUrl, TokenResponse};
use crate::{
    clock::{MAX_DURATION, Now},
    error::{Recovery, TokenError, TokenErrorKind},
    token::{Expires, Expiry},
};

/// What the response to a token exchange must have (RFC 8693 §2.2.1).
#[derive(Clone, Copy)]
pub(crate) struct ExpectedExchange {
    /// The issued token is to be used as an access token.
    pub(crate) is_bearer: bool,
    /// When the subject token expires, if that is known.
    pub(crate) subject_expires: Option<SubjectExpires>,
}

/// When a subject token expires.
#[derive(Clone, Copy)]
pub(crate) enum SubjectExpires {
    /// By our clocks.
    Ours(Expires),
    /// By the clock of the server that has issued it, which is that of the token endpoint as far as we know.
    Servers(SystemTime),
}

impl SubjectExpires {
    /// How long it lives after `sent`, which is `server_time` for the server.
    fn after(self, sent: Now, server_time: SystemTime) -> Duration {
        match self {
            // Of two clocks that disagree, the one that says less.
            Self::Ours(expires) => expires
                .mono
                .saturating_duration_since(sent.mono)
                .min(expires.wall.duration_since(sent.wall).unwrap_or_default()),
            Self::Servers(at) => at
                .duration_since(server_time)
                .unwrap_or_default()
                .min(MAX_DURATION),
        }
    }
}

impl ExpectedExchange {
    /// Checks a response, and limits a token of unknown lifetime to that of the subject token. `server_time` is `sent` by the
    /// clock of the server.
    pub(super) fn check(
        self,
        response: TokenResponse,
        url: &EndpointUrl,
        sent: Now,
        server_time: SystemTime,
    ) -> Result<TokenResponse, TokenError> {
        let token = response.token?;
        let issued_token_type = token.extra("issued_token_type").and_then(Value::as_str);
        if issued_token_type.is_none_or(|issued| issued.trim().is_empty()) {
            let message = format!(
                "{url} answered a token exchange without `issued_token_type`, which RFC 8693 §2.2.1 requires; does the server \
                 support token exchange?"
            );
            return Err(TokenError::new(TokenErrorKind::InvalidResponse, message)
                .with_recovery(Recovery::Slowly));
        }
        let is_n_a = |token_type: &str| token_type.trim().eq_ignore_ascii_case("N_A");
        if self.is_bearer && token.token_type().is_some_and(is_n_a) {
            let message = format!(
                "{url} issued a token that cannot be used as an access token (`token_type` is `N_A`, RFC 8693 §2.2.1); set \
                 `requested_token_type` to the type of an access token, or, if the token is for another grant, to its type"
            );
            return Err(
                TokenError::new(TokenErrorKind::Config, message).with_recovery(Recovery::Slowly)
            );
        }
        let (Some(subject), None) = (self.subject_expires, response.lifetime) else {
            return Ok(TokenResponse {
                token: Ok(token),
                ..response
            });
        };
        let lifetime = subject.after(sent, server_time);
        let expiry = Expiry::Counted {
            from: sent,
            lifetime,
        };
        Ok(TokenResponse {
            token: Ok(token.expiry(expiry)),
            lifetime: Some(lifetime),
            expires_at: Some(sent.wall + lifetime),
            ..response
        })
    }
}
