//! One connection to Redis, made when it is needed, made again when it broke, and never waited for without end.

use std::{
    fmt,
    sync::{Mutex as StdMutex, PoisonError},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult,
    aio::MultiplexedConnection,
};
use tokio::{sync::Mutex, time::timeout};

use crate::error::{TokenError, TokenErrorKind};

/// The connection that all clones of a store share.
///
/// The crate `redis` has a `ConnectionManager`, which connects again behind the scenes, with a backoff of its own. Here
/// backoff is the cache's business: a command connects, or fails and tells why.
pub(super) struct Link {
    client: Client,
    limit: Duration,
    live: StdMutex<Option<Live>>,
    /// Held while connecting, so that only one does.
    connecting: Mutex<()>,
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    /// Tells this connection from those before it.
    number: u64,
}

impl Link {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            limit: Duration::from_secs(5),
            live: StdMutex::default(),
            connecting: Mutex::default(),
        }
    }

    pub(super) fn limited(&self, limit: Duration) -> Self {
        Self {
            limit,
            ..Self::new(self.client.clone())
        }
    }

    /// Sends a command. All commands of the store may be sent twice: what the first has done, the second finds done.
    pub(super) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, TokenError> {
        let mut used = None;
        match timeout(self.limit, self.attempt(command, &mut used)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(_) => {
                // A connection that doesn't answer may be half dead, and the next one need not be.
                self.forget(used);
                let message = format!("{self} did not answer within {:?}", self.limit);
                Err(TokenError::new(TokenErrorKind::Store, message))
            }
        }
    }

    async fn attempt<T: FromRedisValue>(
        &self,
        command: &Cmd,
        used: &mut Option<u64>,
    ) -> RedisResult<T> {
        let idle = self.live();
        let was_idle = idle.is_some();
        let mut live = match idle {
            Some(live) => live,
            None => self.connect(None).await?,
        };
        *used = Some(live.number);
        let outcome = command.query_async(&mut live.connection).await;
        let Err(error) = &outcome else {
            return outcome;
        };
        if !is_broken(error) {
            return outcome;
        }
        self.forget(*used);
        if !was_idle {
            return outcome;
        }
        // It may have broken long ago, when Redis was restarted: that is no reason to fail.
        live = self.connect(*used).await?;
        *used = Some(live.number);
        let outcome = command.query_async(&mut live.connection).await;
        if outcome.as_ref().is_err_and(is_broken) {
            self.forget(*used);
        }
        outcome
    }

    fn live(&self) -> Option<Live> {
        self.live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn forget(&self, number: Option<u64>) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.as_ref().map(|live| live.number) == number {
            *live = None;
        }
    }

    /// A connection other than `broken`: one that somebody else has made meanwhile, or a new one.
    async fn connect(&self, broken: Option<u64>) -> RedisResult<Live> {
        let _alone = self.connecting.lock().await;
        if let Some(live) = self.live().filter(|live| Some(live.number) != broken) {
            return Ok(live);
        }
        // `run` limits the time of the whole; the library's own limits would be shorter.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let client = &self.client;
        let live = Live {
            connection: client
                .get_multiplexed_async_connection_with_config(&config)
                .await?,
            number: fastrand::u64(..),
        };
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(live.clone());
        Ok(live)
    }

    /// Says what happened in our own words: a server may quote the command that it rejects, and with it the session.
    fn explain(&self, error: &RedisError) -> TokenError {
        let what = match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => {
                "rejects the user or the password that the store was given".into()
            }
            (_, Some("NOPERM")) => {
                "does not allow its user to do this: the store needs GET, SET, DEL, PEXPIRE and EVAL on its keys"
                    .into()
            }
            (_, Some("READONLY")) => "is a replica: give the store the address of the primary".into(),
            (_, Some("LOADING")) => "is starting, and still loading its data".into(),
            (_, Some("OOM")) => "has no memory left to save the session".into(),
            (_, Some("MISCONF")) => {
                "can't write to its disk, and rejects to save what it would lose".into()
            }
            (_, Some("WRONGTYPE")) => {
                "holds something else than a string at a key of the store: choose another prefix".into()
            }
            (_, Some("MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN")) => {
                "is a node of a cluster, and not the one for the keys of this session".into()
            }
            (_, Some(code)) if is_code(code) => format!("answered with the error {code}"),
            (ErrorKind::Io, _) if error.is_connection_refusal() => {
                "was not reached: nothing accepts connections there".into()
            }
            (ErrorKind::Io, _) if error.is_timeout() => "did not answer in time".into(),
            (ErrorKind::Io, _) if error.is_connection_dropped() => {
                "was not reached, or closed the connection".into()
            }
            (ErrorKind::Io, _) => "was not reached".into(),
            _ => format!("was not understood: {}", error.category()),
        };
        TokenError::new(TokenErrorKind::Store, format!("{self} {what}"))
    }
}

/// Whether the connection is of no more use. A replica is one that was the primary a moment ago: its name may lead
/// elsewhere by now.
fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error() || error.code() == Some("READONLY")
}

/// The first word of a server's error, if it looks like one: anything else may be a quotation.
fn is_code(code: &str) -> bool {
    (1..=32).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_uppercase())
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis at {}", self.client.get_connection_info().addr())
    }
}
