//! [`RedisStore`]: a session in Redis, for processes on many hosts.

mod connection;
mod lease;

use std::{fmt, sync::Arc, time::Duration};

use ::redis::Client;

use self::connection::Link;
pub use self::lease::RedisLease;
use super::{
    StoredSession, TokenStore,
    format::{self, Encoded},
    lease_wait::{self, LEASE_TIMEOUT, Pauses, Turns},
};
use crate::error::{TokenError, TokenErrorKind};

/// How often a key is asked for: at first, and when others hold it for long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Writes ARGV[2] where ARGV[1] (or, if that is empty, nothing) is stored; succeeds too if it is there already.
const SWAP: &str = "\
local stored = redis.call('GET', KEYS[1])
if stored == ARGV[2] then return 1 end
if (stored or '') ~= ARGV[1] then return 0 end
if ARGV[3] == '' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1";

/// Keeps a session in Redis (or what speaks its protocol, like Valkey), which processes on many hosts share.
///
/// The session named `vendor` is the string `tower-bearer:{vendor}:session`, JSON as `{"format":1,"session":{…}}`; its
/// lease is `tower-bearer:{vendor}:lease`. The braces make a hash tag: in a cluster both are on one node. The store speaks
/// to the one server that it was given the address of.
///
/// - **The lease** is `SET … NX PX` with a random owner. A task renews it while it is held, it is given back when it is
///   dropped, and it ends by itself [some time](RedisStore::lease_duration) after its holder has died.
/// - **A save** replaces exactly what it was to replace, or nothing, whoever believes to hold the lease: a script compares
///   what is stored. So a process that slept for longer than its lease learns that it came too late, and if nobody renewed
///   the session meanwhile, what it got is not lost.
/// - **An outage** is an error of kind [`Store`](TokenErrorKind::Store), after at most the
///   [time limit](RedisStore::command_timeout) of a command. The next call connects anew.
/// - **Durable** is a session as far as Redis is configured to be: with `appendfsync everysec`, a crash of its host can
///   lose the last second, and a failover what the replica had not got yet. Use `appendonly yes`, and no `maxmemory-policy`
///   that evicts keys without a time to live.
/// - **Private:** who can read the keys has the session. An ACL user needs `GET`, `SET`, `DEL`, `PEXPIRE` and `EVAL` on
///   `tower-bearer:*`. Errors hold neither passwords nor what is stored.
///
/// # TLS
///
/// `rediss://` addresses need a TLS feature of the crate `redis`, which your own Cargo.toml chooses; without it they are an
/// error of kind [`Config`](TokenErrorKind::Config):
///
/// ```toml
/// redis = { version = "1", default-features = false, features = ["tokio-rustls-comp"] }
/// rustls = "0.23" # whose crypto provider it uses: call `CryptoProvider::install_default`
/// ```
///
/// For certificates of your own, build a `redis::Client` and hand it to [`with_client`](RedisStore::with_client).
///
/// # Examples
///
/// ```no_run
/// use tower_bearer::{RedisStore, TokenStore};
///
/// # async fn run() -> Result<(), tower_bearer::TokenError> {
/// let store = RedisStore::new("redis://:password@redis.internal:6379/0", "winbooks")?
///     .key_prefix("invoicing");
/// let session = store.load().await?;
/// # let _ = session; Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    link: Arc<Link>,
    prefix: String,
    name: String,
    turns: Turns,
    lease_timeout: Duration,
    lease_duration: Duration,
    session_ttl: Option<Duration>,
}

impl RedisStore {
    /// A store for the session `name`, in the Redis at `url`: `redis://[user][:password@]host[:port][/database]`,
    /// `rediss://…` or `redis+unix:///path`. Connects when it is first used.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if the URL can't be understood or needs a feature of the crate `redis` that isn't
    /// there, or if `name` is empty or has braces. The error doesn't show the URL.
    pub fn new(url: &str, name: impl Into<String>) -> Result<Self, TokenError> {
        let client = Client::open(url).map_err(|error| {
            let message = match error.kind() {
                ::redis::ErrorKind::InvalidClientConfig if url.starts_with("rediss:") => {
                    "the address of Redis can't be used; `rediss://` needs a TLS feature of the crate `redis`"
                }
                _ => "the address of Redis can't be used; it is to be like redis://:password@host:6379/0",
            };
            // The library's own message may quote the URL, and with it the password.
            TokenError::new(TokenErrorKind::Config, message)
        })?;
        Self::with_client(client, name)
    }

    /// A store for the session `name`, in the Redis of `client`, which may bring certificates and settings of your own.
    ///
    /// This ties your code to the version 1 of the crate `redis` that this crate uses.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if `name` is empty or has braces.
    pub fn with_client(client: Client, name: impl Into<String>) -> Result<Self, TokenError> {
        let name = name.into();
        if name.is_empty() || name.contains(['{', '}']) {
            let message =
                format!("{name:?} can't name a session in Redis: it is empty or has braces");
            return Err(TokenError::new(TokenErrorKind::Config, message));
        }
        Ok(Self {
            link: Arc::new(Link::new(client)),
            prefix: "tower-bearer".into(),
            name,
            turns: Turns::default(),
            lease_timeout: LEASE_TIMEOUT,
            lease_duration: Duration::from_secs(15),
            session_ttl: None,
        })
    }

    /// What all keys begin with (default: `tower-bearer`), for applications that share a database.
    #[must_use]
    pub fn key_prefix(self, prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            // Another session, for which nobody queues yet.
            turns: Turns::default(),
            ..self
        }
    }

    /// How long to wait for others who hold the lease (default: 65 s).
    ///
    /// It should be longer than a refresh takes at worst: the time limit of the token endpoint, twice; and longer than
    /// [`lease_duration`](RedisStore::lease_duration), so that waiting outlasts a holder who died.
    #[must_use]
    pub fn lease_timeout(self, lease_timeout: Duration) -> Self {
        Self {
            lease_timeout,
            ..self
        }
    }

    /// How long a lease outlives a holder who died (default: 15 s, at least 10 ms).
    ///
    /// A holder who is alive renews it three times as often.
    #[must_use]
    pub fn lease_duration(self, lease_duration: Duration) -> Self {
        Self {
            lease_duration: lease_duration.max(Duration::from_millis(10)),
            ..self
        }
    }

    /// After how long without a save Redis forgets the session (default: never; at least 1 ms).
    ///
    /// It must be longer than the refresh token lives.
    #[must_use]
    pub fn session_ttl(self, session_ttl: Duration) -> Self {
        Self {
            session_ttl: Some(session_ttl.max(Duration::from_millis(1))),
            ..self
        }
    }

    /// How long one command may take, with connecting where that is needed (default: 5 s).
    #[must_use]
    pub fn command_timeout(self, command_timeout: Duration) -> Self {
        Self {
            link: Arc::new(self.link.limited(command_timeout)),
            ..self
        }
    }

    fn key(&self, what: &str) -> String {
        format!("{}:{{{}}}:{what}", self.prefix, self.name)
    }

    /// How errors call what is stored.
    fn place(&self) -> String {
        format!("{} in {}", self.key("session"), self.link)
    }

    async fn read(&self) -> Result<Option<Encoded>, TokenError> {
        let mut get = ::redis::cmd("GET");
        get.arg(self.key("session"));
        let stored: Option<Vec<u8>> = self.link.run(&get).await?;
        Ok(stored.map(Encoded::new))
    }

    /// Replaces the session of version `replaces` by `session`.
    async fn save(&self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        let new = format::encode(session)?;
        let stored = self.read().await?;
        if stored.as_ref() == Some(&new) {
            return Ok(());
        }
        let stored = stored.as_ref().map(|stored| stored.as_slice());
        let version = format::version(stored, &self.place())?;
        if version != replaces {
            return Err(lease_wait::lost(replaces, version));
        }
        let ttl = self.session_ttl.map(millis);
        let mut swap = ::redis::cmd("EVAL");
        swap.arg(SWAP)
            .arg(1)
            .arg(self.key("session"))
            .arg(stored.unwrap_or_default())
            .arg(new.as_slice())
            .arg(ttl.map_or(String::new(), |ttl| ttl.to_string()));
        // Whether the lease is still ours isn't asked. If it isn't, but nobody has saved, then what is at hand may be the
        // only refresh token that is still good, and whoever holds the lease now finds his own save rejected, before he
        // has spent anything, and loads it. Rejecting would lose it, and gain nothing.
        if self.link.run::<bool>(&swap).await? {
            return Ok(());
        }
        let message = "the session was replaced while it was being saved";
        Err(TokenError::new(TokenErrorKind::LeaseLost, message))
    }

    async fn hold(&self) -> Result<RedisLease, TokenError> {
        let turn = self.turns.next().await;
        let mut pauses = Pauses::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            let lease = RedisLease::attempt(self.clone()).await?;
            if let Some(lease) = lease {
                return Ok(lease.in_turn(turn));
            }
            pauses.pause().await;
        }
    }
}

impl TokenStore for RedisStore {
    type Lease = RedisLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        let stored = self.read().await?;
        let decode = |bytes: Encoded| format::decode(&bytes, &self.place());
        stored.map(decode).transpose()
    }

    async fn lease(&self) -> Result<RedisLease, TokenError> {
        let what = format!("{} in {}", self.key("lease"), self.link);
        lease_wait::within(self.lease_timeout, &what, self.hold()).await
    }
}

fn millis(duration: Duration) -> u64 {
    // Redis adds it to the time of day, in 63 bits: a hundred million years are as good as for ever.
    u64::try_from(duration.as_millis()).map_or(1 << 61, |ms| ms.min(1 << 61))
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client, which knows the password.
        f.debug_struct("RedisStore")
            .field("address", &self.link.to_string())
            .field("session", &self.key("session"))
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
        let shown = format!("{:?}", store.key_prefix("mine"));
        assert!(shown.contains("mine:{vendor}:session"), "{shown}");
        assert!(shown.contains("localhost:1"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn an_address_that_cannot_be_used_is_told_without_its_password() {
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
        }
    }
}
