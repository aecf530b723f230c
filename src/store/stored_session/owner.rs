//! Which credentials and which client a session belongs to.

use secrecy::ExposeSecret;

use super::{Ended, Identity, StoredSession};

/// How many identities of earlier credentials, and of dead ones, a session keeps.
pub(super) const MAX_IDENTITIES: usize = 8;

impl StoredSession {
    /// The former identities of a session of `next` that replaces this one.
    pub(super) fn former_identities_before(&self, next: &Identity) -> Vec<Identity> {
        let mut former = if self.is_revoked() {
            self.former_identities.clone()
        } else {
            self.former_and_dead_logins()
        };
        former = with_newest(former, [&self.identity]);
        former.retain(|it| it != next);
        former
    }

    /// The former identities, and the logins that were declared dead before a session could begin with them. They are older
    /// than the next login, too.
    pub(super) fn former_and_dead_logins(&self) -> Vec<Identity> {
        let own = self.refresh_token();
        let own = own.map(|token| Identity::of_refresh_token(token.expose_secret()));
        let dead = self.ended.as_ref().map_or(&[][..], Ended::credentials);
        let dead = dead.iter().filter(|dead| Some(*dead) != own.as_ref());
        let dead = dead.filter(|dead| **dead != self.identity);
        with_newest(self.former_identities.clone(), dead)
    }

    /// The credential that the session began with.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the session began with the credential of `identity`.
    pub(crate) fn began_with(&self, identity: &Identity) -> bool {
        self.identity == *identity
    }

    /// Whether neither the session nor one before it began with the credential of `identity`. Then that credential is a
    /// new login.
    pub(crate) fn is_older_than(&self, identity: &Identity) -> bool {
        self.identity != *identity && !self.former_identities.contains(identity)
    }

    /// Whether it is an earlier state of the session than `other`: the one before its login, or before its last token
    /// response.
    ///
    /// The generation tells only sessions of the same login apart. A process that could save nothing for a long time may
    /// have a higher one than a later login has.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        let comes_after =
            |later: &Self, earlier: &Self| later.former_identities.contains(&earlier.identity);
        match (comes_after(other, self), comes_after(self, other)) {
            (true, false) => true,
            (false, true) => false,
            _ => self.generation < other.generation,
        }
    }

    /// The client that the tokens belong to, if it is recorded.
    pub(crate) fn client(&self) -> Option<&Identity> {
        self.client.as_ref()
    }

    /// The session with the client that its tokens belong to. What the server of another client has said of a credential
    /// does not count for this one.
    pub(crate) fn of_client(self, client: Identity) -> Self {
        Self {
            ended: self.ended.filter(|_| self.client.as_ref() == Some(&client)),
            client: Some(client),
            ..self
        }
    }

    /// Whether there are tokens that another session in its place would overwrite.
    pub(crate) fn has_tokens(&self) -> bool {
        self.access.is_some() || self.refresh_token.is_some()
    }
}

/// The identities with `more`, each once, at most [`MAX_IDENTITIES`] of them.
pub(super) fn with_newest<'a>(
    mut identities: Vec<Identity>,
    more: impl IntoIterator<Item = &'a Identity>,
) -> Vec<Identity> {
    for identity in more {
        identities.retain(|it| it != identity);
        identities.push(identity.clone());
    }
    identities.drain(..identities.len().saturating_sub(MAX_IDENTITIES));
    identities
}
