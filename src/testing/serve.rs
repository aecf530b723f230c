//! [`serve`]: puts any service behind a real socket.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tower::{BoxError, Service, ServiceExt};

/// Serves `service` on a free port of 127.0.0.1 until the returned [`Served`] is dropped.
///
/// The client chooses between HTTP/1.1 and HTTP/2, both without TLS.
///
/// An error of the service closes the connection without a response (HTTP/2: resets the stream). Do not pause Tokio's
/// time in tests that use sockets: the clock would jump while bytes are in transit.
///
/// # Errors
///
/// Returns the error of the operating system if no port is available.
///
/// # Examples
///
/// ```
/// use tower_bearer::testing::{self, AuthorizationServer, Dialect};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let server = AuthorizationServer::new(Dialect::Winbooks);
/// let served = testing::serve(server.clone()).await?;
/// assert!(served.url().starts_with("http://127.0.0.1:"));
/// assert_eq!(served.connections(), 0);
/// # Ok(()) }
/// ```
pub async fn serve<S, B>(service: S) -> io::Result<Served>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let addr = listener.local_addr()?;
    let connections = Arc::new(AtomicUsize::new(0));
    let accepting = tokio::spawn(accept(listener, service, connections.clone()));
    Ok(Served {
        addr,
        connections,
        accepting,
    })
}

async fn accept<S, B>(listener: TcpListener, service: S, connections: Arc<AtomicUsize>)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    // Owned by this task, so that aborting the task closes every connection too.
    let mut open = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // For example, there are no file descriptors left. Try again a moment later.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        connections.fetch_add(1, Ordering::SeqCst);
        let service = service.clone();
        open.spawn(async move {
            stream.set_nodelay(true).ok();
            let mut server = auto::Builder::new(TokioExecutor::new());
            // The service decides about the `Date` header.
            server.http1().auto_date_header(false);
            server.http2().auto_date_header(false);
            let answer = service_fn(move |request| service.clone().oneshot(request));
            // The client notices a broken connection.
            server
                .serve_connection(TokioIo::new(stream), answer)
                .await
                .ok();
        });
        while open.try_join_next().is_some() {}
    }
}

/// A running server of [`serve`]. Dropping it closes the port and every connection.
#[derive(Debug)]
#[must_use = "dropping it stops the server"]
pub struct Served {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Served {
    /// The origin of the server, such as `http://127.0.0.1:49152`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The address and port of the server.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
