//! Reads the metadata document of an issuer, and checks those of others.

use http::{HeaderValue, Request, StatusCode, header::ACCEPT};
use http_body_util::Full;

use super::{
    super::{
        EndpointUrl, credential::Credential, error_kind::is_about_the_request, fields::text,
        send::Target, settings::Settings, token_response::RawResponse, values::Times,
    },
    issuer::Issuer,
    metadata::Metadata,
};
use crate::{
    clock::{Clock, Now},
    error::{Asked, TokenError, TokenErrorKind},
};

/// Reads the document at the first of its possible URLs that has one.
pub(super) async fn document(
    issuer: &Issuer,
    settings: &Settings,
    clock: &Clock,
) -> Result<Metadata, TokenError> {
    let read = first_document(issuer, settings, clock).await;
    read.map_err(|error| error.asking(Asked::Metadata))
}

async fn first_document(
    issuer: &Issuer,
    settings: &Settings,
    clock: &Clock,
) -> Result<Metadata, TokenError> {
    let deadline = settings.deadline();
    let mut last_missing = None;
    for url in issuer.documents() {
        let target = Target {
            method: "GET",
            url: &url,
            credential: Credential::default(),
        };
        let (sent, response) = settings
            .exchange(clock, target, deadline, get(&url))
            .await?;
        if is_missing(&response) {
            last_missing = Some(response);
            continue;
        }
        let json = checked(response, sent, clock, SERVER)?;
        return Metadata::parse(text(&json.body), issuer).map_err(|error| {
            error
                .with_response(json.describe())
                .with_status(json.status)
        });
    }
    let error = TokenError::new(
        TokenErrorKind::InvalidResponse,
        "the authorization server has no metadata document; is the issuer right? If the server publishes none, give the \
         token endpoint to `OAuthClient::new`",
    );
    Err(match last_missing {
        Some(response) => error
            .with_response(response.describe())
            .with_status(response.status),
        None => error,
    })
}

/// Carries nothing that the user has configured: the document is public.
pub(super) fn get(url: &EndpointUrl) -> Request<Full<bytes::Bytes>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = url.uri().clone();
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(ACCEPT, json);
    request
}

/// Whether there is no document at this URL, so that there may be one at another. Not all servers say so with 404: Amazon
/// Cognito answers 400, gateways 401 or 403, and single-page applications their page.
pub(super) fn is_missing(response: &RawResponse) -> bool {
    let status = response.status;
    (status.is_client_error() && is_about_the_request(status))
        || (status.is_success() && response.is_markup())
}

/// Whose document is read, for messages.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    name: &'static str,
    /// What was configured to find it.
    found_by: &'static str,
    /// What to do about a document that is too long.
    if_too_long: &'static str,
}

const SERVER: Owner = Owner {
    name: "the server",
    found_by: "issuer",
    if_too_long: "; if it is genuine, raise `max_response_size`",
};

pub(super) const API: Owner = Owner {
    name: "the API",
    found_by: "URL",
    if_too_long: "",
};

/// The response, if it is a whole one and says success.
pub(super) fn checked(
    response: RawResponse,
    sent: Now,
    clock: &Clock,
    owner: Owner,
) -> Result<RawResponse, TokenError> {
    if let Some(broken) = &response.broken {
        return Err(broken.clone());
    }
    let Owner {
        name,
        found_by,
        if_too_long,
    } = owner;
    let status = response.status;
    let (kind, what) = if status.is_redirection() {
        (
            TokenErrorKind::InvalidResponse,
            format!(
                "{name}'s metadata URL redirects, and redirects are not followed; use the {found_by} that {name} is reached at"
            ),
        )
    } else if status == StatusCode::TOO_MANY_REQUESTS {
        (
            TokenErrorKind::RateLimited,
            format!("{name}'s metadata were requested too often"),
        )
    } else if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
        (
            TokenErrorKind::Server,
            format!("{name} could not send its metadata"),
        )
    } else if status != StatusCode::OK {
        (
            TokenErrorKind::InvalidResponse,
            format!("{name} did not answer with its metadata; is the {found_by} right?"),
        )
    } else if let Some(limit) = response.cut_at {
        (
            TokenErrorKind::InvalidResponse,
            format!(
                "{name}'s metadata document is longer than the limit of {limit} bytes{if_too_long}"
            ),
        )
    } else {
        return Ok(response);
    };
    let error = TokenError::new(kind, what)
        .with_response(response.describe())
        .with_status(status);
    let times = Times::new(&response.headers, sent, clock.wall());
    Err(match times.retry_after(&response.headers) {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    })
}
