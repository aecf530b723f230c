//! A hit of a session with a key, and what it is compared with: a layer with one session, and hashing the key.

use std::{
    convert::Infallible,
    future::Ready,
    hash::{BuildHasher, Hash, RandomState},
    hint::black_box,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{Empty, Full};
use tower::{BoxError, Service, ServiceBuilder};
use tower_bearer::{BearerAuthLayer, SessionKey, Sessions};

use super::{
    contenders::session,
    work::{Bare, Model, Runner, contender},
};

/// Positions in each group of [`contenders`].
pub(crate) const BARE: usize = 0;
pub(crate) const HASH: usize = 1;
pub(crate) const ONE: usize = 2;
pub(crate) const KEYED: usize = 3;
pub(crate) const GROUP: usize = 4;

const HEADERS: usize = 6;
/// Others in the map.
const OTHERS: usize = 100;

/// Groups of contenders, and what their requests are. All requests have the key, so that its copy for a replay is in all
/// sums.
pub(crate) async fn contenders() -> Vec<(&'static str, Vec<Box<dyn Runner>>)> {
    let kilobyte = || Full::new(Bytes::from_static(&[7; 1024]));
    let number = |it: usize| it as u64;
    let name = |it: usize| format!("tenant-{it:04}");
    vec![
        ("u64, no body", group(number, Empty::<Bytes>::new()).await),
        ("u64, 1 KiB, not read", group(number, kilobyte()).await),
        ("String, no body", group(name, Empty::<Bytes>::new()).await),
        ("String, 1 KiB, not read", group(name, kilobyte()).await),
    ]
}

async fn group<K, B>(key: impl Fn(usize) -> K, body: B) -> Vec<Box<dyn Runner>>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    B: Body + Clone + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let sessions = Sessions::new(|_: K| async { Ok(session().await) });
    for number in 0..OTHERS {
        sessions.get(&key(number)).await.expect("it is made");
    }
    let key = key(OTHERS / 2);
    let model = Model::new(HEADERS, body).with_extension(SessionKey(key.clone()));
    let bare = Bare { reads: false };
    let stack = ServiceBuilder::new;
    vec![
        contender("bare service", bare, &model),
        contender("hash of the key", HashKey::<K>::new(bare), &model),
        contender(
            "BearerAuthLayer",
            stack()
                .layer(BearerAuthLayer::from(session().await))
                .service(bare),
            &model,
        ),
        contender(
            "BearerAuthLayer::keyed",
            stack()
                .layer(BearerAuthLayer::keyed(sessions))
                .service(bare),
            &model,
        ),
    ]
}

/// Finds the key of a request and hashes it, as a map with the default hasher does.
struct HashKey<K> {
    inner: Bare,
    hasher: RandomState,
    key: std::marker::PhantomData<fn() -> K>,
}

impl<K> HashKey<K> {
    fn new(inner: Bare) -> Self {
        Self {
            inner,
            hasher: RandomState::new(),
            key: std::marker::PhantomData,
        }
    }
}

impl<K> Clone for HashKey<K> {
    fn clone(&self) -> Self {
        Self {
            hasher: self.hasher.clone(),
            ..Self::new(self.inner)
        }
    }
}

impl<K, B> Service<Request<B>> for HashKey<K>
where
    K: Hash + Send + Sync + 'static,
    B: Body + Unpin,
{
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<B>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let key = request.extensions().get::<SessionKey<K>>();
        black_box(self.hasher.hash_one(&key.expect("it has a key").0));
        self.inner.call(request)
    }
}
