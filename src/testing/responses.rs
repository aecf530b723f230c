//! The responses of the token endpoint, in each dialect.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use super::{
    body::ResponseBody,
    dialect::{Dialect, Rejected},
    faults,
    rules::{ACCESS_TOKEN_TYPE, Invalid, Issued},
    settings::{NumberFormat, Settings},
};

/// The response with the tokens.
pub(super) fn issued(settings: &Settings, issued: &Issued) -> Response<ResponseBody> {
    let dialect = settings.dialect;
    let mut answer = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            answer.insert(name.to_owned(), value);
        }
    };
    let text = |token: &Option<String>| token.clone().map(Value::String);
    put("access_token", Some(json!(issued.access)));
    put("refresh_token", text(&issued.refresh));
    let exchanged_type = issued.exchanged_type.as_deref();
    put("issued_token_type", text(&issued.exchanged_type));
    put(
        "token_type",
        Some(match dialect {
            // RFC 8693 §2.2.1
            _ if exchanged_type.is_some_and(|it| it != ACCESS_TOKEN_TYPE) => json!("N_A"),
            Dialect::Rfc6749 => json!("Bearer"),
            Dialect::Winbooks | Dialect::TwoBa | Dialect::Xoxoday => json!("bearer"),
        }),
    );
    put(
        "expires_in",
        settings.expires_in.format(issued.lifetime.as_secs()),
    );
    put("scope", text(&issued.scope));
    if dialect == Dialect::Winbooks {
        put("scope", Some(Value::Null));
    }
    if dialect == Dialect::Xoxoday {
        let format = |at: Option<SystemTime>| settings.expiry.format(epoch_ms(at?)?);
        put("access_token_expiry", format(issued.access_expires));
        put("refresh_token_expiry", format(issued.refresh_expires));
    }
    let mut response = object(StatusCode::OK, &Value::Object(answer));
    // RFC 6749 §5.1
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// The response to a rejected request.
pub(super) fn rejected(settings: &Settings, rejected: &Rejected) -> Response<ResponseBody> {
    let bare = |status| faults::with_status(status, ResponseBody::empty());
    match rejected {
        Rejected::NoSuchPath => bare(StatusCode::NOT_FOUND),
        Rejected::NotPost => {
            let mut response = bare(StatusCode::METHOD_NOT_ALLOWED);
            let post = HeaderValue::from_static("POST");
            response.headers_mut().insert(header::ALLOW, post);
            response
        }
        Rejected::NotAcceptable => bare(StatusCode::NOT_ACCEPTABLE),
        Rejected::WrongMediaType => bare(StatusCode::UNSUPPORTED_MEDIA_TYPE),
        Rejected::Malformed(why) => object(
            StatusCode::BAD_REQUEST,
            &json!({ "error": "invalid_request", "error_description": why }),
        ),
        Rejected::UnknownGrant => object(
            StatusCode::BAD_REQUEST,
            &json!({ "error": "unsupported_grant_type" }),
        ),
        Rejected::InvalidScope => object(
            StatusCode::BAD_REQUEST,
            &json!({ "error": "invalid_scope" }),
        ),
        Rejected::InvalidTarget => object(
            StatusCode::BAD_REQUEST,
            &json!({ "error": "invalid_target" }),
        ),
        // RFC 8628 §3.5
        Rejected::Device(code) => object(StatusCode::BAD_REQUEST, &json!({ "error": code })),
        Rejected::WrongAssertion(why) => object(
            StatusCode::BAD_REQUEST,
            &json!({ "error": "invalid_grant", "error_description": why }),
        ),
        Rejected::WrongClient(why) => {
            let error = json!({ "error": "invalid_client", "error_description": why });
            let mut response = object(StatusCode::UNAUTHORIZED, &error);
            if matches!(settings.dialect, Dialect::Rfc6749 | Dialect::Winbooks) {
                let basic = HeaderValue::from_static("Basic realm=\"token endpoint\"");
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, basic);
            }
            response
        }
        // RFC 8693 §2.2.2
        Rejected::Invalid(Invalid::Subject) => object(
            StatusCode::BAD_REQUEST,
            &json!({ "error": "invalid_request", "error_description": "invalid subject or actor token" }),
        ),
        Rejected::Invalid(Invalid::Limited) => limited(settings),
        Rejected::Invalid(invalid) => match (settings.dialect, invalid) {
            (Dialect::Xoxoday, Invalid::Revoked) => object(StatusCode::OK, &token_error()),
            (Dialect::Xoxoday, _) => object(
                StatusCode::BAD_REQUEST,
                &json!({ "error": "invalid_token", "error_description": "invalid/expired token" }),
            ),
            _ => object(
                StatusCode::BAD_REQUEST,
                &json!({ "error": "invalid_grant" }),
            ),
        },
    }
}

/// Xoxoday's answer for a token that was revoked because an administrator changed the password.
pub(super) fn token_error() -> Value {
    json!({ "success": 0, "error_message_id": "auth.token_error" })
}

pub(super) fn object(status: StatusCode, value: &Value) -> Response<ResponseBody> {
    faults::json_body(status, Bytes::from(value.to_string()).into())
}

fn limited(settings: &Settings) -> Response<ResponseBody> {
    let limit = settings.rules.limit.as_ref();
    let penalty = limit.and_then(|limit| limit.penalty);
    if settings.dialect != Dialect::Xoxoday {
        let wait = penalty.or(limit.map(|limit| limit.per));
        let error = json!({ "error": "temporarily_unavailable" });
        let response = object(StatusCode::TOO_MANY_REQUESTS, &error);
        return faults::wait(wait.unwrap_or_default(), response);
    }
    let message = "auth.request_limit_exceeded";
    let body = match penalty {
        // This is what the vendor documents. It is not valid JSON.
        None => format!("{{\nmessage:'{message}'\n}}"),
        Some(wait) => {
            json!({ "errors": [{ "message": message, "penaltySeconds": wait.as_secs() }] })
                .to_string()
        }
    };
    faults::json_body(StatusCode::TOO_MANY_REQUESTS, Bytes::from(body).into())
}

fn epoch_ms(at: SystemTime) -> Option<u64> {
    let since: Duration = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    since.as_millis().try_into().ok()
}

impl NumberFormat {
    fn format(self, number: u64) -> Option<Value> {
        match self {
            Self::Number => Some(number.into()),
            Self::String => Some(number.to_string().into()),
            Self::Omitted => None,
        }
    }
}
