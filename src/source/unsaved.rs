//! A session that could not be saved: it is kept with its lease, and saved in the background.
//!
//! After a token request, the store may have a refresh token that is spent. As long as this process lives, no other one
//! may send it. So the lease stays here until the new session is saved. A refresh in this process takes the lease over
//! and goes on from memory.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{
    GrantSource,
    lease::{MAX_SAVES, SAVE_INTERVAL, is_held, is_lost},
    owner::{is_of_another_client, of_another_client},
};
use crate::{
    error::{TokenError, TokenErrorKind},
    grant::Grant,
    store::{BoxStoreLease, BoxTokenStore, StoreLease, StoredSession, TokenStore},
    token::Warning,
};

/// The interval of saves in the background begins with `SAVE_INTERVAL` and doubles up to this.
const MAX_SAVE_INTERVAL: Duration = Duration::from_secs(5);

/// Locked by the refresh that runs, by the task that saves in the background, and by [`GrantSource::flush`].
pub(super) type SharedSlot = Arc<Mutex<LeaseSlot>>;

/// The lease between two refreshes, while a session is not saved.
#[derive(Default)]
pub(super) struct LeaseSlot {
    pub(super) lease: Option<BoxStoreLease>,
    pub(super) unsaved: Option<Unsaved>,
    /// The task that saves in the background. It disappears with its runtime.
    saver: Option<AbortHandle>,
}

pub(super) struct Unsaved {
    pub(super) session: StoredSession,
    /// The version that saving replaces.
    pub(super) replaces: u64,
    /// Another process has the lease that this session was to be saved under.
    pub(super) is_lease_lost: bool,
    /// What its token came with.
    pub(super) warning: Warning,
}

impl Unsaved {
    /// Fails if `stored` belongs to another client. Its session stays, whatever the versions are.
    fn check_owner(&self, stored: Option<&StoredSession>) -> Result<(), TokenError> {
        let client = self.session.client();
        match (stored, client) {
            (Some(stored), Some(client)) if is_of_another_client(stored, client) => {
                Err(of_another_client())
            }
            _ => Ok(()),
        }
    }

    /// Makes the next save replace `stored`. Returns `false` if `stored` is not before this session.
    fn replace(&mut self, stored: Option<&StoredSession>) -> bool {
        if stored.is_some_and(|stored| !stored.is_before(&self.session)) {
            return false;
        }
        self.replaces = stored.map_or(0, StoredSession::version);
        let session = self.session.clone().at(self.replaces.saturating_add(1));
        self.session = match stored {
            Some(stored) => session.with_dead_of(stored),
            None => session,
        };
        true
    }
}

impl LeaseSlot {
    /// There is no session to save any more.
    pub(super) fn saved(&mut self) {
        if let Some(unsaved) = self.unsaved.take() {
            unsaved.warning.withdraw();
        }
    }

    /// Saves the session once, and releases the lease. Does nothing if there is no session to save, or if another process
    /// has saved a newer one.
    async fn save(&mut self, store: &BoxTokenStore) -> Result<(), TokenError> {
        let Some(unsaved) = &mut self.unsaved else {
            return Ok(());
        };
        let lease = match &mut self.lease {
            Some(lease) => lease,
            None => self.lease.insert(store.lease().await?),
        };
        let stored = store.load().await?;
        if let Err(error) = unsaved.check_owner(stored.as_ref()) {
            // The other client needs the lease.
            self.lease = None;
            return Err(error);
        }
        match lease
            .save_and_release(unsaved.replaces, &unsaved.session)
            .await
        {
            Err(error) if error.kind() == TokenErrorKind::LeaseLost => {
                // The store has a mark of ours whose save seemed to fail, or another process has had the lease. While it
                // has the lease, nothing may be saved.
                if !is_held(lease).await? {
                    self.lease = None;
                    self.lease = Some(store.lease().await?);
                }
                let stored = store.load().await?;
                unsaved.check_owner(stored.as_ref())?;
                if unsaved.replace(stored.as_ref())
                    && let Some(lease) = &mut self.lease
                {
                    lease
                        .save_and_release(unsaved.replaces, &unsaved.session)
                        .await?;
                }
            }
            saved => saved?,
        }
        self.saved();
        if let Some(lease) = self.lease.take() {
            lease.release().await;
        }
        Ok(())
    }
}

impl Drop for LeaseSlot {
    fn drop(&mut self) {
        if self.unsaved.is_some() {
            tracing::error!(
                "a refreshed session is lost: its source was dropped before it could be saved"
            );
        }
    }
}

impl<G: Grant> GrantSource<G> {
    /// Waits for a refresh that is running, and saves a session that could not be saved yet.
    ///
    /// Call it before the process exits, when no more tokens are requested. Without it, a session whose saves have failed
    /// is saved in the background as long as the runtime and a clone of the source exist, and once more when the last
    /// clone is dropped.
    ///
    /// # Errors
    ///
    /// The error of the store if the session could not be saved three times in a row. It is still being saved in the
    /// background, and this can be called again.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::{ExchangeTokenSource, TokenError};
    ///
    /// async fn before_exit(source: &ExchangeTokenSource) -> Result<(), TokenError> {
    ///     source.flush().await
    /// }
    /// # #[cfg(feature = "reqwest")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), TokenError> {
    /// # let client = tower_bearer::OAuthClient::new("https://login.example.com/token")?;
    /// # before_exit(&ExchangeTokenSource::new(client, "an-exchange-token")).await }
    /// # #[cfg(not(feature = "reqwest"))] fn main() {}
    /// ```
    pub async fn flush(&self) -> Result<(), TokenError> {
        let slot = self.lease_slot();
        let mut slot = slot.lock().await;
        for _ in 1..MAX_SAVES {
            if slot.save(&self.store).await.is_ok() {
                return Ok(());
            }
            sleep(SAVE_INTERVAL).await;
        }
        slot.save(&self.store).await
    }

    pub(super) fn lease_slot(&self) -> SharedSlot {
        self.with_state(|state| Arc::clone(&state.slot))
    }

    /// Keeps the lease if a session is not saved, or else releases it. `was_overtaken` says that another process has saved.
    pub(super) async fn put_back(
        &self,
        lease: BoxStoreLease,
        slot: &mut LeaseSlot,
        was_overtaken: bool,
    ) {
        // It is about this lease, and not about the one that is taken next.
        let was_lost = |unsaved: &mut Unsaved| std::mem::take(&mut unsaved.is_lease_lost);
        let may_have_lease = slot.unsaved.as_mut().is_some_and(|it| !was_lost(it));
        // A process that has lost the lease may save after all. Then the lease is still ours.
        if may_have_lease && (!was_overtaken || !is_lost(&lease).await) {
            slot.lease = Some(lease);
        } else {
            lease.release().await;
        }
        if slot.unsaved.is_some() {
            self.save_in_background(slot);
        }
    }

    /// Starts the task that saves in the background, unless it is running.
    pub(super) fn save_in_background(&self, slot: &mut LeaseSlot) {
        let is_running = |saver: &AbortHandle| !saver.is_finished();
        if slot.saver.as_ref().is_some_and(is_running) {
            return;
        }
        let alive = self.with_state(|state| state.alive.subscribe());
        let task = tokio::spawn(save_until_done(
            self.lease_slot(),
            self.store.clone(),
            alive,
        ));
        slot.saver = Some(task.abort_handle());
    }
}

/// Tries to save until the slot has no session to save. Once more when the last source is dropped, which closes `alive`.
async fn save_until_done(slot: SharedSlot, store: BoxTokenStore, mut alive: watch::Receiver<()>) {
    let mut interval = SAVE_INTERVAL;
    loop {
        let wait = interval.mul_f64(0.5 + fastrand::f64() / 2.0);
        let is_last = timeout(wait, alive.changed()).await.is_ok();
        interval = (interval * 2).min(MAX_SAVE_INTERVAL);
        let mut slot = slot.lock().await;
        let result = slot.save(&store).await;
        if let Err(error) = &result {
            tracing::debug!(%error, "the refreshed session was not saved, it is tried again");
        }
        if result.is_ok() || is_last {
            // Under the lock: a refresh that fails to save after this starts another task.
            slot.saver = None;
            return;
        }
    }
}
