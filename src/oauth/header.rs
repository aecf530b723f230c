//! Headers that users add to requests.

use http::{
    HeaderName, HeaderValue,
    header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};

use crate::{
    error::{TokenError, TokenErrorKind},
    zeroize::zeroized,
};

/// A header whose value is sensitive. Fails if no request can carry it, or if it describes the body.
pub(super) fn sensitive_header(
    name: &str,
    value: &str,
) -> Result<(HeaderName, HeaderValue), TokenError> {
    let config = |message| TokenError::new(TokenErrorKind::Config, message);
    let name = HeaderName::try_from(name).map_err(|error| {
        config("the name of a header for token requests is invalid".to_owned()).with_source(error)
    })?;
    if [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) {
        return Err(config(format!(
            "the header `{name}` describes the body and cannot be set; use `body_format`"
        )));
    }
    let mut value =
        HeaderValue::from_maybe_shared(zeroized(value.as_bytes().to_vec())).map_err(|error| {
            config(format!("the value of the header `{name}` is invalid")).with_source(error)
        })?;
    value.set_sensitive(true);
    Ok((name, value))
}
