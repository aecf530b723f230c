//! The grants that issue no refresh token: client credentials, JWT bearer and token exchange.

use std::time::SystemTime;

use super::{
    dialect::Rejected,
    params::Params,
    rules::{ACCESS_TOKEN_TYPE, Invalid, Issued, Rules},
    sessions::Sessions,
};

pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// A request for a token exchange (RFC 8693 §2.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    subject: String,
    actor: Option<String>,
    requested_token_type: Option<String>,
}

impl Exchange {
    pub(super) fn read(params: &Params) -> Result<Self, Rejected> {
        let is_of_other_grant = |name: &str| ["code", "refresh_token", "assertion"].contains(&name);
        if params.any(is_of_other_grant) {
            return Err(Rejected::Malformed(
                "a parameter that this grant does not have",
            ));
        }
        let subject = params.required("subject_token")?.to_owned();
        let actor = params.get("actor_token").map(str::to_owned);
        let mut types = vec![params.required("subject_token_type")?];
        if actor.is_some() {
            types.push(params.required("actor_token_type")?);
        }
        if types
            .iter()
            .any(|token_type| *token_type != ACCESS_TOKEN_TYPE)
        {
            return Err(Rejected::Malformed("only access tokens are exchanged"));
        }
        Ok(Self {
            subject,
            actor,
            requested_token_type: params.get("requested_token_type").map(str::to_owned),
        })
    }
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

    pub(super) fn accept_assertion(&mut self, assertion: String) {
        self.assertions.insert(assertion);
    }

    pub(super) fn jwt_bearer(
        &mut self,
        assertion: &str,
        rules: &Rules,
        now: SystemTime,
    ) -> Result<Issued, Invalid> {
        if !self.assertions.contains(assertion) {
            return Err(Invalid::Unknown);
        }
        let access = self.begin_access_only_session(rules, now);
        Ok(self.issued(access, None, now))
    }

    /// The issued token belongs to the session of the subject token.
    pub(super) fn token_exchange(
        &mut self,
        exchange: &Exchange,
        rules: &Rules,
        now: SystemTime,
    ) -> Result<Issued, Invalid> {
        let subject = exchange.subject.as_str();
        for token in [Some(subject), exchange.actor.as_deref()]
            .into_iter()
            .flatten()
        {
            self.check(token, now).map_err(|_| Invalid::Subject)?;
        }
        let session = self.session_of_access(subject).ok_or(Invalid::Subject)?;
        let access = self.issue_access(session, rules, now);
        let requested = exchange.requested_token_type.as_deref();
        Ok(Issued {
            exchanged_type: Some(requested.unwrap_or(ACCESS_TOKEN_TYPE).to_owned()),
            ..self.issued(access, None, now)
        })
    }
}
