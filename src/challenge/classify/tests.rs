use Verdict::{Accepted, Forbidden, Rejected};
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

fn classify(status: u16, headers: &[(&'static str, &str)]) -> Verdict {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        let name = HeaderName::from_static(name);
        response.headers_mut().append(name, value);
    }
    BearerChallenge.classify(ResponseHead::of(&response))
}

#[test]
fn a_401_is_judged_by_its_challenges() {
    for (verdict, lines) in [
        (Rejected, &[][..]),
        (Rejected, &[""]),
        (Rejected, &["Bearer"]),
        (Rejected, &["bEaReR realm=\"api\""]),
        (Rejected, &["Bearer error=\"invalid_token\""]),
        (Rejected, &["Bearer error=invalid_token"]),
        (Rejected, &[r#"Bearer ERROR="invalid\_token""#]),
        (Rejected, &["Bearer error=\"token_expired\""]),
        (Rejected, &["Basic realm=\"a\", Bearer"]),
        (Rejected, &["Basic realm=\"a\"", "Bearer realm=\"b\""]),
        (
            Rejected,
            &["Negotiate abc==, Bearer error=\"invalid_token\""],
        ),
        (
            Forbidden,
            &["Bearer error=\"insufficient_scope\", scope=\"a b\""],
        ),
        (
            Forbidden,
            &["Bearer scope=\"a b\", error=insufficient_scope"],
        ),
        (Forbidden, &["Bearer error=\"invalid_request\""]),
        (
            Forbidden,
            &["Bearer error=\"insufficient_user_authentication\", max_age=5"],
        ),
        (
            Forbidden,
            &["Negotiate abc==, Bearer error=\"insufficient_scope\""],
        ),
        (
            Forbidden,
            &["Basic realm=\"a\"", "Bearer error=\"insufficient_scope\""],
        ),
        (Forbidden, &["Basic realm=\"a\""]),
        (Forbidden, &["Negotiate", "NTLM"]),
        (Forbidden, &["DPoP error=\"invalid_token\""]),
        // What another scheme says is not about a bearer token.
        (Rejected, &["DPoP error=\"insufficient_scope\", Bearer"]),
        (Rejected, &["Bearer, DPoP error=\"insufficient_scope\""]),
        // Text of a description is no error code, nor a challenge.
        (
            Rejected,
            &["Bearer error_description=\"error=insufficient_scope\""],
        ),
        (
            Forbidden,
            &["Basic realm=\"x, Bearer error=invalid_token\""],
        ),
        // Lines are one list.
        (
            Forbidden,
            &["Bearer realm=\"a\"", "error=\"insufficient_scope\""],
        ),
        // Several Bearer challenges: a bad token is what a refresh can heal.
        (
            Rejected,
            &["Bearer error=insufficient_scope, Bearer error=invalid_token"],
        ),
        (
            Forbidden,
            &["Bearer error=insufficient_scope, Bearer realm=x"],
        ),
        // What can't be read is as good as nothing, what can counts.
        (Rejected, &["<html>"]),
        (Rejected, &["error=\"invalid_token\""]),
        (Rejected, &["error=\"insufficient_scope\""]),
        (Rejected, &["Basic realm=\"unterminated"]),
        (Rejected, &["Basic realm=\"a\"", "???"]),
        (
            Forbidden,
            &["Bearer error=insufficient_scope, realm=\"unterminated"],
        ),
    ] {
        let headers: Vec<_> = lines
            .iter()
            .map(|line| ("www-authenticate", *line))
            .collect();
        assert_eq!(classify(401, &headers), verdict, "{lines:?}");
    }
}

#[test]
fn only_a_401_is_judged_by_its_challenges() {
    let challenge = ("www-authenticate", "Bearer error=\"invalid_token\"");
    for status in [200, 302, 400, 403, 404, 407, 409, 422, 429, 500, 503] {
        assert_eq!(classify(status, &[challenge]), Accepted, "{status}");
    }
}

#[test]
fn grpc_tells_it_in_its_status() {
    for (verdict, content_type, status) in [
        (Rejected, "application/grpc", "16"),
        (Rejected, "application/grpc+proto", "16"),
        (Rejected, "Application/GRPC-web+proto", "16"),
        (Accepted, "application/grpc", "0"),
        (Accepted, "application/grpc", "7"),
        (Accepted, "application/grpc", "160"),
        (Accepted, "application/json", "16"),
        (Accepted, "application/grp", "16"),
    ] {
        let headers = [("content-type", content_type), ("grpc-status", status)];
        assert_eq!(classify(200, &headers), verdict, "{content_type} {status}");
    }
    assert_eq!(classify(200, &[("grpc-status", "16")]), Accepted);
    assert_eq!(
        classify(200, &[("content-type", "application/grpc")]),
        Accepted
    );
}

#[test]
fn a_classifier_can_be_a_closure_or_an_object() {
    let closure = |head: ResponseHead<'_>| match head.status.as_u16() {
        403 => Rejected,
        _ => BearerChallenge.classify(head),
    };
    let all: [Box<dyn ClassifyRejection>; 2] = [Box::new(closure), Box::new(BearerChallenge)];
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::FORBIDDEN;
    let verdicts = all.map(|classifier| classifier.classify(ResponseHead::of(&response)));
    assert_eq!(verdicts, [Rejected, Accepted]);
}

proptest! {
    #[test]
    fn no_header_can_make_it_panic(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4)) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        for line in lines {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                response.headers_mut().append(header::WWW_AUTHENTICATE, value);
            }
        }
        prop_assert_ne!(BearerChallenge.classify(ResponseHead::of(&response)), Accepted);
    }
}

#[test]
fn a_verdict_from_below_goes_before_everything() {
    for told in [Verdict::Accepted, Verdict::Rejected, Verdict::Forbidden] {
        for (status, challenge) in [(200, ""), (401, ""), (401, "Basic"), (401, "Bearer")] {
            let response = Response::builder()
                .status(status)
                .header("www-authenticate", challenge)
                .extension(told)
                .body(())
                .unwrap();
            let verdict = BearerChallenge.classify(ResponseHead::of(&response));
            assert_eq!(verdict, told, "{status} {challenge}");
        }
    }
}

#[test]
fn a_token_is_proven_by_a_success_that_is_one() {
    let head = |status: u16, content_type: &str, verdict| {
        let response = Response::builder()
            .status(status)
            .header("content-type", content_type)
            .body(())
            .unwrap();
        ResponseHead::of(&response).proves_token(verdict)
    };
    assert!(head(204, "text/plain", Verdict::Accepted));
    assert!(!head(200, "text/plain", Verdict::Forbidden));
    assert!(!head(404, "text/plain", Verdict::Accepted));
    assert!(!head(200, "application/grpc", Verdict::Accepted));
}
