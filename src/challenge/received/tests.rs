use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};

use super::*;

fn challenge(lines: &[&str]) -> Option<Challenge> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(line).unwrap());
    }
    Challenge::from_headers(&headers)
}

#[test]
fn a_challenge_has_the_parameters_of_all_standards() {
    let all = challenge(&[concat!(
        r#"Bearer realm="api", error="insufficient_scope", scope="a b", "#,
        r#"resource_metadata="https://api.example/.well-known/x", claims="e30=", acr_values="urn:x y", max_age=60"#,
    )]);
    let all = all.unwrap();
    assert_eq!(all.scheme(), "Bearer");
    assert_eq!(all.error(), Some("insufficient_scope"));
    assert_eq!(all.scope(), Some("a b"));
    assert_eq!(
        all.resource_metadata(),
        Some("https://api.example/.well-known/x")
    );
    assert_eq!(all.claims(), Some("e30="));
    assert_eq!(all.acr_values(), Some("urn:x y"));
    assert_eq!(all.max_age(), Some(60));
}

#[test]
fn of_several_challenges_the_most_telling_one_counts() {
    for (lines, scheme, error) in [
        (&["Basic realm=a, Bearer"][..], "Bearer", None),
        (&["DPoP error=x, Bearer error=y"], "Bearer", Some("y")),
        (&["DPoP error=x, Bearer"], "Bearer", None),
        (&["DPoP error=x"], "DPoP", Some("x")),
        (&["Bearer realm=a, Bearer error=x"], "Bearer", Some("x")),
        (&["Bearer error=x, Bearer error=y"], "Bearer", Some("x")),
        // Several lines are one list (RFC 9110 §5.3).
        (&["Bearer realm=a", "error=x"], "Bearer", Some("x")),
        (&["Bearer", "Basic error=x"], "Bearer", None),
        (&["Bearer error=x, error=y"], "Bearer", Some("x")),
        (
            &[
                "Negotiate",
                "NTLM abc==",
                "Basic realm=\"é, Bearer error=z\"",
                "Bearer\terror = x",
            ],
            "Bearer",
            Some("x"),
        ),
    ] {
        let found = challenge(lines).unwrap();
        assert_eq!(
            (found.scheme(), found.error()),
            (scheme, error),
            "{lines:?}"
        );
    }
    for lines in [&[][..], &["Basic realm=a"], &["error=x"], &["\"", ""]] {
        assert!(challenge(lines).is_none(), "{lines:?}");
    }
}

#[test]
fn of_two_values_of_one_parameter_the_first_counts() {
    for (parameters, expected) in [
        ("scope=a, scope=b", "scope=a"),
        ("max_age=1, max_age=2", "max_age=1"),
        ("CLAIMS=a, claims=b", "claims=a"),
        ("acr_values=a, acr_values=b", "acr_values=a"),
        (
            "resource_metadata=a, resource_metadata=b",
            "resource_metadata=a",
        ),
        // The first that can be one.
        (r#"scope="a\"b", scope=c"#, "scope=c"),
        ("max_age=soon, max_age=2", "max_age=2"),
    ] {
        let found = challenge(&[&format!("Bearer {parameters}")]);
        assert_eq!(
            found,
            challenge(&[&format!("Bearer {expected}")]),
            "{parameters}"
        );
    }
}

#[test]
fn a_value_that_its_standard_does_not_allow_is_left_out() {
    for parameters in [
        "error=\"two words\"",
        "error=\"\"",
        "scope=\"\"",
        "scope=\" \"",
        r#"scope="a\\b""#,
        r#"scope="a\"b""#,
        "claims=\"\"",
        "acr_values=\"\"",
        "max_age=-1",
        "max_age=soon",
        "max_age=99999999999999999999999",
        "resource_metadata=\"\t\"",
    ] {
        let found = challenge(&[&format!("Bearer {parameters}")]).unwrap();
        assert_eq!(found, challenge(&["Bearer"]).unwrap(), "{parameters}");
    }
}

#[test]
fn a_value_that_is_too_long_is_left_out_and_remembered() {
    let long = |length: usize| "x".repeat(length);
    let many: Vec<String> = (0..10_000).map(|number| format!("s{number}")).collect();
    for (parameters, is_cut) in [
        (format!("error=x, scope=\"{}\"", long(4096)), false),
        (format!("error=x, scope=\"{}\"", long(4097)), true),
        (format!("error=x, scope=\"{}\"", many.join(" ")), true),
        (
            format!("error=x, scope=\"{}\"", many[..100].join(" ")),
            false,
        ),
        (
            format!("error=x, scope=\"{}\"", many[..101].join(" ")),
            true,
        ),
        (format!("error=x, claims={}", long(8192)), false),
        (format!("error=x, claims={}", long(8193)), true),
        (format!("error=x, acr_values={}", long(4097)), true),
        (format!("error=x, resource_metadata={}", long(4097)), true),
        (format!("error=x, realm={}", long(60_000)), false),
    ] {
        let found = challenge(&[&format!("Bearer {parameters}")]).unwrap();
        assert_eq!(found.is_cut(), is_cut, "{}", &parameters[..40]);
        assert_eq!(found.error(), Some("x"));
        let rest = [found.scope(), found.claims(), found.acr_values()];
        assert!(!is_cut || rest.iter().all(Option::is_none));
        assert!(found.resource_metadata().is_none());
    }
}

#[test]
fn a_header_with_thousands_of_challenges_is_read_in_part() {
    let many = format!("{}Bearer error=late", "Bearer, ".repeat(5_000));
    assert_eq!(challenge(&[&many]).unwrap().error(), None);
    let first = format!("{}Bearer error=first", "Bearer, ".repeat(15));
    assert_eq!(challenge(&[&first]).unwrap().error(), Some("first"));
}

#[test]
fn thousands_of_parameters_hide_no_error() {
    let others: Vec<String> = (0..5_000).map(|n| format!("p{n}=\"v, \\\"{n}\"")).collect();
    let line = format!("Bearer {}, error=x, scope=a", others.join(", "));
    let found = challenge(&[&line]);
    assert_eq!(found, challenge(&["Bearer error=x, scope=a"]));
}

#[test]
fn debug_shows_no_value_that_the_api_has_chosen() {
    let found = challenge(&[concat!(
        r#"Bearer error="s3cr3t", scope="s3cr3t", claims="s3cr3t", acr_values="s3cr3t", "#,
        r#"resource_metadata="https://s3cr3t""#,
    )]);
    let shown = format!("{found:?}{found:#?}");
    assert!(!shown.contains("s3cr3t"), "{shown}");
    let known = format!("{:?}", challenge(&["Bearer error=invalid_token"]));
    assert!(known.contains("invalid_token"), "{known}");
}
