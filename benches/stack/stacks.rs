//! The stacks: clients that people use, each with the same layers.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tonic::body::Body;
use tower::ServiceBuilder;
use tower_bearer::{
    AddTokenLayer, BearerAuthLayer, Origins, ReplayBody, ReqwestTransport, TokenCache,
};
use tower_http::auth::AddAuthorizationLayer;

use crate::{
    by_hand::ByHand,
    clients::{
        HttpClient, Load, ReqwestAlone, ReqwestClient, StreamClient, UnaryClient, channel, hyper,
        reqwest,
    },
    contender::{Contender, contender},
    server::Urls,
    support::work::TOKEN,
};

pub(crate) const BARE: &str = "bare";
pub(crate) const ADD: &str = "AddAuthorization";
pub(crate) const BY_HAND: &str = "by hand";
pub(crate) const ADD_TOKEN: &str = "AddTokenLayer";
pub(crate) const FULL: &str = "BearerAuthLayer";

/// What the contenders of a stack are made of.
pub(crate) struct Parts<'a> {
    pub(crate) urls: &'a Urls,
    pub(crate) session: &'a TokenCache,
}

pub(crate) type Contenders = Vec<Box<dyn Contender>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    Http1,
    Http2,
    Reqwest,
    Unary,
    Stream,
}

/// A channel that takes buffered bodies.
macro_rules! buffered_channel {
    ($url:expr) => {
        ServiceBuilder::new()
            .map_request(|request: Request<Full<Bytes>>| request.map(Body::new))
            .service(channel($url))
    };
}

/// A channel below the layer, as the README has it.
macro_rules! replaying_channel {
    ($url:expr) => {
        ServiceBuilder::new()
            .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
            .service(channel($url))
    };
}

/// The contenders of one stack. Each has connections of its own.
///
/// `$client` makes a client of a service, a URL and the load. The expressions after it make the service below the layers,
/// which connects to `$url` and takes the caller's body, a buffered body, or a [`ReplayBody`].
macro_rules! contenders {
    ($parts:expr, $load:expr, $client:path, $url:ident, $plain:expr, $buffered:expr, $replaying:expr $(,)?) => {{
        let Parts { urls, session } = $parts;
        let layers = ServiceBuilder::new;
        let add = AddAuthorizationLayer::bearer(TOKEN);
        // As in the README. Without it, every request would also be checked for plain http to this machine.
        let origins = Origins::only([&urls.protected]).expect("an origin");
        let add_token = AddTokenLayer::from(TokenCache::clone(session)).origins(origins.clone());
        let bearer = BearerAuthLayer::from(TokenCache::clone(session)).origins(origins);
        let bare = {
            let $url = &*urls.open;
            contender(BARE, $client($plain, $url, $load))
        };
        let $url = &*urls.protected;
        vec![
            bare,
            contender(
                ADD,
                $client(layers().layer(add.clone()).service($plain), $url, $load),
            ),
            // The same layer a second time: what lies between the two is noise.
            contender(
                "AddAuthorization again",
                $client(layers().layer(add).service($plain), $url, $load),
            ),
            contender(BY_HAND, $client(ByHand::new($buffered), $url, $load)),
            contender(
                ADD_TOKEN,
                $client(layers().layer(add_token).service($plain), $url, $load),
            ),
            contender(
                FULL,
                $client(layers().layer(bearer).service($replaying), $url, $load),
            ),
        ]
    }};
}

impl Stack {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "hyper HTTP/1.1",
            Self::Http2 => "hyper HTTP/2",
            Self::Reqwest => "reqwest",
            Self::Unary => "tonic unary",
            Self::Stream => "tonic stream of 1,000 messages",
        }
    }

    /// New clients, which have no connections yet. Must run in a Tokio runtime.
    pub(crate) fn contenders(self, load: Load, parts: &Parts<'_>) -> Contenders {
        match self {
            Self::Http1 => over_hyper(load, parts, false),
            Self::Http2 => over_hyper(load, parts, true),
            Self::Reqwest => over_reqwest(load, parts),
            Self::Unary => unary(load, parts),
            Self::Stream => stream(load, parts),
        }
    }
}

fn over_hyper(load: Load, parts: &Parts<'_>, http2: bool) -> Contenders {
    contenders!(
        parts,
        load,
        HttpClient::new,
        _url,
        hyper(http2),
        hyper(http2),
        hyper(http2),
    )
}

fn over_reqwest(load: Load, parts: &Parts<'_>) -> Contenders {
    let transport = || ReqwestTransport::from_client(reqwest());
    let mut contenders = contenders!(
        parts,
        load,
        ReqwestClient::new,
        _url,
        transport(),
        transport(),
        transport(),
    );
    let alone = ReqwestAlone::new(&parts.urls.protected, load);
    contenders.push(contender("reqwest alone, bearer_auth", alone));
    contenders
}

fn unary(load: Load, parts: &Parts<'_>) -> Contenders {
    contenders!(
        parts,
        load,
        UnaryClient::new,
        url,
        channel(url),
        buffered_channel!(url),
        replaying_channel!(url),
    )
}

fn stream(load: Load, parts: &Parts<'_>) -> Contenders {
    contenders!(
        parts,
        load,
        StreamClient::new,
        url,
        channel(url),
        buffered_channel!(url),
        replaying_channel!(url),
    )
}
