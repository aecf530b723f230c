//! Peers above hyper's client.

use std::{
    env, fs,
    future::Future,
    pin::Pin,
    process,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use http::{Request, Response};
use huskarl::authorizer::HttpAuthorizer;
use kube_client::{Config, client::ConfigExt, config::AuthInfo};
use tower::{BoxError, Service, ServiceBuilder};

use crate::{
    authorizer,
    clients::{HttpClient, Load, hyper},
    contender::contender,
    stacks::Contenders,
    support::work::TOKEN,
};

pub(crate) fn contenders(url: &str, load: Load, http2: bool) -> Result<Contenders, BoxError> {
    let mut config = Config::new(url.parse()?);
    config.auth_info = AuthInfo {
        token_file: Some(token_file()),
        ..AuthInfo::default()
    };
    let layer = config.auth_layer()?.ok_or("there is no token")?;
    let below = ServiceBuilder::new()
        .map_err(BoxError::from)
        .service(hyper(http2));
    let kube = ServiceBuilder::new().layer(layer).service(below);
    let huskarl = Huskarl {
        inner: hyper(http2),
        authorizer: authorizer(),
    };
    Ok(vec![
        contender("kube-client, token file", HttpClient::new(kube, url, load)),
        contender("huskarl", HttpClient::new(huskarl, url, load)),
    ])
}

/// A file with the token. It stays until the system removes temporary files.
fn token_file() -> String {
    static FILE: OnceLock<String> = OnceLock::new();
    let write = || {
        let file = env::temp_dir().join(format!("stack-token-{}", process::id()));
        fs::write(&file, TOKEN).expect("temporary files can be written");
        file.display().to_string()
    };
    FILE.get_or_init(write).clone()
}

/// huskarl's authorizer gives headers and looks at responses. This puts it above a service, as its guide says.
#[derive(Clone)]
struct Huskarl<S> {
    inner: S,
    authorizer: Arc<HttpAuthorizer>,
}

impl<S, B, R> Service<Request<B>> for Huskarl<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let authorizer = Arc::clone(&self.authorizer);
        Box::pin(async move {
            let uri = request.uri().clone();
            let headers = authorizer.get_headers(request.method(), &uri).await?;
            request.headers_mut().extend(headers);
            let response = inner.call(request).await.map_err(Into::into)?;
            authorizer.process_response(&uri, response.headers());
            Ok(response)
        })
    }
}
