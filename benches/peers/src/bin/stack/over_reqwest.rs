//! Peers above reqwest's client.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{SystemTime, UNIX_EPOCH},
};

use http::{Extensions, StatusCode, header::AUTHORIZATION};
use huskarl::authorizer::HttpAuthorizer;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use rmcp::transport::auth::{
    AuthorizationManager, AuthorizedHttpClient, CredentialStore, InMemoryCredentialStore,
    StoredCredentials,
};
use serde_json::json;
use tower::BoxError;

use crate::{
    LIFETIME, authorizer,
    by_hand::SharedToken,
    clients::{Load, ReqwestRequests, finish, reqwest},
    contender::{Client, contender},
    stacks::Contenders,
    support::work::TOKEN,
};

pub(crate) fn contenders(url: &str, load: Load) -> Result<Contenders, BoxError> {
    let requests = || ReqwestRequests::new(url, load);
    let recipe = ClientBuilder::new(reqwest())
        .with(Recipe(SharedToken::new()))
        .build();
    Ok(vec![
        contender(
            "reqwest-middleware",
            WithMiddleware {
                requests: requests(),
                client: recipe,
            },
        ),
        contender(
            "rmcp",
            Rmcp {
                requests: requests(),
                client: rmcp(url)?,
            },
        ),
        contender(
            "huskarl",
            Huskarl {
                requests: requests(),
                authorizer: authorizer(),
            },
        ),
    ])
}

/// The usual recipe: a token behind a lock, a copy of the request, and once more after a 401.
struct Recipe(Arc<SharedToken>);

#[async_trait::async_trait]
impl Middleware for Recipe {
    async fn handle(
        &self,
        mut request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let error = |error| reqwest_middleware::Error::middleware(Failed(error));
        let copy = request.try_clone();
        let header = self.0.header().await.map_err(error)?;
        request.headers_mut().insert(AUTHORIZATION, header);
        let response = next.clone().run(request, extensions).await?;
        let Some(mut copy) = copy else {
            return Ok(response);
        };
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        drop(response);
        let header = self.0.refresh().await.map_err(error)?;
        copy.headers_mut().insert(AUTHORIZATION, header);
        next.run(copy, extensions).await
    }
}

/// The library takes only errors with a type.
#[derive(Debug)]
struct Failed(BoxError);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failed {}

#[derive(Clone)]
struct WithMiddleware {
    requests: ReqwestRequests,
    client: ClientWithMiddleware,
}

impl Client for WithMiddleware {
    async fn exchange(&mut self) -> Result<(), BoxError> {
        let request = self.requests.next().build()?;
        finish(self.client.execute(request).await?).await
    }
}

/// rmcp's client with stored credentials. It does not send a rejected request again; its MCP transport does.
fn rmcp(url: &str) -> Result<Arc<AuthorizedHttpClient>, BoxError> {
    let token = json!({
        "access_token": TOKEN,
        "token_type": "bearer",
        "expires_in": LIFETIME.as_secs(),
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let credentials = StoredCredentials::new(
        String::from("orders"),
        Some(serde_json::from_value(token)?),
        Vec::new(),
        Some(now),
    );
    let store = InMemoryCredentialStore::new();
    let starting = async {
        store.save(credentials).await?;
        let mut manager = AuthorizationManager::new(url).await?;
        manager.set_credential_store(store);
        Ok::<_, BoxError>(manager)
    };
    // Nothing in there waits for anything.
    let manager = ready(starting)?;
    let client = AuthorizedHttpClient::new(Arc::new(manager), Some(reqwest()));
    Ok(Arc::new(client))
}

/// The result of a future that is never pending.
fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut cx) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future is pending"),
    }
}

#[derive(Clone)]
struct Rmcp {
    requests: ReqwestRequests,
    client: Arc<AuthorizedHttpClient>,
}

impl Client for Rmcp {
    async fn exchange(&mut self) -> Result<(), BoxError> {
        let method = self.requests.model.method().clone();
        let request = self
            .client
            .request(method, self.requests.url.clone())
            .await?;
        finish(self.requests.fill(request).send().await?).await
    }
}

#[derive(Clone)]
struct Huskarl {
    requests: ReqwestRequests,
    authorizer: Arc<HttpAuthorizer>,
}

impl Client for Huskarl {
    async fn exchange(&mut self) -> Result<(), BoxError> {
        let mut request = self.requests.next().build()?;
        let uri = request.url().as_str().parse()?;
        let headers = self.authorizer.get_headers(request.method(), &uri).await?;
        request.headers_mut().extend(headers);
        let response = self.requests.reqwest.execute(request).await?;
        self.authorizer.process_response(&uri, response.headers());
        finish(response).await
    }
}
