//! The server, in a process of its own, so that the CPU time of this process is the client's alone.

use std::{
    convert::Infallible,
    env,
    io::{self, BufRead, BufReader, Read},
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http::{
    Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;
use tonic::{Status, body::Body};
use tower::BoxError;

use crate::{grpc, support::work::TOKEN};

/// The argument that makes a process the server.
const SERVE: &str = "--serve";

/// Where the server listens, as `http://host:port`.
#[derive(Clone, Debug)]
pub(crate) struct Urls {
    /// Answers any request.
    pub(crate) open: String,
    /// Answers requests with the token.
    pub(crate) protected: String,
}

/// A running server. It ends when this is dropped, or when this process ends.
pub(crate) struct Server {
    pub(crate) urls: Urls,
    process: Child,
}

impl Server {
    pub(crate) fn start() -> io::Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(output).lines();
        let mut url = || lines.next().ok_or(io::ErrorKind::UnexpectedEof)?;
        let urls = Urls {
            open: url()?,
            protected: url()?,
        };
        Ok(Self { urls, process })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}

/// Whether this process is the server.
pub(crate) fn is_asked_for() -> bool {
    env::args().nth(1).is_some_and(|argument| argument == SERVE)
}

/// Serves until the other process closes this one's input.
pub(crate) fn serve() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for needs_token in [false, true] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            println!("http://{}", listener.local_addr()?);
            tokio::spawn(accept(listener, needs_token));
        }
        tokio::task::spawn_blocking(|| io::stdin().read(&mut [0])).await??;
        Ok(())
    })
}

/// Serves HTTP/1.1 and HTTP/2.
async fn accept(listener: TcpListener, needs_token: bool) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let service = service_fn(|request| answer(request, needs_token));
            let connection = server.serve_connection(TokioIo::new(stream), service);
            // The client notices a broken connection.
            drop(connection.await);
        });
    }
}

async fn answer<B>(request: Request<B>, needs_token: bool) -> Result<Response<Body>, Infallible>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    if needs_token && !has_token(&request) {
        return Ok(response(StatusCode::UNAUTHORIZED, "no token"));
    }
    if request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/grpc")
    {
        return grpc::answer(request, |_| Ok::<(), Status>(())).await;
    }
    // Without the whole body there is no response: the client must have sent it.
    Ok(match request.into_body().collect().await {
        Ok(_) => response(StatusCode::OK, r#"{"id":42,"state":"accepted"}"#),
        Err(_) => response(StatusCode::BAD_REQUEST, "the body is incomplete"),
    })
}

fn has_token<B>(request: &Request<B>) -> bool {
    let value = request.headers().get(AUTHORIZATION);
    value
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .is_some_and(|token| token == TOKEN)
}

fn response(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    response
}
