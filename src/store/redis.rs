//! [`RedisStore`]: a session in Redis, for processes on several hosts.

mod connection;
mod lease;
mod listener;
mod session;

use std::{fmt, sync::Arc, time::Duration};

use ::redis::{Client, Cmd, FromRedisValue};
use tokio::sync::watch;

use self::connection::Connection;
pub use self::lease::RedisLease;
use super::{
    StoreLease, StoredSession, TokenStore,
    format::Encoded,
    lease_wait::{self, LEASE_TIMEOUT, LeaseQueue, PollInterval},
};
use crate::error::{TokenError, TokenErrorKind};

/// How often the lease is tried: at first, and when it is held for long.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(20);
const MAX_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Keeps a session in Redis (or a server of the same protocol, such as Valkey), which processes on several hosts share.
///
/// The session named `vendor` is the string `tower-bearer:{vendor}:session`, JSON as [`StoredSession`] describes it. Its lease
/// is the key `tower-bearer:{vendor}:lease`. The braces are a hash tag, so that both are on one node of a cluster. The store
/// talks to the one server whose address it has.
///
/// A refresh takes four commands:
///
/// | Call | Command | Writes |
/// |---|---|---|
/// | [`load`](TokenStore::load) | `GET` | |
/// | [`lease_and_load`](TokenStore::lease_and_load) | a script: `SET … NX PX`, `GET` | yes |
/// | [`save`](StoreLease::save), before the token request | a script: `GET`, `SET` | yes |
/// | [`save_and_release`](StoreLease::save_and_release), after it | a script: `GET`, `SET`, `GET`, `DEL` | yes |
///
/// A process that uses the token of another one takes the first only. More come if a process waits for a lease or extends it,
/// and if a save finds something else than its lease has read.
///
/// - **Connection.** Clones of a store, and the stores that [`session`](RedisStore::session) returns, share one connection. It
///   is made when it is first used, and made again when it is broken.
/// - **Lease.** It is a `SET … NX PX` with a random owner. A task extends it while it is held. Dropping the lease releases it,
///   and it ends by itself [some time](RedisStore::lease_duration) after its process has died.
/// - **Save.** A script compares what is stored, and replaces it only if it is the version that is to be replaced, whether or
///   not the lease is still held. The last save under a lease releases it. So a process that was suspended for longer than its lease gets an error if another one has
///   saved. If no other one has, its tokens are not lost.
/// - **Outage.** A call fails with an error of kind [`Store`](TokenErrorKind::Store), at the latest after the
///   [time limit](RedisStore::command_timeout) of a command. The next call connects again.
/// - **Durability.** It is that of the Redis server. With `appendfsync everysec`, a crash of its host can lose the last
///   second. A failover can lose what the replica had not received yet. Use `appendonly yes`, and a `maxmemory-policy` that
///   does not evict keys without a time to live.
/// - **Notifications.** A save of a login, an import or a revocation is published by its script to the channel
///   `tower-bearer:changes`, with the name of the session. A process [listens](RedisStore::notifications) over one more
///   connection, in the mode of subscribers (RESP2), for all stores that share the other one. So it goes on within seconds with
///   what another process has saved. If the connection is lost, it is made again, and all sessions are read once. The channel
///   is that of all databases of the server, and of all nodes of a cluster.
/// - **Access.** Everyone who can read the keys has the session. An ACL user needs `GET`, `SET`, `DEL`, `PEXPIRE` and `EVAL` on
///   `tower-bearer:*`, and for notifications `PUBLISH` and `SUBSCRIBE` on the channel: `+publish +subscribe &tower-bearer:*`.
///   Without these, sessions are saved all the same, and other processes are not told. Errors contain neither passwords
///   nor what is stored.
/// - **Memory.** What is read is zeroized when dropped. The crate `redis` keeps copies of each command in buffers that are
///   not, and so of each session that is saved and of the one that it replaces.
///
/// # TLS
///
/// `rediss://` URLs need a TLS feature of the crate `redis`, which you enable in your own Cargo.toml. Without it, they are an
/// error of kind [`Config`](TokenErrorKind::Config):
///
/// ```toml
/// redis = { version = "1", default-features = false, features = ["tokio-rustls-comp"] }
/// rustls = "0.23" # its crypto provider: call `CryptoProvider::install_default`
/// ```
///
/// For certificates of your own, pass a `redis::Client` to [`with_client`](RedisStore::with_client).
///
/// # Examples
///
/// Two sessions over one connection:
///
/// ```no_run
/// use tower_bearer::{RedisStore, TokenStore};
///
/// # async fn run() -> Result<(), tower_bearer::TokenError> {
/// let winbooks = RedisStore::new("redis://:password@redis.internal:6379/0", "winbooks")?
///     .key_prefix("invoicing")?;
/// let two_ba = winbooks.session("2ba")?;
///
/// let sessions = (winbooks.load().await?, two_ba.load().await?);
/// # let _ = sessions; Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    connection: Arc<Connection>,
    prefix: String,
    name: String,
    queue: LeaseQueue,
    command_timeout: Duration,
    lease_timeout: Duration,
    lease_duration: Duration,
    session_ttl: Option<Duration>,
    listens: bool,
}

impl RedisStore {
    /// Makes a store for the session `name`, in the Redis at `url`. It connects when it is first used.
    ///
    /// The URL is `redis://[user][:password@]host[:port][/database]`, `rediss://…` or `redis+unix:///path`.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if the URL is malformed or needs a feature of the crate `redis` that is not enabled,
    /// or if `name` is empty or has braces. The error does not show the URL.
    pub fn new(url: &str, name: impl Into<String>) -> Result<Self, TokenError> {
        let client = Client::open(url).map_err(|error| {
            let message = match error.kind() {
                ::redis::ErrorKind::InvalidClientConfig if url.starts_with("rediss:") => {
                    "the URL of Redis cannot be used: `rediss://` needs a TLS feature of the crate `redis`"
                }
                _ => "the URL of Redis cannot be used: write it as redis://:password@host:6379/0",
            };
            // The library's own message may quote the URL, and with it the password.
            TokenError::new(TokenErrorKind::Config, message)
        })?;
        Self::with_client(client, name)
    }

    /// Makes a store for the session `name`, in the Redis of `client`, which can have certificates and settings of your own.
    ///
    /// `Client` is from version 1 of the crate `redis`.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if `name` is empty or has braces.
    pub fn with_client(client: Client, name: impl Into<String>) -> Result<Self, TokenError> {
        Ok(Self {
            connection: Arc::new(Connection::new(client)),
            prefix: "tower-bearer".into(),
            name: checked_name(name.into())?,
            queue: LeaseQueue::default(),
            command_timeout: Duration::from_secs(5),
            lease_timeout: LEASE_TIMEOUT,
            lease_duration: Duration::from_secs(15),
            session_ttl: None,
            listens: true,
        })
    }

    /// Makes a store for another session, with the connection and the settings of this one.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if `name` is empty or has braces.
    pub fn session(&self, name: impl Into<String>) -> Result<Self, TokenError> {
        Ok(Self {
            name: checked_name(name.into())?,
            queue: LeaseQueue::default(),
            ..self.clone()
        })
    }

    /// Sets the beginning of all keys, for applications that share a database. Default: `tower-bearer`.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if `prefix` has braces. The first braces of a key are its hash tag, so they would
    /// replace the one of the session.
    pub fn key_prefix(self, prefix: impl Into<String>) -> Result<Self, TokenError> {
        let prefix = prefix.into();
        if prefix.contains(['{', '}']) {
            let message = format!(
                "{prefix:?} cannot be the prefix of keys in Redis, because it has braces: leave them out"
            );
            return Err(TokenError::new(TokenErrorKind::Config, message));
        }
        Ok(Self {
            prefix,
            // The lease of another key has another queue.
            queue: LeaseQueue::default(),
            ..self
        })
    }

    /// Sets how long to wait for a lease that others hold. Default: 65 seconds.
    ///
    /// Set it longer than the slowest refresh, which takes twice the time limit of the token endpoint, and longer than
    /// [`lease_duration`](RedisStore::lease_duration), so that it outlasts the lease of a process that died.
    #[must_use]
    pub fn lease_timeout(self, lease_timeout: Duration) -> Self {
        Self {
            lease_timeout,
            ..self
        }
    }

    /// Sets how long the lease of a process that died lasts. Default: 15 seconds; at least 10 ms.
    ///
    /// A running process extends its lease three times in this time.
    #[must_use]
    pub fn lease_duration(self, lease_duration: Duration) -> Self {
        Self {
            lease_duration: lease_duration.max(Duration::from_millis(10)),
            ..self
        }
    }

    /// Sets how long after its last save Redis deletes the session. Default: never; at least 1 ms.
    ///
    /// Set it longer than the lifetime of the refresh token.
    #[must_use]
    pub fn session_ttl(self, session_ttl: Duration) -> Self {
        Self {
            session_ttl: Some(session_ttl.max(Duration::from_millis(1))),
            ..self
        }
    }

    /// Sets the time limit of one command, including connecting if that is needed. Default: 5 seconds.
    #[must_use]
    pub fn command_timeout(self, command_timeout: Duration) -> Self {
        Self {
            command_timeout,
            ..self
        }
    }

    /// Sets whether the caches over this store listen for logins and revocations of other processes. Default: yes.
    ///
    /// It costs one more connection for each store and those that share its connection. It is made when the first cache is
    /// used. Without it, a process notices the login of another one when it reads the store next: with its next refresh,
    /// after a rejection, or within 10 seconds if its own session is dead and a caller wants a token. Saves notify others
    /// in any case, which costs nothing.
    #[must_use]
    pub fn notifications(self, are_used: bool) -> Self {
        Self {
            listens: are_used,
            ..self
        }
    }

    /// The channel that tells of the sessions with this prefix.
    fn channel(&self) -> String {
        format!("{}:changes", self.prefix)
    }

    fn key(&self, suffix: &str) -> String {
        format!("{}:{{{}}}:{suffix}", self.prefix, self.name)
    }

    /// Where the session is stored, for errors.
    fn location(&self) -> String {
        format!("{} in {}", self.key("session"), self.connection)
    }

    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, TokenError> {
        self.connection.run(command, self.command_timeout).await
    }

    async fn wait_for_lease(&self) -> Result<(RedisLease, Option<Encoded>), TokenError> {
        let permit = self.queue.acquire().await;
        let mut interval = PollInterval::new(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL);
        loop {
            if let Some((lease, stored)) = RedisLease::try_acquire(self.clone()).await? {
                return Ok((lease.with_permit(permit), stored));
            }
            interval.wait().await;
        }
    }

    /// Takes the lease, and returns it with what is stored.
    async fn lease_and_read(&self) -> Result<(RedisLease, Option<Encoded>), TokenError> {
        let location = format!("{} in {}", self.key("lease"), self.connection);
        lease_wait::with_timeout(self.lease_timeout, &location, self.wait_for_lease()).await
    }
}

impl TokenStore for RedisStore {
    type Lease = RedisLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        let (session, _) = self.decode(self.read().await?)?;
        Ok(session)
    }

    async fn lease(&self) -> Result<RedisLease, TokenError> {
        let (lease, _) = self.lease_and_read().await?;
        Ok(lease)
    }

    async fn lease_and_load(&self) -> Result<(RedisLease, Option<StoredSession>), TokenError> {
        let (lease, stored) = self.lease_and_read().await?;
        match self.decode(stored) {
            Ok((session, known)) => Ok((lease.with_known(known), session)),
            Err(error) => {
                lease.release().await;
                Err(error)
            }
        }
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        if !self.listens {
            return None;
        }
        self.connection
            .listeners
            .subscribe(&self.channel(), &self.name)
    }
}

/// A name between braces is a hash tag, which braces in the name would break.
fn checked_name(name: String) -> Result<String, TokenError> {
    if name.is_empty() || name.contains(['{', '}']) {
        let message =
            format!("{name:?} cannot be the name of a session in Redis: it is empty or has braces");
        return Err(TokenError::new(TokenErrorKind::Config, message));
    }
    Ok(name)
}

fn millis(duration: Duration) -> u64 {
    // Redis adds it to the current time, in 63 bits.
    u64::try_from(duration.as_millis()).map_or(1 << 61, |ms| ms.min(1 << 61))
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client is left out, because it has the password.
        f.debug_struct("RedisStore")
            .field("address", &self.connection.to_string())
            .field("session", &self.key("session"))
            .field("command_timeout", &self.command_timeout)
            .field("lease_timeout", &self.lease_timeout)
            .field("lease_duration", &self.lease_duration)
            .field("session_ttl", &self.session_ttl)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_built_without_a_server_and_shows_no_password() {
        let store = RedisStore::new("redis://user:hunter2@localhost:1/0", "vendor").unwrap();
        let shown = format!("{:?}", store.key_prefix("mine").unwrap());
        assert!(shown.contains("mine:{vendor}:session"), "{shown}");
        assert!(shown.contains("localhost:1"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
        let listened = RedisStore::new("redis://user:hunter2@localhost:1/0", "vendor").unwrap();
        let listened = listened.connection.listeners.server.to_string();
        assert_eq!(listened, "Redis at localhost:1");
    }

    #[test]
    fn the_error_of_a_malformed_url_does_not_show_the_password() {
        let urls = [
            "",
            "hunter2",
            "http://:hunter2@localhost",
            "redis://:hunter2@localhost:x",
            "redis://:hunter2@localhost/hunter2",
            "redis://:hunter2@localhost/?protocol=hunter2",
        ];
        for url in urls {
            let error = RedisStore::new(url, "vendor").unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Config, "{url}");
            assert!(
                !format!("{error} {error:?}").contains("hunter2"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_name_that_would_break_the_hash_tag_is_rejected() {
        for name in ["", "a{b", "a}b"] {
            let error = RedisStore::new("redis://localhost", name).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Config, "{name}");
            let store = RedisStore::new("redis://localhost", "vendor").unwrap();
            let error = store.session(name).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Config, "{name}");
        }
    }

    #[test]
    fn a_prefix_that_would_replace_the_hash_tag_is_rejected() {
        for prefix in ["{", "}", "{}", "a{b}", "a{}b"] {
            let store = RedisStore::new("redis://localhost", "vendor").unwrap();
            let error = store.key_prefix(prefix).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Config, "{prefix}");
        }
    }

    #[test]
    fn stores_of_several_sessions_share_the_connection_and_the_settings() {
        let store = RedisStore::new("redis://localhost:1/0", "vendor")
            .unwrap()
            .key_prefix("mine")
            .unwrap()
            .command_timeout(Duration::from_secs(1));
        let other = store.session("other").unwrap();
        assert!(Arc::ptr_eq(&store.connection, &other.connection));
        assert_eq!(other.command_timeout, Duration::from_secs(1));
        assert_eq!(other.key("session"), "mine:{other}:session");
        assert_eq!(store.key("session"), "mine:{vendor}:session");
    }
}
