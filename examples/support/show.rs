//! What was spoken, with every secret left out.

use tower_bearer::testing::RecordedRequest;

/// Headers that say how the dialect is spoken; what identifies the client is shown by its form only.
const SHOWN: [&str; 3] = ["accept", "content-type", "authorization"];

/// Parameters whose values everybody may see.
const OPEN: [&str; 1] = ["grant_type"];

/// Prints the requests that a token endpoint got.
pub(crate) fn spoken(requests: &[RecordedRequest]) {
    for request in requests {
        println!("{} {}", request.method, request.uri.path());
        for name in SHOWN {
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
            if OPEN.contains(&name.as_str()) {
                println!("  {name} = {value}");
            } else {
                println!("  {name} = ({} characters)", value.len());
            }
        }
    }
    println!();
}

/// Of a header, what stands there once.
pub(crate) fn header<'a>(request: &'a RecordedRequest, name: &str) -> Option<&'a str> {
    let mut values = request.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
