//! Numbers and times as token endpoints write them.

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap,
    header::{AGE, DATE, HeaderName, RETRY_AFTER},
};
use secrecy::zeroize::Zeroizing;
use serde_json::Value;

use crate::clock::Now;

/// Longer lifetimes are cut to this, so that adding them to a clock cannot overflow.
const LONGEST_LIFETIME: Duration = Duration::from_secs(100 * 365 * 86_400);

const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(86_400);

/// Seconds since 1970. Smaller numbers are before September 2001, when no token expires.
const EARLIEST_TIME: f64 = 1e9;

/// The year 2200. A clock that is further ahead is broken.
const LATEST_DATE: f64 = 7_258_118_400.0;

/// Numbers from here on are milliseconds: in seconds this is the year 5138, in milliseconds 1973.
const MILLISECONDS_FROM: f64 = 1e11;

/// The clock readings that times in a response are compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Before the request was sent.
    pub(super) sent: Now,
    /// When the response was complete.
    pub(super) received: SystemTime,
    /// When the server responded, by its own clock.
    pub(super) date: Option<SystemTime>,
}

impl Times {
    pub(super) fn new(headers: &HeaderMap, sent: Now, received: SystemTime) -> Self {
        // A cache on the way tells for how long it has had the response (RFC 9111 §5.1).
        let age = text(headers, &AGE).and_then(|age| age.parse().ok());
        let age = Duration::from_secs(age.unwrap_or(0));
        let from_1970 = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs_f64(secs);
        let plausible = from_1970(EARLIEST_TIME)..from_1970(LATEST_DATE);
        let date = text(headers, &DATE).and_then(http_date);
        let date = date.and_then(|date| date.checked_add(age));
        let date = date.filter(|date| plausible.contains(date));
        Self {
            sent,
            received,
            date,
        }
    }

    /// The time from sending the request until `end`, which the server wrote.
    ///
    /// Both are read from the server's clock if the response has a `Date`, so that a wrong clock does no harm.
    pub(super) fn until(&self, end: SystemTime) -> Duration {
        end.duration_since(self.date.unwrap_or(self.sent.wall))
            .unwrap_or_default()
            .min(LONGEST_LIFETIME)
    }

    /// The `Retry-After` of a response, in either form (RFC 9110 §10.2.3), at most a day.
    pub(super) fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = text(headers, &RETRY_AFTER)?;
        let wait = duration(text).or_else(|| {
            let until = http_date(text)?;
            let now = self.date.unwrap_or(self.received);
            Some(until.duration_since(now).unwrap_or_default())
        })?;
        Some(wait.min(LONGEST_RETRY_AFTER))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// A finite number, or a string that holds one.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number: &f64| number.is_finite())
}

/// Whole seconds. Negative numbers count as zero, huge ones as a hundred years.
pub(super) fn seconds(value: &Value) -> Option<Duration> {
    let seconds = number(value)?
        .floor()
        .clamp(0.0, LONGEST_LIFETIME.as_secs_f64());
    Some(Duration::from_secs_f64(seconds))
}

/// How long to wait, at most a day.
pub(super) fn wait(value: &Value) -> Option<Duration> {
    seconds(value).map(|wait| wait.min(LONGEST_RETRY_AFTER))
}

/// A date, or seconds or milliseconds since 1970, which differ in size.
pub(super) fn time(value: &Value) -> Option<SystemTime> {
    let Some(number) = number(value) else {
        return http_date(value.as_str()?.trim());
    };
    let seconds = if number >= MILLISECONDS_FROM {
        number / 1e3
    } else {
        number
    };
    if seconds < EARLIEST_TIME {
        return None;
    }
    // Twice, because the time also spans the years from 1970 until now.
    let longest = 2.0 * LONGEST_LIFETIME.as_secs_f64();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs_f64(seconds.min(longest)))
}

fn duration(text: &str) -> Option<Duration> {
    seconds(&Value::String(text.to_owned()))
}

/// A date of RFC 9110 §5.6.7, in any case.
fn http_date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok().or_else(|| {
        let mut proper = Zeroizing::new(text.to_ascii_lowercase());
        for (at, _) in text.match_indices(|c: char| c.is_ascii_alphabetic()) {
            if at == 0 || !text.as_bytes()[at - 1].is_ascii_alphabetic() {
                proper[at..=at].make_ascii_uppercase();
            }
        }
        if let Some(zone) = proper.find("Gmt") {
            proper[zone..zone + 3].make_ascii_uppercase();
        }
        httpdate::parse_http_date(&proper).ok()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;

    const NOW: u64 = 1_700_000_000; // Tue, 14 Nov 2023 22:13:20 GMT

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn times(date: Option<&str>) -> Times {
        let mut headers = HeaderMap::new();
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        let sent = Now {
            mono: Instant::now(),
            wall: at(NOW),
        };
        Times::new(&headers, sent, at(NOW + 2))
    }

    #[test]
    fn a_lifetime_is_a_number_or_a_string_that_holds_one() {
        for (value, expected) in [
            (json!(900), Some(900)),
            (json!("900"), Some(900)),
            (json!(" 900 "), Some(900)),
            (json!("1296000"), Some(1_296_000)),
            (json!(899.9), Some(899)),
            (json!("899.9"), Some(899)),
            (json!(0.9), Some(0)),
            (json!(0), Some(0)),
            (json!("0"), Some(0)),
            (json!(-1), Some(0)),
            (json!("-3600"), Some(0)),
            (json!(u64::MAX), Some(LONGEST_LIFETIME.as_secs())),
            (
                json!(i64::MAX.to_string()),
                Some(LONGEST_LIFETIME.as_secs()),
            ),
            (json!(1e300), Some(LONGEST_LIFETIME.as_secs())),
            (json!(null), None),
            (json!(""), None),
            (json!("soon"), None),
            (json!("NaN"), None),
            (json!("inf"), None),
            (json!(true), None),
            (json!([900]), None),
            (json!({"seconds": 900}), None),
        ] {
            assert_eq!(
                seconds(&value),
                expected.map(Duration::from_secs),
                "{value}"
            );
        }
    }

    #[test]
    fn seconds_and_milliseconds_since_1970_differ_in_size() {
        for (value, expected) in [
            (json!(NOW), Some(NOW)),
            (json!(NOW.to_string()), Some(NOW)),
            (json!(NOW * 1000), Some(NOW)),
            (json!((NOW * 1000).to_string()), Some(NOW)),
            (
                json!(99_999_999_999_u64),
                Some(2 * LONGEST_LIFETIME.as_secs()),
            ),
            (json!(100_000_000_000_u64), None),
            (json!(1_000_000_000_000_u64), Some(1_000_000_000)),
            (json!("Tue, 14 Nov 2023 22:13:20 GMT"), Some(NOW)),
            (json!(u64::MAX), Some(2 * LONGEST_LIFETIME.as_secs())),
            (json!(0), None),
            (json!(-1), None),
            (json!(3600), None),
            (json!(null), None),
            (json!(""), None),
            (json!("never"), None),
        ] {
            assert_eq!(time(&value), expected.map(at), "{value}");
        }
    }

    #[test]
    fn a_servers_times_are_measured_by_its_own_clock() {
        let end = at(NOW + 900);
        assert_eq!(times(None).until(end), Duration::from_secs(900));
        // Its clock is an hour ahead, and an hour behind.
        let ahead = times(Some("Tue, 14 Nov 2023 23:13:20 GMT"));
        assert_eq!(ahead.until(at(NOW + 3600 + 900)), Duration::from_secs(900));
        let behind = times(Some("tue, 14 nov 2023 21:13:20 gmt"));
        assert_eq!(behind.until(at(NOW - 3600 + 900)), Duration::from_secs(900));
        assert_eq!(ahead.until(at(NOW)), Duration::ZERO);
        // A clock that was never set, and one that is broken.
        for wild in [
            "Thu, 01 Jan 1970 00:00:07 GMT",
            "Fri, 31 Dec 9999 23:59:59 GMT",
        ] {
            assert_eq!(times(Some(wild)).until(end), Duration::from_secs(900));
        }
    }

    #[test]
    fn the_age_of_a_cached_response_is_added_to_its_date() {
        let date = |age: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(DATE, "Tue, 14 Nov 2023 22:13:20 GMT".parse().unwrap());
            headers.insert(AGE, age.parse().unwrap());
            let sent = Now {
                mono: Instant::now(),
                wall: at(NOW),
            };
            Times::new(&headers, sent, at(NOW)).date
        };
        assert_eq!(date("600"), Some(at(NOW + 600)));
        assert_eq!(date("soon"), Some(at(NOW)));
        assert_eq!(date("18446744073709551615"), None);
    }

    #[test]
    fn retry_after_is_understood_in_both_forms() {
        let date = Some("Tue, 14 Nov 2023 23:13:20 GMT");
        for (date, header, expected) in [
            (None, "120", Some(120)),
            (None, "  120 ", Some(120)),
            (None, "0", Some(0)),
            (None, "-5", Some(0)),
            (None, "1.5", Some(1)),
            (None, "99999999999999999999", Some(86_400)),
            (None, "Tue, 14 Nov 2023 22:14:22 GMT", Some(60)),
            (None, " tue, 14 nov 2023 22:14:22 gmt ", Some(60)),
            (None, "Tue, 14 Nov 2023 22:13:00 GMT", Some(0)),
            (None, "Mon, 14 Nov 2033 22:13:00 GMT", Some(86_400)),
            (None, "Tuesday, 14-Nov-23 22:14:22 GMT", Some(60)),
            (date, "Tue, 14 Nov 2023 23:14:20 GMT", Some(60)),
            (date, "Tue, 14 Nov 2023 22:14:20 GMT", Some(0)),
            (None, "", None),
            (None, "later", None),
            (None, "\u{e9}", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(
                RETRY_AFTER,
                http::HeaderValue::from_bytes(header.as_bytes()).unwrap(),
            );
            assert_eq!(
                times(date).retry_after(&headers),
                expected.map(Duration::from_secs),
                "{header:?} at {date:?}"
            );
        }
        assert_eq!(times(None).retry_after(&HeaderMap::new()), None);
    }
}
