//! The grants that begin with something else than a token of the server: client credentials, JWT bearer, token exchange
//! and password.

use std::time::SystemTime;

use super::{
    dialect::{Dialect, Rejected},
    params::Params,
    rules::{ACCESS_TOKEN_TYPE, Invalid, Issued, Rules},
    sessions::Sessions,
};

pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// A request for a token exchange (RFC 8693 §2.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    subject: TypedToken,
    actor: Option<TypedToken>,
    requested_token_type: Option<String>,
}

/// A token and its type.
type TypedToken = (String, String);

impl Exchange {
    pub(super) fn read(params: &Params) -> Result<Self, Rejected> {
        reject_other_grants(params, &["code", "refresh_token", "assertion"])?;
        let typed = |token, token_type| {
            let token = params.required(token)?.to_owned();
            Ok((token, params.required(token_type)?.to_owned()))
        };
        let has_actor = params.any(|name| name.starts_with("actor_token"));
        Ok(Self {
            subject: typed("subject_token", "subject_token_type")?,
            actor: has_actor
                .then(|| typed("actor_token", "actor_token_type"))
                .transpose()?,
            requested_token_type: params.get("requested_token_type").map(str::to_owned),
        })
    }
}

/// The login of a user with a password (RFC 6749 §4.3.2).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Login {
    user: (String, String),
    /// Whether a refresh token is asked for, where that is needed.
    is_offline: bool,
}

impl Login {
    pub(super) fn read(dialect: Dialect, params: &Params) -> Result<Self, Rejected> {
        let others = ["code", "refresh_token", "assertion", "subject_token"];
        reject_other_grants(params, &others)?;
        let username = params.required("username")?.to_owned();
        let mut scopes = params.get("scope").unwrap_or_default().split(' ');
        Ok(Self {
            user: (username, params.required("password")?.to_owned()),
            is_offline: dialect != Dialect::TwoBa || scopes.any(|scope| scope == "offline_access"),
        })
    }
}

pub(super) fn reject_other_grants(params: &Params, others: &[&str]) -> Result<(), Rejected> {
    if params.any(|name| others.contains(&name)) {
        return Err(Rejected::Malformed(
            "a parameter that this grant does not have",
        ));
    }
    Ok(())
}

impl Sessions {
    /// Begins a session that has no refresh token, and returns its access token.
    pub(super) fn begin_access_only_session(&mut self, rules: &Rules, now: SystemTime) -> String {
        let session = self.add_session();
        self.issue_access(session, rules, now)
    }

    pub(super) fn client_credentials(&mut self, rules: &Rules, now: SystemTime) -> Issued {
        let session = match self.client {
            Some(session) if !self.all[session].revoked => session,
            _ => *self.client.insert(self.all.len()),
        };
        if session == self.all.len() {
            self.add_session();
        }
        let access = self.issue_access(session, rules, now);
        self.issued(access, None, now)
    }

    /// Begins a session without a refresh token.
    pub(super) fn begin_without_refresh(&mut self, rules: &Rules, now: SystemTime) -> Issued {
        self.begin(false, rules, now)
    }

    pub(super) fn log_in(
        &mut self,
        login: &Login,
        user: Option<&(String, String)>,
        rules: &Rules,
        now: SystemTime,
    ) -> Result<Issued, Invalid> {
        if user != Some(&login.user) {
            return Err(Invalid::Unknown);
        }
        let with_refresh_token = rules.give_refresh_token && login.is_offline;
        Ok(self.begin(with_refresh_token, rules, now))
    }

    /// The issued token belongs to the session of the subject token, if that is one of this server.
    pub(super) fn token_exchange(
        &mut self,
        exchange: &Exchange,
        rules: &Rules,
        now: SystemTime,
    ) -> Result<Issued, Invalid> {
        for token in [Some(&exchange.subject), exchange.actor.as_ref()]
            .into_iter()
            .flatten()
        {
            if !self.accepts(token, now) {
                return Err(Invalid::Subject);
            }
        }
        let session = self.session_of_access(&exchange.subject.0);
        let session = session.unwrap_or_else(|| self.add_session());
        let access = self.issue_access(session, rules, now);
        let requested = exchange.requested_token_type.as_deref();
        Ok(Issued {
            exchanged_type: Some(requested.unwrap_or(ACCESS_TOKEN_TYPE).to_owned()),
            ..self.issued(access, None, now)
        })
    }

    fn accepts(&self, token: &TypedToken, now: SystemTime) -> bool {
        let is_ours = token.1 == ACCESS_TOKEN_TYPE && self.check(&token.0, now).is_ok();
        is_ours || self.security_tokens.contains(token)
    }
}
