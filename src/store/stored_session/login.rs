//! The session of a new login, which a running process is given.

use super::{Identity, StoredSession, owner::with_newest};

impl StoredSession {
    /// The session as that of a login of `identity`, which comes after all of `before`, and after the credential
    /// `configured`. It has version 0 until it is put [at](StoredSession::at) another.
    ///
    /// No process brings one of the sessions before it back, and a process that is restarted with `configured` knows that
    /// this is an old credential.
    pub(crate) fn of_login<'a>(
        self,
        identity: Identity,
        before: impl IntoIterator<Item = &'a Self>,
        configured: &Identity,
    ) -> Self {
        let (mut generation, mut former) = (0, Vec::new());
        for before in before {
            generation = generation.max(before.generation);
            former = with_newest(former, &before.former_identities_before(&identity));
        }
        // The last of them, which is kept the longest.
        former = with_newest(former, [configured]);
        former.retain(|it| *it != identity);
        Self {
            version: 0,
            generation: generation.saturating_add(1),
            former_identities: former,
            identity,
            refreshing_since: None,
            refresh_id: None,
            ended: None,
            is_news: true,
            ..self
        }
    }
}
