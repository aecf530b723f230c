//! Xoxoday.

use std::{fmt, time::Duration};

use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::preset::{Defaults, Settings, check_not_empty, common_methods};
use crate::{
    challenge::{ResponseHead, Verdict, has_only_other_schemes},
    error::{TokenError, TokenErrorKind},
    grant::RefreshTokenGrant,
    middleware::InspectBodyLayer,
    oauth::{BodyFormat, ClientAuth, EndpointUrl, OAuthClient, VendorErrors},
    schedule::Schedule,
    source::RefreshTokenSource,
    zeroize::secret,
};

const HOST: &str = "https://accounts.xoxoday.com";
const USER_PATH: &str = "chef/v1/oauth/token/user";
const COMPANY_PATH: &str = "chef/v1/oauth/token/company";
const REAUTH_HINT: &str =
    "Xoxoday no longer accepts the refresh token: a new one must be generated in its dashboard";

/// The documentation recommends a refresh every 7 days.
const MAX_AGE: Duration = Duration::from_secs(7 * 86_400);
/// Too many refreshes invalidate the tokens. A penalty that was seen is 60 seconds.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

const LIMIT_CODE: &str = "auth.request_limit_exceeded";
const DEAD_CODE: &str = "auth.token_error";
const CODE_FIELD: &str = "error_message_id";

/// The error responses of the token endpoint. The limit is also printed in a form that is not JSON.
static ERRORS: VendorErrors = VendorErrors {
    codes: &[
        (LIMIT_CODE, TokenErrorKind::RateLimited),
        (DEAD_CODE, TokenErrorKind::ReauthRequired),
    ],
    code_fields: &[CODE_FIELD],
    wait_fields: &["penaltySeconds"],
    search_text: true,
    reauth_on_400: false,
};

/// The Xoxoday (Plum) API: a refresh token in JSON, rotated, that must not be used too often.
///
/// From the documentation of Xoxoday:
/// - Each response has a new refresh token, and the old one is invalid at once.
/// - Access tokens live for 15 days. A refresh every 7 days is recommended, by a schedule that needs no person.
/// - An invalid refresh token can be replaced in the dashboard only.
/// - Too many refreshes invalidate the token.
///
/// So this preset refreshes at half of the lifetime, after 7 days at the latest, also without traffic, and leaves at least
/// 60 seconds between attempts ([`schedule`](Xoxoday::schedule)).
///
/// The documentation also says to fetch new tokens "for every 4xx". This preset does not: 400, 404, 409 and 422 are about
/// the order and not about the token, and refreshing for each would exceed the limit above. That a token is invalid is
/// written in the body of a response, with any status. [`inspect`](Xoxoday::inspect) makes the layer that reads it.
///
/// From the field, and so to be overridden: the URLs under `https://accounts.xoxoday.com`
/// ([`token_url`](Xoxoday::token_url), [`company`](Xoxoday::company), [`origins`](Xoxoday::origins)), and that the body
/// is JSON ([`body_format`](Xoxoday::body_format)).
///
/// The first refresh replaces the refresh token given here: use a durable [`store`](Xoxoday::store) to survive a restart.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{BearerAuthLayer, provider::Xoxoday};
///
/// let source = Xoxoday::new("my-client", "my-secret", "the-refresh-token").company().build()?;
/// let layers = tower::ServiceBuilder::new()
///     .layer(BearerAuthLayer::new(source))
///     .layer(Xoxoday::inspect());
/// # let _ = layers;
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Xoxoday {
    client_id: String,
    client_secret: SecretString,
    refresh_token: SecretString,
    path: &'static str,
    body_format: BodyFormat,
    settings: Settings,
}

common_methods!(Xoxoday builds RefreshTokenSource);

impl Xoxoday {
    /// A preset for a user's token, with the credentials from the dashboard.
    pub fn new(
        client_id: impl Into<String>,
        client_secret: impl Into<String>,
        refresh_token: impl Into<String>,
    ) -> Self {
        Self {
            client_id: client_id.into(),
            client_secret: secret(client_secret),
            refresh_token: secret(refresh_token),
            path: USER_PATH,
            body_format: BodyFormat::Json,
            settings: Settings::default(),
        }
    }

    /// Uses a company's token instead of a user's.
    pub fn company(mut self) -> Self {
        self.path = COMPANY_PATH;
        self
    }

    /// Sets the format of request bodies. Default: [`BodyFormat::Json`].
    pub fn body_format(mut self, body_format: BodyFormat) -> Self {
        self.body_format = body_format;
        self
    }

    /// The schedule of this preset, as a base for your own.
    pub fn default_schedule() -> Schedule {
        Schedule::default()
            .refresh_ahead(0.5, Duration::MAX)
            .max_age(MAX_AGE)
            .min_interval(MIN_INTERVAL)
            .background_refresh(true)
    }

    /// Makes the layer that reads from response bodies what Xoxoday says about a token.
    ///
    /// Put it below [`BearerAuthLayer`](crate::BearerAuthLayer).
    ///
    /// | At the top of a JSON object | Verdict |
    /// |---|---|
    /// | `"success": 0` with `"error_message_id": "auth.token_error"` | `Rejected` |
    /// | `"error": "invalid_token"` | `Rejected` |
    /// | `auth.request_limit_exceeded` as `message`, `error` or `error_message_id`, or as the `message` of one of `errors` | `Forbidden`: another refresh would make it worse |
    ///
    /// A 401 without these, whose challenges name no `Bearer`, is `Forbidden` as well: refreshes are limited, and it may be
    /// about something else.
    ///
    /// The limit is also recognized as `{message:'auth.request_limit_exceeded'}`, which is not JSON: the documentation
    /// prints it like that. The status does not matter, except that 5xx has no verdict: the server may have executed the
    /// request, so it must not be sent again.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    /// use tower_bearer::{ReplayBody, Verdict, provider::Xoxoday};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// let client = ServiceBuilder::new()
    ///     .layer(Xoxoday::inspect())
    ///     .service(service_fn(|_: Request<()>| async {
    ///         let body = r#"{"success":0,"error_message_id":"auth.token_error"}"#;
    ///         Ok::<_, std::convert::Infallible>(Response::new(String::from(body)))
    ///     }));
    ///
    /// let request = Request::get("/").header("authorization", "Bearer abc").body(())?;
    /// let answer = client.oneshot(request).await?;
    /// assert_eq!(answer.extensions().get(), Some(&Verdict::Rejected));
    /// # Ok(()) }
    /// ```
    pub fn inspect() -> InspectBodyLayer {
        InspectBodyLayer::new(classify)
    }

    fn endpoint(&self) -> Result<EndpointUrl, TokenError> {
        let values = [
            ("a client id", self.client_id.as_str()),
            ("a client secret", self.client_secret.expose_secret()),
            ("a refresh token", self.refresh_token.expose_secret()),
        ];
        check_not_empty("Xoxoday", &values)?;
        self.settings
            .token_url_or(|| EndpointUrl::join(HOST, self.path))
    }

    fn source(self, client: OAuthClient) -> Result<RefreshTokenSource, TokenError> {
        let client_auth =
            ClientAuth::client_secret_post(self.client_id, self.client_secret.expose_secret());
        self.settings.source(
            client
                .client_auth(client_auth)
                .body_format(self.body_format)
                .vendor_errors(&ERRORS),
            RefreshTokenGrant::new(self.refresh_token.expose_secret()),
            Defaults {
                origin: HOST,
                schedule: Self::default_schedule(),
                reauth_hint: REAUTH_HINT,
            },
        )
    }
}

/// What the beginning of a response body says about the token.
fn classify(head: ResponseHead<'_>, beginning: &[u8]) -> Option<Verdict> {
    if head.status.is_server_error() {
        return None;
    }
    classify_body(beginning).or_else(|| {
        let is_unauthorized = head.status == StatusCode::UNAUTHORIZED;
        (is_unauthorized && has_only_other_schemes(head.headers)).then_some(Verdict::Forbidden)
    })
}

fn classify_body(beginning: &[u8]) -> Option<Verdict> {
    let Ok(body) = serde_json::from_slice::<Value>(beginning) else {
        return is_printed_limit(beginning).then_some(Verdict::Forbidden);
    };
    let has = |field: &str, code: &str| body.get(field).is_some_and(|value| value == code);
    if ["message", "error", CODE_FIELD]
        .iter()
        .any(|field| has(field, LIMIT_CODE))
        || lists_limit(&body)
    {
        Some(Verdict::Forbidden)
    } else if has("error", "invalid_token") || has(CODE_FIELD, DEAD_CODE) && is_failure(&body) {
        Some(Verdict::Rejected)
    } else {
        None
    }
}

/// Whether the body has `"success": 0`, in any type.
fn is_failure(body: &Value) -> bool {
    body.get("success")
        .is_some_and(|value| *value == 0 || *value == "0" || *value == false)
}

fn lists_limit(body: &Value) -> bool {
    let errors = body.get("errors").and_then(Value::as_array);
    errors.is_some_and(|errors| {
        errors.iter().any(|error| {
            error
                .get("message")
                .is_some_and(|value| value == LIMIT_CODE)
        })
    })
}

/// Whether this is the limit as the documentation prints it: `{message:'auth.request_limit_exceeded'}`.
fn is_printed_limit(text: &[u8]) -> bool {
    let mut rest = text.iter().copied().filter(|b| !b.is_ascii_whitespace());
    let printed = [b"{message:'", LIMIT_CODE.as_bytes(), b"'"].concat();
    printed.iter().all(|b| rest.next() == Some(*b))
}

impl fmt::Debug for Xoxoday {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xoxoday")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;
    use crate::token_source::{TokenContext, TokenSource};

    fn verdict(status: u16, body: &str) -> Option<Verdict> {
        let response = Response::builder().status(status).body(()).unwrap();
        classify(ResponseHead::of(&response), body.as_bytes())
    }

    #[test]
    fn a_401_that_names_only_other_schemes_costs_no_refresh() {
        let verdict = |status: u16, challenge: &str, body: &str| {
            let response = Response::builder()
                .status(status)
                .header("www-authenticate", challenge);
            let response = response.body(()).unwrap();
            classify(ResponseHead::of(&response), body.as_bytes())
        };
        let rejected = r#"{"error":"invalid_token"}"#;
        assert_eq!(verdict(401, "Basic", "{}"), Some(Verdict::Forbidden));
        assert_eq!(verdict(401, "Basic", "<html>"), Some(Verdict::Forbidden));
        assert_eq!(verdict(401, "Basic", rejected), Some(Verdict::Rejected));
        assert_eq!(verdict(401, "Basic, Bearer", "{}"), None);
        assert_eq!(verdict(401, "", "{}"), None);
        assert_eq!(verdict(403, "Basic", "{}"), None);
    }

    #[test]
    fn the_body_says_that_a_token_is_invalid() {
        let bodies = [
            r#"{"success":0,"error_message_id":"auth.token_error"}"#,
            r#" { "error_message_id" : "auth.token_error", "success" : "0", "data": null } "#,
            r#"{"success":false,"error_message_id":"auth.token_error"}"#,
            r#"{"error":"invalid_token","error_description":"invalid/expired token"}"#,
            "{\r\n\"error\":\"invalid_token\"}\n",
        ];
        for body in bodies {
            for status in [200, 400, 401, 403] {
                assert_eq!(
                    verdict(status, body),
                    Some(Verdict::Rejected),
                    "{status} {body}"
                );
            }
            assert_eq!(verdict(500, body), None, "{body}");
        }
    }

    #[test]
    fn the_limit_does_not_reject_the_token() {
        let bodies = [
            r#"{"message":"auth.request_limit_exceeded"}"#,
            r#"{"errors":[{"message":"auth.request_limit_exceeded","penaltySeconds":60}]}"#,
            r#"{"error":"invalid_token","message":"auth.request_limit_exceeded"}"#,
            r#"{"success":0,"error_message_id":"auth.request_limit_exceeded"}"#,
            "{message:'auth.request_limit_exceeded'}",
            "{\nmessage: 'auth.request_limit_exceeded'\n}",
        ];
        for body in bodies {
            for status in [200, 401, 403, 429] {
                assert_eq!(
                    verdict(status, body),
                    Some(Verdict::Forbidden),
                    "{status} {body}"
                );
            }
        }
    }

    #[test]
    fn a_body_that_only_mentions_a_code_has_no_verdict() {
        let bodies = [
            "",
            "null",
            "auth.token_error",
            r#""invalid_token""#,
            r#"["invalid_token","auth.token_error"]"#,
            r#"{"success":1,"error_message_id":"auth.token_error"}"#,
            r#"{"error_message_id":"auth.token_error"}"#,
            r#"{"success":0,"error_message_id":"voucher.out_of_stock"}"#,
            r#"{"success":1,"data":{"error":"invalid_token"}}"#,
            r#"{"success":1,"data":[{"success":0,"error_message_id":"auth.token_error"}]}"#,
            r#"{"title":"What to do about invalid_token and auth.token_error","error":null}"#,
            r#"{"error":"invalid_token_format"}"#,
            r#"{"error":{"invalid_token":true}}"#,
            r#"{"error":["invalid_token"]}"#,
            r#"{"errors":["auth.request_limit_exceeded"]}"#,
            r#"{"note":"auth.request_limit_exceeded"}"#,
            "<p>auth.request_limit_exceeded</p>",
            r#"{"error":"invalid_token","error_descr"#,
        ];
        for body in bodies {
            for status in [200, 400, 401, 404, 409, 422, 502] {
                assert_eq!(verdict(status, body), None, "{status} {body}");
            }
        }
    }
    #[tokio::test]
    async fn the_error_codes_of_the_token_endpoint_are_understood() {
        use TokenErrorKind::{RateLimited, ReauthRequired, Server};
        const LIMIT: &str =
            r#"{"errors":[{"message":"auth.request_limit_exceeded","penaltySeconds":60}]}"#;
        const DEAD: &str = r#"{"success":0,"error_message_id":"auth.token_error"}"#;
        const PRINTED: &str = "{message:'auth.request_limit_exceeded'}";
        for (status, body, kind, code, wait) in [
            (200, PRINTED, RateLimited, LIMIT_CODE, None),
            (400, PRINTED, RateLimited, LIMIT_CODE, None),
            (200, LIMIT, RateLimited, LIMIT_CODE, Some(60)),
            (403, LIMIT, RateLimited, LIMIT_CODE, Some(60)),
            (200, DEAD, ReauthRequired, DEAD_CODE, None),
            (500, DEAD, Server, DEAD_CODE, None),
        ] {
            let server = tower::service_fn(move |_: http::Request<_>| async move {
                Response::builder().status(status).body(body.to_owned())
            });
            let source = Xoxoday::new("id", "secret", "token")
                .build_with(server)
                .unwrap();
            let error = source.token(TokenContext::new()).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.oauth_code()),
                (kind, Some(code)),
                "{status} {body}"
            );
            assert_eq!(error.retry_after(), wait.map(Duration::from_secs), "{body}");
        }
    }
}
