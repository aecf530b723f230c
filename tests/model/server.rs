//! The authorization server.

use crate::session::{Credential, Credentials};

/// The most credentials that the server issues. An exploration that needs more panics.
const MAX_CREDENTIALS: usize = 20;

/// What the server does with a refresh token that it has replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reuse {
    /// Takes it for a theft: ends the family.
    Strict,
    /// Rejects it.
    Rejects,
    /// Accepts it until the grace period ends, and then takes it for a theft.
    Grace,
    /// Accepts it.
    Lenient,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Status {
    /// Not issued yet.
    #[default]
    None,
    Valid,
    /// Replaced, and the grace period has not ended.
    InGrace,
    Spent,
    /// An exchange token. It is valid as long as its family is.
    Exchange,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Issued {
    status: Status,
    /// The refresh token that it replaces, or itself.
    parent: Credential,
    /// The first refresh token of its family, or itself.
    family: Credential,
    /// The credential of the login that it comes from, or itself.
    login: Credential,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Server {
    issued: [Issued; MAX_CREDENTIALS],
    count: u8,
    dead_families: Credentials,
}

impl Server {
    /// A person logs in and gets a refresh token or an exchange token.
    pub(crate) fn log_in(&mut self, gives_exchange_token: bool) -> Credential {
        let new = self.count;
        let status = if gives_exchange_token {
            Status::Exchange
        } else {
            Status::Valid
        };
        self.add(Issued {
            status,
            parent: new,
            family: new,
            login: new,
        })
    }

    /// Handles a token request. `None` says that the credential is dead.
    pub(crate) fn handle(&mut self, credential: Credential, reuse: Reuse) -> Option<Credential> {
        let sent = self.issued[usize::from(credential)];
        if self.dead_families.contains(sent.family) {
            return None;
        }
        let new = self.count;
        let child = |family| Issued {
            status: Status::Valid,
            parent: credential,
            family,
            login: sent.login,
        };
        match sent.status {
            Status::Exchange => {
                return Some(self.add(Issued {
                    parent: new,
                    ..child(new)
                }));
            }
            Status::Valid | Status::InGrace => {}
            Status::Spent | Status::None => {
                if reuse != Reuse::Rejects {
                    self.dead_families = self.dead_families.with(sent.family);
                }
                return None;
            }
        }
        self.issued[usize::from(credential)].status = match reuse {
            Reuse::Strict | Reuse::Rejects => Status::Spent,
            Reuse::Grace => Status::InGrace,
            Reuse::Lenient => Status::Valid,
        };
        Some(self.add(child(sent.family)))
    }

    /// Revokes the family of a refresh token (RFC 7009), if it is valid.
    pub(crate) fn revoke(&mut self, refresh_token: Credential) {
        if self.accepts(refresh_token) {
            self.end_family(refresh_token);
        }
    }

    pub(crate) fn end_family(&mut self, of: Credential) {
        let family = self.issued[usize::from(of)].family;
        self.dead_families = self.dead_families.with(family);
    }

    pub(crate) fn end_grace(&mut self) {
        for issued in &mut self.issued {
            if issued.status == Status::InGrace {
                issued.status = Status::Spent;
            }
        }
    }

    pub(crate) fn has_grace(&self) -> bool {
        self.issued.iter().any(|it| it.status == Status::InGrace)
    }

    /// Whether a token request with this credential would succeed.
    pub(crate) fn accepts(&self, credential: Credential) -> bool {
        let issued = self.issued[usize::from(credential)];
        !self.dead_families.contains(issued.family)
            && matches!(
                issued.status,
                Status::Valid | Status::InGrace | Status::Exchange
            )
    }

    pub(crate) fn is_live_family(&self, family: Credential) -> bool {
        !self.dead_families.contains(family)
    }

    pub(crate) fn family(&self, credential: Credential) -> Credential {
        self.issued[usize::from(credential)].family
    }

    pub(crate) fn login(&self, credential: Credential) -> Credential {
        self.issued[usize::from(credential)].login
    }

    /// Whether `later` was issued in exchange for `earlier`, or for one that was, and so on.
    pub(crate) fn is_successor(&self, later: Credential, earlier: Credential) -> bool {
        let mut at = later;
        loop {
            let parent = self.issued[usize::from(at)].parent;
            if parent == at {
                return false;
            }
            if parent == earlier {
                return true;
            }
            at = parent;
        }
    }

    /// The credential that was issued last.
    pub(crate) fn last(&self) -> Credential {
        self.count - 1
    }

    fn add(&mut self, issued: Issued) -> Credential {
        let new = self.count;
        self.issued[usize::from(new)] = issued;
        self.count += 1;
        new
    }
}
