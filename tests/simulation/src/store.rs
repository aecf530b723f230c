//! The store as a server: one session, and one lease with an owner.

use serde_json::Value;

use crate::{
    plan::{Ms, SECOND, StoreKind},
    sends::identity,
    world::{State, note},
};

/// How long after a write a failover can still lose it.
const REPLICATION_LAG: Ms = SECOND;

pub(crate) struct StoreServer {
    kind: StoreKind,
    pub(crate) session: Option<Stored>,
    lease: Option<Lease>,
    /// The sessions that were replaced, and when.
    replaced: Vec<(Ms, Option<Stored>)>,
    lapsed: Vec<Lapse>,
    /// How often the session has changed, marks and dead credentials aside, and when it last did.
    pub(crate) changes: u64,
    pub(crate) changed_at: Ms,
    pub(crate) down_until: Ms,
    pub(crate) full_until: Ms,
    pub(crate) slow_until: Ms,
}

/// A session as it is stored.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) text: String,
    pub(crate) version: u64,
    /// The process that saved it, and its life.
    pub(crate) by: (usize, u32),
    pub(crate) view: View,
}

/// What the oracle reads in a stored session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) order: Order,
    pub(crate) refresh_token: Option<String>,
    pub(crate) access_token: Option<String>,
    pub(crate) is_marked: bool,
    /// The credentials that were declared dead or revoked.
    pub(crate) ended: Vec<String>,
    pub(crate) is_revoked: bool,
}

/// Which of two sessions is the later one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) generation: u64,
    pub(crate) identity: String,
    former_identities: Vec<String>,
}

/// Who holds or wants a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) process: usize,
    pub(crate) life: u32,
    pub(crate) number: u64,
}

#[derive(Clone, Copy)]
struct Lease {
    owner: Owner,
    /// When it was taken or last extended.
    written_at: Ms,
    until: Option<Ms>,
    /// It had ended, and its owner has taken it again.
    was_lost: bool,
}

/// The end of a lease before its process released it.
pub(crate) struct Lapse {
    pub(crate) owner: Owner,
    pub(crate) at: Ms,
    /// The store has lost it. If not, its process did not extend it.
    pub(crate) is_lost_by_store: bool,
}

/// The store cannot do what was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unavailable;

/// What the store was like when it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) at: Ms,
    pub(crate) changes: u64,
}

/// What became of a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    Done(Look),
    /// This version is stored.
    Other(u64),
}

impl View {
    fn of(text: &str) -> Self {
        let json: Value = serde_json::from_str(text).expect("a session is JSON");
        let string = |value: &Value| value.as_str().map(str::to_owned);
        let strings = |value: &Value| {
            let strings = value.as_array().into_iter().flatten();
            strings.filter_map(string).collect()
        };
        let ended = &json["ended"];
        Self {
            order: Order {
                generation: json["generation"].as_u64().unwrap_or_default(),
                identity: string(&json["identity"]).unwrap_or_default(),
                former_identities: strings(&json["former_identities"]),
            },
            refresh_token: string(&json["refresh_token"]),
            access_token: string(&json["access"]["token"]),
            is_marked: !json["refreshing_since"].is_null(),
            ended: strings(&ended["credentials"]),
            is_revoked: ended["reason"] == "revoked",
        }
    }

    /// Whether this session, saved in place of `before`, says that nobody sends this refresh token again: it is dead, or another
    /// one is in its place.
    pub(crate) fn has_settled(&self, credential: &str, before: Option<&Self>) -> bool {
        let had = before.is_some_and(|it| it.refresh_token.as_deref() == Some(credential));
        let is_other = self.refresh_token.as_deref() != Some(credential);
        self.ended.contains(&identity(credential)) || (had && is_other)
    }

    /// The session without what a refresh that fails changes.
    pub(crate) fn key(&self) -> (u64, &str, Option<&str>) {
        (
            self.order.generation,
            &self.order.identity,
            self.refresh_token.as_deref(),
        )
    }
}

impl Order {
    /// The order of what comes of a token request with a credential of this session.
    pub(crate) fn refreshed(&self) -> Self {
        Self {
            generation: self.generation + 1,
            ..self.clone()
        }
    }

    /// The order of the session that the login of `identity` begins in place of this one.
    pub(crate) fn begun(&self, identity: String) -> Self {
        let mut former_identities = self.former_identities.clone();
        former_identities.push(self.identity.clone());
        Self {
            generation: self.generation + 1,
            identity,
            former_identities,
        }
    }

    /// Whether `other` takes the place of this one.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        let comes_after =
            |later: &Self, earlier: &Self| later.former_identities.contains(&earlier.identity);
        match (comes_after(other, self), comes_after(self, other)) {
            (true, false) => true,
            (false, true) => false,
            _ => self.generation < other.generation,
        }
    }
}

impl StoreServer {
    pub(crate) fn new(kind: StoreKind) -> Self {
        Self {
            kind,
            session: None,
            lease: None,
            replaced: Vec::new(),
            lapsed: Vec::new(),
            changes: 0,
            changed_at: 0,
            down_until: 0,
            full_until: 0,
            slow_until: 0,
        }
    }

    pub(crate) fn view(&self) -> Option<&View> {
        self.session.as_ref().map(|stored| &stored.view)
    }

    pub(crate) fn holds(&self, process: usize, life: u32, now: Ms) -> bool {
        self.lease.is_some_and(|lease| {
            lease.owner.process == process && lease.owner.life == life && !lease.has_ended(now)
        })
    }

    /// Whether this process has a lease, and has had it all the time.
    pub(crate) fn has_held(&self, process: usize, life: u32, now: Ms) -> bool {
        self.holds(process, life, now) && self.lease.is_some_and(|lease| !lease.was_lost)
    }

    /// The leases of this process that ended before it released them.
    pub(crate) fn lapses_of(
        &self,
        process: usize,
        life: u32,
    ) -> impl Iterator<Item = &Lapse> + Clone {
        let lapsed = self.lapsed.iter();
        lapsed.filter(move |lapse| (lapse.owner.process, lapse.owner.life) == (process, life))
    }

    /// Whether this lease is held, and has been held all the time.
    pub(crate) fn is_held(&self, owner: Owner, now: Ms) -> bool {
        let is_held = |lease: Lease| lease.owner == owner && !lease.was_lost;
        self.lease
            .is_some_and(|lease| is_held(lease) && !lease.has_ended(now))
    }

    pub(crate) fn release_all_of(&mut self, process: usize) {
        if self
            .lease
            .is_some_and(|lease| lease.owner.process == process)
        {
            self.lease = None;
        }
    }

    /// This lease, which had ended by itself, is not there any more.
    fn lapses(&mut self, lease: Lease, now: Ms) {
        self.lapsed.push(Lapse {
            owner: lease.owner,
            at: lease.until.unwrap_or(now),
            is_lost_by_store: false,
        });
    }

    fn end_at(&self, now: Ms) -> Option<Ms> {
        match self.kind {
            StoreKind::Local => None,
            StoreKind::Remote { lease } => Some(now + lease),
        }
    }

    fn take(&mut self, owner: Owner, extends: bool, now: Ms) -> bool {
        let is_kept = |lease: Lease| lease.owner == owner && !lease.has_ended(now);
        let was_lost = match self.lease {
            Some(lease) if is_kept(lease) => lease.was_lost,
            _ => extends,
        };
        match self.lease {
            Some(lease) if lease.owner != owner && !lease.has_ended(now) => return false,
            // Another process has it now, or its own process takes it again.
            Some(lease) if !is_kept(lease) => self.lapses(lease, now),
            _ => {}
        }
        let until = self.end_at(now);
        self.lease = Some(Lease {
            owner,
            written_at: now,
            until,
            was_lost,
        });
        true
    }
}

impl Lease {
    fn has_ended(&self, now: Ms) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// The commands. A store that is full can read, and knows who holds the lease.
impl State {
    fn check_store(&mut self, writes: bool) -> Result<(), Unavailable> {
        let is_full = writes && self.store.full_until > self.now;
        if self.store.down_until > self.now || is_full {
            self.trouble(75 * SECOND);
            return Err(Unavailable);
        }
        Ok(())
    }

    pub(crate) fn load(&mut self) -> Result<(Option<String>, Look), Unavailable> {
        self.check_store(false)?;
        let session = self.store.session.as_ref();
        Ok((session.map(|session| session.text.clone()), self.look()))
    }

    fn look(&self) -> Look {
        Look {
            at: self.now,
            changes: self.store.changes,
        }
    }

    /// Takes the lease, or extends it.
    pub(crate) fn take_lease(&mut self, owner: Owner, extends: bool) -> Result<bool, Unavailable> {
        self.check_store(self.plan.store != StoreKind::Local)?;
        let host = &self.hosts[owner.process];
        let is_alive = host.is_alive && host.life == owner.life;
        if self.plan.store == StoreKind::Local && !is_alive {
            return Ok(false);
        }
        let before = self.store.lease.map(|lease| lease.owner);
        let is_taken = self.store.take(owner, extends, self.now);
        if is_taken && before != Some(owner) {
            note!(self, "p{} has the lease {}", owner.process, owner.number);
        }
        Ok(is_taken)
    }

    /// Takes the lease, and reads the session. `None` if another owner has it.
    pub(crate) fn lease_and_load(
        &mut self,
        owner: Owner,
    ) -> Result<Option<(Option<String>, Look)>, Unavailable> {
        if !self.take_lease(owner, false)? {
            return Ok(None);
        }
        self.load().map(Some)
    }

    pub(crate) fn is_owner(&mut self, owner: Owner) -> Result<bool, Unavailable> {
        self.check_store(false)?;
        Ok(self.store.is_held(owner, self.now))
    }

    pub(crate) fn release(&mut self, owner: Owner) {
        let lease = &mut self.store.lease;
        // The kernel releases the lock of a file, whatever the disk does.
        let is_reached = self.store.down_until <= self.now || self.plan.store == StoreKind::Local;
        if is_reached && lease.is_some_and(|lease| lease.owner == owner) {
            let ended = lease.take().filter(|lease| lease.has_ended(self.now));
            note!(
                self,
                "p{} releases the lease {}",
                owner.process,
                owner.number
            );
            if let Some(ended) = ended {
                self.store.lapses(ended, self.now);
            }
        }
    }

    pub(crate) fn save(
        &mut self,
        owner: Owner,
        replaces: u64,
        version: u64,
        text: &str,
    ) -> Result<Saved, Unavailable> {
        self.check_store(true)?;
        let stored = self.store.session.as_ref();
        if stored.is_some_and(|stored| stored.text == text) {
            return Ok(Saved::Done(self.look()));
        }
        let found = stored.map_or(0, |stored| stored.version);
        let process = owner.process;
        if found != replaces {
            note!(self, "p{process} fenced: {replaces} is not {found}");
            self.count("fenced save");
            return Ok(Saved::Other(found));
        }
        let new = Stored {
            text: text.to_owned(),
            version,
            by: (process, owner.life),
            view: View::of(text),
        };
        note!(
            self,
            "p{process} saved {version}: generation {} {:?}{}{}",
            new.view.order.generation,
            new.view.refresh_token,
            if new.view.is_marked { " marked" } else { "" },
            match (&new.view.is_revoked, new.view.ended.len()) {
                (true, _) => " revoked",
                (false, 0) => "",
                (false, _) => " ended",
            },
        );
        let before = self.store.session.replace(new);
        self.store.replaced.push((self.now, before.clone()));
        self.has_saved(owner, before.as_ref());
        Ok(Saved::Done(self.look()))
    }

    /// The lease is released if the session is stored.
    pub(crate) fn save_and_release(
        &mut self,
        owner: Owner,
        replaces: u64,
        version: u64,
        text: &str,
    ) -> Result<Saved, Unavailable> {
        let saved = self.save(owner, replaces, version, text)?;
        if let Saved::Done(_) = saved {
            self.release(owner);
        }
        Ok(saved)
    }

    /// The store loses its last writes. The lease is one of them.
    pub(crate) fn fail_over(&mut self) {
        let from = self.now.saturating_sub(self.rng.u64(0..=REPLICATION_LAG));
        let lost = self.store.replaced.partition_point(|(at, _)| *at < from);
        if let Some(lease) = self.store.lease.take_if(|lease| lease.written_at >= from) {
            self.store.lapsed.push(Lapse {
                owner: lease.owner,
                at: self.now,
                is_lost_by_store: true,
            });
            self.trouble(75 * SECOND);
            self.count("failover lost a lease");
        }
        let Some((_, before)) = self.store.replaced.drain(lost..).next() else {
            note!(self, "failover, nothing is lost");
            return;
        };
        let version = before.as_ref().map_or(0, |before| before.version);
        note!(self, "failover, back to version {version}");
        self.count("failover lost a write");
        self.store.session = before;
        self.has_failed_over(from);
    }
}
