use proptest::prelude::*;

use url::Url;

use super::*;

fn uri(text: &str) -> Uri {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn some() -> Origins {
    Origins::only([
        "https://api.example.com",
        "https://API2.example.com:443/",
        "https://xn--bcher-kva.example:8443",
        "https://[2001:DB8::1]:444",
        "https://192.0.2.1",
        "http://localhost:8080",
        "http://127.0.0.1",
        "http://[::1]:9",
    ])
    .unwrap()
}

#[test]
fn a_token_goes_to_the_listed_origins_however_they_are_spelled() {
    for text in [
        "https://api.example.com",
        "https://api.example.com/",
        "https://api.example.com/v1?x=y@z",
        "HTTPS://API.example.COM/",
        "https://api.example.com:443/",
        "https://api.example.com:0443/",
        "https://api.example.com:/",
        "https://user:password@api.example.com/",
        "https://api2.example.com/",
        "https://api2.example.com:443/",
        "https://xn--bcher-kva.example:8443/",
        "https://XN--BCHER-KVA.example:8443/",
        "https://[2001:db8::1]:444/",
        "https://[2001:db8:0:0:0:0:0:1]:444/",
        "https://192.0.2.1/",
        "http://localhost:8080/",
        "http://127.0.0.1:80/",
        "http://[::1]:9/",
        // Relative: to wherever the service below is connected.
        "/v1/orders",
        "/",
        "*",
    ] {
        assert_eq!(some().check(&uri(text)), OriginMatch::Allowed, "{text}");
        assert!(some().allows(&uri(text)), "{text}");
    }
}

#[test]
fn a_token_goes_nowhere_else() {
    for text in [
        "http://api.example.com/",
        "http://api.example.com:443/",
        "https://api.example.com:444/",
        "https://api.example.com:65979/",
        "https://api.example.com:99999999999/",
        "https://api.example.com:+443/",
        "https://example.com/",
        "https://v1.api.example.com/",
        "https://api.example.com.evil.example/",
        "https://api.example.com@evil.example/",
        "https://api.example.com:443@evil.example/",
        "https://evil.example/api.example.com",
        "https://evil.example/?https://api.example.com",
        "https://api.example.com./",
        "https://apiXexample.com/",
        "https://bcher.example:8443/",
        "https://xn--bcher-kva.example/",
        "https://[2001:db8::1]/",
        "https://[2001:db8::2]:444/",
        "https://[::ffff:192.0.2.1]/",
        "https://192.0.2.1.example/",
        "https://localhost:8080/",
        "http://localhost/",
        "http://localhost.evil.example:8080/",
        "http://127.0.0.2/",
        "ftp://api.example.com/",
        "wss://api.example.com/",
        // A tunnel's head is for the proxy.
        "api.example.com:443",
    ] {
        assert_eq!(some().check(&uri(text)), OriginMatch::NotAllowed, "{text}");
        assert!(!some().allows(&uri(text)), "{text}");
    }
}

#[test]
fn any_https_is_https_or_the_loopback() {
    for (expected, text) in [
        (OriginMatch::Allowed, "/relative"),
        (OriginMatch::Allowed, "https://anything.example/"),
        (OriginMatch::Allowed, "https://anything.example:1/"),
        (OriginMatch::Allowed, "http://localhost/"),
        (OriginMatch::Allowed, "http://LocalHost:8080/"),
        (OriginMatch::Allowed, "http://127.0.0.1/"),
        (OriginMatch::Allowed, "http://127.1.2.3:8080/"),
        (OriginMatch::Allowed, "http://[::1]:8080/"),
        (OriginMatch::Allowed, "http://api.localhost/"),
        (OriginMatch::Allowed, "http://[0:0:0:0:0:0:0:1]/"),
        (OriginMatch::Insecure, "http://anything.example/"),
        (OriginMatch::Insecure, "HTTP://anything.example:443/"),
        (OriginMatch::Insecure, "http://localhost@evil.example/"),
        (OriginMatch::Insecure, "http://127.0.0.1@evil.example/"),
        (OriginMatch::Insecure, "http://localhost:80@evil.example/"),
        (OriginMatch::Insecure, "http://localhost:65536/"),
        (OriginMatch::Insecure, "http://localhost.evil.example/"),
        (OriginMatch::Insecure, "http://localhost./"),
        (OriginMatch::Insecure, "http://127.0.0.1.evil.example/"),
        (OriginMatch::Insecure, "http://127.evil/"),
        (OriginMatch::Insecure, "http://128.0.0.1/"),
        (OriginMatch::Insecure, "http://[::2]/"),
        (OriginMatch::Insecure, "http://[::ffff:127.0.0.1]/"),
        (OriginMatch::Insecure, "http://0.0.0.0/"),
        (OriginMatch::Insecure, "http://0x7f.1/"),
        (OriginMatch::Insecure, "http://127.1/"),
        (OriginMatch::Insecure, "http://2130706433/"),
        (OriginMatch::Insecure, "http://0177.0.0.1/"),
        (OriginMatch::NotAllowed, "ws://localhost/"),
        (OriginMatch::NotAllowed, "anything.example:443"),
    ] {
        assert_eq!(Origins::any_https().check(&uri(text)), expected, "{text}");
    }
}

#[test]
fn a_url_with_more_than_an_origin_or_over_plain_http_is_rejected() {
    use TokenErrorKind::{Config, InsecureOrigin};
    for (kind, text) in [
        (InsecureOrigin, "http://api.example.com"),
        (InsecureOrigin, "http://localhost.example"),
        (InsecureOrigin, "ftp://api.example.com"),
        (InsecureOrigin, "wss://api.example.com"),
        (Config, ""),
        (Config, "api.example.com"),
        (Config, "localhost:8080"),
        (Config, "/v1"),
        (Config, "https://"),
        (Config, "https://api.example.com/v1"),
        (Config, "https://api.example.com//"),
        (Config, "https://api.example.com?"),
        (Config, "https://api.example.com#x"),
        (Config, "https://s3cret@api.example.com"),
        (Config, "https://user:s3cret@api.example.com"),
        (Config, "https://user:s3cret@api.example.com:99999"),
        (Config, "https://*.example.com:x"),
        (Config, "https://ex%61mple.com"),
        (Config, "https://0x7f.1"),
        (Config, "http://127.1"),
        (Config, "https://:443"),
        (Config, "data:text/plain,x"),
    ] {
        let error = Origins::only(["https://ok.example", text]).unwrap_err();
        assert_eq!(error.kind(), kind, "{text}");
        assert!(
            !format!("{error} {error:?}").contains("s3cret"),
            "{error:?}"
        );
    }
}

#[test]
fn an_internationalized_origin_must_be_in_punycode() {
    let error = Origins::only(["https://b\u{fc}cher.example"]).unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert!(
        error.to_string().contains("punycode (`xn--...`)"),
        "{error}"
    );
    assert!(!error.to_string().contains("cher"), "{error}");
}

#[test]
fn an_empty_list_is_rejected() {
    let error = Origins::only([""; 0]).unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
}

#[test]
fn debug_shows_the_origins() {
    let origins = Origins::only(["https://XN--Bcher-kva.example:443", "http://[::1]:80"]).unwrap();
    assert_eq!(
        format!("{origins:?}"),
        "Origins[https://xn--bcher-kva.example, http://[::1]]"
    );
    assert_eq!(format!("{:?}", Origins::any_https()), "Origins(any https)");
}

#[test]
fn clones_share_one_list() {
    let origins = some();
    let (Some(a), Some(b)) = (&origins.allowed, &origins.clone().allowed) else {
        panic!("both have a list");
    };
    assert!(Arc::ptr_eq(a, b));
}

/// Pieces of authorities that are alike enough to be confused.
fn authority() -> impl Strategy<Value = String> {
    let user = prop_oneof![3 => Just(""), 1 => Just("a.example@"), 1 => Just("u:443@"), 1 => Just("localhost:80@")];
    let host = prop_oneof![
        Just("a.example"),
        Just("A.Example"),
        Just("b.example"),
        Just("a.example."),
        Just("localhost"),
        Just("LOCALHOST"),
        Just("127.0.0.1"),
        Just("127.8.8.8"),
        Just("192.0.2.1"),
        Just("[::1]"),
        Just("[0::1]"),
        Just("[2001:db8::A]"),
        Just("[2001:db8:0::a]"),
    ];
    let port = prop_oneof![
        Just(""),
        Just(":"),
        Just(":443"),
        Just(":80"),
        Just(":0080"),
        Just(":8080")
    ];
    (user, host, port).prop_map(|(user, host, port)| format!("{user}{host}{port}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn origins_are_equal_if_browsers_say_so(
        schemes in prop::array::uniform2(prop_oneof![3 => Just("https"), 1 => Just("http"), 1 => Just("HTTPS")]),
        authorities in prop::array::uniform2(authority()),
    ) {
        let [listed, asked] = [0, 1].map(|i| format!("{}://{}/", schemes[i], authorities[i]));
        let [listed_url, asked_url] = [&listed, &asked].map(|text| Url::parse(text).unwrap());
        if let Ok(origins) = Origins::only([&listed]) {
            let same = listed_url.origin() == asked_url.origin();
            prop_assert_eq!(origins.allows(&uri(&asked)), same, "{} {}", listed, asked);
            prop_assert!(origins.allows(&uri(&listed)));
        } else {
            let rejected = listed.contains('@') || listed_url.scheme() == "http";
            prop_assert!(rejected, "{}", listed);
        }
    }

    #[test]
    fn a_usual_form_of_the_loopback_is_a_loopback_if_parsed(
        text in "(localhost|127\\.0\\.0\\.1|\\[::1\\])(:?[0-9]{0,6}|[a:@.\\[\\]0-9%+-]{0,6})",
    ) {
        let parsed = request_host(&text).is_some_and(|(host, _)| host.is_loopback());
        prop_assert!(parsed || !is_usual_loopback(&text));
    }

    #[test]
    fn no_uri_can_make_it_panic(text in "(https?://)?[a:@.\\[\\]0-9%+-]{0,12}/?") {
        if let Ok(uri) = text.parse::<Uri>() {
            some().check(&uri);
            Origins::any_https().check(&uri);
        }
    }
}

#[test]
fn a_wildcard_is_an_error_that_says_what_to_do() {
    for origin in [
        "https://*.example.com",
        "https://*",
        "*",
        "http://*.localhost",
    ] {
        let error = Origins::only([origin]).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config, "{origin}");
        let text = error.to_string();
        assert!(
            text.contains("wildcards") && text.contains("list each origin"),
            "{text}"
        );
    }
}
