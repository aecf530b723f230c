//! Responses that do not arrive as the server wrote them.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header::CONTENT_ENCODING};
use http_body::{Body, Frame};
use http_body_util::Full;
use secrecy::ExposeSecret;
use tower::service_fn;

use crate::{
    clock::Clock,
    error::{TokenError, TokenErrorKind},
    oauth::{ClientAuth, OAuthClient, Parameters, TokenResponse},
};

const ROTATED: &str = r#"{"access_token":"granted","refresh_token":"hunter3","expires_in":900}"#;

/// What a body does after its data.
#[derive(Clone, Copy, Debug)]
enum End {
    Whole,
    Error,
    Never,
    EmptyFrames,
    Trailers,
}

#[derive(Clone)]
struct Chunks {
    data: VecDeque<Bytes>,
    end: End,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(data) = self.data.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match self.end {
            End::Whole => Poll::Ready(None),
            End::Error => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            End::Never => Poll::Pending,
            End::EmptyFrames => Poll::Ready(Some(Ok(Frame::data(Bytes::new())))),
            End::Trailers => Poll::Ready(Some(Ok(Frame::trailers(HeaderMap::new())))),
        }
    }
}

fn client(status: u16, encoding: &'static str, body: impl AsRef<[u8]>, end: End) -> OAuthClient {
    let body = body.as_ref();
    let (first, second) = body.split_at(body.len() / 2);
    let data = [first, second].map(Bytes::copy_from_slice).into();
    let body = Chunks { data, end };
    let service = service_fn(move |_: Request<Full<Bytes>>| {
        let mut response = Response::new(body.clone());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if !encoding.is_empty() {
            let encoding = encoding.parse().unwrap();
            response.headers_mut().insert(CONTENT_ENCODING, encoding);
        }
        async { Ok::<_, Infallible>(response) }
    });
    OAuthClient::with_transport("https://a.example/token", service).unwrap()
}

async fn refreshed(client: &OAuthClient) -> Result<TokenResponse, TokenError> {
    let parameters = Parameters::refresh_token("hunter2");
    client.request(&Clock::System, &parameters).await
}

fn has_rotated(response: &TokenResponse) {
    assert_eq!(response.token.as_ref().unwrap().header(), "Bearer granted");
    let refresh_token = response.refresh_token.as_ref().unwrap();
    assert_eq!(refresh_token.expose_secret(), "hunter3");
}

#[tokio::test(start_paused = true)]
async fn a_closed_json_object_is_used_however_the_body_ends() {
    for end in [
        End::Whole,
        End::Error,
        End::Never,
        End::EmptyFrames,
        End::Trailers,
    ] {
        for status in [200, 201] {
            let client = client(status, "", format!("{ROTATED}\n"), end);
            has_rotated(&refreshed(&client).await.unwrap());
        }
        let client = client(400, "", r#"{"error":"invalid_grant"}"#, end);
        let error = refreshed(&client).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_without_its_end_is_no_form_and_no_open_object() {
    let form = "access_token=granted&refresh_token=hunter3";
    for body in [form, &ROTATED[..ROTATED.len() - 1], "", "{", "[{}]"] {
        for (end, kind) in [
            (End::Error, TokenErrorKind::Transport),
            (End::Never, TokenErrorKind::Timeout),
            (End::EmptyFrames, TokenErrorKind::InvalidResponse),
            (End::Trailers, TokenErrorKind::InvalidResponse),
        ] {
            let error = refreshed(&client(200, "", body, end)).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{end:?} {body}: {error}");
            assert!(!format!("{error}{error:?}").contains("hunter"), "{error:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_object_past_the_limit_is_not_used() {
    for end in [End::Whole, End::Error, End::Never] {
        for padding in [0, 10, 10_000] {
            let body = format!("{ROTATED}{}", " ".repeat(padding + 1));
            let client = client(200, "", &body, end).max_response_size(body.len() - 1);
            let error = refreshed(&client).await.unwrap_err();
            assert!(error.to_string().contains("max_response_size"), "{error}");
        }
    }
}

/// `text` in gzip, uncompressed, with every optional field of the header.
fn gzip(text: &[u8]) -> Vec<u8> {
    let mut gzip = vec![0x1f, 0x8b, 8, 0b1_1111, 0, 0, 0, 0, 0, 3];
    gzip.extend_from_slice(b"\x02\x00ab"); // FEXTRA
    gzip.extend_from_slice(b"name\0comment\0\x12\x34"); // FNAME, FCOMMENT, FHCRC
    let (last, first) = text.split_last().unwrap();
    for (is_last, block) in [(0, first), (1, std::slice::from_ref(last))] {
        let length = u16::try_from(block.len()).unwrap();
        gzip.push(is_last);
        gzip.extend_from_slice(&length.to_le_bytes());
        gzip.extend_from_slice(&(!length).to_le_bytes());
        gzip.extend_from_slice(block);
    }
    gzip.extend_from_slice(&[0; 8]); // CRC32 and ISIZE, which are not checked
    gzip
}

/// A gigabyte of zeros as zlib compresses it: a stream of blocks that repeat one byte.
fn bomb(megabytes: usize) -> Vec<u8> {
    let zeros = vec![b' '; megabytes << 20];
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    gzip.extend(miniz_oxide::deflate::compress_to_vec(&zeros, 6));
    gzip.extend([0; 8]);
    gzip
}

#[tokio::test(start_paused = true)]
async fn a_gzip_response_that_was_not_asked_for_is_decoded() {
    let compressed = {
        let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        gzip.extend(miniz_oxide::deflate::compress_to_vec(ROTATED.as_bytes(), 6));
        gzip.extend([0; 8]);
        gzip
    };
    for encoding in ["gzip", "x-gzip", "GZIP", ""] {
        for body in [&gzip(ROTATED.as_bytes()), &compressed] {
            for end in [End::Whole, End::Error, End::Never] {
                let client = client(200, encoding, body, end);
                has_rotated(&refreshed(&client).await.unwrap());
            }
            // The checksum at the end is missing.
            let cut = client(200, encoding, &body[..body.len() - 8], End::Error);
            has_rotated(&refreshed(&cut).await.unwrap());
        }
        let error = gzip(br#"{"error":"invalid_grant"}"#);
        let error = refreshed(&client(400, encoding, error, End::Whole)).await;
        assert_eq!(error.unwrap_err().kind(), TokenErrorKind::ReauthRequired);
    }
    // A gateway has decoded it, and left the header.
    has_rotated(
        &refreshed(&client(200, "gzip", ROTATED, End::Whole))
            .await
            .unwrap(),
    );
}

#[tokio::test(start_paused = true)]
async fn the_limit_counts_decoded_bytes() {
    let client_of = |body: &[u8]| client(200, "gzip", body, End::Whole);
    let body = gzip(ROTATED.as_bytes());
    let exact = client_of(&body).max_response_size(ROTATED.len());
    has_rotated(&refreshed(&exact).await.unwrap());
    let short = client_of(&body).max_response_size(ROTATED.len() - 1);
    let error = refreshed(&short).await.unwrap_err();
    assert!(error.to_string().contains("max_response_size"), "{error}");

    let error = refreshed(&client_of(&bomb(32))).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
    assert!(
        error.to_string().contains("limit of 65536 bytes"),
        "{error}"
    );
    let raised = client_of(&bomb(32)).max_response_size(usize::MAX);
    assert!(
        refreshed(&raised)
            .await
            .unwrap_err()
            .to_string()
            .contains("33554432 bytes")
    );
}

#[tokio::test(start_paused = true)]
async fn an_encoding_that_cannot_be_undone_is_named() {
    for (header, name) in [
        ("br", "`br`"),
        ("zstd", "`zstd`"),
        ("Deflate", "`deflate`"),
        ("gzip, br", "`br`"),
        ("gzip", "`gzip`"),
        ("hunter2", "of an unknown name"),
    ] {
        for status in [200, 400, 401, 403, 404] {
            let client = client(status, header, b"\x1f\x8b\x08\xffhunter2", End::Whole);
            let error = refreshed(&client).await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::InvalidResponse, "{error}");
            assert!(error.to_string().contains(name), "{error}");
            assert!(
                !format!("{error:?}{error}").contains("hunter2"),
                "{error:?}"
            );
        }
        for (status, kind) in [
            (429, TokenErrorKind::RateLimited),
            (503, TokenErrorKind::Server),
        ] {
            let client = client(status, header, b"\x1b\xff", End::Whole);
            assert_eq!(refreshed(&client).await.unwrap_err().kind(), kind);
        }
    }
    // An encoding in name only.
    has_rotated(
        &refreshed(&client(200, "br", ROTATED, End::Whole))
            .await
            .unwrap(),
    );
    has_rotated(
        &refreshed(&client(200, "identity", ROTATED, End::Whole))
            .await
            .unwrap(),
    );
}

#[tokio::test(start_paused = true)]
async fn an_endless_body_without_data_ends_at_a_limit() {
    for end in [End::EmptyFrames, End::Trailers] {
        let error = refreshed(&client(200, "", "", end)).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(error.to_string().contains("frames without data"), "{error}");
        assert_eq!(error.status(), Some(StatusCode::OK));
    }
    // Slow frames without data do not outlive the time limit either.
    let client = client(200, "", "", End::Never).timeout(Duration::from_secs(3));
    let error = refreshed(&client).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
}

#[tokio::test]
async fn text_that_is_not_utf_8_beside_the_tokens_costs_nothing() {
    let json = [
        &br#"{"access_token":"granted","refresh_token":"hunter3","user":"Andr"#[..],
        b"\xe9\",\"\xff\":\"\xf0\x9f\"}",
    ];
    let form = b"access_token=granted&refresh_token=hunter3&user=Andr%E9&%FF=\xff";
    for body in [json.concat(), form.to_vec()] {
        let response = refreshed(&client(200, "", body, End::Whole)).await.unwrap();
        has_rotated(&response);
        let token = response.token.unwrap();
        assert_eq!(token.extra("user").unwrap(), "Andr\u{fffd}");
    }
}

#[tokio::test]
async fn a_token_with_a_replaced_character_is_unusable() {
    let refresh_only = b"{\"access_token\":\"granted\",\"refresh_token\":\"hunter3\xe9\"}";
    let response = refreshed(&client(200, "", refresh_only, End::Whole))
        .await
        .unwrap();
    assert!(response.refresh_token.is_none());
    let form = b"access_token=granted&refresh_token=hunter3%E9";
    let response = refreshed(&client(200, "", form, End::Whole)).await.unwrap();
    assert!(response.refresh_token.is_none());

    let access_only = b"{\"access_token\":\"granted\xe9\",\"refresh_token\":\"hunter3\"}";
    let response = refreshed(&client(200, "", access_only, End::Whole))
        .await
        .unwrap();
    assert_eq!(response.refresh_token.unwrap().expose_secret(), "hunter3");
    assert_eq!(
        response.token.unwrap_err().kind(),
        TokenErrorKind::InvalidToken
    );

    let both = b"{\"access_token\":\"\xe9\",\"refresh_token\":\"hunter3\xe9\"}";
    let error = refreshed(&client(200, "", both, End::Whole))
        .await
        .unwrap_err();
    assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
}

#[tokio::test]
async fn an_access_token_loses_the_scheme_before_it() {
    for written in ["Bearer granted", "bearer  granted", "BEARER granted"] {
        let body = format!(r#"{{"access_token":"{written}"}}"#);
        let response = refreshed(&client(200, "", body, End::Whole)).await.unwrap();
        assert_eq!(response.token.unwrap().header(), "Bearer granted");
    }
    let error = refreshed(&client(
        200,
        "",
        r#"{"access_token":"Bearer "}"#,
        End::Whole,
    ))
    .await;
    assert_eq!(error.unwrap_err().kind(), TokenErrorKind::InvalidResponse);
}

#[tokio::test]
async fn an_error_code_that_is_a_sent_secret_is_not_shown() {
    for code in [
        "hunter2",
        "long-secret-value",
        "x_long-secret-value_x",
        "long-secret",
    ] {
        let body = format!(r#"{{"error":"{code}"}}"#);
        for auth in [
            ClientAuth::client_secret_basic("app", "long-secret-value"),
            ClientAuth::client_secret_post("app", "long-secret-value"),
        ] {
            let client = client(400, "", &body, End::Whole).client_auth(auth);
            let error = refreshed(&client).await.unwrap_err();
            assert!(!format!("{error}{error:?}").contains(code), "{error:?}");
            assert_eq!(error.kind(), TokenErrorKind::InvalidRequest);
        }
    }
    // A known code is shown, whatever was sent.
    let client = client(400, "", r#"{"error":"invalid_grant"}"#, End::Whole)
        .client_auth(ClientAuth::client_secret_post("app", "invalid_grant"));
    let error = refreshed(&client).await.unwrap_err();
    assert_eq!(error.oauth_code(), Some("invalid_grant"));
}
