//! Logins: the authorization server that the server names, the scope that it wants, and the login of a person or of a machine.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use serde_json::Value;
use tower::{BoxError, ServiceExt};
use tower_bearer::{
    BoxTokenSource, Challenge, ClientAuth, ClientCredentialsSource, JwtBearerSource, OAuthClient,
    ProtectedResource, RefreshTokenSource, ReqwestTransport, SecurityToken, StepUp, StoredSession,
    TokenCache, TokenErrorKind, TokenExchange, TokenExchangeSource, TokenSource,
    login::AuthorizationCode,
};

use super::{
    Settings,
    registration::{Metadata, REDIRECT_URI, Registrations},
};

/// Where a login has led to.
pub(crate) struct LoggedIn {
    pub(super) cache: TokenCache,
    /// A person has logged in. Only they can agree to more.
    pub(super) is_person: bool,
    issuer: String,
    scopes: BTreeSet<String>,
}

pub(crate) struct Logins {
    transport: ReqwestTransport,
    registrations: Registrations,
    settings: Settings,
}

impl Logins {
    pub(super) fn new(transport: ReqwestTransport, settings: Settings) -> Self {
        Self {
            registrations: Registrations::new(transport.clone(), settings.clone()),
            transport,
            settings,
        }
    }

    /// Logs in for the server at `url`, which has sent `challenge`. What was agreed to before is asked for again.
    pub(super) async fn log_in(
        &mut self,
        url: &str,
        challenge: &Challenge,
        before: Option<LoggedIn>,
    ) -> Result<LoggedIn, BoxError> {
        let resource = self.resource(url, challenge).await?;
        let issuer = resource.confirm_server(|issuer| {
            let known = &self.settings.issuers;
            known.iter().any(|known| known == issuer)
                || (known.is_empty() && (self.settings.agrees || person_agrees(issuer)))
        })?;
        println!("  logging in at {issuer}");
        let metadata = Metadata::read(&self.transport, issuer).await?;
        let auth = self.registrations.client_auth(&metadata).await?;
        let client =
            OAuthClient::discover_with_transport(issuer, self.transport.clone())?.client_auth(auth);

        // What the server wants now, or else all that it knows.
        let mut scopes: BTreeSet<String> = match challenge.scope() {
            Some(_) => challenge.scopes().map(str::to_owned).collect(),
            None => resource.scopes_supported().iter().cloned().collect(),
        };
        scopes.extend(
            before
                .filter(|before| before.issuer == issuer)
                .map(|before| before.scopes)
                .into_iter()
                .flatten(),
        );
        let is_person = metadata.has_login();
        if !is_person {
            // No person sees what is granted, and the server may ask for anything.
            scopes.retain(|scope| self.settings.allows(scope));
        }
        let scope = scopes
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" ");
        let cache = if is_person {
            self.of_person(client, &scope, resource.resource()).await?
        } else {
            let source = self.of_machine(client, issuer, &scope, resource.resource())?;
            let step_up = StepUp::new().scopes(&self.settings.scopes);
            TokenCache::builder(source).step_up(step_up).build()
        };
        Ok(LoggedIn {
            cache,
            is_person,
            issuer: issuer.to_owned(),
            scopes,
        })
    }

    /// What the server publishes about itself, or what the larger one publishes that it is a part of.
    async fn resource(
        &self,
        url: &str,
        challenge: &Challenge,
    ) -> Result<ProtectedResource, BoxError> {
        let origin_end = url
            .match_indices('/')
            .nth(2)
            .map_or(url.len(), |(at, _)| at);
        let named = challenge.resource_metadata().map(|_| challenge);
        let read = |url: &str| {
            ProtectedResource::discover_with_transport(
                url.to_owned(),
                named,
                self.transport.clone(),
            )
        };
        match read(url).await {
            Err(error) if error.kind() == TokenErrorKind::InvalidResponse => {
                // The first error says more, if there is nothing either.
                Ok(read(&url[..origin_end]).await.map_err(|_| error)?)
            }
            found => Ok(found?),
        }
    }

    /// A person agrees in a browser.
    async fn of_person(
        &self,
        client: OAuthClient,
        scope: &str,
        resource: &str,
    ) -> Result<TokenCache, BoxError> {
        let client = client.parameter("resource", resource);
        let mut login = AuthorizationCode::new(client.clone()).resource(resource);
        if !scope.is_empty() {
            login = login.scope(scope);
        }
        let session = if self.settings.agrees {
            self.agreed(login).await?
        } else {
            login.in_browser().log_in().await?
        };
        // A program that shall remember the login gives the source a store, such as `FileStore`.
        let cache = TokenCache::new(RefreshTokenSource::stored(client));
        cache.login(session).await?;
        Ok(cache)
    }

    /// A browser whose person agrees to everything.
    async fn agreed(&self, login: AuthorizationCode) -> Result<StoredSession, BoxError> {
        let (url, pending) = login.begin(REDIRECT_URI).await?;
        let request = Request::get(url).body(Full::<Bytes>::default())?;
        let redirect = self.transport.clone().oneshot(request).await?;
        let location = redirect.headers().get(header::LOCATION);
        let location = location.ok_or("the authorization server does not redirect")?;
        Ok(login.finish(pending, location.to_str()?).await?)
    }

    /// A machine logs in by itself. How follows from the members of its credentials:
    ///
    /// | Members | Login |
    /// |---|---|
    /// | `client_id`, `client_secret` | client credentials, `client_secret_basic` |
    /// | `client_id`, `private_key_pem`, `signing_algorithm` | client credentials, `private_key_jwt` |
    /// | `client_id`, `valid_jwt` | JWT bearer with that assertion, as a workload has it in a file |
    /// | `client_id`, `client_secret`, `idp_…` | the id token is exchanged at the identity provider, and the result is the assertion of a JWT bearer grant |
    fn of_machine(
        &self,
        client: OAuthClient,
        issuer: &str,
        scope: &str,
        resource: &str,
    ) -> Result<BoxTokenSource, BoxError> {
        let text = |name: &str| self.settings.credential(name);
        let client = match scope {
            "" => client,
            scope => client.parameter("scope", scope),
        };
        if let Some(assertion) = text("valid_jwt") {
            return Ok(JwtBearerSource::new(client, fixed(assertion)).boxed());
        }
        let (Some(id_token), Some(provider)) = (text("idp_id_token"), text("idp_issuer")) else {
            return Ok(ClientCredentialsSource::new(client).boxed());
        };
        let at_provider = text("idp_client_id").ok_or("no `idp_client_id`")?;
        let provider = OAuthClient::discover_with_transport(provider, self.transport.clone())?
            .client_auth(ClientAuth::none(at_provider));
        let grant = TokenExchangeSource::new(
            provider,
            "the user",
            fixed(id_token),
            TokenExchange::ID_TOKEN,
        )?
        .requested_token_type("urn:ietf:params:oauth:token-type:id-jag")
        .audience(issuer)
        .resource(resource);
        Ok(JwtBearerSource::new(client, SecurityToken::from_source(grant)).boxed())
    }
}

/// Asks the person at the terminal.
fn person_agrees(issuer: &str) -> bool {
    print!("Is {issuer} where you log in? [y/N] ");
    let mut answer = String::new();
    let is_read = io::stdout()
        .flush()
        .and_then(|()| io::stdin().read_line(&mut answer));
    is_read.is_ok() && answer.trim().eq_ignore_ascii_case("y")
}

fn fixed(text: &str) -> SecurityToken {
    let text = text.to_owned();
    SecurityToken::from_fn(move |_| {
        let text = text.clone();
        async move { Ok(text) }
    })
}

impl Settings {
    /// Whether the server may ask a machine for this scope.
    fn allows(&self, scope: &str) -> bool {
        let listed = &self.scopes;
        listed.iter().any(|it| it == scope) || (listed.is_empty() && self.agrees)
    }

    /// A member of the credentials.
    pub(super) fn credential(&self, name: &str) -> Option<&str> {
        self.credentials.get(name).and_then(Value::as_str)
    }
}
