//! The transport of token requests, and what comes back.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Service};

use crate::{
    host::{Host, Point},
    network::{Broken, Party, call},
    plan::{MINUTE, SECOND},
    sends::{Began, Fate},
    server::{Denied, Tokens},
    world::{State, note},
};

pub(crate) const TOKEN_URL: &str = "https://login.example.com/token";
pub(crate) const REVOCATION_URL: &str = "https://login.example.com/revoke";

/// The server's answer, or that of a gateway in front of it.
#[derive(Clone, Debug)]
enum Answer {
    Tokens(Tokens),
    /// The grant is dead.
    InvalidGrant,
    /// An error that is not about the grant, with its code.
    Refused(u16, &'static str),
    /// A page of a gateway.
    Page(u16),
    Revoked,
    /// The server does not accept connections.
    Refuses,
}

impl Answer {
    fn into_response(self, lifetime: u64) -> Response<Full<Bytes>> {
        let (status, json) = match &self {
            Self::Tokens(tokens) => {
                let mut json = serde_json::json!({
                    "access_token": tokens.access, "token_type": "Bearer", "expires_in": lifetime,
                });
                if let Some(refresh) = &tokens.refresh {
                    json["refresh_token"] = refresh.clone().into();
                }
                (200, Some(json))
            }
            Self::InvalidGrant => (400, Some(serde_json::json!({ "error": "invalid_grant" }))),
            Self::Refused(status, code) => (*status, Some(serde_json::json!({ "error": code }))),
            Self::Page(status) => (*status, None),
            Self::Revoked | Self::Refuses => (200, Some(serde_json::json!({}))),
        };
        let content_type = if json.is_some() {
            "application/json"
        } else {
            "text/html"
        };
        let body = json.map_or("<!doctype html><p>Gateway".into(), |json| json.to_string());
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        let headers = response.headers_mut();
        headers.insert("content-type", content_type.parse().expect("a value"));
        if status == 429 {
            headers.insert("retry-after", "20".parse().expect("a value"));
        }
        response
    }
}

const PAGES: [u16; 8] = [400, 403, 404, 429, 500, 502, 503, 200];
const REFUSALS: [(u16, &str); 4] = [
    (503, "temporarily_unavailable"),
    (429, "slow_down"),
    (401, "invalid_client"),
    (400, "invalid_request"),
];

impl State {
    fn page(&mut self) -> Answer {
        let status = PAGES[self.rng.usize(..PAGES.len())];
        // A page with another status makes no sense, so the next attempt may be many minutes later.
        let pause = if matches!(status, 500.. | 429) {
            95 * SECOND
        } else {
            16 * MINUTE
        };
        self.trouble(pause);
        Answer::Page(status)
    }

    /// Answers a token request.
    fn answer(&mut self, send: usize, parameters: &[(String, String)]) -> Answer {
        if self.server.down_until > self.now {
            return self.is_down();
        }
        let rates = self.plan.rates;
        if self.happens(rates.page_before) {
            self.count("page of a gateway in place of a token request");
            return self.page();
        }
        if self.happens(rates.refused) {
            let (status, code) = REFUSALS[self.rng.usize(..REFUSALS.len())];
            self.count("token request refused");
            self.trouble(16 * MINUTE);
            return Answer::Refused(status, code);
        }
        let value = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key == name);
            found.map_or("", |(_, value)| value)
        };
        let now = self.now;
        let (credential, result) = match value("grant_type") {
            "refresh_token" => {
                let token = value("refresh_token");
                (token, self.server.refresh(token, now))
            }
            _ => (value("code"), self.server.exchange(value("code"), now)),
        };
        note!(self, "server: send {send} {credential}: {result:?}");
        self.server_has_answered(send, &result);
        let answer = match result {
            Ok(tokens) => Answer::Tokens(tokens),
            Err(denied) => {
                if denied == Denied::Reused {
                    self.tokens_end();
                    self.count("session ended by reuse");
                }
                Answer::InvalidGrant
            }
        };
        if self.happens(rates.page_after) {
            if matches!(answer, Answer::Tokens(_)) {
                self.count("rotation hidden by a page of a gateway");
            }
            return self.page();
        }
        answer
    }

    fn is_down(&mut self) -> Answer {
        self.trouble(75 * SECOND);
        Answer::Refuses
    }

    fn answer_revocation(&mut self, parameters: &[(String, String)]) -> Answer {
        if self.server.down_until > self.now {
            return self.is_down();
        }
        let rates = self.plan.rates;
        if self.happens(rates.page_before) {
            return self.page();
        }
        for (name, value) in parameters {
            if name == "token" {
                note!(self, "server: {value} is revoked");
                self.server.revoke(value);
                self.tokens_end();
            }
        }
        if self.happens(rates.page_after) {
            return self.page();
        }
        Answer::Revoked
    }
}

/// A `tower::Service` that sends token requests through the simulated network.
#[derive(Clone)]
pub(crate) struct Transport(pub(crate) Host);

/// A token request whose response has not come.
struct Pending {
    host: Host,
    send: usize,
    is_done: bool,
}

impl Pending {
    fn done(mut self, fate: &Fate) {
        self.is_done = true;
        let mut state = self.host.world.lock();
        state.received(&self.host, self.send, fate);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_done {
            let mut state = self.host.world.lock();
            state.received(&self.host, self.send, &Fate::Unanswered);
        }
    }
}

/// A request that is not sent yet.
struct Unsent(Option<Host>);

impl Unsent {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(host) = &self.0 {
            let mut state = host.world.lock();
            if !host.is_dead(&state) {
                let host = &mut state.hosts[host.process];
                host.unsent = Some(host.saves);
            }
        }
    }
}

impl Transport {
    async fn send(self, request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, BoxError> {
        let Self(host) = self;
        let (head, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(never) => {
                let never: Infallible = never;
                match never {}
            }
        };
        let parameters: Vec<(String, String)> =
            form_urlencoded::parse(&body).into_owned().collect();
        let began = {
            let state = host.world.lock();
            Began {
                at: state.now,
                suspended_before: state.suspended_for,
            }
        };
        let unsent = Unsent(Some(host.clone()));
        host.point(Point::BeforeTokenRequest).await;
        unsent.done();
        if head.uri.path() == "/revoke" {
            let answer = call(&host, Party::Server, move |state| {
                state.answer_revocation(&parameters)
            });
            let answer = answer.await;
            host.gate().await;
            return match answer {
                Ok(Answer::Refuses) | Err(Broken) => Err(broken()),
                Ok(answer) => Ok(answer.into_response(0)),
            };
        }
        let credential = parameters
            .iter()
            .find(|(name, _)| name == "refresh_token" || name == "code");
        let credential = credential.map_or("", |(_, value)| value);
        let send = host.world.lock().sends(&host, credential, began);
        let pending = Pending {
            host: host.clone(),
            send,
            is_done: false,
        };
        let answer = call(&host, Party::Server, move |state| {
            state.answer(send, &parameters)
        });
        let answer = answer.await;
        host.point(Point::AfterTokenResponse).await;
        match answer {
            Ok(Answer::Refuses) | Err(Broken) => {
                pending.done(&Fate::Unanswered);
                Err(broken())
            }
            Ok(answer) => {
                pending.done(&match &answer {
                    Answer::Tokens(tokens) => Fate::Granted(tokens.clone()),
                    Answer::InvalidGrant => Fate::Dead,
                    Answer::Refused(..) => Fate::Refused,
                    Answer::Page(_) | Answer::Revoked | Answer::Refuses => Fate::Page,
                });
                let lifetime = host.world.lock().plan.lifetime / SECOND;
                Ok(answer.into_response(lifetime))
            }
        }
    }
}

fn broken() -> BoxError {
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the simulated connection broke",
    )
    .into()
}

impl Service<Request<Full<Bytes>>> for Transport {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

/// The API, as a process sees it.
#[derive(Clone)]
pub(crate) struct Api(pub(crate) Host);

impl Api {
    async fn send(self, header: Option<HeaderValue>) -> Result<Response<Full<Bytes>>, BoxError> {
        let Self(host) = self;
        host.gate().await;
        let time = {
            let mut state = host.world.lock();
            let latency = state.plan.latency;
            if state.is_cut(host.process, Party::Api) {
                None
            } else {
                Some(state.rng.u64(1..=latency))
            }
        };
        let Some(time) = time else {
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Err(broken());
        };
        tokio::time::sleep(Duration::from_millis(time)).await;
        let token = header
            .as_ref()
            .and_then(|header| header.to_str().ok()?.strip_prefix("Bearer "));
        let is_accepted = {
            let mut state = host.world.lock();
            state.api_accepts(&host, token.unwrap_or_default())
        };
        tokio::time::sleep(Duration::from_millis(time)).await;
        host.gate().await;
        let mut response = Response::new(Full::default());
        if !is_accepted {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok(response)
    }
}

impl<B> Service<Request<B>> for Api {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let header = request.headers().get("authorization").cloned();
        Box::pin(self.clone().send(header))
    }
}
