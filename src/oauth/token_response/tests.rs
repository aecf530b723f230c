use http::header::{DATE, RETRY_AFTER};
use proptest::prelude::*;
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::*;
use TokenErrorKind::*;

const NOW: u64 = 1_700_000_000; // Tue, 14 Nov 2023 22:13:20 GMT
const SECRET: &str = "hunter2";

/// A vendor with codes, fields and a format of its own.
const VENDOR: VendorErrors = VendorErrors {
    codes: &[("acme.limit", RateLimited), ("acme.dead", ReauthRequired)],
    code_fields: &["acme_error"],
    wait_fields: &["acmeSeconds"],
    search_text: true,
    reauth_on_400: false,
};

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn response(status: u16, content_type: &str, body: impl AsRef<[u8]>) -> RawResponse {
    let mut headers = HeaderMap::new();
    if !content_type.is_empty() {
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
    }
    RawResponse {
        endpoint: "https://a.example/token".to_owned(),
        credential: Credential::default(),
        status: StatusCode::from_u16(status).unwrap(),
        headers,
        body: Bytes::copy_from_slice(body.as_ref()),
        cut_at: None,
        broken: None,
    }
}

fn parsed(raw: &RawResponse) -> Result<TokenResponse, TokenError> {
    let sent = Now {
        mono: Instant::now(),
        wall: at(NOW),
    };
    raw.parse(&VENDOR, &[], sent, at(NOW + 2))
}

fn ok(body: &str) -> TokenResponse {
    parsed(&response(200, "application/json", body))
        .unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn rejected(status: u16, content_type: &str, body: &str) -> TokenError {
    match parsed(&response(status, content_type, body)) {
        Ok(response) => panic!("{status} {body}: {response:?}"),
        Err(error) => error,
    }
}

#[test]
fn a_plain_response_is_read_completely() {
    let response = ok(
        r#"{"access_token":"a+/=","token_type":"bearer","expires_in":900,"refresh_token":"r!/+","scope":"read write"}"#,
    );
    assert_eq!(response.token.as_ref().unwrap().header(), "Bearer a+/=");
    assert_eq!(response.token.as_ref().unwrap().scope(), Some("read write"));
    assert_eq!(response.refresh_token.unwrap().expose_secret(), "r!/+");
    assert_eq!(response.lifetime, Some(Duration::from_secs(900)));
    assert_eq!(response.expires_at, Some(at(NOW + 900)));
    assert_eq!(response.refresh_expires_at, None);
}

#[test]
fn the_lifetime_counts_from_before_the_request_was_sent() {
    let sent = Now {
        mono: Instant::now(),
        wall: at(NOW),
    };
    let raw = response(200, "", r#"{"access_token":"a","expires_in":"60"}"#);
    let response = raw.parse(&VENDOR, &[], sent, at(NOW + 20)).unwrap();
    let later = Now {
        mono: sent.mono + Duration::from_secs(20),
        wall: at(NOW + 20),
    };
    let expires = response
        .token
        .as_ref()
        .unwrap()
        .expires(later, later)
        .unwrap();
    assert_eq!(expires.mono, sent.mono + Duration::from_secs(60));
    assert_eq!(expires.wall, at(NOW + 60));
}

#[test]
fn a_lifetime_is_found_in_every_form() {
    let century = 100 * 365 * 86_400;
    for (fields, expected) in [
        (r#""expires_in":900"#, Some(900)),
        (r#""expires_in":"900""#, Some(900)),
        (r#""expires_in":"1296000""#, Some(1_296_000)),
        (r#""expires_in":899.9"#, Some(899)),
        (r#""expires_in":null"#, None),
        (r#""expires_in":"""#, None),
        (r#""expires_in":{}"#, None),
        (r#""x":1"#, None),
        (r#""expires_in":0"#, Some(0)),
        (r#""expires_in":-1"#, Some(0)),
        (r#""expires_in":1e300"#, Some(century)),
        (r#""expires_in":18446744073709551616"#, Some(century)),
        (r#""expires":"5108""#, Some(5108)),
        (r#""expires":1700000900"#, Some(900)),
        (r#""expires":"Tue, 14 Nov 2023 22:28:20 GMT""#, Some(900)),
        (r#""expires_on":1700000900"#, Some(900)),
        (r#""expires_on":"1700000900""#, Some(900)),
        (r#""expires_at":1700000900000"#, Some(900)),
        (r#""access_token_expiry":1700000900000"#, Some(900)),
        (r#""access_token_expiry":"1700000900000""#, Some(900)),
        (r#""access_token_expiry":1600000000000"#, Some(0)),
        (r#""access_token_expiry":0"#, None),
        (r#""expires_in":60,"expires_on":1700000900"#, Some(60)),
        (r#""expires_in":0,"expires_on":1700000900"#, Some(0)),
        (r#""expires_in":null,"expires_on":1700000900"#, Some(900)),
        (r#""expires_in":"soon","expires_on":1700000900"#, Some(900)),
        (
            r#""expires_in":1700000900,"expires_on":1700000900"#,
            Some(900),
        ),
        (
            r#""expires_in":9e18,"access_token_expiry":1700000900000"#,
            Some(900),
        ),
    ] {
        let response = ok(&format!(r#"{{"access_token":"a",{fields}}}"#));
        let expected = expected.map(Duration::from_secs);
        assert_eq!(response.lifetime, expected, "{fields}");
        assert_eq!(
            response.expires_at,
            expected.map(|lifetime| at(NOW) + lifetime),
            "{fields}"
        );
        let now = Now {
            mono: Instant::now(),
            wall: at(NOW),
        };
        let expires = response.token.as_ref().unwrap().expires(now, now);
        assert_eq!(
            expires.map(|expires| expires.lifetime),
            expected,
            "{fields}"
        );
    }
}

#[test]
fn absolute_times_are_corrected_by_the_servers_own_date() {
    for (date, ahead) in [
        ("Tue, 14 Nov 2023 23:13:20 GMT", 3600),
        ("Tue, 14 Nov 2023 21:13:20 GMT", -3600),
        ("Tue, 14 Nov 2023 22:13:20 GMT", 0),
    ] {
        let servers = |after: i64| (i64::try_from(NOW).unwrap() + ahead + after) * 1000;
        let body = format!(
            r#"{{"access_token":"a","access_token_expiry":{},"refresh_token_expiry":"{}"}}"#,
            servers(900),
            servers(86_400)
        );
        let mut raw = response(200, "application/json", body);
        raw.headers.insert(DATE, date.parse().unwrap());
        let response = parsed(&raw).unwrap();
        assert_eq!(response.lifetime, Some(Duration::from_secs(900)), "{date}");
        assert_eq!(response.expires_at, Some(at(NOW + 900)), "{date}");
        assert_eq!(
            response.refresh_expires_at,
            Some(at(NOW + 86_400)),
            "{date}"
        );
    }
}

#[test]
fn the_end_of_the_refresh_token_is_found_in_every_form() {
    for (field, expected) in [
        (r#""refresh_token_expiry":1700086400000"#, Some(86_400)),
        (r#""refresh_token_expiry":"1700086400000""#, Some(86_400)),
        (r#""refresh_token_expiry":1700086400"#, Some(86_400)),
        (r#""refresh_token_expires_in":86400"#, Some(86_400)),
        (r#""refresh_expires_in":"86400""#, Some(86_400)),
        (r#""refresh_expires_in":0"#, None),
        (r#""refresh_token_expiry":null"#, None),
        (r#""refresh_token_expiry":"never""#, None),
    ] {
        let response = ok(&format!(r#"{{"access_token":"a",{field}}}"#));
        assert_eq!(
            response.refresh_expires_at,
            expected.map(|end| at(NOW + end)),
            "{field}"
        );
    }
}

#[test]
fn no_refresh_token_keeps_the_old_one() {
    for field in [
        r#""x":1"#,
        r#""refresh_token":null"#,
        r#""refresh_token":"""#,
        r#""refresh_token":" ""#,
    ] {
        let response = ok(&format!(r#"{{"access_token":"a",{field}}}"#));
        assert!(response.refresh_token.is_none(), "{field}");
    }
}

#[test]
fn any_token_type_is_bearer_unless_a_header_is_not_enough() {
    for field in [
        r#""x":1"#,
        r#""token_type":null"#,
        r#""token_type":"""#,
        r#""token_type":"bearer""#,
        r#""token_type":"BEARER""#,
        r#""token_type":"User Access Token""#,
        r#""token_type":7"#,
    ] {
        let response = ok(&format!(r#"{{"access_token":"a",{field}}}"#));
        assert_eq!(
            response.token.as_ref().unwrap().header(),
            "Bearer a",
            "{field}"
        );
    }
    for (token_type, named) in [
        ("DPoP", "DPoP"),
        ("dpop", "DPoP"),
        ("MAC", "mac"),
        ("pop", "pop"),
    ] {
        let body = format!(r#"{{"access_token":"hunter2","token_type":"{token_type}"}}"#);
        let error = rejected(200, "application/json", &body);
        assert_eq!(error.kind(), Config);
        assert!(error.to_string().contains(named), "{error}");
        assert!(!error.is_transient());
    }
}

#[test]
fn scope_is_a_string_or_its_parts() {
    for (field, expected) in [
        (r#""scope":"a b""#, Some("a b")),
        (r#""scope":["a","b"]"#, Some("a b")),
        (r#""scope":null"#, None),
        (r#""scope":"""#, None),
        (r#""scope":[]"#, None),
    ] {
        let response = ok(&format!(r#"{{"access_token":"a",{field}}}"#));
        assert_eq!(
            response.token.as_ref().unwrap().scope(),
            expected,
            "{field}"
        );
    }
}

#[test]
fn json_and_forms_are_recognized_without_the_content_type() {
    let json = r#"{"access_token":"a+b","expires_in":60}"#;
    let form = "access_token=a%2Bb&expires=60&refresh_token=";
    for content_type in [
        "",
        "application/json",
        "application/x-www-form-urlencoded",
        "text/html; charset=utf-8",
    ] {
        for body in [json, form] {
            let response = parsed(&response(200, content_type, body)).unwrap();
            assert_eq!(response.token.as_ref().unwrap().header(), "Bearer a+b");
            assert_eq!(response.lifetime, Some(Duration::from_secs(60)));
            assert!(response.refresh_token.is_none());
        }
    }
    let error = rejected(
        200,
        "text/plain",
        "error=invalid_grant&error_description=hunter2",
    );
    assert_eq!(
        (error.kind(), error.oauth_code()),
        (ReauthRequired, Some("invalid_grant"))
    );
}

#[test]
fn a_byte_order_mark_white_space_and_unknown_or_repeated_fields_do_no_harm() {
    for body in [
        "\u{feff}{\"access_token\":\"a\"}",
        " \r\n\t{\"access_token\":\"a\"} \n\n",
        r#"{"access_token":"b","access_token":"a"}"#,
        r#"{"access_token":"a","data":{"access_token":"b"},"n":[1,2,{}]}"#,
        r#"{"access_token":"a","error":null,"errors":[],"acme_error":""}"#,
        r#"{"access_token":"a","error":""}"#,
        r#"{"access_token":"a","error":false,"success":1,"message":"welcome"}"#,
    ] {
        assert_eq!(
            ok(body).token.as_ref().unwrap().header(),
            "Bearer a",
            "{body}"
        );
    }
}

const JSON: &str = "application/json";
const HTML: &str = "<html><body>hunter2</body></html>";

type Case = (
    u16,
    &'static str,
    &'static str,
    TokenErrorKind,
    Option<&'static str>,
);

fn are_rejected(cases: &[Case]) {
    for &(status, content_type, body, kind, code) in cases {
        let error = rejected(status, content_type, body);
        assert_eq!(
            (error.kind(), error.oauth_code()),
            (kind, code),
            "{status} {body}: {error}"
        );
        assert!(
            !format!("{error}{error:?}{error:#?}").contains(SECRET),
            "{error:?}"
        );
        assert_eq!(error.status().unwrap().as_u16(), status, "{error:?}");
    }
}

#[test]
#[rustfmt::skip]
fn the_codes_of_the_standard_are_understood() {
    are_rejected(&[
        (400, JSON, r#"{"error":"invalid_grant"}"#, ReauthRequired, Some("invalid_grant")),
        (401, JSON, r#"{"error":"invalid_grant"}"#, ReauthRequired, Some("invalid_grant")),
        (400, JSON, r#"{"error":"invalid_client"}"#, InvalidClient, Some("invalid_client")),
        (401, JSON, r#"{"error":"invalid_client"}"#, InvalidClient, Some("invalid_client")),
        (400, JSON, r#"{"error":"unauthorized_client"}"#, InvalidRequest, Some("unauthorized_client")),
        (400, JSON, r#"{"error":"unsupported_grant_type"}"#, InvalidRequest, Some("unsupported_grant_type")),
        (400, JSON, r#"{"error":"invalid_scope"}"#, InvalidRequest, Some("invalid_scope")),
        (400, JSON, r#"{"error":"invalid_request"}"#, InvalidRequest, Some("invalid_request")),
        (400, JSON, r#"{"error":"temporarily_unavailable"}"#, Server, Some("temporarily_unavailable")),
        (400, JSON, r#"{"error":"server_error"}"#, Server, Some("server_error")),
        (400, JSON, r#"{"error":"slow_down"}"#, RateLimited, Some("slow_down")),
        (400, JSON, r#"{"error":"of_our_own"}"#, InvalidRequest, Some("of_our_own")),
        (401, JSON, r#"{"error":"access_denied"}"#, InvalidClient, Some("access_denied")),
    ]);
}

#[test]
#[rustfmt::skip]
fn a_200_without_a_token_is_an_error() {
    are_rejected(&[
        (200, JSON, r#"{"error":"bad_refresh_token"}"#, ReauthRequired, Some("bad_refresh_token")),
        (200, JSON, r#"{"error":"invalid_grant","access_token":"hunter2"}"#, ReauthRequired, Some("invalid_grant")),
        (200, JSON, r#"{"error":true}"#, InvalidResponse, None),
        (200, JSON, r#"{"access_token":"","token_type":"bearer"}"#, InvalidResponse, None),
        (200, JSON, r#"{"access_token":null}"#, InvalidResponse, None),
        (200, JSON, r#"{"access_token":7}"#, InvalidResponse, None),
        (200, JSON, r#"{"access_token":"hunter2 hunter2"}"#, InvalidToken, None),
        (200, JSON, r#"{"access_token":"hunter2""#, InvalidResponse, None),
        (200, JSON, r#"{"success":0}"#, InvalidResponse, None),
        (200, JSON, "{}", InvalidResponse, None),
        (200, JSON, "null", InvalidResponse, None),
        (200, JSON, r#"["hunter2"]"#, InvalidResponse, None),
        (200, JSON, "", InvalidResponse, None),
        (204, "", "", InvalidResponse, None),
        (200, "text/html", HTML, InvalidResponse, None),
        (200, "text/plain", "hunter2", InvalidResponse, None),
    ]);
}

#[test]
#[rustfmt::skip]
fn the_codes_of_a_vendor_are_understood_unless_the_status_says_not_now() {
    const NOT_JSON: &str = "{message:'acme.limit'}";
    const LIMIT: &str = r#"{"errors":[{"message":"acme.limit","acmeSeconds":60}]}"#;
    const TOKEN: &str = r#"{"success":0,"acme_error":"acme.dead"}"#;
    are_rejected(&[
        (200, JSON, NOT_JSON, RateLimited, Some("acme.limit")),
        (400, "text/html", NOT_JSON, RateLimited, Some("acme.limit")),
        (400, JSON, r#"{"message":"acme.limit"}"#, RateLimited, Some("acme.limit")),
        (200, JSON, LIMIT, RateLimited, Some("acme.limit")),
        (403, JSON, LIMIT, RateLimited, Some("acme.limit")),
        (200, JSON, TOKEN, ReauthRequired, Some("acme.dead")),
        (500, JSON, TOKEN, Server, Some("acme.dead")),
        (401, JSON, r#"{"error":"invalid_token","error_description":"hunter2"}"#, ReauthRequired, Some("invalid_token")),
    ]);
}

#[test]
fn the_codes_of_a_vendor_mean_nothing_at_other_servers() {
    let sent = Now {
        mono: Instant::now(),
        wall: at(NOW),
    };
    for (status, body, kind) in [
        (200, "{message:'acme.limit'}", InvalidResponse),
        (
            200,
            r#"{"success":0,"acme_error":"acme.dead"}"#,
            InvalidResponse,
        ),
        (403, r#"{"message":"acme.limit"}"#, InvalidResponse),
    ] {
        let raw = response(status, JSON, body);
        let error = raw
            .parse(&VendorErrors::NONE, &[], sent, at(NOW))
            .unwrap_err();
        assert_eq!((error.kind(), error.oauth_code()), (kind, None), "{body}");
    }
    let raw = response(429, JSON, r#"{"error":"slow_down","acmeSeconds":60}"#);
    let error = raw
        .parse(&VendorErrors::NONE, &[], sent, at(NOW))
        .unwrap_err();
    assert_eq!(error.retry_after(), None);
}

#[test]
#[rustfmt::skip]
fn a_code_is_found_in_objects_and_arrays_and_prose_is_ignored() {
    are_rejected(&[
        (400, JSON, r#"{"error":{"code":"invalid_grant","message":"hunter2"}}"#, ReauthRequired, Some("invalid_grant")),
        (400, JSON, r#"{"error":{"code":400,"message":"hunter2","status":"INVALID_ARGUMENT"}}"#, InvalidRequest, Some("INVALID_ARGUMENT")),
        (429, JSON, r#"{"error":{"code":429,"message":"hunter2","status":"RESOURCE_EXHAUSTED"}}"#, RateLimited, Some("RESOURCE_EXHAUSTED")),
        (400, JSON, r#"{"error":{"type":"OAuthException","code":1190}}"#, InvalidRequest, Some("1190")),
        (400, JSON, r#"{"error":["invalid_client"]}"#, InvalidClient, Some("invalid_client")),
        (400, JSON, r#"{"error":{"message":"hunter2"}}"#, InvalidRequest, None),
        (400, JSON, r#"{"errors":[{"message":"hunter2"}]}"#, InvalidRequest, None),
        (400, JSON, r#"{"status":400,"error":"Bad Request"}"#, InvalidRequest, None),
        (401, JSON, r#"{"error":"no entry for hunter2"}"#, InvalidClient, None),
    ]);
}

#[test]
#[rustfmt::skip]
fn without_a_known_code_the_status_decides() {
    are_rejected(&[
        (400, JSON, "", InvalidResponse, None),
        (400, "text/html", HTML, InvalidResponse, None),
        (400, JSON, r#"{"message":"hunter2"}"#, InvalidRequest, None),
        (400, JSON, r#"{"message":"hunter2: no such refresh token"}"#, ReauthRequired, None),
        (401, "", "", InvalidClient, None),
        (401, "text/html", HTML, InvalidResponse, None),
        (403, "text/html", HTML, Server, None),
        (403, "", HTML, Server, None),
        (403, JSON, "{}", InvalidResponse, None),
        (403, JSON, r#"{"error":"forbidden"}"#, InvalidRequest, Some("forbidden")),
        (404, "text/html", HTML, InvalidResponse, None),
        (405, "", "", InvalidResponse, None),
        (413, "text/html", HTML, InvalidResponse, None),
        (415, "", "", InvalidResponse, None),
        (421, "", "", InvalidResponse, None),
        (408, "", "", Timeout, None),
        (425, "", "", Server, None),
        (429, "text/html", HTML, RateLimited, None),
        (429, JSON, r#"{"error":"invalid_grant"}"#, RateLimited, Some("invalid_grant")),
        (500, JSON, r#"{"error":"server_error"}"#, Server, Some("server_error")),
        (500, JSON, r#"{"error":"invalid_request"}"#, Server, Some("invalid_request")),
        (500, JSON, r#"{"error":"of_our_own"}"#, Server, Some("of_our_own")),
        (500, JSON, r#"{"access_token":"hunter2"}"#, Server, None),
        (502, "text/html", HTML, Server, None),
        (503, "", "", Server, None),
        (301, "text/html", HTML, InvalidResponse, None),
        (302, "", "", InvalidResponse, None),
        (307, JSON, r#"{"access_token":"hunter2"}"#, InvalidResponse, None),
        (308, JSON, r#"{"error":"invalid_grant"}"#, InvalidResponse, None),
    ]);
}

#[test]
#[rustfmt::skip]
fn only_a_server_that_declares_the_grant_dead_ends_the_session() {
    use Recovery::{Never, Slowly, SlowlyWhenNeeded, Soon};
    const STRAVA: &str = r#"{"message":"Bad Request","errors":[{"resource":"RefreshToken","field":"refresh_token","code":"invalid"}]}"#;
    const FACEBOOK: &str = r#"{"error":{"message":"hunter2","type":"OAuthException","code":190}}"#;
    for (status, body, recovery, if_configured) in [
        (400, r#"{"error":"invalid_grant"}"#, Never, Never),
        (401, r#"{"error":"invalid_grant"}"#, Never, Never),
        (200, r#"{"error":"bad_refresh_token"}"#, Never, Never),
        (400, r#"{"acme_error":"acme.dead"}"#, Never, Never),
        // The status wins.
        (429, r#"{"error":"invalid_grant"}"#, Soon, Soon),
        (500, r#"{"error":"invalid_grant"}"#, Soon, Soon),
        (503, r#"{"error":"invalid_client"}"#, Soon, Soon),
        (503, STRAVA, Soon, Soon),
        // Dead only for those who know the server.
        (400, STRAVA, Slowly, Never),
        (400, FACEBOOK, Slowly, Never),
        (403, r#"{"error":"unauthorized_client"}"#, Slowly, Never),
        (400, r#"{"error":"unauthorized_client"}"#, Slowly, Slowly),
        // Somebody may correct it.
        (401, r#"{"error":"invalid_client"}"#, Slowly, Slowly),
        (400, r#"{"error":"invalid_scope"}"#, Slowly, Slowly),
        (400, r#"{"error":"of_our_own"}"#, Slowly, Slowly),
        (400, r#"{"error":"interaction_required"}"#, Slowly, Slowly),
        // It may hide a rotation.
        (404, HTML, SlowlyWhenNeeded, SlowlyWhenNeeded),
        (400, HTML, SlowlyWhenNeeded, SlowlyWhenNeeded),
        (401, HTML, SlowlyWhenNeeded, SlowlyWhenNeeded),
        (403, "{}", SlowlyWhenNeeded, SlowlyWhenNeeded),
        (421, "", SlowlyWhenNeeded, SlowlyWhenNeeded),
        (400, r#"{"detail":"the refresh token is unknown"}"#, SlowlyWhenNeeded, SlowlyWhenNeeded),
        (200, HTML, SlowlyWhenNeeded, SlowlyWhenNeeded),
        (200, "{\"access_token\":\"a\\u0007\"}", SlowlyWhenNeeded, SlowlyWhenNeeded),
        (302, "", SlowlyWhenNeeded, SlowlyWhenNeeded),
    ] {
        let sent = Now { mono: Instant::now(), wall: at(NOW) };
        let configured = [DeadGrant::STRAVA, DeadGrant::FACEBOOK, DeadGrant::ATLASSIAN];
        for (dead_grants, expected) in [(&[][..], recovery), (&configured[..], if_configured)] {
            let raw = response(status, "", body);
            let error = raw.parse(&VENDOR, dead_grants, sent, at(NOW)).unwrap_err();
            assert_eq!(error.recovery(), expected, "{status} {body}: {error}");
            assert_eq!(error.is_final(), expected == Never);
            if expected == Never {
                assert_eq!(error.kind(), ReauthRequired, "{status} {body}");
            }
        }
    }
}

#[test]
fn a_rejection_without_a_reason_says_so() {
    let error = rejected(
        400,
        JSON,
        r#"{"detail":"hunter2: the refresh token is unknown"}"#,
    );
    assert_eq!(error.kind(), ReauthRequired);
    assert!(error.to_string().contains("without saying why"), "{error}");
    assert!(
        !rejected(400, "", r#"{"error":"invalid_grant"}"#)
            .to_string()
            .contains("without")
    );
}

#[test]
fn an_error_tells_status_type_and_size_of_the_response() {
    let error = rejected(200, "Text/HTML; charset=utf-8", "<html>hunter2</html>");
    for part in [
        "HTTP 200",
        "https://a.example/token answered text/html",
        "20 bytes",
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(
        rejected(502, "", "")
            .to_string()
            .contains("no content type, empty")
    );
    assert!(
        !rejected(502, "hunter2 <b>", "")
            .to_string()
            .contains(SECRET)
    );
    let redirect = rejected(307, "", "").to_string();
    assert!(
        redirect.contains("never followed") && redirect.contains("final URL"),
        "{redirect}"
    );
}

#[test]
fn the_wait_comes_from_the_header_or_the_body() {
    let body = r#"{"errors":[{"message":"acme.limit","acmeSeconds":60}]}"#;
    let text = r#"{"errors":[{"message":"acme.limit","acmeSeconds":"60"}]}"#;
    for (status, header, body, expected) in [
        (200, None, body, Some(60)),
        (429, None, text, Some(60)),
        (429, Some("30"), body, Some(60)),
        (429, Some("90"), body, Some(90)),
        (429, Some("90"), "", Some(90)),
        (503, Some("Tue, 14 Nov 2023 22:14:22 GMT"), "", Some(60)),
        (400, Some("5"), r#"{"error":"slow_down"}"#, Some(5)),
        (503, Some("later"), "", None),
        (429, None, "", None),
        (
            429,
            None,
            r#"{"errors":[{"message":"acme.limit","acmeSeconds":1e99}]}"#,
            Some(86_400),
        ),
    ] {
        let mut raw = response(status, "application/json", body);
        if let Some(header) = header {
            raw.headers.insert(RETRY_AFTER, header.parse().unwrap());
        }
        let error = parsed(&raw).unwrap_err();
        assert_eq!(
            error.retry_after(),
            expected.map(Duration::from_secs),
            "{header:?} {body}"
        );
    }
}

#[test]
fn a_response_over_the_limit_names_the_limit_and_keeps_its_status() {
    let mut raw = response(200, "application/json", r#"{"access_token":"hunter2"}"#);
    raw.cut_at = Some(26);
    let error = parsed(&raw).unwrap_err();
    assert_eq!(error.kind(), InvalidResponse);
    assert!(error.to_string().contains("limit of 26 bytes"), "{error}");
    assert!(error.to_string().contains("max_response_size"), "{error}");
    raw.status = StatusCode::BAD_GATEWAY;
    assert_eq!(parsed(&raw).unwrap_err().kind(), Server);
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[0-9]{1,40}".prop_map(Value::from),
        Just(Value::from("invalid_grant")),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(field(), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn field() -> impl Strategy<Value = String> {
    let known = [RELATIVE, ABSOLUTE, REFRESH_RELATIVE, REFRESH_ABSOLUTE].concat();
    prop_oneof![
        prop::sample::select(known).prop_map(str::to_owned),
        prop::sample::select(vec![
            "access_token",
            "token_type",
            "refresh_token",
            "scope",
            "error",
            "errors",
            "message",
            "acmeSeconds",
            "acme_error",
            "code",
        ])
        .prop_map(str::to_owned),
        ".{0,8}",
    ]
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        status in 100_u16..1000,
        body in prop::collection::vec(any::<u8>(), 0..256),
        retry_after in prop::collection::vec(32_u8..127, 0..32),
        date in prop::collection::vec(32_u8..127, 0..32),
    ) {
        let mut raw = response(status, "", body);
        raw.headers.insert(RETRY_AFTER, http::HeaderValue::from_bytes(&retry_after).unwrap());
        raw.headers.insert(DATE, http::HeaderValue::from_bytes(&date).unwrap());
        let _ = parsed(&raw);
    }

    #[test]
    fn no_json_makes_it_panic(
        status in prop::sample::select(vec![200_u16, 201, 400, 401, 403, 429, 500]),
        fields in prop::collection::hash_map(field(), json(), 0..8),
        date in prop::option::of(0_u64..253_402_300_799),
    ) {
        let fields = Value::Object(fields.into_iter().collect());
        let mut raw = response(status, "application/json", fields.to_string());
        if let Some(date) = date {
            raw.headers.insert(DATE, httpdate::fmt_http_date(at(date)).parse().unwrap());
        }
        if let Ok(response) = parsed(&raw) {
            let given = |name| fields[name].as_str().is_some_and(|text| !text.is_empty());
            prop_assert!(status < 300);
            prop_assert!(response.token.is_err() || given("access_token"));
            // An unusable access token is excused only by a refresh token beside it.
            prop_assert!(response.token.is_ok() || response.refresh_token.is_some());
            prop_assert!(response.refresh_token.is_none() || given("refresh_token"));
        }
    }
}

#[test]
fn the_other_members_of_a_response_stay_with_the_token() {
    let response = ok(
        r#"{"access_token":"a","token_type":" bearer ","expires_in":900,"refresh_token":"r","refresh_expires_in":9,
            "scope":["read","write"],"id_token":"ey.ey.sig","instance_url":"https://eu4.example","tenant":{"id":7}}"#,
    );
    let token = response.token.unwrap();
    assert_eq!(token.token_type(), Some("bearer"));
    assert_eq!(token.scope(), Some("read write"));
    assert_eq!(token.id_token(), Some("ey.ey.sig"));
    assert_eq!(token.extra("instance_url").unwrap(), "https://eu4.example");
    assert_eq!(token.extra("tenant").unwrap()["id"], 7);
    for interpreted in [
        "access_token",
        "refresh_token",
        "expires_in",
        "refresh_expires_in",
        "scope",
        "id_token",
    ] {
        assert!(token.extra(interpreted).is_none(), "{interpreted}");
    }
}
