//! The bench `stack`, with other clients that add a token: `cargo run --release --bin stack [-- OPTIONS]`.
//!
//! kube-client's layer and huskarl's authorizer are above hyper's client. reqwest-middleware, rmcp and huskarl are above
//! reqwest's: compare these with "reqwest alone", because there is no Tower service between. The options are those of the
//! bench.

#[path = "../../../../stack/by_hand.rs"]
mod by_hand;
#[path = "../../../../stack/clients.rs"]
mod clients;
#[path = "../../../../stack/contender.rs"]
mod contender;
#[path = "../../../../../examples/stacks/support/grpc.rs"]
mod grpc;
#[path = "../../../../stack/instructions.rs"]
mod instructions;
#[path = "../../../../stack/options.rs"]
mod options;
mod over_hyper;
mod over_reqwest;
#[path = "../../../../stack/report.rs"]
mod report;
#[path = "../../../../stack/run.rs"]
mod run;
#[path = "../../../../stack/sample.rs"]
mod sample;
#[path = "../../../../stack/server.rs"]
mod server;
#[path = "../../../../stack/stacks.rs"]
mod stacks;
#[path = "../../../../support/mod.rs"]
mod support;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use clients::Load;
use huskarl::{
    TokenError,
    authorizer::HttpAuthorizer,
    cache::{InMemoryTokenCache, TokenSource},
    core::platform::MaybeSendBoxFuture,
    grant::core::{RawTokenResponse, TokenResponse},
};
use serde_json::json;
use stacks::{Contenders, Parts, Stack};
use support::work::TOKEN;
use tower::BoxError;

const LIFETIME: Duration = Duration::from_secs(3_600);

fn main() -> Result<(), BoxError> {
    run::main(&|stack, load, parts| peers(stack, load, parts).expect("the peers start"))
}

fn peers(stack: Stack, load: Load, parts: &Parts<'_>) -> Result<Contenders, BoxError> {
    let url = &parts.urls.protected;
    match stack {
        Stack::Http1 => over_hyper::contenders(url, load, false),
        Stack::Http2 => over_hyper::contenders(url, load, true),
        Stack::Reqwest => over_reqwest::contenders(url, load),
        Stack::Unary | Stack::Stream => Ok(Vec::new()),
    }
}

/// huskarl's cache over a source that always has the token.
fn authorizer() -> Arc<HttpAuthorizer> {
    let cache = InMemoryTokenCache::builder().source(Always).build();
    Arc::new(HttpAuthorizer::builder().cache(cache).build())
}

struct Always;

impl TokenSource for Always {
    fn token(&self) -> MaybeSendBoxFuture<'_, Result<Arc<TokenResponse>, TokenError>> {
        let response = json!({
            "access_token": TOKEN,
            "token_type": "Bearer",
            "expires_in": LIFETIME.as_secs(),
        });
        let raw: RawTokenResponse = serde_json::from_value(response).expect("a token response");
        let response = raw.into_token_response(None, SystemTime::now());
        let response = Arc::new(response.expect("a bearer token"));
        Box::pin(async move { Ok(response) })
    }
}
