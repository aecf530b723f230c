use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Mutex as AsyncMutex, mpsc};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A server whose connections the test breaks.
#[derive(Clone, Default)]
struct Server(Arc<State>);

#[derive(Default)]
struct State {
    connects: AtomicUsize,
    listened: Mutex<Vec<String>>,
    is_down: AtomicBool,
    is_forbidden: AtomicBool,
    hangs: AtomicBool,
    is_closed: AtomicBool,
    sender: Mutex<Option<mpsc::UnboundedSender<(String, String)>>>,
}

struct Connection(
    Arc<State>,
    AsyncMutex<mpsc::UnboundedReceiver<(String, String)>>,
);

impl Server {
    fn notify(&self, channel: &str, session: &str) {
        let sender = self.0.sender.lock().unwrap();
        let sender = sender.as_ref().expect("nothing is connected");
        sender.send((channel.into(), session.into())).unwrap();
    }

    fn break_connection(&self) {
        *self.0.sender.lock().unwrap() = None;
    }

    fn connects(&self) -> usize {
        self.0.connects.load(Ordering::SeqCst)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server")
    }
}

impl Listen for Server {
    type Connection = Connection;

    async fn connect(&self) -> Result<Connection, Failure> {
        self.0.connects.fetch_add(1, Ordering::SeqCst);
        if self.0.is_down.load(Ordering::SeqCst) {
            return Err(Failure::lost("it is down"));
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.0.sender.lock().unwrap() = Some(sender);
        Ok(Connection(Arc::clone(&self.0), AsyncMutex::new(receiver)))
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::SeqCst)
    }
}

impl ListeningConnection for Connection {
    async fn listen(&mut self, channel: &str) -> Result<(), Failure> {
        if self.0.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.0.is_forbidden.load(Ordering::SeqCst) {
            return Err(Failure {
                problem: "it is forbidden".into(),
                is_forbidden: true,
            });
        }
        self.0.listened.lock().unwrap().push(channel.into());
        Ok(())
    }

    async fn next(&mut self) -> Option<(String, String)> {
        self.1.lock().await.recv().await
    }
}

fn listeners() -> (Server, Arc<Listeners<Server>>) {
    let server = Server::default();
    (server.clone(), Arc::new(Listeners::new(server)))
}

#[track_caller]
fn take_change(changes: &mut watch::Receiver<()>) -> bool {
    let has_changed = changes.has_changed().expect("the sender was dropped");
    changes.mark_unchanged();
    has_changed
}

#[tokio::test(start_paused = true)]
async fn all_sessions_share_a_connection_and_each_is_told_of_its_own() {
    let (server, listeners) = listeners();
    let mut a = listeners.subscribe("one", "a").unwrap();
    let mut same = listeners.subscribe("one", "a").unwrap();
    let mut b = listeners.subscribe("one", "b").unwrap();
    sleep(SECOND).await;
    let mut other_channel = listeners.subscribe("two", "a").unwrap();
    sleep(SECOND).await;
    server.notify("one", "a");
    server.notify("one", "of nobody");
    server.notify("three", "a");
    sleep(SECOND).await;
    assert!(take_change(&mut a) && take_change(&mut same));
    assert!(!take_change(&mut b) && !take_change(&mut other_channel));
    server.notify("two", "a");
    sleep(SECOND).await;
    assert!(take_change(&mut other_channel) && !take_change(&mut a));
    assert_eq!(server.connects(), 1);
    assert_eq!(*server.0.listened.lock().unwrap(), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn after_the_connection_was_lost_all_are_told_one_after_the_other() {
    let (server, listeners) = listeners();
    let mut all: Vec<_> = (0..300)
        .map(|n| listeners.subscribe("one", &n.to_string()).unwrap())
        .collect();
    sleep(SECOND).await;
    assert!(!all.iter_mut().any(take_change), "nothing was missed");
    server.break_connection();
    sleep(SECOND).await;
    assert_eq!(server.connects(), 2);
    let told = count(&mut all);
    assert!((1..=100).contains(&told), "{told}");
    // Notifications arrive meanwhile.
    server.notify("one", "0");
    sleep(LOOK_INTERVAL / 2).await;
    assert!(take_change(&mut all[0]));
    sleep(5 * SECOND).await;
    let rest = count(&mut all);
    assert!((299..=300).contains(&(told + rest)), "{told} and {rest}");
}

fn count(all: &mut [watch::Receiver<()>]) -> usize {
    let mut told = 0;
    for changes in all {
        told += usize::from(take_change(changes));
    }
    told
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_is_tried_less_and_less_often() {
    let (server, listeners) = listeners();
    server.0.is_down.store(true, Ordering::SeqCst);
    let mut changes = listeners.subscribe("one", "a").unwrap();
    sleep(600 * SECOND).await;
    let connects = server.connects();
    assert!((20..=60).contains(&connects), "{connects}");
    for _ in 0..50 {
        let before = server.connects();
        sleep(MAX_PAUSE + SECOND).await;
        assert!(server.connects() > before, "the pause was too long");
    }
    let connects = server.connects();
    server.0.is_down.store(false, Ordering::SeqCst);
    sleep(31 * SECOND).await;
    assert!(take_change(&mut changes), "it may have missed something");
    assert_eq!(server.connects(), connects + 1);
    // One that is lost at once is not made again at once.
    for _ in 0..60 {
        server.break_connection();
        sleep(SECOND).await;
    }
    assert!(server.connects() < connects + 8, "{}", server.connects());
    // Nor is one that is lost after some seconds.
    let connects = server.connects();
    for _ in 0..300 {
        server.break_connection();
        sleep(20 * SECOND).await;
    }
    assert!(server.connects() < connects + 240, "{}", server.connects());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_lived_long_is_made_again_soon() {
    let (server, listeners) = listeners();
    server.0.is_down.store(true, Ordering::SeqCst);
    let _changes = listeners.subscribe("one", "a").unwrap();
    sleep(600 * SECOND).await;
    server.0.is_down.store(false, Ordering::SeqCst);
    sleep(600 * SECOND).await;
    let connects = server.connects();
    server.break_connection();
    sleep(SECOND).await;
    assert_eq!(server.connects(), connects + 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_forbids_it_is_hardly_ever_asked_again() {
    let (server, listeners) = listeners();
    server.0.is_forbidden.store(true, Ordering::SeqCst);
    let mut changes = listeners.subscribe("one", "a").unwrap();
    sleep(420 * SECOND).await;
    assert_eq!(server.connects(), 1);
    server.0.is_forbidden.store(false, Ordering::SeqCst);
    sleep(900 * SECOND).await;
    assert_eq!(server.connects(), 2);
    assert!(take_change(&mut changes));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_hangs_is_replaced() {
    let (server, listeners) = listeners();
    let mut changes = listeners.subscribe("one", "a").unwrap();
    sleep(SECOND).await;
    server.0.hangs.store(true, Ordering::SeqCst);
    sleep(CHECK_INTERVAL + LIMIT).await;
    server.0.hangs.store(false, Ordering::SeqCst);
    sleep(10 * SECOND).await;
    assert!(server.connects() > 1);
    assert!(take_change(&mut changes));
}

#[tokio::test(start_paused = true)]
async fn the_connection_is_closed_after_the_last_session_and_made_again_for_the_next() {
    let (server, listeners) = listeners();
    let changes = listeners.subscribe("one", "a").unwrap();
    sleep(SECOND).await;
    drop(changes);
    sleep(CHECK_INTERVAL).await;
    assert!(
        server
            .0
            .sender
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .is_closed()
    );
    let mut changes = listeners.subscribe("one", "a").unwrap();
    sleep(SECOND).await;
    server.notify("one", "a");
    sleep(SECOND).await;
    assert!(take_change(&mut changes));
    assert_eq!(server.connects(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_closed_is_not_listened_for() {
    let (server, listeners) = listeners();
    let changes = listeners.subscribe("one", "a").unwrap();
    sleep(SECOND).await;
    server.0.is_closed.store(true, Ordering::SeqCst);
    sleep(CHECK_INTERVAL).await;
    assert!(changes.has_changed().is_err(), "the sender is dropped");
    assert!(listeners.subscribe("one", "a").is_none());
}

#[test]
fn those_that_listen_notice_that_the_runtime_of_the_task_has_ended() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let (server, listeners) = listeners();
    assert!(listeners.subscribe("one", "a").is_none(), "no runtime");
    let first = runtime();
    let changes = first.block_on(async {
        let changes = listeners.subscribe("one", "a").unwrap();
        sleep(SECOND).await;
        changes
    });
    drop(first);
    assert!(changes.has_changed().is_err(), "the sender is dropped");
    runtime().block_on(async {
        let mut changes = listeners.subscribe("one", "a").unwrap();
        sleep(SECOND).await;
        server.notify("one", "a");
        sleep(SECOND).await;
        assert!(take_change(&mut changes));
    });
}
