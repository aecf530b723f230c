//! The device authorization request (RFC 8628 §3.1), and its response.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::{
    OAuthClient, Parameters,
    credential::Credential,
    error_response::ErrorResponse,
    send::Target,
    settings::Settings,
    token_request::RequestKind,
    token_response::RawResponse,
    values::{Times, seconds},
};
use crate::{
    clock::{Clock, Now},
    error::{Asked, TokenError, TokenErrorKind},
    token::ExtraMembers,
    zeroize::secret,
};

/// What the device authorization endpoint answers (RFC 8628 §3.2), as it stands there. Its texts are foreign.
pub(crate) struct DeviceAuthorization {
    pub(crate) device_code: SecretString,
    pub(crate) user_code: String,
    pub(crate) verification_uri: String,
    pub(crate) verification_uri_complete: Option<String>,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) interval: Option<Duration>,
    /// When the request was sent: the lifetime counts from then.
    pub(crate) sent: Now,
}

impl OAuthClient {
    /// Sends a device authorization request with `parameters`, whose grant type is not sent.
    pub(crate) async fn authorize_device(
        &self,
        clock: &Clock,
        parameters: &Parameters,
    ) -> Result<DeviceAuthorization, TokenError> {
        let settings = &*self.settings;
        let url = self.device_authorization_endpoint(clock).await?;
        let target = Target {
            method: "POST",
            url: &url,
            credential: Credential::default(),
        };
        let made = settings.make(clock, parameters).await?;
        let kind = RequestKind::DeviceAuthorization;
        let parse = |_: &Parameters, sent, response: RawResponse| {
            settings.authorized_device(&response, sent, clock)
        };
        settings
            .exchange_authenticated(clock, target, kind, made, parameters, parse)
            .await
            .map_err(|error| settings.explain_by_metadata(&url, error))
            .map_err(|error| error.asking(Asked::DeviceAuthorization))
    }
}

impl Settings {
    fn authorized_device(
        &self,
        response: &RawResponse,
        sent: Now,
        clock: &Clock,
    ) -> Result<DeviceAuthorization, TokenError> {
        let object = response.json_object();
        let fields = object.as_ref().map(ExtraMembers::as_map);
        let error = fields.and_then(|fields| ErrorResponse::in_fields(fields, self.vendor_errors));
        if error.is_none()
            && response.status.is_success()
            && let Some(authorization) = fields.and_then(|fields| authorization(fields, sent))
        {
            return Ok(authorization);
        }
        if let (None, Some(broken)) = (&error, &response.broken) {
            return Err(broken.clone());
        }
        let times = Times::new(&response.headers, sent, clock.wall());
        let error = error
            .unwrap_or_default()
            .into_error(response, self.vendor_errors, &[], &times);
        Err(explained(response, &error))
    }
}

/// `None` if one of the three required texts is missing.
fn authorization(fields: &Map<String, Value>, sent: Now) -> Option<DeviceAuthorization> {
    let text = |name| {
        let text = fields.get(name).and_then(Value::as_str).map(str::trim);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    Some(DeviceAuthorization {
        device_code: secret(text("device_code")?),
        user_code: text("user_code")?,
        // The second is the name in drafts of the RFC, which Google kept.
        verification_uri: text("verification_uri").or_else(|| text("verification_url"))?,
        verification_uri_complete: text("verification_uri_complete")
            .or_else(|| text("verification_url_complete")),
        lifetime: fields.get("expires_in").and_then(seconds),
        interval: fields.get("interval").and_then(seconds),
        sent,
    })
}

/// The same error in words about a device authorization.
fn explained(response: &RawResponse, error: &TokenError) -> TokenError {
    use TokenErrorKind::{
        InvalidClient, InvalidRequest, InvalidResponse, RateLimited, Server, Timeout,
    };

    let code = error.oauth_code();
    let is_not_there = matches!(
        response.status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
    );
    let (kind, what): (_, Cow<'static, str>) = match (error.kind(), code) {
        _ if response.status.is_redirection() => (
            InvalidResponse,
            "the endpoint redirects, and redirects are not followed; set its final URL".into(),
        ),
        (kind @ (Server | RateLimited | Timeout), _) => {
            (kind, "no login has begun; begin again later".into())
        }
        (InvalidClient, _) => (
            InvalidClient,
            "check client id, client secret, and how they are sent (`ClientAuth`)".into(),
        ),
        (_, Some("unauthorized_client" | "unsupported_grant_type")) => (
            InvalidRequest,
            "register the client for logins by a device code (RFC 8628)".into(),
        ),
        (_, Some("invalid_scope")) => (InvalidRequest, "check the scope of the login".into()),
        (_, Some("invalid_target")) => (InvalidRequest, "check the resource of the login".into()),
        (_, Some(_)) => (
            InvalidRequest,
            "check the client and the parameters of the login".into(),
        ),
        (_, None) if is_not_there => (
            InvalidResponse,
            "check the URL of the device authorization endpoint".into(),
        ),
        (_, None) if response.status.is_success() => (
            InvalidResponse,
            "success, without `device_code`, `user_code` and `verification_uri` in a JSON object"
                .into(),
        ),
        (_, None) => (
            InvalidResponse,
            "the response has no error code; is the URL that of the device authorization endpoint?"
                .into(),
        ),
    };
    let mut explained = TokenError::new(kind, what)
        .with_response(response.describe())
        .with_status(response.status);
    if let Some(code) = code {
        explained = explained.with_oauth_code(code);
    }
    match error.retry_after() {
        Some(wait) => explained.with_retry_after(wait),
        None => explained,
    }
}
