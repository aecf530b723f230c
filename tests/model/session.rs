//! The stored session: `src/store/stored_session.rs` and the files beside it.

/// A refresh token or an exchange token, by its number at the server. It also is its own identity.
pub(crate) type Credential = u8;

/// A set of credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Credentials(u32);

impl Credentials {
    pub(crate) fn contains(self, credential: Credential) -> bool {
        self.0 & (1 << credential) != 0
    }

    pub(crate) fn with(self, credential: Credential) -> Self {
        Self(self.0 | (1 << credential))
    }

    pub(crate) fn without(self, credential: Credential) -> Self {
        Self(self.0 & !(1 << credential))
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Credential> {
        (0..32).filter(move |it| self.contains(*it))
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The mark that a refresh runs, by the number of the process that has saved it.
pub(crate) type Mark = u8;

/// `StoredSession`. All processes are of one client, so `client` is there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Session {
    pub(crate) version: u8,
    pub(crate) generation: u8,
    pub(crate) identity: Credential,
    pub(crate) former: Credentials,
    pub(crate) has_client: bool,
    /// The access token, by the refresh token that came with it.
    pub(crate) access: Option<Credential>,
    pub(crate) refresh_token: Option<Credential>,
    /// `refreshing_since`, and which process has saved the mark.
    pub(crate) mark: Option<Mark>,
    pub(crate) ended: Credentials,
    /// The reason of `ended` is a revocation.
    pub(crate) is_revoked: bool,
}

impl Session {
    pub(crate) fn begin(identity: Credential, before: Option<&Self>) -> Self {
        Self {
            version: before.map_or(0, |before| before.version),
            generation: before.map_or(0, |before| before.generation),
            identity,
            former: before
                .map(|before| before.former_before(identity))
                .unwrap_or_default(),
            has_client: before.is_some_and(|before| before.has_client),
            access: None,
            refresh_token: None,
            mark: None,
            ended: before
                .filter(|before| !before.is_revoked)
                .map(|before| before.ended)
                .unwrap_or_default(),
            is_revoked: false,
        }
    }

    /// An import that replaces `stored`.
    pub(crate) fn import(refresh_token: Credential, stored: Option<&Self>) -> Self {
        let session = Self::begin(refresh_token, stored);
        Self {
            version: session.version + 1,
            generation: session.generation + 1,
            has_client: false,
            refresh_token: Some(refresh_token),
            ended: Credentials::default(),
            ..session
        }
    }

    /// `former_identities_before`.
    fn former_before(&self, next: Credential) -> Credentials {
        let former = if self.is_revoked {
            self.former
        } else {
            self.former_and_dead_logins()
        };
        former.with(self.identity).without(next)
    }

    /// `former_and_dead_logins`.
    fn former_and_dead_logins(&self) -> Credentials {
        let dead = self.ended.without(self.identity);
        let dead = self
            .refresh_token
            .map_or(dead, |refresh_token| dead.without(refresh_token));
        self.former.union(dead)
    }

    /// `of_login`, at version 0.
    pub(crate) fn of_login<'a>(
        refresh_token: Credential,
        before: impl Iterator<Item = &'a Self>,
        configured: Credential,
    ) -> Self {
        let (mut generation, mut former) = (0, Credentials::default());
        for before in before {
            generation = generation.max(before.generation);
            former = former.union(before.former_before(refresh_token));
        }
        Self {
            generation: generation + 1,
            former: former.with(configured),
            has_client: true,
            access: Some(refresh_token),
            refresh_token: Some(refresh_token),
            ..Self::begin(refresh_token, None)
        }
    }

    pub(crate) fn is_older_than(&self, identity: Credential) -> bool {
        self.identity != identity && !self.former.contains(identity)
    }

    /// `is_known_to`, of a process with this credential.
    pub(crate) fn knows(&self, credential: Credential) -> bool {
        !self.is_older_than(credential) || self.ended.contains(credential)
    }

    /// Whether it is an earlier state of the session than `other`.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        match (
            other.former.contains(self.identity),
            self.former.contains(other.identity),
        ) {
            (true, false) => true,
            (false, true) => false,
            _ => self.generation < other.generation,
        }
    }

    pub(crate) fn has_tokens(&self) -> bool {
        self.access.is_some() || self.refresh_token.is_some()
    }

    pub(crate) fn of_client(self) -> Self {
        if self.has_client {
            return self;
        }
        Self {
            has_client: true,
            ended: Credentials::default(),
            is_revoked: false,
            ..self
        }
    }

    pub(crate) fn at(self, version: u8) -> Self {
        Self { version, ..self }
    }

    pub(crate) fn refreshing(self, mark: Mark) -> Self {
        Self {
            version: self.version + 1,
            mark: Some(mark),
            ..self
        }
    }

    pub(crate) fn settled(self, mark: Option<Mark>) -> Self {
        Self {
            version: self.version + 1,
            mark,
            ..self
        }
    }

    pub(crate) fn merged(self, refresh_token: Credential) -> Self {
        Self {
            version: self.version + 1,
            generation: self.generation + 1,
            access: Some(refresh_token),
            refresh_token: Some(refresh_token),
            mark: None,
            ended: if self.is_revoked {
                Credentials::default()
            } else {
                self.ended
            },
            is_revoked: false,
            ..self
        }
    }

    /// Whether the store says that the server of its client has declared `credential` dead.
    pub(crate) fn says_is_dead(&self, credential: Credential) -> bool {
        self.has_client && self.ended.contains(credential)
    }

    /// `with_our_login`, of a process with this credential.
    pub(crate) fn with_login(self, credential: Credential) -> Self {
        if self.knows(credential) {
            self
        } else {
            self.with_dead(Credentials::default().with(credential))
        }
    }

    pub(crate) fn with_dead(self, dead: Credentials) -> Self {
        let logins = if self.is_revoked {
            dead.without(self.identity)
        } else {
            Credentials::default()
        };
        Self {
            former: self.former.union(logins),
            ended: self.ended.union(dead),
            ..self
        }
    }

    /// `with_dead_of`.
    pub(crate) fn with_dead_of(mut self, stored: &Self) -> Self {
        if self.has_client != stored.has_client {
            return self;
        }
        let passes_revocation = stored.is_revoked && !self.is_revoked;
        if passes_revocation || self.former.contains(stored.identity) {
            self.former = self.former.union(stored.former_before(self.identity));
        }
        if passes_revocation {
            return self;
        }
        let spent = stored
            .refresh_token
            .filter(|it| self.refresh_token != Some(*it));
        self.with_dead(spent.map_or(stored.ended, |spent| stored.ended.without(spent)))
    }

    pub(crate) fn revoked(self, credentials: Credentials) -> Self {
        Self {
            former: self.former_and_dead_logins(),
            version: self.version + 1,
            generation: self.generation + 1,
            access: None,
            refresh_token: None,
            mark: None,
            ended: self.ended.union(credentials),
            is_revoked: true,
            ..self
        }
    }
}
