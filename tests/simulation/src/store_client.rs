//! The `TokenStore` of a process. It does what the crate's own stores do: a lease is asked for again and again, extended
//! while it is held if it would end by itself, and released when it is dropped.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::Mutex,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tower_bearer::{StoreLease, StoredSession, TokenError, TokenErrorKind, TokenStore};

use crate::{
    host::{Host, OwnLease, Point},
    network::{Party, call},
    observed::asked,
    plan::{Ms, SECOND, StoreKind},
    store::{Owner, Saved, Unavailable},
    world::{State, note},
};

const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
const LEASE_TIMEOUT: Duration = Duration::from_secs(65);
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(20);
const MAX_POLL_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Clone)]
pub(crate) struct SimulatedStore {
    pub(crate) host: Host,
}

impl SimulatedStore {
    fn owner(&self) -> Owner {
        Owner {
            process: self.host.process,
            life: self.host.life,
            number: 0,
        }
    }

    async fn command<A: Send + 'static>(
        &self,
        command: impl Fn(&mut State) -> Result<A, Unavailable> + Clone + Send + 'static,
    ) -> Result<A, TokenError> {
        let host = &self.host;
        host.gate().await;
        let (extra, limit) = {
            let mut state = host.world.lock();
            let is_slow = state.store.slow_until > state.now;
            let extra = if is_slow { state.about(2 * SECOND) } else { 0 };
            (
                extra,
                (state.plan.store != StoreKind::Local).then_some(COMMAND_TIMEOUT),
            )
        };
        let called = async {
            if extra > 0 {
                sleep(Duration::from_millis(extra)).await;
            }
            call(host, Party::Store, command).await
        };
        let result = match limit {
            Some(limit) => timeout(limit, called).await,
            None => Ok(called.await),
        };
        host.gate().await;
        if let Ok(Ok(Ok(answer))) = result {
            return Ok(answer);
        }
        let mut state = host.world.lock();
        let now = state.now;
        state.hosts[host.process].store_trouble = now;
        state.trouble(75 * SECOND);
        state.count("store command failed");
        let message = "the simulated store was not reached, or failed";
        Err(TokenError::new(TokenErrorKind::Store, message))
    }

    async fn wait_for_lease(&self) -> Result<(SimulatedLease, Option<String>), TokenError> {
        let mut interval = MIN_POLL_INTERVAL;
        loop {
            if let Some(lease) = SimulatedLease::try_acquire(self.clone()).await? {
                return Ok(lease);
            }
            sleep(interval.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            interval = (interval * 2).min(MAX_POLL_INTERVAL);
        }
    }
}

fn decode(text: Option<String>) -> Option<StoredSession> {
    let session = text.map(|text| serde_json::from_str(&text));
    session.transpose().expect("a session is deserialized")
}

impl TokenStore for SimulatedStore {
    type Lease = SimulatedLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        let (text, look) = self.command(State::load).await?;
        self.host.looked(look);
        Ok(decode(text))
    }

    async fn lease(&self) -> Result<SimulatedLease, TokenError> {
        let (lease, _) = self.lease_and_load().await?;
        Ok(lease)
    }

    async fn lease_and_load(&self) -> Result<(SimulatedLease, Option<StoredSession>), TokenError> {
        let lease = timeout(LEASE_TIMEOUT, self.wait_for_lease()).await;
        let (lease, text) = lease.unwrap_or_else(|_| {
            let mut state = self.host.world.lock();
            note!(state, "p{} got no lease in time", self.host.process);
            state.trouble(75 * SECOND);
            state.count("no lease in time");
            let message = "the simulated lease was not free in time";
            Err(TokenError::new(TokenErrorKind::Timeout, message))
        })?;
        Ok((lease, decode(text)))
    }
}

pub(crate) struct SimulatedLease {
    store: SimulatedStore,
    owner: Owner,
    runtime: Handle,
    extension: Option<AbortHandle>,
    is_released: bool,
    /// Held while the lease is extended, and while a save may release it.
    changing: Arc<Mutex<()>>,
}

impl SimulatedLease {
    async fn try_acquire(
        store: SimulatedStore,
    ) -> Result<Option<(Self, Option<String>)>, TokenError> {
        let (owner, duration, asked_at) = {
            let mut state = store.host.world.lock();
            let owner = Owner {
                number: state.rng.u64(1..1_000_000),
                ..store.owner()
            };
            let duration = match state.plan.store {
                StoreKind::Local => None,
                StoreKind::Remote { lease } => Some(lease),
            };
            (owner, duration, state.now)
        };
        let lease = Self {
            store,
            owner,
            runtime: Handle::current(),
            extension: None,
            is_released: false,
            changing: Arc::default(),
        };
        // In a task, so that a caller that stops waiting releases the lease after it was taken, and not before.
        let taking = lease.runtime.clone().spawn(async move {
            let command = move |state: &mut State| state.lease_and_load(owner);
            let taken = lease.store.command(command).await;
            (lease, taken)
        });
        let Ok((mut lease, taken)) = taking.await else {
            return pending().await;
        };
        let Some((text, look)) = taken? else {
            lease.is_released = true;
            return Ok(None);
        };
        lease.store.host.looked(look);
        {
            let mut state = lease.store.host.world.lock();
            if !lease.store.host.is_dead(&state) {
                state.hosts[owner.process].lease = Some(OwnLease {
                    number: owner.number,
                    asked_at,
                    asked_by: asked().map_or(0, |asked| asked.number),
                    is_after_reset: asked().is_some_and(|asked| asked.is_after_reset),
                });
            }
        }
        if let Some(duration) = duration {
            let changing = Arc::clone(&lease.changing);
            let extending = keep_extending(lease.store.clone(), owner, duration, changing);
            lease.extension = Some(lease.runtime.spawn(extending).abort_handle());
        }
        Ok(Some((lease, text)))
    }

    fn end(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        if let Some(extension) = self.extension.take() {
            extension.abort();
        }
        if std::mem::replace(&mut self.is_released, true) {
            return None;
        }
        let (store, owner) = (self.store.clone(), self.owner);
        store
            .host
            .world
            .lock()
            .check_gives_up_lease(&store.host, owner);
        Some(async move {
            store.host.point(Point::BeforeRelease).await;
            let released = store.command(move |state| {
                state.release(owner);
                Ok(())
            });
            drop(released.await);
        })
    }
}

/// Extends the lease three times in its duration, until another owner has it. As in Redis, it is taken again if it has ended.
async fn keep_extending(
    store: SimulatedStore,
    owner: Owner,
    duration: Ms,
    changing: Arc<Mutex<()>>,
) {
    loop {
        sleep(Duration::from_millis(duration / 3)).await;
        let _changing = changing.lock().await;
        if let Ok(false) = store
            .command(move |state| state.take_lease(owner, true))
            .await
        {
            return;
        }
    }
}

impl SimulatedLease {
    async fn save_and(
        &self,
        replaces: u64,
        session: &StoredSession,
        releases: bool,
    ) -> Result<(), TokenError> {
        let host = &self.store.host;
        host.point(Point::BeforeSave).await;
        let (owner, version) = (self.owner, session.version());
        let text = serde_json::to_string(session).expect("a session is serialized");
        host.world.lock().begins_save(host);
        let command = move |state: &mut State| {
            if releases {
                state.save_and_release(owner, replaces, version, &text)
            } else {
                state.save(owner, replaces, version, &text)
            }
        };
        let saved = self.store.command(command).await;
        host.point(Point::AfterSave).await;
        match saved? {
            Saved::Done(look) => {
                host.looked(look);
                Ok(())
            }
            Saved::Other(stored) => {
                let message =
                    format!("version {replaces} was to be replaced, and {stored} is stored");
                Err(TokenError::new(TokenErrorKind::LeaseLost, message))
            }
        }
    }
}

impl StoreLease for SimulatedLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        self.save_and(replaces, session, false).await
    }

    async fn save_and_release(
        &mut self,
        replaces: u64,
        session: &StoredSession,
    ) -> Result<(), TokenError> {
        let changing = Arc::clone(&self.changing);
        let _changing = changing.lock().await;
        self.save_and(replaces, session, true).await?;
        self.is_released = true;
        if let Some(extension) = self.extension.take() {
            extension.abort();
        }
        Ok(())
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        let owner = self.owner;
        let held = self.store.command(move |state| state.is_owner(owner));
        let held = held.await;
        let mut state = self.store.host.world.lock();
        // The next refresh asks for a lease that was kept.
        if let Some(asked) = asked()
            && let Some(lease) = &mut state.hosts[owner.process].lease
            && lease.number == owner.number
        {
            lease.asked_by = asked.number;
            lease.is_after_reset = asked.is_after_reset;
        }
        held
    }

    async fn release(mut self) {
        if let Some(end) = self.end() {
            // In a task, so that it runs to its end if this future is dropped.
            self.runtime.spawn(end).await.ok();
        }
    }
}

impl Drop for SimulatedLease {
    fn drop(&mut self) {
        if let Some(end) = self.end() {
            self.runtime.spawn(end);
        }
    }
}
