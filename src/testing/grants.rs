//! What a server knows of sessions: a pure state machine, told what time it is.
//!
//! A session is a family of tokens that began with one login; reuse detection and logout end the family as a whole.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, SystemTime},
};

use super::rules::{Dead, Issued, Limit, Rules};

#[derive(Debug, Default)]
pub(super) struct Grants {
    issued: u64,
    families: Vec<Family>,
    access: HashMap<String, Access>,
    refresh: HashMap<String, Refresh>,
    /// Each with whether it was used.
    exchange: HashMap<String, bool>,
    last_access: Option<String>,
    /// The one session of the client itself.
    client: Option<usize>,
}

#[derive(Debug, Default)]
struct Family {
    revoked: bool,
    refreshed: VecDeque<SystemTime>,
}

#[derive(Debug)]
struct Access {
    family: usize,
    expires: Option<SystemTime>,
    revoked: bool,
}

#[derive(Debug)]
struct Refresh {
    family: usize,
    expires: Option<SystemTime>,
    replaced: Option<SystemTime>,
}

/// An end that clocks cannot tell is no end.
fn end(now: SystemTime, lifetime: Duration) -> Option<SystemTime> {
    now.checked_add(lifetime)
}

fn past(end: Option<SystemTime>, now: SystemTime) -> bool {
    end.is_some_and(|end| end <= now)
}

impl Grants {
    /// Somebody logged in: the refresh token of a new session.
    pub(super) fn log_in(&mut self, rules: &Rules, now: SystemTime) -> String {
        let family = self.begin();
        self.issue_refresh(family, rules, now)
    }

    /// The access token of a new session, and nothing to renew it with.
    pub(super) fn let_in(&mut self, rules: &Rules, now: SystemTime) -> String {
        let family = self.begin();
        self.issue_access(family, rules, now)
    }

    pub(super) fn permit_exchange(&mut self) -> String {
        let token = self.name("et");
        self.exchange.insert(token.clone(), false);
        token
    }

    pub(super) fn exchange(
        &mut self,
        code: &str,
        rules: &Rules,
        now: SystemTime,
    ) -> Result<Issued, Dead> {
        let used = self.exchange.get_mut(code).ok_or(Dead::Unknown)?;
        if *used && rules.exchange_once {
            return Err(Dead::Spent);
        }
        *used = true;
        let family = self.begin();
        let access = self.issue_access(family, rules, now);
        let refresh = rules
            .give_refresh_token
            .then(|| self.issue_refresh(family, rules, now));
        Ok(self.issued(access, refresh, now))
    }

    pub(super) fn client_credentials(&mut self, rules: &Rules, now: SystemTime) -> Issued {
        let family = match self.client {
            Some(family) if !self.families[family].revoked => family,
            _ => *self.client.insert(self.families.len()),
        };
        if family == self.families.len() {
            self.begin();
        }
        let access = self.issue_access(family, rules, now);
        self.issued(access, None, now)
    }

    pub(super) fn refresh(
        &mut self,
        token: &str,
        rules: &Rules,
        now: SystemTime,
    ) -> Result<Issued, Dead> {
        let known = self.refresh.get(token).ok_or(Dead::Unknown)?;
        let (family, replaced) = (known.family, known.replaced);
        if self.families[family].revoked {
            return Err(Dead::Revoked);
        }
        if past(known.expires, now) {
            return Err(Dead::Expired);
        }
        if replaced.is_some_and(|at| past(end(at, rules.grace), now)) {
            if !rules.detect_reuse {
                return Err(Dead::Spent);
            }
            self.families[family].revoked = true;
            return Err(Dead::Reused);
        }
        if let Some(limit) = &rules.limit
            && self.families[family].too_often(limit, now)
        {
            self.end_access_of(family);
            return Err(Dead::Limited);
        }
        if rules.one_access_token && !rules.repeat_access {
            self.end_access_of(family);
        }
        let access = self.issue_access(family, rules, now);
        let refresh = if !rules.give_refresh_token {
            // A token that is replaced by none would end the session: nothing rotates.
            None
        } else if rules.rotate {
            if let Some(old) = self.refresh.get_mut(token) {
                old.replaced.get_or_insert(now);
            }
            Some(self.issue_refresh(family, rules, now))
        } else {
            Some(token.to_owned())
        };
        Ok(self.issued(access, refresh, now))
    }

    pub(super) fn check(&self, token: &str, now: SystemTime) -> Result<(), Dead> {
        let known = self.access.get(token).ok_or(Dead::Unknown)?;
        if known.revoked || self.families[known.family].revoked {
            Err(Dead::Revoked)
        } else if past(known.expires, now) {
            Err(Dead::Expired)
        } else {
            Ok(())
        }
    }

    pub(super) fn revoke_access(&mut self) {
        self.access
            .values_mut()
            .for_each(|token| token.revoked = true);
    }

    pub(super) fn expire_access(&mut self, now: SystemTime) {
        self.access
            .values_mut()
            .filter(|token| !past(token.expires, now))
            .for_each(|token| token.expires = Some(now));
    }

    pub(super) fn revoke_session_of(&mut self, token: &str) -> bool {
        let by_refresh = self.refresh.get(token).map(|token| token.family);
        let by_access = || self.access.get(token).map(|token| token.family);
        let Some(family) = by_refresh.or_else(by_access) else {
            return false;
        };
        !std::mem::replace(&mut self.families[family].revoked, true)
    }

    pub(super) fn revoke_sessions(&mut self) {
        self.families
            .iter_mut()
            .for_each(|family| family.revoked = true);
    }

    pub(super) fn revoke_exchange(&mut self) {
        self.exchange.clear();
    }

    /// How many sessions can still do something: call the API, or refresh.
    pub(super) fn live(&self, rules: &Rules, now: SystemTime) -> usize {
        let mut live = vec![false; self.families.len()];
        for token in self.access.values() {
            live[token.family] |= !token.revoked && !past(token.expires, now);
        }
        for token in self.refresh.values() {
            let spent = token
                .replaced
                .is_some_and(|at| past(end(at, rules.grace), now));
            live[token.family] |= !spent && !past(token.expires, now);
        }
        live.iter()
            .zip(&self.families)
            .filter(|(live, family)| **live && !family.revoked)
            .count()
    }

    fn begin(&mut self) -> usize {
        self.families.push(Family::default());
        self.families.len() - 1
    }

    fn end_access_of(&mut self, family: usize) {
        self.access
            .values_mut()
            .filter(|token| token.family == family)
            .for_each(|token| token.revoked = true);
    }

    fn issue_access(&mut self, family: usize, rules: &Rules, now: SystemTime) -> String {
        if let Some(last) = &self.last_access
            && rules.repeat_access
        {
            return last.clone();
        }
        let token = self.name("at");
        let access = Access {
            family,
            expires: end(now, rules.access_lifetime),
            revoked: false,
        };
        self.access.insert(token.clone(), access);
        self.last_access = Some(token.clone());
        token
    }

    fn issue_refresh(&mut self, family: usize, rules: &Rules, now: SystemTime) -> String {
        let token = self.name("rt");
        let refresh = Refresh {
            family,
            expires: rules
                .refresh_lifetime
                .and_then(|lifetime| end(now, lifetime)),
            replaced: None,
        };
        self.refresh.insert(token.clone(), refresh);
        token
    }

    fn issued(&self, access: String, refresh: Option<String>, now: SystemTime) -> Issued {
        let access_expires = self.access.get(&access).and_then(|token| token.expires);
        let refresh_expires = refresh
            .as_ref()
            .and_then(|token| self.refresh.get(token)?.expires);
        Issued {
            lifetime: access_expires.map_or(Duration::MAX, |end| {
                end.duration_since(now).unwrap_or_default()
            }),
            access: Some(access),
            access_expires,
            refresh,
            refresh_expires,
        }
    }

    /// A token nobody had before, the same in every run. Those that travel in bodies need encoding there.
    fn name(&mut self, prefix: &str) -> String {
        self.issued += 1;
        let n = self.issued;
        let filler = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match prefix {
            "at" => format!("at-{n}.{filler:016x}"),
            _ => format!("{prefix}-{n}+{filler:016x}/=="),
        }
    }
}

impl Family {
    /// Notes a refresh, unless there were enough of them.
    fn too_often(&mut self, limit: &Limit, now: SystemTime) -> bool {
        while self
            .refreshed
            .front()
            .is_some_and(|at| past(end(*at, limit.per), now))
        {
            self.refreshed.pop_front();
        }
        if self.refreshed.len() >= limit.refreshes {
            return true;
        }
        self.refreshed.push_back(now);
        false
    }
}
