//! The token requests that a vendor received: prints and checks them.

use tower::BoxError;
use tower_bearer::testing::{AuthorizationServer, RecordedRequest};

use crate::support::check;

/// The headers that make a vendor's dialect. Of `authorization`, only the scheme is printed.
const HEADERS: [&str; 3] = ["accept", "content-type", "authorization"];

/// Parameters without secrets.
const PUBLIC_PARAMETERS: [&str; 1] = ["grant_type"];

/// Prints requests without their secrets.
pub(crate) fn print(requests: &[RecordedRequest]) {
    for request in requests {
        println!("{} {}", request.method, request.uri.path());
        for name in HEADERS {
            for value in request.headers.get_all(name) {
                let value = value.to_str().unwrap_or("?");
                match value.split_once(' ') {
                    Some((scheme, secret)) if name == "authorization" => {
                        println!("  {name}: {scheme} ({} characters)", secret.len());
                    }
                    _ => println!("  {name}: {value}"),
                }
            }
        }
        for (name, value) in &request.params {
            if PUBLIC_PARAMETERS.contains(&name.as_str()) {
                println!("  {name} = {value}");
            } else {
                println!("  {name} = ({} characters)", value.len());
            }
        }
    }
    println!();
}

/// The value of a header that is there exactly once.
pub(crate) fn header<'a>(request: &'a RecordedRequest, name: &str) -> Option<&'a str> {
    let mut values = request.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Checks that all requests are a POST to `path` with this content type, and with this `authorization` or none.
pub(crate) fn check_posts(
    requests: &[RecordedRequest],
    path: &str,
    content_type: &str,
    authorization: Option<&str>,
) -> Result<(), BoxError> {
    for request in requests {
        check(
            &format!("the token request is a POST to {path}"),
            request.method == "POST" && request.uri.path() == path,
        )?;
        check(
            &format!("its body is {content_type}"),
            header(request, "content-type") == Some(content_type),
        )?;
        check(
            "it identifies the client as the vendor expects",
            request.headers.get_all("authorization").iter().count()
                == usize::from(authorization.is_some())
                && header(request, "authorization") == authorization,
        )?;
    }
    Ok(())
}

/// Checks that the second request uses the refresh token that the first one brought.
pub(crate) fn check_rotation(
    server: &AuthorizationServer,
    first_refresh_token: &str,
    second: &RecordedRequest,
) -> Result<(), BoxError> {
    let used = second.param("refresh_token");
    check(
        "the second refresh uses the refresh token that the first one brought",
        used.is_some_and(|token| token != first_refresh_token) && server.refreshes() == 2,
    )
}
