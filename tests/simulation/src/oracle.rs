//! What must hold. The oracle knows what the server and the store have done, and what each process was told.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use tower_bearer::{TokenError, TokenErrorKind, TokenState};

use crate::{
    host::{Host, HostState, OwnLease},
    plan::{GrantKind, MINUTE, Ms, SECOND},
    sends::{Fate, Sent, identity},
    store::{Owner, Stored},
    world::{State, note},
};

#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) sent: Vec<Sent>,
    pub(crate) violations: Vec<String>,
    /// When the stored session was revoked, and the logins that no process may use since.
    revoked: Option<(Ms, BTreeSet<usize>)>,
    /// The logins of all sessions that were saved, and since when the store knows them.
    stored_logins: BTreeMap<usize, Ms>,
    /// What was saved in these times was lost in a failover.
    pub(crate) lost: Vec<RangeInclusive<Ms>>,
    pub(crate) served: u64,
    pub(crate) failed: u64,
}

/// How a request to the API ended.
pub(crate) enum Outcome {
    Served,
    Rejected,
    Failed(TokenError),
    /// The API was not reached.
    Unreached,
}

impl Oracle {
    /// When the stored session was revoked, or 0 if it is not.
    pub(crate) fn revoked_at(&self) -> Ms {
        self.revoked.as_ref().map_or(0, |(at, _)| *at)
    }

    /// The store has a session of this login.
    fn knows_login(&mut self, login: Option<usize>, now: Ms) {
        if let Some(login) = login {
            self.stored_logins.entry(login).or_insert(now);
        }
    }
}

impl State {
    pub(crate) fn violation(&mut self, what: &str) {
        note!(self, "VIOLATION {what}");
        let at = self.now / SECOND;
        self.oracle.violations.push(format!("at {at} s: {what}"));
    }

    /// Each token request: no process begins a revoked session anew, and none sends anything for a dead one.
    pub(crate) fn check_may_send(&mut self, host: &Host, credential: &str) {
        let is_after_reset = self.is_after_reset(host);
        if let Some((at, logins)) = &self.oracle.revoked
            && self
                .server
                .login_of(credential)
                .is_some_and(|login| logins.contains(&login))
            && self.hosts[host.process].last_look >= *at
            && !self.is_of_reset(host, credential)
        {
            let process = host.process;
            self.violation(&format!(
                "p{process} sends {credential} of a revoked session"
            ));
        }
        let changes = self.store.changes;
        let state = &mut self.hosts[host.process];
        if let Some(seen) = state.final_changes.take()
            && seen == changes
            && !is_after_reset
        {
            let process = host.process;
            self.violation(&format!(
                "p{process} sends {credential} although its session is dead"
            ));
        }
        self.check_rate(host);
    }

    /// At most four token requests of a process begin within a second and under one lease: a refresh token, once more, a newer one,
    /// and a grant. A refresh that loses its lease begins again, twice at most.
    fn check_rate(&mut self, host: &Host) {
        let since = self.now.saturating_sub(SECOND - 1);
        let number = |lease: Option<OwnLease>| lease.map(|lease| lease.number);
        let lease = number(self.hosts[host.process].lease);
        let recent = self.oracle.sent.iter().rev();
        let recent = recent
            .take_while(|sent| sent.at >= since)
            .filter(|sent| (sent.process, sent.life) == (host.process, host.life));
        let all = recent.clone().count();
        let under_lease = recent.filter(|sent| number(sent.lease) == lease).count();
        if under_lease >= 4 || all >= 12 {
            self.violation(&format!(
                "p{} sends too many requests in a second",
                host.process
            ));
        }
    }

    pub(crate) fn begins_save(&mut self, host: &Host) {
        if !host.is_dead(self) {
            self.hosts[host.process].saves += 1;
        }
    }

    /// A session was saved.
    pub(crate) fn has_saved(&mut self, owner: Owner, before: Option<&Stored>) {
        let Some(stored) = self.store.session.clone() else {
            return;
        };
        let (now, view) = (self.now, &stored.view);
        let is_same = before.is_some_and(|before| before.view.key() == view.key());
        if !is_same {
            self.store.changes += 1;
            self.store.changed_at = now;
        }
        if view.is_marked && before.is_some_and(|before| before.view.is_marked) {
            self.count("mark over a mark");
        }
        let token = view.refresh_token.as_ref();
        let login = token.and_then(|token| self.server.login_of(token));
        self.oracle.knows_login(login, now);
        let is_begun =
            before.is_none_or(|before| before.view.order.identity != view.order.identity);
        // It has no tokens yet if it was begun, and not refreshed.
        if is_begun && identity(&self.hosts[owner.process].started_with) == view.order.identity {
            let login = self
                .server
                .login_of(&self.hosts[owner.process].started_with);
            self.oracle.knows_login(login, now);
        }
        if let Some(before) =
            before.filter(|before| before.view.order.identity != view.order.identity)
        {
            // Logins that were dead before this one began are old ones.
            for host in &self.hosts {
                if before.view.ended.contains(&identity(&host.credential)) {
                    let login = self.server.login_of(&host.credential);
                    self.oracle.knows_login(login, now);
                }
            }
        }
        let mut late = false;
        for sent in &mut self.oracle.sent {
            match &sent.fate {
                Fate::Granted(tokens) if view.access_token.as_ref() == Some(&tokens.access) => {
                    if sent.saved_at.is_none() {
                        late = now > sent.answered_at + 5 * SECOND;
                        sent.saved_at = Some(now);
                    }
                    sent.is_lost = false;
                }
                Fate::Granted(_)
                    if !is_same
                        && (sent.process, sent.life) != (owner.process, owner.life)
                        && !view.order.is_before(&sent.order) =>
                {
                    sent.overtaken_at.get_or_insert(now);
                }
                Fate::Dead
                    if (sent.process, sent.life) == (owner.process, owner.life)
                        && sent.saved_at.is_none()
                        && view
                            .has_settled(&sent.credential, before.map(|before| &before.view)) =>
                {
                    sent.saved_at = Some(now);
                }
                _ => {}
            }
        }
        if late {
            self.count("session saved in the background");
        }
        if !view.ended.is_empty() && !view.is_revoked {
            self.count("dead credential saved");
        }
        let was_revoked = before.is_some_and(|before| before.view.is_revoked);
        if view.is_revoked && !(was_revoked && is_same) {
            self.count("revocation saved");
            // A new login that came meanwhile is for the next start.
            let own = &self.hosts[owner.process];
            if own.life == owner.life {
                let own = self.server.login_of(&own.started_with);
                self.oracle.knows_login(own, now);
            }
            let logins = self.oracle.stored_logins.keys().copied().collect();
            self.oracle.revoked = Some((now, logins));
        } else if !view.is_revoked {
            self.oracle.revoked = None;
        }
    }

    /// The store has lost what was saved since `from`.
    pub(crate) fn has_failed_over(&mut self, from: Ms) {
        let now = self.now;
        self.oracle.lost.push(from..=now);
        self.store.changes += 1;
        self.store.changed_at = now;
        self.trouble(75 * SECOND);
        for sent in &mut self.oracle.sent {
            sent.is_lost |= sent.saved_at.is_some_and(|at| at >= from);
            let has_seen = |at: Ms| self.hosts[sent.process].last_look >= at;
            sent.overtaken_at
                .take_if(|at| *at >= from && !has_seen(*at));
        }
        // A login whose session is lost is a new one again.
        self.oracle.stored_logins.retain(|_, at| *at < from);
        if !self.store.view().is_some_and(|view| view.is_revoked) {
            self.oracle.revoked = None;
        }
    }

    /// Whether the API accepts this token now.
    pub(crate) fn api_accepts(&mut self, host: &Host, token: &str) -> bool {
        let rejected = self.plan.rates.rejected;
        if self.happens(rejected) {
            // Pauses grow if tokens are rejected early.
            self.trouble(16 * 60 * SECOND);
            self.count("valid token rejected");
            let state = &mut self.hosts[host.process];
            state.good_token = None;
            token.clone_into(&mut state.rejected_token);
            return false;
        }
        let is_valid = self.server.is_valid(token, self.now);
        let is_own = self.oracle.sent.iter().rev().any(|sent| {
            (sent.process, sent.life) == (host.process, host.life)
                && matches!(&sent.fate, Fate::Granted(tokens) if tokens.access == token)
        });
        self.count(match (is_valid, is_own) {
            (true, true) => "request served",
            (true, false) => "request served with an adopted token",
            (false, _) => "request with a token that is not valid",
        });
        if !host.is_dead(self) {
            let state = &mut self.hosts[host.process];
            let is_good = is_valid && state.rejected_token != token;
            state.good_token = is_good.then(|| token.to_owned());
        }
        is_valid
    }

    /// A request to the API has ended.
    pub(crate) fn request_done(&mut self, host: &Host, began_at: Ms, outcome: &Outcome) {
        if host.is_dead(self) {
            return;
        }
        let process = host.process;
        match outcome {
            Outcome::Served => {
                self.oracle.served += 1;
                self.hosts[process].served_at = self.now;
            }
            Outcome::Unreached => {}
            Outcome::Rejected => {
                self.oracle.failed += 1;
                note!(self, "p{process} got the API's rejection");
                self.count("caller got the API's rejection");
                let excused_until = self.trouble_until.max(self.rejections_until);
                // A refresh that takes longer than a short time limit brings the caller nothing.
                let limit = self.plan.refresh_timeout;
                let has_timed_out = limit < MINUTE && self.now >= began_at + limit;
                // A stored token seems to live longer if the clock that its end was stored by is ahead.
                let clock = self.hosts[process].clock_is_wrong_by;
                let is_ahead = |other: &HostState| other.clock_is_wrong_by > clock;
                let is_excused =
                    self.now <= excused_until || has_timed_out || self.hosts.iter().any(is_ahead);
                if !is_excused && self.stored_is_accepted() {
                    self.violation(&format!("p{process} got a rejection without reason"));
                }
            }
            Outcome::Failed(error) => {
                self.oracle.failed += 1;
                note!(self, "p{process} failed: {error}");
                self.failed(host, began_at, error);
            }
        }
    }

    fn failed(&mut self, host: &Host, began_at: Ms, error: &TokenError) {
        let process = host.process;
        // A token that had expired is usable again if the clock was set back. What began before that may fail.
        let was_set_back = self.hosts[process].set_back_at >= began_at;
        let cache = self.hosts[process].cache.as_ref();
        // A rejected token is sent again, but callers that waited for another one get the error.
        let has_usable = |state| matches!(state, TokenState::Fresh | TokenState::Due);
        if !was_set_back && cache.is_some_and(|cache| has_usable(cache.status().state)) {
            self.violation(&format!("p{process} failed with a usable token: {error}"));
        }
        // A revocation ends the use of a token that may still be valid.
        let may_be_revoked = error.kind() == TokenErrorKind::ReauthRequired;
        if let Some(good) = &self.hosts[process].good_token {
            // What the crate keeps back before the end, and the time that responses take.
            let margin = self.plan.lifetime / 10 + self.plan.token_timeout + 2 * SECOND;
            let later = self.later_in_store(process, good);
            let left = self.left_for(host, good);
            let left = later.map_or(left, |later| left.min(self.left_for(host, later)));
            if !may_be_revoked && !was_set_back && left > margin {
                let good = good.clone();
                self.violation(&format!(
                    "p{process} failed although {good} is valid: {error}"
                ));
            }
        }
        if error.kind() == TokenErrorKind::ReauthRequired {
            self.count("caller must log in again");
            let state = &mut self.hosts[process];
            state.final_at = self.now;
            // Its cache has dropped the token, so a later request may fail for another reason.
            state.good_token = None;
            self.check_end(host);
            return;
        }
        self.count("caller got a transient error");
        let is_short =
            self.plan.refresh_timeout < MINUTE && error.kind() == TokenErrorKind::Timeout;
        if self.now > self.trouble_until && !is_short {
            self.violation(&format!("p{process} failed without reason: {error}"));
        }
    }

    /// How long a process certainly may use this token, by its own clocks. Its end is what the clock of the process that obtained
    /// it said, and what is left of it ends earlier by as much as the clock of this process was ahead, or was set forward.
    fn left_for(&self, host: &Host, token: &str) -> Ms {
        let Some(sent) = self.request_of(token) else {
            return 0;
        };
        let (least, most) = self.hosts[host.process].clock_was_wrong_by;
        let is_ahead_by = most - least.min(sent.clock_is_wrong_by);
        let is_ahead_by = Ms::try_from(is_ahead_by).unwrap_or_default() * SECOND;
        // The machine was suspended while the response was on its way.
        let was_suspended = sent.suspended_until_answer - sent.suspended_before;
        let left = self.server.left(token, self.now);
        left.saturating_sub(is_ahead_by + was_suspended)
    }

    /// The token request that has brought this access token.
    fn request_of(&self, token: &str) -> Option<&Sent> {
        let mut sent = self.oracle.sent.iter().rev();
        sent.find(|sent| matches!(&sent.fate, Fate::Granted(tokens) if tokens.access == token))
    }

    /// The stored access token if this process has seen it and it came after `token`. By the clock of the process that has
    /// obtained it, it may end earlier.
    fn later_in_store(&self, process: usize, token: &str) -> Option<&str> {
        let stored = self.store.view()?.access_token.as_deref()?;
        let (later, earlier) = (self.request_of(stored)?, self.request_of(token)?);
        let is_seen = later.saved_at? <= self.hosts[process].last_look;
        (is_seen && later.answered_at > earlier.answered_at).then_some(stored)
    }

    /// A session ends only if the store had nothing else that the server would accept.
    fn check_end(&mut self, host: &Host) {
        let state = &self.hosts[host.process];
        let Some(dead_at) = state.dead_at else {
            return;
        };
        let has_looked = state.store_trouble < dead_at;
        let is_older = self.store.changed_at < dead_at;
        let has_own_login = self.has_unused_login(host.process);
        if has_looked && is_older && !has_own_login && self.stored_is_accepted() {
            let process = host.process;
            self.violation(&format!(
                "p{process} ends a session although the store has a valid token"
            ));
        }
        self.hosts[host.process].dead_at = None;
    }

    /// A process that was closed without an error leaves nothing unsaved.
    pub(crate) fn check_closed(&mut self, host: &Host) {
        let mut unsaved = self.oracle.unsaved();
        let is_unsaved = unsaved.any(|(sent, token)| {
            (sent.process, sent.life) == (host.process, host.life)
                && !sent.is_lost
                && self.store.changes == sent.look_changes
                && self.server.accepts(token, self.now)
        });
        drop(unsaved);
        if is_unsaved {
            self.violation(&format!(
                "p{} was closed with an unsaved session",
                host.process
            ));
        }
    }

    /// A process lets others have the lease. As long as its session is not saved, they would send the spent refresh token.
    pub(crate) fn check_gives_up_lease(&mut self, host: &Host, owner: Owner) {
        let state = &self.hosts[host.process];
        // It has learned that it has the lease.
        let is_known = state
            .lease
            .is_some_and(|lease| lease.number == owner.number);
        if self.is_over || host.is_dead(self) || !is_known || !self.store.is_held(owner, self.now) {
            return;
        }
        if self.has_unsaved(host) {
            self.violation(&format!(
                "p{} gives up its lease with an unsaved session",
                host.process
            ));
        }
    }

    /// Whether a process has a session that it could not save, and that no other process has overtaken.
    pub(crate) fn has_unsaved(&self, host: &Host) -> bool {
        let mut unsaved = self.oracle.unsaved();
        unsaved.any(|(sent, token)| {
            (sent.process, sent.life) == (host.process, host.life)
                && sent.saved_at.is_none()
                && self.store.changes == sent.look_changes
                && self.server.accepts(token, self.now)
        })
    }

    /// Whether the process is configured with a login that the stored session does not know.
    pub(crate) fn has_unused_login(&self, process: usize) -> bool {
        let login = self.server.login_of(&self.hosts[process].credential);
        login.is_some_and(|login| !self.oracle.stored_logins.contains_key(&login))
    }

    pub(crate) fn stored_is_accepted(&self) -> bool {
        let view = self.store.view().filter(|view| !view.is_revoked);
        let token = view.and_then(|view| view.refresh_token.as_ref());
        token.is_some_and(|token| self.server.accepts(token, self.now))
    }

    /// Whether the server would accept something that the store has, that a living process holds or waits for, or that one is
    /// configured with and has not used yet.
    pub(crate) fn is_alive(&self) -> bool {
        self.why_alive() != "the session is dead"
    }

    pub(crate) fn why_alive(&self) -> &'static str {
        let is_revoked = self.store.view().is_some_and(|view| view.is_revoked);
        let lives = |sent: &Sent| {
            let host = &self.hosts[sent.process];
            host.is_alive && host.life == sent.life
        };
        // It went on with the session of another process if it has sent something else since, or has found that session in the
        // place of its own.
        let goes_on = |with: &Sent, token: &str| {
            let has_seen = |at: Ms| self.hosts[with.process].last_look >= at;
            !with.overtaken_at.is_some_and(has_seen)
                && !self.oracle.sent.iter().any(|sent| {
                    (sent.process, sent.life) == (with.process, with.life)
                        && sent.at > with.answered_at
                        && sent.credential != token
                })
        };
        let mut unsaved = self.oracle.unsaved();
        let mut sent = self.oracle.sent.iter();
        if self.stored_is_accepted() {
            "the store has a valid token"
        } else if !is_revoked
            && unsaved.any(|(sent, token)| {
                lives(sent) && self.server.accepts(token, self.now) && goes_on(sent, token)
            })
        {
            "a process holds a valid token"
        } else if sent.any(|sent| matches!(sent.fate, Fate::Waiting) && lives(sent)) {
            "a process waits for a token"
        } else if (0..self.hosts.len()).any(|process| self.may_begin(process)) {
            "a process has a valid login"
        } else {
            "the session is dead"
        }
    }

    /// Whether a process is configured with a credential that the server would accept and that it may send: a login that the
    /// store does not know, or the one that the stored session began with, if it can be used again.
    ///
    /// A process that has revoked its session does not, although the store may have lost the revocation in a failover.
    fn may_begin(&self, process: usize) -> bool {
        let host = &self.hosts[process];
        let credential = &host.credential;
        if host.has_revoked && host.started_with == *credential {
            return false;
        }
        let began = self
            .store
            .view()
            .is_none_or(|view| !view.is_revoked && view.order.identity == identity(credential));
        let may_repeat = self.plan.grant == GrantKind::ExchangeToken && began;
        // It may have begun a session that was never saved, and that another one has replaced.
        let has_begun = self.oracle.sent.iter().any(|sent| {
            (sent.process, sent.life, &sent.credential) == (process, host.life, credential)
                && matches!(sent.fate, Fate::Granted(_))
        });
        let may_begin = may_repeat || (self.has_unused_login(process) && !has_begun);
        may_begin && self.server.accepts(credential, self.now)
    }

    /// Whether the login of this process died before a session began with it. The session before it is none of its business.
    pub(crate) fn has_dead_login(&self, process: usize) -> bool {
        self.has_unused_login(process) && !self.may_begin(process)
    }

    /// Whether this process cannot have a token.
    pub(crate) fn is_hopeless(&self, process: usize) -> bool {
        self.has_dead_login(process) || !self.is_alive()
    }
}
