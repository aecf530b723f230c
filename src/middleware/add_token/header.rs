//! The `Authorization` of a request: ours, unless the caller has set one.

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

/// Whether the caller has set one himself. That is his business, and left alone.
#[inline]
pub(super) fn is_set(headers: &HeaderMap) -> bool {
    headers.contains_key(AUTHORIZATION)
}

/// Puts `value` on, unless the caller has set one himself; then it returns false.
///
/// Almost nobody has, so it is the insertion that finds out: to look first would cost as much again.
#[inline]
pub(super) fn put_on(headers: &mut HeaderMap, value: &HeaderValue) -> bool {
    let set = headers.append(AUTHORIZATION, value.clone());
    if set {
        take_off_the_last(headers);
    }
    !set
}

#[cold]
fn take_off_the_last(headers: &mut HeaderMap) {
    let all = headers.get_all(AUTHORIZATION).iter();
    let mut own: Vec<HeaderValue> = all.cloned().collect();
    own.pop();
    let mut own = own.into_iter();
    if let Some(first) = own.next() {
        // Instead of them all, at their place among the other headers.
        headers.insert(AUTHORIZATION, first);
    }
    for value in own {
        headers.append(AUTHORIZATION, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: HeaderValue = HeaderValue::from_static("Bearer token");

    fn headers(own: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("accept", HeaderValue::from_static("text/plain"));
        for value in own {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        headers.append("accept", HeaderValue::from_static("text/html"));
        headers.insert("user-agent", HeaderValue::from_static("tests"));
        headers.insert("x-last", HeaderValue::from_static("last"));
        headers
    }

    #[test]
    fn a_request_without_one_gets_the_token() {
        let mut map = headers(&[]);
        assert!(!is_set(&map));
        assert!(put_on(&mut map, &TOKEN));
        assert_eq!(map, headers(&["Bearer token"]));
    }

    #[test]
    fn what_the_caller_has_set_stays_as_it_was() {
        for own in [
            &["Basic abc"][..],
            &[""],
            &["Bearer token"],
            &["one", "two"],
            &["a", "b", "a"],
        ] {
            let mut map = headers(own);
            assert!(is_set(&map));
            assert!(!put_on(&mut map, &TOKEN));
            // Compared in their order, which a comparison of the maps leaves out.
            assert!(map.iter().eq(headers(own).iter()), "{own:?}: {map:?}");
            let kept: Vec<_> = map.get_all(AUTHORIZATION).iter().collect();
            assert_eq!(kept, own, "{own:?}");
        }
    }
}
