//! What each server answers, in its own words.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use super::{
    body::ReplyBody,
    dialect::{Dialect, Rejected},
    faults,
    rules::{Dead, Issued},
    settings::{Printed, Settings},
};

/// The tokens.
pub(super) fn issued(settings: &Settings, issued: &Issued) -> Response<ReplyBody> {
    let dialect = settings.dialect;
    let mut answer = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            answer.insert(name.to_owned(), value);
        }
    };
    let text = |token: &Option<String>| token.clone().map(Value::String);
    put("access_token", text(&issued.access));
    put("refresh_token", text(&issued.refresh));
    put(
        "token_type",
        Some(match dialect {
            Dialect::Rfc6749 => json!("Bearer"),
            Dialect::Winbooks | Dialect::TwoBa | Dialect::Xoxoday => json!("bearer"),
        }),
    );
    put(
        "expires_in",
        settings.expires_in.print(issued.lifetime.as_secs()),
    );
    if dialect == Dialect::Winbooks {
        put("scope", Some(Value::Null));
    }
    if dialect == Dialect::Xoxoday {
        let print = |at: Option<SystemTime>| settings.expiry.print(epoch_ms(at?)?);
        put("access_token_expiry", print(issued.access_expires));
        put("refresh_token_expiry", print(issued.refresh_expires));
    }
    let mut response = object(StatusCode::OK, &Value::Object(answer));
    // RFC 6749 §5.1
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// The rejection.
pub(super) fn rejected(settings: &Settings, rejected: &Rejected) -> Response<ReplyBody> {
    let bare = |status| faults::with_status(status, ReplyBody::empty());
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
        Rejected::WrongClient => {
            let error = json!({ "error": "invalid_client" });
            let mut response = object(StatusCode::UNAUTHORIZED, &error);
            if matches!(settings.dialect, Dialect::Rfc6749 | Dialect::Winbooks) {
                let basic = HeaderValue::from_static("Basic realm=\"token endpoint\"");
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, basic);
            }
            response
        }
        Rejected::Dead(Dead::Limited) => limited(settings),
        Rejected::Dead(dead) => match (settings.dialect, dead) {
            (Dialect::Xoxoday, Dead::Revoked) => object(StatusCode::OK, &token_error()),
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

/// What Xoxoday says of a token that an administrator's new password ended.
pub(super) fn token_error() -> Value {
    json!({ "success": 0, "error_message_id": "auth.token_error" })
}

pub(super) fn object(status: StatusCode, value: &Value) -> Response<ReplyBody> {
    faults::json(status, Bytes::from(value.to_string()).into())
}

fn limited(settings: &Settings) -> Response<ReplyBody> {
    let limit = settings.rules.limit.as_ref();
    let penalty = limit.and_then(|limit| limit.penalty);
    if settings.dialect != Dialect::Xoxoday {
        let wait = penalty.or(limit.map(|limit| limit.per));
        let error = json!({ "error": "temporarily_unavailable" });
        let response = object(StatusCode::TOO_MANY_REQUESTS, &error);
        return faults::too_many(wait.unwrap_or_default(), response);
    }
    let message = "auth.request_limit_exceeded";
    let body = match penalty {
        // As the vendor prints it, which is no JSON.
        None => format!("{{\nmessage:'{message}'\n}}"),
        Some(wait) => {
            json!({ "errors": [{ "message": message, "penaltySeconds": wait.as_secs() }] })
                .to_string()
        }
    };
    faults::json(StatusCode::TOO_MANY_REQUESTS, Bytes::from(body).into())
}

fn epoch_ms(at: SystemTime) -> Option<u64> {
    let since: Duration = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    since.as_millis().try_into().ok()
}

impl Printed {
    fn print(self, number: u64) -> Option<Value> {
        match self {
            Self::Number => Some(number.into()),
            Self::Text => Some(number.to_string().into()),
            Self::Absent => None,
        }
    }
}
