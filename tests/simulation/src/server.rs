//! The authorization server: sessions, and tokens that rotate.

use crate::plan::{Mode, Ms};

pub(crate) struct AuthServer {
    pub(crate) mode: Mode,
    lifetime: Ms,
    sessions: Vec<Session>,
    refresh: Vec<Refresh>,
    access: Vec<Access>,
    exchange: Vec<Exchange>,
    pub(crate) logins: usize,
    /// How far its clock is ahead of the simulation's.
    pub(crate) ahead: Ms,
    pub(crate) down_until: Ms,
}

struct Session {
    login: usize,
    end: Option<End>,
}

/// Why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Reuse,
    Revoked,
    /// An administrator, or a limit of the server.
    Decided,
}

/// An exchange token.
struct Exchange {
    login: usize,
    has_ended: bool,
}

struct Refresh {
    session: usize,
    replaced: Option<Ms>,
}

struct Access {
    session: usize,
    until: Ms,
    is_revoked: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    /// `None` if the old one stays.
    pub(crate) refresh: Option<String>,
}

/// Why the server issues nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Unknown,
    Ended(End),
    Spent,
    Reused,
}

fn number(prefix: &str, token: &str) -> Option<usize> {
    token.strip_prefix(prefix)?.parse().ok()
}

impl AuthServer {
    pub(crate) fn new(mode: Mode, lifetime: Ms) -> Self {
        Self {
            mode,
            lifetime,
            sessions: Vec::new(),
            refresh: Vec::new(),
            access: Vec::new(),
            exchange: Vec::new(),
            logins: 0,
            ahead: 0,
            down_until: 0,
        }
    }

    /// A user logs in. Returns a refresh token.
    pub(crate) fn log_in(&mut self) -> String {
        self.logins += 1;
        let session = self.begin(self.logins);
        self.issue_refresh(session)
    }

    /// A user logs in. Returns an exchange token.
    pub(crate) fn log_in_for_exchange(&mut self) -> String {
        self.logins += 1;
        self.exchange.push(Exchange {
            login: self.logins,
            has_ended: false,
        });
        format!("et-{}", self.exchange.len() - 1)
    }

    fn begin(&mut self, login: usize) -> usize {
        self.sessions.push(Session { login, end: None });
        self.sessions.len() - 1
    }

    fn issue_refresh(&mut self, session: usize) -> String {
        self.refresh.push(Refresh {
            session,
            replaced: None,
        });
        format!("rt-{}", self.refresh.len() - 1)
    }

    fn issue_access(&mut self, session: usize, now: Ms) -> String {
        self.access.push(Access {
            session,
            until: now + self.ahead + self.lifetime,
            is_revoked: false,
        });
        format!("at-{}", self.access.len() - 1)
    }

    pub(crate) fn exchange(&mut self, token: &str, now: Ms) -> Result<Tokens, Denied> {
        let known = number("et-", token).and_then(|number| self.exchange.get(number));
        let known = known.ok_or(Denied::Unknown)?;
        if known.has_ended {
            return Err(Denied::Ended(End::Decided));
        }
        let session = self.begin(known.login);
        Ok(Tokens {
            access: self.issue_access(session, now),
            refresh: Some(self.issue_refresh(session)),
        })
    }

    pub(crate) fn refresh(&mut self, token: &str, now: Ms) -> Result<Tokens, Denied> {
        let known = number("rt-", token).and_then(|number| self.refresh.get(number));
        let known = known.ok_or(Denied::Unknown)?;
        let (session, replaced) = (known.session, known.replaced);
        if let Some(end) = self.sessions[session].end {
            return Err(Denied::Ended(end));
        }
        if !self.is_accepted_again(replaced, now) {
            if self.mode == Mode::SingleUse {
                return Err(Denied::Spent);
            }
            self.sessions[session].end = Some(End::Reuse);
            return Err(Denied::Reused);
        }
        let rotates = self.mode != Mode::NoRotation;
        if rotates && let Some(number) = number("rt-", token) {
            let at = now + self.ahead;
            self.refresh[number].replaced.get_or_insert(at);
        }
        Ok(Tokens {
            access: self.issue_access(session, now),
            refresh: rotates.then(|| self.issue_refresh(session)),
        })
    }

    fn is_accepted_again(&self, replaced: Option<Ms>, now: Ms) -> bool {
        match (replaced, self.mode) {
            (None, _) | (_, Mode::Lenient | Mode::NoRotation) => true,
            (Some(at), Mode::Grace(grace)) => now + self.ahead < at + grace,
            (Some(_), Mode::Strict | Mode::SingleUse) => false,
        }
    }

    /// Whether a token request with this credential would succeed.
    pub(crate) fn accepts(&self, credential: &str, now: Ms) -> bool {
        if let Some(number) = number("et-", credential) {
            let known = self.exchange.get(number);
            return known.is_some_and(|known| !known.has_ended);
        }
        let known = number("rt-", credential).and_then(|number| self.refresh.get(number));
        known.is_some_and(|known| {
            self.sessions[known.session].end.is_none()
                && self.is_accepted_again(known.replaced, now)
        })
    }

    /// Whether the API accepts this token.
    pub(crate) fn is_valid(&self, access_token: &str, now: Ms) -> bool {
        let known = number("at-", access_token).and_then(|number| self.access.get(number));
        known.is_some_and(|known| {
            !known.is_revoked
                && self.sessions[known.session].end.is_none()
                && now + self.ahead < known.until
        })
    }

    /// How long the API will accept this token.
    pub(crate) fn left(&self, access_token: &str, now: Ms) -> Ms {
        let known = number("at-", access_token).and_then(|number| self.access.get(number));
        match known {
            Some(known) if self.is_valid(access_token, now) => known.until - now - self.ahead,
            _ => 0,
        }
    }

    /// The login that a token belongs to.
    pub(crate) fn login_of(&self, token: &str) -> Option<usize> {
        if let Some(number) = number("et-", token) {
            return self.exchange.get(number).map(|known| known.login);
        }
        let session = match number("rt-", token) {
            Some(number) => self.refresh.get(number)?.session,
            None => self.access.get(number("at-", token)?)?.session,
        };
        Some(self.sessions[session].login)
    }

    pub(crate) fn revoke(&mut self, token: &str) {
        if let Some(access) = number("at-", token).and_then(|number| self.access.get_mut(number)) {
            access.is_revoked = true;
        } else if let Some(refresh) =
            number("rt-", token).and_then(|number| self.refresh.get(number))
        {
            self.sessions[refresh.session]
                .end
                .get_or_insert(End::Revoked);
        }
    }

    pub(crate) fn revoke_all_access_tokens(&mut self) {
        for access in &mut self.access {
            access.is_revoked = true;
        }
    }

    /// Ends all exchange tokens.
    pub(crate) fn end_exchange_tokens(&mut self) {
        for token in &mut self.exchange {
            token.has_ended = true;
        }
    }

    /// Ends all sessions.
    pub(crate) fn end_sessions(&mut self) {
        for session in &mut self.sessions {
            session.end.get_or_insert(End::Decided);
        }
    }
}
