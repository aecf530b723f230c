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
fn a_request_without_authorization_gets_the_token() {
    let mut map = headers(&[]);
    assert!(!has_authorization(&map));
    assert!(add_authorization(&mut map, &TOKEN));
    assert_eq!(map, headers(&["Bearer token"]));
}

#[test]
fn the_callers_own_authorization_stays_as_it_was() {
    for own in [
        &["Basic abc"][..],
        &[""],
        &["Bearer token"],
        &["one", "two"],
        &["a", "b", "a"],
    ] {
        let mut map = headers(own);
        assert!(has_authorization(&map));
        assert!(!add_authorization(&mut map, &TOKEN));
        // `HeaderMap`'s own comparison ignores the order.
        assert!(map.iter().eq(headers(own).iter()), "{own:?}: {map:?}");
        let kept: Vec<_> = map.get_all(AUTHORIZATION).iter().collect();
        assert_eq!(kept, own, "{own:?}");
    }
}
