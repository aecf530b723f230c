//! [`Sessions`]: the sessions and tokens of an authorization server, as a pure state machine that takes the time as
//! input.
//!
//! A session holds all tokens that came from one login. Reuse detection and logout end the session with all its tokens.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::{Duration, SystemTime},
};

use super::{
    authorization::Code,
    device::Device,
    rules::{Invalid, Issued, Limit, Rules},
    scopes::GrantedScope,
};

#[derive(Debug, Default)]
pub(super) struct Sessions {
    issued: u64,
    pub(super) all: Vec<Session>,
    pub(super) access: HashMap<String, Access>,
    pub(super) refresh: HashMap<String, Refresh>,
    /// The exchange tokens, and whether each was used.
    pub(super) exchange: HashMap<String, bool>,
    /// The authorization codes.
    pub(super) codes: HashMap<String, Code>,
    /// The device codes.
    pub(super) devices: HashMap<String, Device>,
    /// The assertions of JWT bearer grants that are accepted.
    pub(super) assertions: HashSet<String>,
    /// The tokens of others that are accepted in token exchanges, with their types.
    pub(super) security_tokens: HashSet<(String, String)>,
    last_access: Option<String>,
    /// The session of the client itself, for client credentials.
    pub(super) client: Option<usize>,
}

#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) revoked: bool,
    /// The scopes of the login. `None`: any.
    pub(super) scopes: Option<BTreeSet<String>>,
    refreshed: VecDeque<SystemTime>,
}

#[derive(Debug)]
pub(super) struct Access {
    pub(super) session: usize,
    pub(super) expires: Option<SystemTime>,
    pub(super) revoked: bool,
    pub(super) granted: GrantedScope,
}

#[derive(Debug)]
pub(super) struct Refresh {
    pub(super) session: usize,
    expires: Option<SystemTime>,
    replaced: Option<SystemTime>,
}

/// Returns `None`, which means never, if the clock cannot represent the end.
pub(super) fn end(now: SystemTime, lifetime: Duration) -> Option<SystemTime> {
    now.checked_add(lifetime)
}

pub(super) fn is_past(end: Option<SystemTime>, now: SystemTime) -> bool {
    end.is_some_and(|end| end <= now)
}

impl Sessions {
    /// Begins a session and returns its refresh token.
    pub(super) fn begin_session(&mut self, rules: &Rules, now: SystemTime) -> String {
        let session = self.add_session();
        self.issue_refresh(session, rules, now)
    }

    pub(super) fn issue_exchange_token(&mut self) -> String {
        let token = self.new_token("et");
        self.exchange.insert(token.clone(), false);
        token
    }

    pub(super) fn exchange(
        &mut self,
        code: &str,
        rules: &Rules,
        now: SystemTime,
    ) -> Result<Issued, Invalid> {
        let used = self.exchange.get_mut(code).ok_or(Invalid::Unknown)?;
        if *used && rules.exchange_once {
            return Err(Invalid::Spent);
        }
        *used = true;
        Ok(self.begin(rules.give_refresh_token, rules, now))
    }

    /// Begins a session, and issues its first tokens.
    pub(super) fn begin(
        &mut self,
        with_refresh_token: bool,
        rules: &Rules,
        now: SystemTime,
    ) -> Issued {
        let session = self.add_session();
        let access = self.issue_access(session, rules, now);
        let refresh = with_refresh_token.then(|| self.issue_refresh(session, rules, now));
        self.issued(access, refresh, now)
    }

    pub(super) fn refresh(
        &mut self,
        token: &str,
        rules: &Rules,
        now: SystemTime,
    ) -> Result<Issued, Invalid> {
        let known = self.refresh.get(token).ok_or(Invalid::Unknown)?;
        let (session, is_spent) = (known.session, known.is_spent(rules, now));
        if self.all[session].revoked {
            return Err(Invalid::Revoked);
        }
        if is_past(known.expires, now) {
            return Err(Invalid::Expired);
        }
        if is_spent {
            if !rules.detect_reuse {
                return Err(Invalid::Spent);
            }
            self.all[session].revoked = true;
            return Err(Invalid::Reused);
        }
        if let Some(limit) = &rules.limit
            && self.all[session].exceeds(limit, now)
        {
            self.revoke_access_of(session);
            return Err(Invalid::Limited);
        }
        if rules.one_access_token && !rules.repeat_access {
            self.revoke_access_of(session);
        }
        let access = self.issue_access(session, rules, now);
        let refresh = if !rules.give_refresh_token {
            // Rotation without a new refresh token would end the session, so the old one stays valid.
            None
        } else if rules.rotate {
            if let Some(old) = self.refresh.get_mut(token) {
                old.replaced.get_or_insert(now);
            }
            Some(self.issue_refresh(session, rules, now))
        } else {
            Some(token.to_owned())
        };
        Ok(self.issued(access, refresh, now))
    }

    pub(super) fn check(&self, token: &str, now: SystemTime) -> Result<(), Invalid> {
        let known = self.access.get(token).ok_or(Invalid::Unknown)?;
        if known.revoked || self.all[known.session].revoked {
            Err(Invalid::Revoked)
        } else if is_past(known.expires, now) {
            Err(Invalid::Expired)
        } else {
            Ok(())
        }
    }

    pub(super) fn session_of_access(&self, token: &str) -> Option<usize> {
        self.access.get(token).map(|token| token.session)
    }

    /// How many sessions have a valid access token or refresh token.
    pub(super) fn live(&self, rules: &Rules, now: SystemTime) -> usize {
        let mut live = vec![false; self.all.len()];
        for token in self.access.values() {
            live[token.session] |= !token.revoked && !is_past(token.expires, now);
        }
        for token in self.refresh.values() {
            live[token.session] |= !token.is_spent(rules, now) && !is_past(token.expires, now);
        }
        live.iter()
            .zip(&self.all)
            .filter(|(live, session)| **live && !session.revoked)
            .count()
    }

    pub(super) fn add_session(&mut self) -> usize {
        self.all.push(Session::default());
        self.all.len() - 1
    }

    fn revoke_access_of(&mut self, session: usize) {
        self.access
            .values_mut()
            .filter(|token| token.session == session)
            .for_each(|token| token.revoked = true);
    }

    pub(super) fn issue_access(
        &mut self,
        session: usize,
        rules: &Rules,
        now: SystemTime,
    ) -> String {
        if let Some(last) = &self.last_access
            && rules.repeat_access
        {
            return last.clone();
        }
        let token = self.new_token("at");
        let access = Access {
            session,
            expires: end(now, rules.access_lifetime),
            revoked: false,
            granted: GrantedScope::default(),
        };
        self.access.insert(token.clone(), access);
        self.last_access = Some(token.clone());
        token
    }

    fn issue_refresh(&mut self, session: usize, rules: &Rules, now: SystemTime) -> String {
        let token = self.new_token("rt");
        let refresh = Refresh {
            session,
            expires: rules
                .refresh_lifetime
                .and_then(|lifetime| end(now, lifetime)),
            replaced: None,
        };
        self.refresh.insert(token.clone(), refresh);
        token
    }

    pub(super) fn issued(
        &self,
        access: String,
        refresh: Option<String>,
        now: SystemTime,
    ) -> Issued {
        let access_expires = self.access.get(&access).and_then(|token| token.expires);
        let refresh_expires = refresh
            .as_ref()
            .and_then(|token| self.refresh.get(token)?.expires);
        Issued {
            lifetime: access_expires.map_or(Duration::MAX, |end| {
                end.duration_since(now).unwrap_or_default()
            }),
            access,
            access_expires,
            refresh,
            refresh_expires,
            scope: None,
            exchanged_type: None,
        }
    }

    /// A new token value, the same in every run. Tokens that are sent in bodies contain characters that must be
    /// encoded.
    pub(super) fn new_token(&mut self, prefix: &str) -> String {
        self.issued += 1;
        let n = self.issued;
        let filler = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match prefix {
            "at" => format!("at-{n}.{filler:016x}"),
            _ => format!("{prefix}-{n}+{filler:016x}/=="),
        }
    }
}

impl Refresh {
    /// Whether it was replaced, and its grace period is over.
    pub(super) fn is_spent(&self, rules: &Rules, now: SystemTime) -> bool {
        self.replaced
            .is_some_and(|at| is_past(end(at, rules.grace), now))
    }
}

impl Session {
    /// Counts a refresh. Returns true if it exceeds the limit.
    fn exceeds(&mut self, limit: &Limit, now: SystemTime) -> bool {
        while self
            .refreshed
            .front()
            .is_some_and(|at| is_past(end(*at, limit.per), now))
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
