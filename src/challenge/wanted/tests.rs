use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};

use super::*;

fn wanted(parameters: &str) -> Result<Wanted, TokenError> {
    wanted_with_claims(parameters, true)
}

fn wanted_with_claims(parameters: &str, are_allowed: bool) -> Result<Wanted, TokenError> {
    let mut headers = HeaderMap::new();
    let line = HeaderValue::from_str(&format!("Bearer {parameters}")).unwrap();
    headers.append(WWW_AUTHENTICATE, line);
    let challenge = Challenge::from_headers(&headers).unwrap();
    let step_up = StepUp::new()
        .scopes(["read write", "delete"])
        .claims(are_allowed);
    let token = Token::new("at").unwrap().with_scope("granted read");
    Wanted::by(&challenge, &step_up, &["own".to_owned()], &token)
}

#[test]
fn what_the_token_lacks_is_wanted_if_it_is_allowed() {
    for (scope, lacking) in [
        ("write", &["write"][..]),
        ("write read delete", &["delete", "write"]),
        // Neither on the list nor lacking.
        ("own granted write", &["write"]),
        ("own granted read", &[]),
    ] {
        let wanted = wanted(&format!("error=insufficient_scope, scope=\"{scope}\"")).unwrap();
        assert_eq!(wanted.scopes().collect::<Vec<_>>(), lacking, "{scope}");
    }
}

#[test]
fn what_is_not_allowed_is_refused_and_not_repeated() {
    let too_many = vec!["write"; 101].join(" ");
    for (parameters, reason) in [
        ("error=insufficient_scope, scope=\"admin\"", "list"),
        ("error=insufficient_scope, scope=\"read admin\"", "list"),
        ("error=insufficient_scope, scope=\"READ admin\"", "list"),
        ("error=insufficient_scope", "names no scope"),
        (
            &format!("error=insufficient_scope, scope=\"{too_many}\""),
            "too long",
        ),
        ("error=insufficient_claims, claims=\"%%%\"", "base64"),
        ("error=insufficient_claims, claims=\"bm8ganNvbg==\"", "JSON"),
        // An array, and an object that ends too early.
        ("error=insufficient_claims, claims=\"W10=\"", "JSON"),
        ("error=insufficient_claims, claims=\"eyJhIjo=\"", "JSON"),
        (
            &format!("error=insufficient_claims, claims={}", "A".repeat(9_000)),
            "too long",
        ),
    ] {
        let error = wanted(parameters).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InsufficientScope);
        assert!(!error.is_transient() && !error.is_final());
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains(reason) && !shown.contains("admin"),
            "{shown}"
        );
    }
}

#[test]
fn claims_are_decoded_in_every_form_of_base64() {
    let json = r#"{"access_token":{"nbf":{"essential":true,"value":"1~?>"}}}"#;
    for encoded in [
        BASE64_STANDARD.encode(json),
        BASE64_URL_SAFE_NO_PAD.encode(json),
        BASE64_STANDARD.encode(json).replace('=', ""),
    ] {
        let wanted = wanted(&format!("error=insufficient_claims, claims=\"{encoded}\"")).unwrap();
        assert_eq!(wanted.claims(), Some(json));
    }
}

#[test]
fn a_token_that_says_that_it_has_not_what_is_wanted_is_not_taken() {
    let wanted = wanted("error=insufficient_scope, scope=\"write\"").unwrap();
    let token = |secret: &str, scope: Option<&str>| {
        let token = Token::new(secret).unwrap();
        scope.map_or(token.clone(), |scope| token.with_scope(scope))
    };
    for (before, after, is_granted) in [
        (None, None, true),
        (Some("read"), None, true),
        (Some("read"), Some("read write"), true),
        (None, Some("write"), true),
        // In the server's own spelling.
        (Some("api/read"), Some("api/read api/write"), true),
        (Some("read"), Some("read"), false),
        (None, Some("read"), false),
        // Others would lose what they need.
        (Some("read"), Some("write"), false),
    ] {
        let checked = wanted.check_granted(Some(&token("a", before)), &token("b", after));
        assert_eq!(checked.is_ok(), is_granted, "{before:?} {after:?}");
    }
    let same = token("a", None);
    assert!(wanted.check_granted(Some(&same), &same).is_err());
}

#[test]
fn claims_are_wanted_beside_a_scope_and_only_if_they_are_allowed() {
    let both = "error=insufficient_scope, scope=write, claims=e30=";
    for (parameters, are_allowed, expected) in [
        (both, true, Some((1, true))),
        (both, false, Some((1, false))),
        (
            "error=insufficient_scope, claims=e30=",
            true,
            Some((0, true)),
        ),
        ("error=insufficient_scope, claims=e30=", false, None),
    ] {
        let wanted = wanted_with_claims(parameters, are_allowed).ok();
        let wanted = wanted.map(|it| (it.scopes().count(), it.claims().is_some()));
        assert_eq!(wanted, expected, "{parameters}");
    }
}
