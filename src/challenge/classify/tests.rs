use Verdict::{Accepted, Forbidden, Rejected, Unrelated};
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
    StandardRejections.classify(ResponseHead::of(&response))
}

#[test]
fn the_challenges_of_a_401_decide() {
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
        // Frameworks name only their first scheme.
        (Rejected, &["Basic realm=\"a\""]),
        (Rejected, &["Token"]),
        (Rejected, &["JWT realm=\"api\""]),
        (Rejected, &["Basic", "DPoP algs=\"ES256\""]),
        (Rejected, &["DPoP algs=\"ES256\", Basic"]),
        (Rejected, &["DPoP, Basic, DPoP"]),
        // Schemes for which a bearer token does not help.
        (Forbidden, &["Negotiate", "NTLM"]),
        (Forbidden, &["ntlm"]),
        (Forbidden, &["Negotiate, Basic realm=\"a\""]),
        (Forbidden, &["Basic realm=\"a\"", "negotiate"]),
        (Forbidden, &["DPoP error=\"invalid_token\""]),
        (Forbidden, &["DPoP algs=\"ES256\", dpop algs=\"ES384\""]),
        // The parameters of another scheme are not about a bearer token.
        (Rejected, &["DPoP error=\"insufficient_scope\", Bearer"]),
        (Rejected, &["Bearer, DPoP error=\"insufficient_scope\""]),
        // The text of a description is neither an error code nor a challenge.
        (
            Rejected,
            &["Bearer error_description=\"error=insufficient_scope\""],
        ),
        (
            Rejected,
            &["Bearer error_description=\"insufficient_scope\""],
        ),
        (
            Forbidden,
            &["Negotiate realm=\"x, Bearer error=invalid_token\""],
        ),
        (
            Rejected,
            &["Basic realm=\"x, Bearer error=insufficient_scope\""],
        ),
        // Several header lines are one list.
        (
            Forbidden,
            &["Bearer realm=\"a\"", "error=\"insufficient_scope\""],
        ),
        // Several Bearer challenges: a refresh can replace an invalid token.
        (
            Rejected,
            &["Bearer error=insufficient_scope, Bearer error=invalid_token"],
        ),
        (
            Forbidden,
            &["Bearer error=insufficient_scope, Bearer realm=x"],
        ),
        // What can't be read counts as missing; what was read before it counts.
        (Rejected, &["<html>"]),
        (Rejected, &["error=\"invalid_token\""]),
        (Rejected, &["error=\"insufficient_scope\""]),
        (Rejected, &["Basic realm=\"unterminated"]),
        (Rejected, &["Negotiate", "???"]),
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
fn challenges_count_only_in_a_401() {
    let challenge = ("www-authenticate", "Bearer error=\"invalid_token\"");
    for status in [302, 400, 403, 404, 407, 409, 422, 429, 500, 503] {
        assert_eq!(classify(status, &[challenge]), Unrelated, "{status}");
    }
    assert_eq!(classify(200, &[challenge]), Accepted);
}

#[test]
fn the_grpc_status_counts_only_in_a_grpc_response() {
    for (verdict, content_type, status) in [
        (Rejected, "application/grpc", "16"),
        (Rejected, "application/grpc+proto", "16"),
        (Rejected, "Application/GRPC-web+proto", "16"),
        (Unrelated, "application/grpc", "0"),
        (Unrelated, "application/grpc", "7"),
        (Unrelated, "application/grpc", "160"),
        (Accepted, "application/json", "16"),
        (Accepted, "application/grp", "16"),
    ] {
        let headers = [("content-type", content_type), ("grpc-status", status)];
        assert_eq!(classify(200, &headers), verdict, "{content_type} {status}");
    }
    assert_eq!(classify(200, &[("grpc-status", "16")]), Accepted);
    assert_eq!(
        classify(200, &[("content-type", "application/grpc")]),
        Unrelated
    );
}

#[test]
fn a_closure_and_a_boxed_classifier_are_classifiers() {
    let closure = |head: ResponseHead<'_>| match head.status.as_u16() {
        403 => Rejected,
        _ => StandardRejections.classify(head),
    };
    let all: [Box<dyn ClassifyRejection>; 2] = [Box::new(closure), Box::new(StandardRejections)];
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::FORBIDDEN;
    let verdicts = all.map(|classifier| classifier.classify(ResponseHead::of(&response)));
    assert_eq!(verdicts, [Rejected, Unrelated]);
}

proptest! {
    #[test]
    fn no_header_causes_a_panic_or_an_acceptance_of_a_401(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4)) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        for line in lines {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                response.headers_mut().append(header::WWW_AUTHENTICATE, value);
            }
        }
        let verdict = StandardRejections.classify(ResponseHead::of(&response));
        prop_assert!(matches!(verdict, Rejected | Forbidden), "{verdict:?}");
    }
}

#[test]
fn a_verdict_in_the_extensions_overrides_everything() {
    for expected in [Accepted, Rejected, Forbidden, Unrelated] {
        for (status, challenge) in [(200, ""), (401, ""), (401, "Basic"), (401, "Bearer")] {
            let response = Response::builder()
                .status(status)
                .header("www-authenticate", challenge)
                .extension(expected)
                .body(())
                .unwrap();
            let verdict = StandardRejections.classify(ResponseHead::of(&response));
            assert_eq!(verdict, expected, "{status} {challenge}");
        }
    }
}

#[test]
fn only_a_success_that_is_not_grpc_says_that_the_token_was_accepted() {
    for (verdict, status, content_type) in [
        (Accepted, 200, "text/plain"),
        (Accepted, 204, "text/plain"),
        (Accepted, 299, "application/json"),
        (Unrelated, 101, "text/plain"),
        (Unrelated, 304, "text/plain"),
        (Unrelated, 404, "text/plain"),
        (Unrelated, 500, "text/plain"),
        (Unrelated, 200, "application/grpc"),
        (Unrelated, 200, "application/grpc-web"),
    ] {
        let headers = [("content-type", content_type)];
        assert_eq!(
            classify(status, &headers),
            verdict,
            "{status} {content_type}"
        );
    }
}
