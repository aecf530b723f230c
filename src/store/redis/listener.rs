//! Listening for what other processes save: one connection in the mode of subscribers (RESP2) for each client.

use std::{fmt, future::poll_fn, pin::Pin};

use futures_core::Stream;
use redis::{
    Client, RedisError,
    aio::{PubSubSink, PubSubStream},
};

use super::connection::{Connection, address};
use crate::store::listeners::{Failure, Listen, ListeningConnection};

/// A server that is listened to.
pub(super) struct Server(pub(super) Client);

pub(super) struct Subscriber {
    sink: PubSubSink,
    stream: PubSubStream,
}

impl Listen for Server {
    type Connection = Subscriber;

    async fn connect(&self) -> Result<Subscriber, Failure> {
        let connection = self.0.get_async_pubsub().await.map_err(failure)?;
        let (sink, stream) = connection.split();
        Ok(Subscriber { sink, stream })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        address(&self.0, f)
    }
}

impl ListeningConnection for Subscriber {
    async fn listen(&mut self, channel: &str) -> Result<(), Failure> {
        self.sink.subscribe(channel).await.map_err(failure)
    }

    async fn next(&mut self) -> Option<(String, String)> {
        let message = poll_fn(|cx| Pin::new(&mut self.stream).poll_next(cx)).await?;
        let session = String::from_utf8_lossy(message.get_payload_bytes());
        Some((message.get_channel_name().into(), session.into_owned()))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failure(error: RedisError) -> Failure {
    Failure {
        problem: Connection::problem(&error, "SUBSCRIBE"),
        is_forbidden: error.code() == Some("NOPERM"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn only_a_missing_permission_is_not_tried_again_soon() {
        let forbidden = redis::make_extension_error("NOPERM".into(), None);
        assert!(failure(forbidden).is_forbidden);
        let starting = redis::make_extension_error("LOADING".into(), None);
        assert!(!failure(starting).is_forbidden);
        let broken = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(!failure(broken.into()).is_forbidden);
    }
}
