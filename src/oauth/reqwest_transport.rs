//! [`ReqwestTransport`]: a `reqwest::Client` as a Tower service.

use std::{
    fmt,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::reqwest_attempt::ReqwestAttempt;
use crate::{
    error::{TokenError, TokenErrorKind},
    host::Host,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A [`reqwest::Client`] as a [`tower::Service`] of `http` requests and responses.
///
/// Use it for the token endpoint, for the API below [`BearerAuthLayer`](crate::BearerAuthLayer), or for both. It streams
/// request bodies of any type, and responses have a [`reqwest::Body`] and keep their URL for
/// [`reqwest::Response::from`]. Errors leave out the URL, whose query may hold secrets.
///
/// [`new`](Self::new) builds a client that follows no redirects. With a client of your own, `OAuthClient` rejects a response
/// that came after a redirect, but the secrets have then been sent on: build it with `redirect::Policy::none()`.
///
/// reqwest takes all bodies for streams, which it does not send again: it does not follow a redirect that keeps the
/// body (307, 308) unless the body is empty. [`send_with`](crate::RequestBuilderExt::send_with) does.
///
/// If a client of your own follows a redirect to another origin, the response has
/// [`Verdict::Unrelated`](crate::Verdict::Unrelated) in its extensions: reqwest has removed the token, so what that
/// origin says is not about the token. A redirect to another origin and back cannot be seen here: then a 401 counts as
/// a rejection, although the token was removed.
///
/// # Examples
///
/// In a Tower stack, with reqwest's own request and response types. Without other layers,
/// [`RequestBuilderExt`](crate::RequestBuilderExt) is shorter.
///
/// ```no_run
/// use tower::{BoxError, ServiceBuilder, ServiceExt};
/// use tower_bearer::{BearerAuthLayer, ReqwestTransport, Token, source_fn};
///
/// # async fn run() -> Result<(), BoxError> {
/// let transport = ReqwestTransport::new()?;
/// let reqwest = transport.get_ref().clone();
/// let client = ServiceBuilder::new()
///     .layer(BearerAuthLayer::new(source_fn(|_| async { Token::new("abc") })))
///     .service(transport);
///
/// let request = reqwest.get("https://api.example.com/invoices").build()?;
/// let request = http::Request::<reqwest::Body>::try_from(request)?;
/// let response = reqwest::Response::from(client.oneshot(request).await?);
/// println!("{}", response.error_for_status()?.text().await?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ReqwestTransport {
    client: reqwest::Client,
    /// Reaches this machine without a proxy.
    loopback: Option<reqwest::Client>,
}

impl ReqwestTransport {
    /// Makes a service with a client that is safe for requests with secrets, over rustls.
    ///
    /// It follows no redirects. It uses the proxy that the environment names, except to reach this machine. It connects
    /// within 10 seconds, and each read of a response takes at most 60 seconds.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if the HTTP client cannot be built.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::{OAuthClient, ReqwestTransport};
    ///
    /// let transport = ReqwestTransport::new()?;
    /// let oauth = OAuthClient::with_transport("https://authorize.example.com/token", transport)?;
    /// # let _ = oauth;
    /// # Ok::<(), tower_bearer::TokenError>(())
    /// ```
    pub fn new() -> Result<Self, TokenError> {
        let builder = || safe_builder().read_timeout(READ_TIMEOUT);
        Ok(Self {
            client: built(builder())?,
            loopback: Some(built(builder().no_proxy())?),
        })
    }

    /// Makes a service that sends requests with your client: its redirects, proxies and time limits apply.
    ///
    /// reqwest follows redirects by default, and uses the environment's proxy also to reach this machine.
    pub fn from_client(client: reqwest::Client) -> Self {
        Self {
            client,
            loopback: None,
        }
    }

    /// Returns the client.
    pub fn get_ref(&self) -> &reqwest::Client {
        &self.client
    }

    /// Returns the client and drops the service.
    pub fn into_inner(self) -> reqwest::Client {
        self.client
    }

    /// The transport of [`OAuthClient::new`](crate::OAuthClient::new), which sets a timeout on each request itself.
    pub(super) fn for_tokens(is_https: bool) -> Result<Self, TokenError> {
        // No idle connections: one that breaks under a request loses the response, and with it the next refresh token.
        let builder = || safe_builder().pool_max_idle_per_host(0);
        if !is_https {
            // Plain http is for this machine. A proxy would see the secrets.
            return Ok(Self::from_client(built(builder().no_proxy())?));
        }
        Ok(Self {
            client: built(builder().https_only(true))?,
            loopback: Some(built(builder().https_only(true).no_proxy())?),
        })
    }

    /// The client for a request to `uri`.
    fn client_for(&mut self, uri: &http::Uri) -> &mut reqwest::Client {
        let is_loopback = uri
            .host()
            .and_then(|host| Host::parse(host).ok())
            .is_some_and(|host| host.is_loopback());
        match &mut self.loopback {
            Some(loopback) if is_loopback => loopback,
            _ => &mut self.client,
        }
    }
}

fn safe_builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("tower-bearer/", env!("CARGO_PKG_VERSION")))
}

fn built(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, TokenError> {
    builder.build().map_err(|error| {
        TokenError::new(
            TokenErrorKind::Config,
            "the HTTP client could not be built; build your own, and pass it to `ReqwestTransport::from_client`",
        )
        .with_source(error.without_url())
    })
}

impl From<reqwest::Client> for ReqwestTransport {
    fn from(client: reqwest::Client) -> Self {
        Self::from_client(client)
    }
}

impl fmt::Debug for ReqwestTransport {
    /// Leaves out the client, whose default headers may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestTransport").finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for ReqwestTransport
where
    B: Body + Send + 'static,
    B::Data: Into<Bytes>,
    B::Error: Into<BoxError>,
{
    type Response = Response<reqwest::Body>;
    type Error = reqwest::Error;
    type Future = ReqwestFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<reqwest::Request>::poll_ready(&mut self.client, cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let client = self.client_for(request.uri());
        let request = request.map(|body| reqwest::Body::wrap(SyncBody::new(body)));
        ReqwestFuture {
            attempt: ReqwestAttempt::send(client, request),
        }
    }
}

type Pending = <reqwest::Client as Service<reqwest::Request>>::Future;

pin_project! {
    /// The future of [`ReqwestTransport`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ReqwestFuture {
        #[pin]
        attempt: ReqwestAttempt<Pending, reqwest::Error>,
    }
}

impl Future for ReqwestFuture {
    type Output = Result<Response<reqwest::Body>, reqwest::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let attempt = self.project().attempt;
        attempt.poll(cx).map_err(reqwest::Error::without_url)
    }
}

impl fmt::Debug for ReqwestFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestFuture").finish_non_exhaustive()
    }
}

/// Makes any body `Sync`: reqwest requires it, and the bodies of axum and tonic are not.
///
/// The lock is never contended, because polling takes `&mut`.
struct SyncBody<B> {
    body: Mutex<Pin<Box<B>>>,
}

impl<B> SyncBody<B> {
    fn new(body: B) -> Self {
        Self {
            body: Mutex::new(Box::pin(body)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pin<Box<B>>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Body> Body for SyncBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let body = self.get_mut().body.get_mut();
        let body = body.unwrap_or_else(PoisonError::into_inner);
        body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty, Full};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tower::ServiceExt;

    use super::*;
    use crate::{
        body::{REPLAY_LIMIT, ReplayBody},
        challenge::Verdict,
        oauth::OAuthClient,
    };

    /// Sends `response` to one connection. The task returns the request.
    async fn serve_once(response: String) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "http://{}/token?key=hunter2",
            listener.local_addr().unwrap()
        );
        let received = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"grant_type=x") && !asked.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut asked).await.unwrap();
                if asked.windows(4).any(|end| end == b"\r\n\r\n") && asked.starts_with(b"POST") {
                    while !asked.ends_with(b"grant_type=x") {
                        stream.read_buf(&mut asked).await.unwrap();
                    }
                }
            }
            stream.write_all(response.as_bytes()).await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        (url, received)
    }

    fn http(status: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test]
    async fn a_token_request_over_a_real_connection_has_a_content_length() {
        let (url, received) = serve_once(http("200 OK", r#"{"access_token":"real"}"#)).await;
        let token = OAuthClient::new(url)
            .unwrap()
            .grant("x", &[])
            .await
            .unwrap();
        assert_eq!(token.header(), "Bearer real");
        let asked = received.await.unwrap().to_ascii_lowercase();
        assert!(
            asked.starts_with("post /token?key=hunter2 http/1.1\r\n"),
            "{asked}"
        );
        assert!(asked.contains("content-length: 12\r\n"), "{asked}");
    }

    #[test]
    fn requests_to_this_machine_use_no_proxy() {
        // Changing the environment of this process is unsafe, so the test above runs again in another process.
        let nowhere = "http://127.0.0.1:1";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "oauth::reqwest_transport::tests::a_token_request_over_a_real_connection_has_a_content_length",
                "oauth::reqwest_transport::tests::a_new_transport_reaches_this_machine",
            ])
            .envs([("http_proxy", nowhere), ("HTTP_PROXY", nowhere), ("ALL_PROXY", nowhere)])
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&output.stdout);
        assert!(output.contains("2 passed"), "{output}");
    }

    #[tokio::test]
    async fn a_new_transport_reaches_this_machine() {
        let (url, _received) = serve_once(http("200 OK", "hello")).await;
        let request = Request::get(url).body(Full::<Bytes>::default()).unwrap();
        let response = ReqwestTransport::new().unwrap().oneshot(request).await;
        assert_eq!(response.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn a_response_keeps_its_url() {
        let (url, _received) = serve_once(http("200 OK", "hello")).await;
        let (elsewhere, _received) =
            serve_once(http(&format!("302 Found\r\nLocation: {url}"), "")).await;
        let follows = reqwest::Client::builder().no_proxy().build().unwrap();
        let transport = ReqwestTransport::from_client(follows);
        let request = Request::get(elsewhere)
            .body(Full::<Bytes>::default())
            .unwrap();
        let response = reqwest::Response::from(transport.oneshot(request).await.unwrap());
        assert_eq!(response.url().as_str(), url);
    }

    #[tokio::test]
    async fn a_new_transport_follows_no_redirect() {
        let response = http("302 Found\r\nLocation: http://127.0.0.1:1/", "");
        let (url, _received) = serve_once(response).await;
        let request = Request::get(url).body(Full::<Bytes>::default()).unwrap();
        let response = ReqwestTransport::new().unwrap().oneshot(request).await;
        assert_eq!(response.unwrap().status(), 302);
    }

    #[tokio::test]
    async fn a_response_after_a_redirect_is_not_the_token_endpoints() {
        let (elsewhere, _) = serve_once(http("200 OK", r#"{"access_token":"theirs"}"#)).await;
        let response = http(&format!("302 Found\r\nLocation: {elsewhere}"), "");
        let (url, _received) = serve_once(response).await;
        let follows = reqwest::Client::builder().no_proxy().build().unwrap();
        let client = OAuthClient::with_transport(url, ReqwestTransport::from_client(follows));
        let error = client.unwrap().grant("x", &[]).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(error.to_string().contains("followed a redirect"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }

    #[tokio::test]
    async fn a_response_of_another_origin_says_nothing_about_the_token() {
        let (elsewhere, _) = serve_once(http("401 Unauthorized", "")).await;
        let redirect = http(&format!("302 Found\r\nLocation: {elsewhere}"), "");
        let (url, _received) = serve_once(redirect).await;
        let (same, _) = serve_once(http("401 Unauthorized", "")).await;
        let follows = reqwest::Client::builder().no_proxy().build().unwrap();
        let transport = ReqwestTransport::from_client(follows);
        for (url, expected) in [(url, Some(Verdict::Unrelated)), (same, None)] {
            let request = Request::get(url).body(Full::<Bytes>::default()).unwrap();
            let response = transport.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 401);
            assert_eq!(response.extensions().get(), expected.as_ref());
        }
    }

    #[tokio::test]
    async fn the_default_transport_follows_no_redirect() {
        for status in [
            "301 Moved",
            "302 Found",
            "303 See Other",
            "307 Temporary",
            "308 Permanent",
        ] {
            let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            elsewhere.set_nonblocking(true).unwrap();
            let location = format!("http://{}/", elsewhere.local_addr().unwrap());
            let response = http(&format!("{status}\r\nLocation: {location}"), "");
            let (url, _received) = serve_once(response).await;
            let endpoint = OAuthClient::new(url).unwrap();
            // Nothing responds there: the timeout ends the test if a redirect is followed.
            let endpoint = endpoint.timeout(Duration::from_secs(2));
            let error = endpoint.grant("x", &[]).await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::InvalidResponse, "{status}");
            let asked = elsewhere.accept().unwrap_err();
            assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock, "{status}");
        }
    }

    #[tokio::test]
    async fn no_error_shows_the_url() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/?key=hunter2", listener.local_addr().unwrap());
        drop(listener);
        let error = OAuthClient::new(url)
            .unwrap()
            .grant("x", &[])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Transport);
        assert!(
            !format!("{error}{error:?}{error:#?}").contains("hunter2"),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn any_body_can_be_sent() {
        let (url, _received) = serve_once(http("200 OK", "hello")).await;
        let transport =
            ReqwestTransport::from(reqwest::Client::builder().no_proxy().build().unwrap());
        let request = Request::get(url)
            .body(Empty::<&'static [u8]>::new().map_err(BoxError::from))
            .unwrap();
        let response = transport.oneshot(request).await.unwrap();
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "hello"
        );
    }

    #[tokio::test]
    async fn a_body_that_is_not_sync_can_be_sent_and_replayed() {
        let (url, received) = serve_once(http("200 OK", "hello")).await;
        let transport =
            ReqwestTransport::from(reqwest::Client::builder().no_proxy().build().unwrap());
        let body = Full::<Bytes>::from("grant_type=x").boxed_unsync();
        let request = Request::post(url)
            .body(ReplayBody::new(body, REPLAY_LIMIT))
            .unwrap();
        assert_eq!(transport.oneshot(request).await.unwrap().status(), 200);
        let asked = received.await.unwrap().to_ascii_lowercase();
        assert!(asked.contains("content-length: 12\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn a_request_that_reqwest_cannot_send_is_an_error() {
        let transport = ReqwestTransport::from_client(reqwest::Client::new());
        let request = Request::get("/relative")
            .body(Full::new(Bytes::new()))
            .unwrap();
        assert!(transport.oneshot(request).await.unwrap_err().is_builder());
    }

    #[tokio::test]
    async fn a_host_that_reqwest_cannot_send_to_is_a_configuration_error() {
        // Punycode of nothing: reqwest decodes it, and we do not.
        let client = OAuthClient::new("https://xn--a.example/token?key=hunter2").unwrap();
        let error = client.grant("x", &[]).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
        assert!(!error.is_transient() && !error.is_final());
        assert!(
            error.to_string().contains("https://xn--a.example/token"),
            "{error}"
        );
        assert!(
            !format!("{error}{error:?}").contains("hunter2"),
            "{error:?}"
        );
    }

    #[test]
    fn debug_shows_no_default_header() {
        let headers = [(
            http::header::COOKIE,
            http::HeaderValue::from_static("hunter2"),
        )];
        let builder = reqwest::Client::builder().default_headers(headers.into_iter().collect());
        let transport = ReqwestTransport::from_client(builder.build().unwrap());
        assert!(!format!("{transport:?}").contains("hunter2"));
    }
}
