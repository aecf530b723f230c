//! Xoxoday.

use std::{fmt, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::{Said, preset, required};
use crate::{
    challenge::{ResponseHead, Verdict},
    error::TokenError,
    middleware::InspectBodyLayer,
    oauth::{BodyFormat, ClientAuth, OAuthClient, join, parse},
    origins::Origins,
    schedule::Schedule,
    source::RefreshTokenSource,
};

const HOST: &str = "https://accounts.xoxoday.com";
const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// "Unusual number of requests on Refresh Token API" has the tokens invalidated; a penalty that was seen is 60 seconds.
const FLOOR: Duration = Duration::from_secs(60);

/// The Xoxoday (Plum) API: a refresh token in JSON, rotated, and not to be used too often.
///
/// What Xoxoday's documentation says:
/// - each answer has a new refresh token, and the old one is invalid at once;
/// - access tokens live 15 days; refreshing every 7 days is recommended, by a schedule that needs no person;
/// - a dead refresh token is replaced in the dashboard only;
/// - too many refreshes invalidate the token.
///
/// So this preset renews at half of the lifetime, after 7 days at the latest, also without traffic; and leaves at least
/// 60 seconds between attempts ([`schedule`](Xoxoday::schedule)).
///
/// Their reauth_hint to fetch new tokens "for every 4xx" is not followed: 400, 404, 409 and 422 are answers to the order, not
/// to the token, and refreshing for each would trip the limit above. A token that is no longer good is told in the body of
/// an answer, whatever its status; [`inspect`](Xoxoday::inspect) makes the layer that reads it.
///
/// Learned from the field, and so to be overridden: the addresses under `https://accounts.xoxoday.com`
/// ([`token_url`](Xoxoday::token_url), [`company`](Xoxoday::company), [`origins`](Xoxoday::origins)) and that the body
/// is JSON ([`body_format`](Xoxoday::body_format)).
///
/// A restart needs a durable [`store`](Xoxoday::store): the refresh token given here is spent with the first refresh.
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
    said: Said,
}

preset!(Xoxoday builds RefreshTokenSource);

impl Xoxoday {
    /// For a user's token, with what the dashboard gave.
    pub fn new(
        client_id: impl Into<String>,
        client_secret: impl Into<SecretString>,
        refresh_token: impl Into<SecretString>,
    ) -> Self {
        Self {
            client_id: client_id.into(),
            client_secret: client_secret.into(),
            refresh_token: refresh_token.into(),
            path: "chef/v1/oauth/token/user",
            body_format: BodyFormat::Json,
            said: Said::default(),
        }
    }

    /// For a company's token instead of a user's.
    pub fn company(mut self) -> Self {
        self.path = "chef/v1/oauth/token/company";
        self
    }

    /// How the parameters are written. Default: [`BodyFormat::Json`].
    pub fn body_format(mut self, body_format: BodyFormat) -> Self {
        self.body_format = body_format;
        self
    }

    /// The schedule of this preset, to change some of it.
    pub fn default_schedule() -> Schedule {
        Schedule::default()
            .refresh_ahead(0.5, Duration::MAX)
            .max_age(WEEK)
            .min_interval(FLOOR)
            .background_refresh(true)
    }

    /// The layer that finds out, below [`BearerAuthLayer`](crate::BearerAuthLayer), what Xoxoday says about a token.
    ///
    /// | In a JSON object, at its top | is |
    /// |---|---|
    /// | `"success": 0` with `"error_message_id": "auth.token_error"` | `Rejected` |
    /// | `"error": "invalid_token"` | `Rejected` |
    /// | `auth.request_limit_exceeded` as `message`, `error` or `error_message_id`, or as the `message` of one in `errors` | `Forbidden`: another refresh would only make it worse |
    ///
    /// The limit is also known where it isn't JSON (`{message:'auth.request_limit_exceeded'}`), which is how the vendor
    /// prints it. The status doesn't matter, but for 5xx: what failed on the server may have had its effect.
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
        InspectBodyLayer::new(judge)
    }

    fn checked_url(&self) -> Result<Url, TokenError> {
        let values = [
            ("a client id", self.client_id.as_str()),
            ("a client secret", self.client_secret.expose_secret()),
            ("a refresh token", self.refresh_token.expose_secret()),
        ];
        required("Xoxoday", &values)?;
        match &self.said.token_url {
            Some(url) => parse(url),
            None => join(HOST, self.path),
        }
    }

    fn assemble(self, endpoint: OAuthClient) -> Result<RefreshTokenSource, TokenError> {
        let endpoint = endpoint
            .client_auth(ClientAuth::client_secret_post(
                self.client_id,
                self.client_secret,
            ))
            .body_format(self.body_format);
        let origins = match self.said.origins {
            Some(origins) => origins,
            None => Origins::only([HOST])?,
        };
        let source = RefreshTokenSource::new(endpoint, self.refresh_token)
            .origins(origins)
            .schedule(self.said.schedule.unwrap_or_else(Self::default_schedule))
            .reauth_hint("Xoxoday no longer takes the refresh token: a new one must be generated in its dashboard");
        Ok(match self.said.store {
            Some(store) => source.store(store),
            None => source,
        })
    }
}

const LIMIT: &str = "auth.request_limit_exceeded";

/// What the beginning of a body says about the token.
fn judge(head: ResponseHead<'_>, beginning: &[u8]) -> Option<Verdict> {
    if head.status.is_server_error() {
        return None;
    }
    let Ok(body) = serde_json::from_slice::<Value>(beginning) else {
        return is_printed_limit(beginning).then_some(Verdict::Forbidden);
    };
    let says = |field: &str, wanted: &str| body.get(field).is_some_and(|it| it == wanted);
    if ["message", "error", "error_message_id"]
        .iter()
        .any(|field| says(field, LIMIT))
        || lists_limit(&body)
    {
        Some(Verdict::Forbidden)
    } else if says("error", "invalid_token")
        || says("error_message_id", "auth.token_error") && failed(&body)
    {
        Some(Verdict::Rejected)
    } else {
        None
    }
}

/// `"success": 0`, in whichever type.
fn failed(body: &Value) -> bool {
    body.get("success")
        .is_some_and(|it| *it == 0 || *it == "0" || *it == false)
}

fn lists_limit(body: &Value) -> bool {
    let errors = body.get("errors").and_then(Value::as_array);
    errors.is_some_and(|errors| {
        errors
            .iter()
            .any(|error| error.get("message").is_some_and(|it| it == LIMIT))
    })
}

/// Whether this is what the vendor prints, which is no JSON: `{message:'auth.request_limit_exceeded'}`.
fn is_printed_limit(text: &[u8]) -> bool {
    let mut rest = text.iter().copied().filter(|b| !b.is_ascii_whitespace());
    let printed = [b"{message:'", LIMIT.as_bytes(), b"'"].concat();
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

    fn says(status: u16, body: &str) -> Option<Verdict> {
        let response = Response::builder().status(status).body(()).unwrap();
        judge(ResponseHead::of(&response), body.as_bytes())
    }

    #[test]
    fn a_token_that_is_no_longer_good_is_told_in_the_body() {
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
                    says(status, body),
                    Some(Verdict::Rejected),
                    "{status} {body}"
                );
            }
            assert_eq!(says(500, body), None, "{body}");
        }
    }

    #[test]
    fn the_limit_is_no_rejection_of_the_token() {
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
                    says(status, body),
                    Some(Verdict::Forbidden),
                    "{status} {body}"
                );
            }
        }
    }

    #[test]
    fn business_that_mentions_such_words_is_business() {
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
                assert_eq!(says(status, body), None, "{status} {body}");
            }
        }
    }
}
