//! Which credentials and which client a session belongs to.

use secrecy::ExposeSecret;

use super::{Ended, Identity, StoredSession};

/// How many identities of earlier credentials, and of dead ones, a session keeps.
pub(super) const MAX_IDENTITIES: usize = 8;

impl StoredSession {
    /// The former identities of a session of `next` that replaces this one. A login that was declared dead is among them,
    /// although no session has begun with it: it is older than `next`.
    pub(super) fn former_identities_before(&self, next: &Identity) -> Vec<Identity> {
        let own = self.refresh_token();
        let own = own.map(|token| Identity::of_refresh_token(token.expose_secret()));
        let dead = self.ended.as_ref().map_or(&[][..], Ended::credentials);
        let dead = dead.iter().filter(|dead| Some(*dead) != own.as_ref());
        let all = self.former_identities.iter().chain(dead);
        let all = all.chain([&self.identity]);
        let mut former = Vec::new();
        for identity in all {
            if identity != next && !former.contains(identity) {
                former.push(identity.clone());
            }
        }
        former.drain(..former.len().saturating_sub(MAX_IDENTITIES));
        former
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
