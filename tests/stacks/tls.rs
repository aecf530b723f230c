//! hyper and reqwest over real TLS, with a certificate authority made here, and a server that drops connections.

#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    error::Error,
    future::ready,
    io, iter,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use support::{Ask, text};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};
use tower::{
    BoxError, Layer, Service, ServiceExt, service_fn,
    util::{BoxCloneService, BoxCloneSyncService},
};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, OAuthClient, Origins, RefreshTokenSource, ReplayBody,
    ReqwestTransport, Schedule, TokenCache, TokenError,
    testing::{AuthorizationServer, Dialect, ProtectedApi, ReplyBody},
};

/// No loopback name, so that nothing but https will do.
const HOST: &str = "api.example.com";

// ---------------------------------------------------------------------------------------------------------------------
// The authority.

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// What a server of [`HOST`] needs.
    fn server(&self) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([HOST.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    /// A client that trusts this authority, and no other.
    fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

// ---------------------------------------------------------------------------------------------------------------------
// The server.

type Serve = BoxCloneService<Request<hyper::body::Incoming>, Response<Cut>, io::Error>;

/// A server behind TLS, until it is dropped.
struct Site {
    addr: SocketAddr,
    _open: JoinSet<()>,
}

impl Site {
    /// `open` says of each connection whether it is to live.
    async fn open(
        config: ServerConfig,
        service: Serve,
        mut open: impl FnMut() -> bool + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if !open() {
                    continue;
                }
                stream.set_nodelay(true).unwrap();
                let (acceptor, service) = (acceptor.clone(), service.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let answer = hyper::service::service_fn(move |request| {
                        let service = service.clone();
                        service.oneshot(request)
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A broken connection is the client's to notice.
                    let serving = server.serve_connection(TokioIo::new(stream), answer);
                    serving.await.ok();
                });
            }
        });
        Self {
            addr,
            _open: accepting,
        }
    }

    async fn serve(config: ServerConfig, service: impl InMemory) -> Self {
        let service = service
            .map_response(|response: Response<ReplyBody>| response.map(Cut::not))
            .map_err(io::Error::other);
        Self::open(config, BoxCloneService::new(service), || true).await
    }

    fn url(&self, path: &str) -> String {
        format!("https://{HOST}:{}{path}", self.addr.port())
    }
}

trait InMemory:
    Service<
        Request<hyper::body::Incoming>,
        Response = Response<ReplyBody>,
        Error = BoxError,
        Future: Send,
    > + Clone
    + Send
    + 'static
{
}

impl InMemory for AuthorizationServer {}
impl InMemory for ProtectedApi {}

/// The body of an answer, whose connection may break in the middle of it.
struct Cut {
    inner: ReplyBody,
    /// How often it is still polled before that: for a frame, and while what there is is sent.
    after: Option<usize>,
}

impl Cut {
    fn not(inner: ReplyBody) -> Self {
        Self { inner, after: None }
    }
}

impl Body for Cut {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.after {
            Some(0) => return Poll::Ready(Some(Err(io::Error::other("cut")))),
            Some(polls @ 1) => {
                *polls = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(polls) => *polls -= 1,
            None => {}
        }
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        polled.map_err(|never| match never {})
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The clients.

type Http = BoxCloneSyncService<Ask, Response<Received>, BoxError>;
type Received = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Hyper { http2: bool },
    Reqwest,
}

const KINDS: [Kind; 3] = [
    Kind::Hyper { http2: false },
    Kind::Hyper { http2: true },
    Kind::Reqwest,
];

/// Connects to this machine, whatever the name.
#[derive(Clone)]
struct Here;

impl Service<Name> for Here {
    type Response = iter::Once<SocketAddr>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(iter::once(SocketAddr::from(([127, 0, 0, 1], 0)))))
    }
}

fn hyper<B>(config: ClientConfig, http2: bool) -> Client<HttpsConnector<HttpConnector<Here>>, B>
where
    B: Body<Data: Send> + Send,
{
    let mut line = HttpConnector::new_with_resolver(Here);
    line.enforce_http(false);
    line.set_nodelay(true);
    let tls = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only();
    let connector = if http2 {
        tls.enable_http2().wrap_connector(line)
    } else {
        tls.enable_http1().wrap_connector(line)
    };
    Client::builder(TokioExecutor::new()).build(connector)
}

fn reqwest(config: ClientConfig) -> ReqwestTransport {
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .resolve(HOST, here)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .https_only(true);
    ReqwestTransport::new(client.build().unwrap())
}

fn received<B>(response: Response<B>) -> Response<Received>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// A session whose token requests and API requests both go by `kind` over TLS.
fn session(kind: Kind, config: &ClientConfig, server: &AuthorizationServer, tokens: &str) -> Http {
    let endpoint = match kind {
        Kind::Hyper { http2 } => OAuthClient::with_transport(tokens, hyper(config.clone(), http2)),
        Kind::Reqwest => OAuthClient::with_transport(tokens, reqwest(config.clone())),
    };
    let endpoint = endpoint
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ));
    let source = RefreshTokenSource::new(endpoint, server.issue_refresh_token());
    let cache = TokenCache::builder(source)
        .schedule(Schedule::default().min_interval(Duration::from_millis(1)))
        .build();
    let bearer = BearerAuthLayer::from(cache).origins(Origins::any_https());
    match kind {
        Kind::Hyper { http2 } => {
            let client = hyper::<ReplayBody<Full<Bytes>>>(config.clone(), http2);
            BoxCloneSyncService::new(bearer.layer(client).map_response(received))
        }
        Kind::Reqwest => {
            let client = bearer.layer(reqwest(config.clone()));
            BoxCloneSyncService::new(ServiceExt::<Ask>::map_response(client, received))
        }
    }
}

fn order(url: &str, id: &str) -> Ask {
    Request::post(url)
        .header("x-request-id", id)
        .body(Full::from("a bicycle"))
        .unwrap()
}

// ---------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_token_goes_over_tls_and_is_renewed_over_tls() {
    let authority = Authority::new();
    for kind in KINDS {
        let server = AuthorizationServer::new(Dialect::Rfc6749);
        let api = server.api();
        let tokens = Site::serve(authority.server(), server.clone()).await;
        let site = Site::serve(authority.server(), api.clone()).await;
        let token_url = tokens.url(&server.token_path());
        let client = session(kind, &authority.client(), &server, &token_url);
        for id in ["first", "revoked"] {
            let request = order(&site.url("/orders"), id);
            let response = client.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 200, "{kind:?}");
            if let Kind::Hyper { http2 } = kind {
                assert_eq!(response.version() == Version::HTTP_2, http2);
            }
            assert_eq!(text(response).await, "a bicycle");
            server.revoke_access_tokens();
        }
        assert_eq!((api.accepted(), api.rejected()), (2, 1), "{kind:?}");
        assert_eq!(server.refreshes(), 2, "{kind:?}");
    }
}

#[tokio::test]
async fn nothing_is_told_to_a_server_whose_authority_is_unknown() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for kind in KINDS {
        let server = AuthorizationServer::new(Dialect::Rfc6749);
        let api = server.api();

        // Neither the refresh token …
        let tokens = Site::serve(theirs.server(), server.clone()).await;
        let site = Site::serve(ours.server(), api.clone()).await;
        let token_url = tokens.url(&server.token_path());
        let client = session(kind, &ours.client(), &server, &token_url);
        let error = client.oneshot(order(&site.url("/"), "a")).await.err();
        let error = error.expect("a token from whoever answers");
        let error: &TokenError = error.downcast_ref().unwrap();
        assert!(error.is_transient(), "{error:?}");
        assert!(
            chain(error).contains("InvalidCertificate"),
            "{}",
            chain(error)
        );
        assert_eq!((server.token_requests(), api.received()), (0, 0));

        // … nor the access token.
        let tokens = Site::serve(ours.server(), server.clone()).await;
        let site = Site::serve(theirs.server(), api.clone()).await;
        let token_url = tokens.url(&server.token_path());
        let client = session(kind, &ours.client(), &server, &token_url);
        let error = client.oneshot(order(&site.url("/"), "b")).await.err();
        let error = error.expect("an answer from whoever answers");
        assert!(!error.is::<TokenError>(), "{error:?}");
        let told = chain(&*error);
        assert!(told.contains("InvalidCertificate"), "{told}");
        assert_eq!((server.refreshes(), api.received()), (1, 0));
    }
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    format!("{:?}", causes.collect::<Vec<_>>())
}

// ---------------------------------------------------------------------------------------------------------------------
// A server that drops connections.

/// What came of an attempt, as its server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    Served,
    Rejected,
    /// No answer: the connection was closed after the request had been read.
    Dropped,
    /// The connection was closed in the middle of the answer.
    Cut,
}

type Diary = Arc<Mutex<HashMap<String, Vec<Met>>>>;
type Dice = Arc<Mutex<fastrand::Rng>>;

/// The API, on an unreliable line.
fn unreliable(api: ProtectedApi, dice: Dice, diary: Diary) -> Serve {
    BoxCloneService::new(service_fn(move |request: Request<_>| {
        let (api, dice, diary) = (api.clone(), dice.clone(), diary.clone());
        async move {
            let id = request.headers()["x-request-id"]
                .to_str()
                .unwrap()
                .to_owned();
            let response = api.oneshot(request).await.map_err(io::Error::other)?;
            let met = match dice.lock().unwrap().u8(..8) {
                0 => Met::Dropped,
                _ if response.status() == 401 => Met::Rejected,
                1 => Met::Cut,
                _ => Met::Served,
            };
            diary.lock().unwrap().entry(id).or_default().push(met);
            match met {
                Met::Dropped => Err(io::Error::other("dropped")),
                met => Ok(response.map(|inner| Cut {
                    inner,
                    after: (met == Met::Cut).then_some(2),
                })),
            }
        }
    }))
}

#[tokio::test]
async fn only_what_was_clearly_rejected_is_sent_again_when_connections_break() {
    const REQUESTS: usize = 300;
    let authority = Authority::new();
    for (kind, seed) in KINDS.into_iter().zip([1, 2, 3]) {
        let server = AuthorizationServer::new(Dialect::Rfc6749);
        let tokens = Site::serve(authority.server(), server.clone()).await;
        let (dice, diary) = (Dice::default(), Diary::default());
        dice.lock().unwrap().seed(seed);
        let service = unreliable(server.api(), dice.clone(), diary.clone());
        let open = move || dice.lock().unwrap().u8(..8) != 0;
        let site = Site::open(authority.server(), service, open).await;
        let token_url = tokens.url(&server.token_path());
        let client = session(kind, &authority.client(), &server, &token_url);

        let mut tally = HashMap::<_, usize>::new();
        for n in 0..REQUESTS {
            if n % 5 == 4 {
                server.revoke_access_tokens();
            }
            let id = format!("order-{n}");
            let request = order(&site.url("/orders"), &id);
            let came = match client.clone().oneshot(request).await {
                Ok(response) => {
                    assert_eq!(
                        response.status(),
                        200,
                        "{kind:?} {id}: nothing but its token"
                    );
                    match response.into_body().collect().await {
                        Ok(body) => {
                            assert_eq!(body.to_bytes(), "a bicycle", "{kind:?} {id}");
                            "answered"
                        }
                        Err(_) => "cut",
                    }
                }
                Err(error) => {
                    assert!(!error.is::<TokenError>(), "{kind:?} {id}: {error:?}");
                    "failed"
                }
            };
            // What the server did, attempt by attempt, and what the caller saw of it.
            let met = diary.lock().unwrap().remove(&id).unwrap_or_default();
            let expected = match met[..] {
                [Met::Served] | [Met::Rejected, Met::Served] => "answered",
                [Met::Cut] | [Met::Rejected, Met::Cut] => "cut",
                // Never sent, or not answered: it is not known what came of it, and it is not sent again.
                [] | [Met::Dropped | Met::Rejected] | [Met::Rejected, Met::Dropped] => "failed",
                _ => panic!("{kind:?} {id}: {met:?}"),
            };
            assert_eq!(came, expected, "{kind:?} {id}: {met:?}");
            *tally.entry((came, met.len() > 1)).or_default() += 1;
        }
        // Of each kind there were some, or the test would show nothing.
        for seen in [
            ("answered", false),
            ("answered", true),
            ("failed", false),
            ("cut", false),
        ] {
            assert!(
                tally.contains_key(&seen),
                "{kind:?}: no {seen:?} in {tally:?}"
            );
        }
        assert_eq!(server.live_sessions(), 1);
        assert_eq!(server.reuse_detected(), 0);
    }
}
