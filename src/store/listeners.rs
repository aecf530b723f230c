//! [`Listeners`]: listens for what other processes save, over one connection for all sessions.
//!
//! The connection is made when the first session is listened for, made again with a growing pause when it is lost, and
//! closed a while after the last session. Notifications that come while it is lost are lost, too. So when it is there again,
//! all sessions are told to look at the store, one after the other.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::race::{First, race};

/// The time limit of connecting, and of one command.
const LIMIT: Duration = Duration::from_secs(5);

/// The pause before the connection is made again, at first and at most.
const MIN_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The pause if the server does not permit to listen. Somebody may change that.
const FORBIDDEN_PAUSE: Duration = Duration::from_secs(15 * 60);

/// How often it is checked that the connection lives, and that there are sessions to listen for.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The time between two sessions that are told to look after the connection was lost.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Makes connections that listen.
pub(super) trait Listen: fmt::Display + Send + Sync + 'static {
    type Connection: ListeningConnection;

    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Failure>> + Send;

    /// Whether no connection can be made any more.
    fn is_closed(&self) -> bool {
        false
    }
}

/// A connection that listens.
pub(super) trait ListeningConnection: Send {
    /// Listens to a channel. Returns when that is certain, and can be repeated.
    fn listen(&mut self, channel: &str) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Waits for the next channel and session. `None` if the connection is lost. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Option<(String, String)>> + Send;
}

/// Why nothing is heard, in words of our own.
pub(super) struct Failure {
    pub(super) problem: Cow<'static, str>,
    /// The server does not permit to listen.
    pub(super) is_forbidden: bool,
}

impl Failure {
    pub(super) fn lost(problem: impl Into<Cow<'static, str>>) -> Self {
        Self {
            problem: problem.into(),
            is_forbidden: false,
        }
    }
}

/// Listens for sessions over one connection.
pub(super) struct Listeners<L> {
    pub(super) server: L,
    sessions: Mutex<Sessions>,
    has_new_channel: Notify,
}

/// What is listened for.
#[derive(Default)]
struct Sessions {
    /// The sessions of each channel.
    channels: HashMap<String, HashMap<String, watch::Sender<()>>>,
    /// The task is running.
    is_running: bool,
}

impl<L: Listen> Listeners<L> {
    pub(super) fn new(server: L) -> Self {
        Self {
            server,
            sessions: Mutex::default(),
            has_new_channel: Notify::new(),
        }
    }

    /// Listens for a session. `None` without a runtime, or if no connection can be made any more.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        channel: &str,
        session: &str,
    ) -> Option<watch::Receiver<()>> {
        let runtime = Handle::try_current().ok()?;
        if self.server.is_closed() {
            return None;
        }
        let mut sessions = self.lock();
        let is_new_channel = !sessions.channels.contains_key(channel);
        let of_channel = sessions.channels.entry(channel.to_owned()).or_default();
        let sender = of_channel.entry(session.to_owned()).or_default();
        let receiver = sender.subscribe();
        if !std::mem::replace(&mut sessions.is_running, true) {
            runtime.spawn(Task::new(Arc::clone(self)).run());
        } else if is_new_channel {
            self.has_new_channel.notify_one();
        }
        Some(receiver)
    }

    /// Tells those that listen for a session to look at the store.
    fn notify(&self, channel: &str, session: &str) {
        if let Some(sender) = self
            .lock()
            .channels
            .get(channel)
            .and_then(|it| it.get(session))
        {
            sender.send_replace(());
        }
    }

    fn channels(&self) -> HashSet<String> {
        self.lock().channels.keys().cloned().collect()
    }

    fn all(&self) -> Vec<watch::Sender<()>> {
        let sessions = self.lock();
        let senders = sessions.channels.values().flat_map(HashMap::values);
        senders.cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that has the connection. If it disappears with its runtime, those that listen notice it, and start another.
struct Task<L: Listen> {
    listeners: Arc<Listeners<L>>,
    is_done: bool,
}

impl<L: Listen> Task<L> {
    fn new(listeners: Arc<Listeners<L>>) -> Self {
        Self {
            listeners,
            is_done: false,
        }
    }

    async fn run(mut self) {
        let mut pause = MIN_PAUSE;
        let mut may_have_missed = false;
        loop {
            let began = Instant::now();
            let Err(failure) = self.listen(may_have_missed).await else {
                return;
            };
            may_have_missed = true;
            // A connection that is lost again and again is made less and less often.
            if began.elapsed() > MAX_PAUSE * 2 {
                pause = MIN_PAUSE;
            }
            let (server, problem) = (&self.listeners.server, &failure.problem);
            tracing::debug!(%server, %problem, "not listening for sessions of other processes");
            if failure.is_forbidden {
                pause = FORBIDDEN_PAUSE;
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(MAX_PAUSE);
            if self.has_ended() {
                return;
            }
        }
    }

    /// Listens until no session is left.
    async fn listen(&mut self, may_have_missed: bool) -> Result<(), Failure> {
        let listeners = Arc::clone(&self.listeners);
        let mut connection = in_time(listeners.server.connect()).await?;
        let mut listened = HashSet::new();
        listen_to(&mut connection, listeners.channels(), &mut listened).await?;
        tracing::debug!(server = %listeners.server, "listening for sessions of other processes");
        let mut to_look = if may_have_missed {
            listeners.all()
        } else {
            Vec::new()
        };
        let mut check_at = Instant::now() + CHECK_INTERVAL;
        loop {
            let wake_at = if to_look.is_empty() {
                check_at
            } else {
                check_at.min(Instant::now() + LOOK_INTERVAL)
            };
            let other = race(sleep_until(wake_at), listeners.has_new_channel.notified());
            match race(connection.next(), other).await {
                First::Left(Some((channel, session))) => listeners.notify(&channel, &session),
                First::Left(None) => return Err(Failure::lost("the connection was lost")),
                First::Right(First::Left(())) => {
                    if let Some(sender) = to_look.pop() {
                        sender.send_replace(());
                    }
                }
                First::Right(First::Right(())) => {
                    listen_to(&mut connection, listeners.channels(), &mut listened).await?;
                }
            }
            if Instant::now() >= check_at {
                if self.has_ended() {
                    return Ok(());
                }
                // A connection that hangs does not tell.
                if let Some(channel) = listened.iter().next() {
                    in_time(connection.listen(channel)).await?;
                }
                check_at = Instant::now() + CHECK_INTERVAL;
            }
        }
    }

    /// Whether no session is left to listen for. Then the next one starts another task.
    fn has_ended(&mut self) -> bool {
        let mut sessions = self.listeners.lock();
        for of_channel in sessions.channels.values_mut() {
            of_channel.retain(|_, sender| sender.receiver_count() > 0);
        }
        sessions
            .channels
            .retain(|_, of_channel| !of_channel.is_empty());
        if !sessions.channels.is_empty() && !self.listeners.server.is_closed() {
            return false;
        }
        sessions.channels.clear();
        sessions.is_running = false;
        self.is_done = true;
        true
    }
}

impl<L: Listen> Drop for Task<L> {
    fn drop(&mut self) {
        if !self.is_done {
            *self.listeners.lock() = Sessions::default();
        }
    }
}

/// Listens to those of `channels` that are not listened to yet.
async fn listen_to<C: ListeningConnection>(
    connection: &mut C,
    channels: HashSet<String>,
    listened: &mut HashSet<String>,
) -> Result<(), Failure> {
    for channel in channels {
        if !listened.contains(&channel) {
            in_time(connection.listen(&channel)).await?;
            listened.insert(channel);
        }
    }
    Ok(())
}

async fn in_time<T>(call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let failed = |_| Err(Failure::lost("no answer came in time"));
    timeout(LIMIT, call).await.unwrap_or_else(failed)
}

#[cfg(test)]
mod tests;
