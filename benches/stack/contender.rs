//! One client that sends requests, one at a time or many at once.

use std::{
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tower::BoxError;

/// One of so many requests is timed: reading the clock would be a part of what is measured.
const TIMED: usize = 8;

pub(crate) type Sending<'a> = Pin<Box<dyn Future<Output = Result<Vec<Duration>, BoxError>> + 'a>>;

pub(crate) trait Contender: Send {
    fn name(&self) -> &'static str;

    /// Sends requests and reads their responses. Returns how long some of them took.
    fn send(&mut self, requests: usize, at_once: usize) -> Sending<'_>;
}

/// Sends one request and reads its response.
pub(crate) trait Client: Clone + Send + 'static {
    fn exchange(&mut self) -> impl Future<Output = Result<(), BoxError>> + Send;
}

struct Named<C> {
    name: &'static str,
    client: C,
}

pub(crate) fn contender(name: &'static str, client: impl Client) -> Box<dyn Contender> {
    Box::new(Named { name, client })
}

impl<C: Client> Contender for Named<C> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn send(&mut self, requests: usize, at_once: usize) -> Sending<'_> {
        if at_once == 1 {
            return Box::pin(one_by_one(&mut self.client, requests, 0));
        }
        Box::pin(async move {
            let mut callers = JoinSet::new();
            for number in 0..at_once {
                let mut client = self.client.clone();
                let each = requests / at_once;
                callers.spawn(async move { one_by_one(&mut client, each, number).await });
            }
            let mut times = Vec::new();
            while let Some(caller) = callers.join_next().await {
                times.append(&mut caller??);
            }
            Ok(times)
        })
    }
}

async fn one_by_one(
    client: &mut impl Client,
    requests: usize,
    first: usize,
) -> Result<Vec<Duration>, BoxError> {
    let mut times = Vec::new();
    for number in first..first + requests {
        if !number.is_multiple_of(TIMED) {
            client.exchange().await?;
            continue;
        }
        let start = Instant::now();
        client.exchange().await?;
        times.push(start.elapsed());
    }
    Ok(times)
}
