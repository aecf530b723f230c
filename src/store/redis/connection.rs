//! [`Connection`]: the connection to Redis that the stores of a client share.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{
    Arg, Client, Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::timeout;

use super::listener::Server;
use crate::{
    error::{TokenError, TokenErrorKind},
    store::listeners::Listeners,
};

/// The connection to Redis, which is made when it is first used.
///
/// The crate's `ConnectionManager` multiplexes all commands over one connection, and replaces the connection when it breaks.
/// Four things remain ours:
///
/// - The manager is made by the first command. It needs a Tokio runtime, which a constructor may not have.
/// - A command that finds the connection broken is sent again, once. The manager reconnects, but fails that command, even if
///   Redis was restarted long ago.
/// - After an error that is not a broken connection, the manager is dropped, and the next command makes another. Otherwise
///   it would keep a connection that hangs, a rejected login, and the connection to a server that has become a replica.
/// - One time limit covers a command with all of this. The manager has a limit for each connection attempt, and retries with
///   a backoff of its own: that is off, because the cache does the backoff.
pub(super) struct Connection {
    client: Client,
    manager: Mutex<Option<(u64, ConnectionManager)>>,
    /// Listens over a connection of its own.
    pub(super) listeners: Arc<Listeners<Server>>,
}

impl Connection {
    pub(super) fn new(client: Client) -> Self {
        Self {
            listeners: Arc::new(Listeners::new(Server(client.clone()))),
            client,
            manager: Mutex::default(),
        }
    }

    /// Sends a command, which may be sent twice. All commands of the store have the same effect when repeated.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        command: &Cmd,
        limit: Duration,
    ) -> Result<T, TokenError> {
        let mut used = None;
        match timeout(limit, self.send(command, limit, &mut used)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.describe(&error, &name_of(command))),
            Err(_) => {
                self.discard(used);
                let message = format!("{self} did not answer within {limit:?}");
                Err(TokenError::new(TokenErrorKind::Store, message))
            }
        }
    }

    /// Sends a command, and sends it again if the connection was broken. `used` is the number of the manager in use.
    async fn send<T: FromRedisValue>(
        &self,
        command: &Cmd,
        limit: Duration,
        used: &mut Option<u64>,
    ) -> RedisResult<T> {
        let first = self.send_once(command, limit, used).await;
        match &first {
            // A name may lead to the new primary when it is resolved again.
            Err(error) if error.is_io_error() || error.code() == Some("READONLY") => {
                self.send_once(command, limit, used).await
            }
            _ => first,
        }
    }

    async fn send_once<T: FromRedisValue>(
        &self,
        command: &Cmd,
        limit: Duration,
        used: &mut Option<u64>,
    ) -> RedisResult<T> {
        let (number, mut manager) = self.manager(limit)?;
        *used = Some(number);
        let result = command.query_async(&mut manager).await;
        if let Err(error) = &result
            && !error.is_connection_dropped()
        {
            self.discard(*used);
        }
        result
    }

    /// The manager and its number, which tells it apart from others.
    fn manager(&self, limit: Duration) -> RedisResult<(u64, ConnectionManager)> {
        let mut current = self.manager.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(manager) = &*current {
            return Ok(manager.clone());
        }
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            // Limits the attempts that the manager makes in the background, too.
            .set_connection_timeout(Some(limit))
            .set_response_timeout(None);
        let manager = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        let manager = (fastrand::u64(..), manager);
        *current = Some(manager.clone());
        Ok(manager)
    }

    /// Drops the manager of this number, unless another has replaced it.
    fn discard(&self, number: Option<u64>) {
        let mut current = self.manager.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().map(|(number, _)| *number) == number {
            *current = None;
        }
    }

    /// Describes an error in our own words. A server may quote the command that it rejects, and with it the session.
    fn describe(&self, error: &RedisError, command: &str) -> TokenError {
        let problem = Self::problem(error, command);
        TokenError::new(TokenErrorKind::Store, format!("{self} {problem}"))
    }

    /// What is wrong, as the end of a sentence.
    pub(super) fn problem(error: &RedisError, command: &str) -> Cow<'static, str> {
        match (error.kind(), error.code()) {
            (_, Some("NOPERM")) if command == "SUBSCRIBE" => {
                "does not permit SUBSCRIBE to the channels of the store".into()
            }
            (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => {
                "rejected the user or the password of the store".into()
            }
            (_, Some("NOPERM")) => format!(
                "does not permit {command}: its user needs GET, SET, DEL, PEXPIRE and EVAL on the keys of the store"
            )
            .into(),
            // A script whose own command is not permitted fails with this code, and names the command in a text only.
            (_, Some("ERR")) if command == "EVAL" => {
                "rejected the script of EVAL: does its user have GET, SET, DEL and PEXPIRE on the keys of the store?"
                    .into()
            }
            (_, Some("READONLY")) => "is a replica: give the store the address of the primary".into(),
            (_, Some("LOADING")) => "is starting, and still loads its data".into(),
            (_, Some("OOM")) => "has no memory left to save the session".into(),
            (_, Some("MISCONF")) => "cannot write to its disk, and rejected the save".into(),
            (_, Some("WRONGTYPE")) => {
                "has a value that is not a string at a key of the store: choose another prefix".into()
            }
            (_, Some("MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN")) => {
                "is a node of a cluster that does not have the keys of this session: give the store the address of the node that has them".into()
            }
            (_, Some(code)) if is_code(code) => format!("answered with the error {code}").into(),
            (ErrorKind::Io, _) if error.is_connection_refusal() => {
                "was not reached: nothing accepts connections there".into()
            }
            (ErrorKind::Io, _) if error.is_timeout() => "did not answer in time".into(),
            (ErrorKind::Io, _) if error.is_connection_dropped() => {
                "was not reached, or closed the connection".into()
            }
            (ErrorKind::Io, _) => "was not reached".into(),
            _ => format!("sent an unexpected answer ({})", error.category()).into(),
        }
    }
}

/// The name of a command that this crate sends.
fn name_of(command: &Cmd) -> String {
    match command.args_iter().next() {
        Some(Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => "a command".into(),
    }
}

/// Whether the first word of a server's error looks like a code. Anything else may be a quotation.
fn is_code(code: &str) -> bool {
    (1..=32).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_uppercase())
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        address(&self.client, f)
    }
}

/// Shows where a server is, without secrets.
pub(super) fn address(client: &Client, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "Redis at {}", client.get_connection_info().addr())
}

#[cfg(test)]
mod tests {
    use std::io;

    use redis::Value;

    use super::*;

    /// The error of a command that the server answers with `line`.
    fn answered(line: &str) -> RedisError {
        let answer = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
        answer.and_then(Value::extract_error).unwrap_err()
    }

    #[test]
    fn each_error_of_the_server_is_explained_and_its_text_is_not_shown() {
        for (code, expected) in [
            ("NOAUTH", "rejected the user or the password"),
            ("WRONGPASS", "rejected the user or the password"),
            ("NOPERM", "does not permit GET"),
            ("READONLY", "is a replica"),
            ("LOADING", "is starting"),
            ("OOM", "has no memory left"),
            ("MISCONF", "cannot write to its disk"),
            ("WRONGTYPE", "a value that is not a string"),
            ("MOVED", "is a node of a cluster"),
            ("ASK", "is a node of a cluster"),
            ("CROSSSLOT", "is a node of a cluster"),
            ("CLUSTERDOWN", "is a node of a cluster"),
            ("ERR", "answered with the error ERR"),
            ("NOREPLICAS", "answered with the error NOREPLICAS"),
            // Not codes.
            ("s3cret", "sent an unexpected answer"),
            ("S3CRET", "sent an unexpected answer"),
            (&"X".repeat(33), "sent an unexpected answer"),
        ] {
            let problem = Connection::problem(&answered(&format!("{code} s3cret")), "GET");
            assert!(problem.contains(expected), "{code}: {problem}");
            assert!(!problem.to_lowercase().contains("s3cret"), "{problem}");
        }
        // A script says by another code what its user lacks.
        for (code, command, expected) in [
            (
                "ERR",
                "EVAL",
                "does its user have GET, SET, DEL and PEXPIRE",
            ),
            (
                "NOPERM",
                "SUBSCRIBE",
                "does not permit SUBSCRIBE to the channels",
            ),
        ] {
            let problem = Connection::problem(&answered(&format!("{code} s3cret")), command);
            assert!(problem.contains(expected), "{code}: {problem}");
        }
    }

    #[test]
    fn each_kind_of_broken_connection_is_explained() {
        use io::ErrorKind as Io;
        for (kind, expected) in [
            (Io::ConnectionRefused, "nothing accepts connections there"),
            (Io::TimedOut, "did not answer in time"),
            (Io::ConnectionReset, "or closed the connection"),
            (Io::UnexpectedEof, "or closed the connection"),
            (Io::HostUnreachable, "was not reached"),
        ] {
            let problem = Connection::problem(&io::Error::from(kind).into(), "GET");
            assert!(problem.ends_with(expected), "{kind:?}: {problem}");
        }
    }
}
