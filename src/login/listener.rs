//! [`Listener`]: gets the answer of a login on a port of this machine (RFC 8252 §7.3).
//!
//! Any program and any web page on this machine can connect to it. So it answers GET requests of one path, whose `Host` is the
//! literal address, and what is wrong with a request harms only that request. Numbers and times are limited.

use std::{
    collections::VecDeque,
    future::{Future, pending},
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    Method, Request, Response, StatusCode,
    header::HOST,
    uri::{PathAndQuery, Uri},
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::SecretString;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use super::page::refusal;
use crate::{
    error::{TokenError, TokenErrorKind},
    race::{First, race},
};

/// How many connections are open at the same time. Another one replaces the oldest that has sent no request yet: a program that
/// only connects must not delay the browser.
const MAX_CONNECTIONS: usize = 32;

/// How long a connection may take to send the head of its request.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// How long that head may be, in bytes. Codes of some servers take some thousand.
const MAX_HEAD: usize = 32 * 1024;

/// How long the browser may take to read the last page.
const LAST_PAGE_TIME: Duration = Duration::from_secs(2);

/// A socket on this machine. Dropping it closes the port and all connections.
pub(super) struct Listener {
    socket: TcpListener,
    route: Arc<Route>,
    connections: JoinSet<()>,
    /// The connections whose requests are not there yet, the oldest first.
    silent: VecDeque<Silent>,
    caller: mpsc::Sender<Call>,
    calls: mpsc::Receiver<Call>,
}

/// What requests must be for.
struct Route {
    /// The address and the port, as in a URL.
    authority: String,
    path: String,
}

/// A connection that has sent no whole head of a request.
struct Silent {
    task: AbortHandle,
    has_head: Arc<AtomicBool>,
}

/// A request of the path. Its browser waits for an answer.
pub(super) struct Call {
    /// The query.
    pub(super) response: SecretString,
    answer: oneshot::Sender<Response<Full<Bytes>>>,
    closed: oneshot::Receiver<()>,
}

impl Call {
    /// Answers the request. The receiver ends when the answer was sent, or cannot be.
    pub(super) fn answer(self, page: Response<Full<Bytes>>) -> oneshot::Receiver<()> {
        self.answer.send(page).ok();
        self.closed
    }
}

impl Listener {
    /// Opens a port of `address`: any one that is free if `port` is 0.
    pub(super) async fn bind(address: IpAddr, port: u16, path: &str) -> Result<Self, TokenError> {
        let is_path = path.starts_with('/')
            && !path.contains(['?', '#'])
            && path.parse::<PathAndQuery>().is_ok();
        if !is_path {
            return Err(config(
                "the path of the redirect URI must begin with `/`, and have neither a query nor a fragment".into(),
            ));
        }
        let failed = |error: std::io::Error| {
            let message = format!(
                "no browser can come back to port {port} of {address}, because it cannot be opened; is another program using \
                 it?"
            );
            config(message).with_source(error)
        };
        let socket = TcpListener::bind((address, port)).await.map_err(failed)?;
        let bound: SocketAddr = socket.local_addr().map_err(failed)?;
        let (caller, calls) = mpsc::channel(1);
        Ok(Self {
            socket,
            route: Arc::new(Route {
                authority: authority(bound),
                path: path.to_owned(),
            }),
            connections: JoinSet::new(),
            silent: VecDeque::new(),
            caller,
            calls,
        })
    }

    pub(super) fn redirect_uri(&self) -> String {
        format!("http://{}{}", self.route.authority, self.route.path)
    }

    /// The next request of the path. Waits for ever, and serves other requests meanwhile. Can be dropped and called again.
    pub(super) async fn next(&mut self) -> Call {
        loop {
            let Self {
                socket,
                connections,
                calls,
                ..
            } = self;
            // One that was replaced has not ended yet, or all have sent requests.
            let is_full = connections.len() > MAX_CONNECTIONS;
            let accepted = async {
                if is_full {
                    pending().await
                } else {
                    socket.accept().await
                }
            };
            let ended = async {
                if connections.join_next().await.is_none() {
                    pending::<()>().await;
                }
            };
            match race(calls.recv(), race(ended, accepted)).await {
                First::Left(Some(call)) => return call,
                First::Right(First::Right(Ok((stream, _)))) => {
                    self.replace_oldest();
                    let (route, has_head) = (Arc::clone(&self.route), Arc::default());
                    let connection =
                        serve(stream, route, self.caller.clone(), Arc::clone(&has_head));
                    let task = self.connections.spawn(connection);
                    self.silent.push_back(Silent { task, has_head });
                }
                // For example, there are no file descriptors left. Try again a moment later.
                First::Right(First::Right(Err(_))) => sleep(Duration::from_millis(50)).await,
                First::Left(None) | First::Right(First::Left(())) => {}
            }
        }
    }

    /// Closes the oldest silent connection if there are as many connections as may be.
    fn replace_oldest(&mut self) {
        self.silent
            .retain(|it| !it.task.is_finished() && !it.has_head.load(Ordering::Relaxed));
        if self.connections.len() >= MAX_CONNECTIONS
            && let Some(oldest) = self.silent.pop_front()
        {
            oldest.task.abort();
        }
    }

    /// Runs `work`, and answers each request of the path with `page` meanwhile.
    pub(super) async fn refusing_while<T>(
        &mut self,
        work: impl Future<Output = T>,
        page: impl Fn() -> Response<Full<Bytes>>,
    ) -> T {
        let mut work = pin!(work);
        loop {
            match race(work.as_mut(), self.next()).await {
                First::Left(result) => return result,
                First::Right(call) => drop(call.answer(page())),
            }
        }
    }

    /// Closes the port, and then, when the last page was sent, all connections.
    pub(super) async fn close_after(self, page_sent: oneshot::Receiver<()>) {
        let Self {
            socket,
            connections: _open,
            ..
        } = self;
        drop(socket);
        timeout(LAST_PAGE_TIME, page_sent).await.ok();
    }
}

/// The address and the port as browsers write them: without the default one.
fn authority(address: SocketAddr) -> String {
    let text = address.to_string();
    let without_port = text.strip_suffix(":80").map(str::to_owned);
    without_port.unwrap_or(text)
}

/// Serves one request.
async fn serve(
    stream: TcpStream,
    route: Arc<Route>,
    caller: mpsc::Sender<Call>,
    has_head: Arc<AtomicBool>,
) {
    let (_until_closed, closed) = oneshot::channel();
    let closed = Mutex::new(Some(closed));
    let service = service_fn(|request: Request<Incoming>| {
        has_head.store(true, Ordering::Relaxed);
        let closed = closed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (route, caller) = (&route, &caller);
        async move {
            let response = match (route.response_in(&request), closed) {
                (Ok(response), Some(closed)) => call(caller, response, closed).await,
                (Ok(_), None) => refusal(StatusCode::BAD_REQUEST),
                (Err(status), _) => refusal(status),
            };
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false);
    http.serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

/// Passes the request on to the login, and waits for its page.
async fn call(
    caller: &mpsc::Sender<Call>,
    response: SecretString,
    closed: oneshot::Receiver<()>,
) -> Response<Full<Bytes>> {
    let (answer, page) = oneshot::channel();
    let call = Call {
        response,
        answer,
        closed,
    };
    caller.send(call).await.ok();
    page.await
        .unwrap_or_else(|_| refusal(StatusCode::SERVICE_UNAVAILABLE))
}

impl Route {
    /// The query of a request of the path, or the status of the refusal.
    fn response_in(&self, request: &Request<Incoming>) -> Result<SecretString, StatusCode> {
        let uri: &Uri = request.uri();
        let mut hosts = request.headers().get_all(HOST).iter();
        // A name that leads here would let the pages of its owner read our answers (DNS rebinding).
        let is_ours = hosts.next().is_some_and(|it| it == &*self.authority)
            && hosts.next().is_none()
            && uri.authority().is_none();
        if !is_ours {
            return Err(StatusCode::MISDIRECTED_REQUEST);
        }
        if uri.path() != self.path {
            return Err(StatusCode::NOT_FOUND);
        }
        if request.method() != Method::GET {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        Ok(uri.query().unwrap_or_default().into())
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

fn config(message: String) -> TokenError {
    TokenError::new(TokenErrorKind::Config, message)
}
