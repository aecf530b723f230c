//! What a source does with a lease, whatever it took it for.

use std::time::Duration;

use tokio::time::sleep;

use super::{GrantSource, unsaved::LeaseSlot};
use crate::{
    error::{TokenError, TokenErrorKind},
    grant::Grant,
    store::{BoxStoreLease, StoreLease, StoredSession, TokenStore},
};

/// How often a save is tried at once. Losing a rotated refresh token would lose the session.
pub(super) const MAX_SAVES: u32 = 3;
pub(super) const SAVE_INTERVAL: Duration = Duration::from_millis(100);

/// A lease that was just taken.
pub(super) type Leased = (BoxStoreLease, AtLease);

/// What was stored when a lease was taken.
#[expect(
    clippy::large_enum_variant,
    reason = "it is passed on at once, and not kept"
)]
pub(super) enum AtLease {
    Read(Option<StoredSession>),
    /// It is yet to be read.
    Unread,
    /// The same, and the lease was kept from before. So it may end at any moment.
    Kept,
}

/// Whether a save is the last one under its lease.
#[derive(Clone, Copy)]
pub(super) enum IsLast {
    Yes,
    No,
}

impl<G: Grant> GrantSource<G> {
    /// Takes the lease that is kept while a session is not saved, or another one.
    pub(super) async fn take_lease(&self, slot: &mut LeaseSlot) -> Result<Leased, TokenError> {
        // A kept lease may have ended, for example while the store could not be reached.
        if let Some(lease) = &slot.lease
            && !is_held(lease).await?
        {
            slot.lease = None;
        }
        if let Some(lease) = slot.lease.take() {
            return Ok((lease, AtLease::Kept));
        }
        if slot.unsaved.is_some() {
            // Without the lease, others could send the spent refresh token. So it is kept if the session cannot be read.
            return Ok((self.store.lease().await?, AtLease::Unread));
        }
        let (lease, stored) = self.store.lease_and_load().await?;
        Ok((lease, AtLease::Read(stored)))
    }

    /// What is stored under a lease that was just taken.
    pub(super) async fn load_under_lease(
        &self,
        at_lease: AtLease,
    ) -> Result<Option<StoredSession>, TokenError> {
        match at_lease {
            AtLease::Read(stored) => Ok(stored),
            AtLease::Unread | AtLease::Kept => self.store.load().await,
        }
    }

    /// Saves `session` a few times, until it succeeds or the lease is lost. The last save under a lease releases it as well.
    pub(super) async fn save_repeatedly(
        lease: &mut BoxStoreLease,
        replaces: u64,
        session: &StoredSession,
        is_last: IsLast,
    ) -> Result<(), TokenError> {
        let mut remaining = MAX_SAVES;
        loop {
            let saved = match is_last {
                IsLast::Yes => lease.save_and_release(replaces, session).await,
                IsLast::No => lease.save(replaces, session).await,
            };
            remaining -= 1;
            match saved {
                Err(error) if error.kind() != TokenErrorKind::LeaseLost && remaining > 0 => {
                    sleep(SAVE_INTERVAL).await;
                }
                saved => return saved,
            }
        }
    }
}

/// Whether the lease is held. One lost answer does not matter: the store is asked once more.
pub(super) async fn is_held(lease: &BoxStoreLease) -> Result<bool, TokenError> {
    match lease.is_held().await {
        Ok(is_held) => Ok(is_held),
        Err(_) => lease.is_held().await,
    }
}

/// Whether the lease has certainly ended. To release one that may be ours while a session is not saved would let others send the
/// spent refresh token.
pub(super) async fn is_lost(lease: &BoxStoreLease) -> bool {
    matches!(is_held(lease).await, Ok(false))
}
