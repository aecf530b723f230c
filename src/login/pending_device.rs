//! [`PendingDeviceLogin`]: a login that a person does on another device.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    pace::{self, Answer, Pace},
    secret_text, shown,
};
use crate::{
    clock::{Clock, MAX_DURATION, later},
    error::{Asked, TokenError, TokenErrorKind},
    freshness::Deadline,
    oauth::{DeviceAuthorization, TokenResponse},
    store::Identity,
    token::Expiry,
};

/// If the server does not say how long the code lives, which RFC 8628 §3.2 requires.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);
/// How often the wall clock is looked at during a long wait: the other one stops while a machine is suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// A login that a person does on another device.
///
/// [`DeviceCode::begin`](super::DeviceCode::begin) makes it. Show the person the [address](Self::verification_uri) and the
/// [code](Self::user_code), for example with `Display`, which is a text in English. Then
/// [`DeviceCode::finish`](super::DeviceCode::finish) waits for them.
///
/// What the server wants to be shown is harmless in a terminal: `begin` fails if it has control characters, or an address that
/// is neither https nor on this machine.
///
/// It can be kept with serde, and another process can go on with it until it [expires](Self::expires_at). **It holds a
/// secret**, the device code: a program that has it can get the session. `Debug` shows neither code. What was written by one version of
/// this crate is meant to be read minutes later, and need not be readable by another version. A value that was damaged is not
/// read.
///
/// Save it once, after `begin`. Delete it after [`cache.login`](crate::TokenCache::login) has returned, or when `finish` fails
/// for good. If the process ends between `finish` and `cache.login`, the login is lost, and the person begins again.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "testing")] {
/// use tower_bearer::{
///     ClientAuth, OAuthClient,
///     login::{DeviceCode, PendingDeviceLogin},
///     testing::{AuthorizationServer, Dialect},
/// };
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let server = AuthorizationServer::new(Dialect::Rfc6749)
///     .issuer("https://login.example.com")
///     .public_client("my-tv");
/// let client = OAuthClient::discover_with_transport("https://login.example.com", server)?
///     .client_auth(ClientAuth::none("my-tv"));
///
/// let pending = DeviceCode::new(client).begin().await?;
/// assert_eq!(pending.verification_uri(), "https://login.example.com/device");
/// assert!(pending.to_string().contains(pending.user_code()));
///
/// let kept = serde_json::to_string(&pending)?;
/// let resumed: PendingDeviceLogin = serde_json::from_str(&kept)?;
/// assert_eq!(resumed.user_code(), pending.user_code());
/// # Ok(()) }
/// # main().unwrap();
/// # }
/// ```
#[derive(Serialize, Deserialize)]
#[serde(try_from = "StoredDeviceLogin")]
#[must_use = "a login cannot be finished without it"]
pub struct PendingDeviceLogin {
    /// The client that has begun it.
    pub(super) client: Identity,
    #[serde(with = "secret_text")]
    pub(super) device_code: SecretString,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_at: SystemTime,
    lifetime: Duration,
    pace: Pace,
    #[serde(skip)]
    here: Here,
}

/// What only this process knows.
#[derive(Default)]
struct Here {
    deadline: Option<Deadline>,
    next_poll: Option<Instant>,
    /// A request whose answer nobody has seen yet. It goes on if the future that waits for it is dropped: the answer may be
    /// the one with the tokens.
    request: Option<JoinHandle<Result<TokenResponse, TokenError>>>,
    /// Why the last request has failed that may have reached the server.
    failure: Option<TokenError>,
}

/// A login as it was stored. What was changed since then is checked like the response of a server.
#[derive(Deserialize)]
struct StoredDeviceLogin {
    client: Identity,
    #[serde(with = "secret_text")]
    device_code: SecretString,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_at: SystemTime,
    lifetime: Duration,
    pace: Pace,
}

impl TryFrom<StoredDeviceLogin> for PendingDeviceLogin {
    type Error = String;

    fn try_from(stored: StoredDeviceLogin) -> Result<Self, String> {
        let damaged =
            |what: &str| format!("the stored login is damaged: {what}; begin another login");
        let refused = |reason: String| damaged(&reason);
        if stored.device_code.expose_secret().is_empty() {
            return Err(damaged("its device code is empty"));
        }
        if stored.lifetime > MAX_DURATION {
            return Err(damaged("its lifetime is longer than a century"));
        }
        if !stored.pace.is_possible() {
            return Err(damaged("its interval is not from 1 second to 1 hour"));
        }
        let complete = stored.verification_uri_complete;
        let complete = complete.map(|it| shown::uri("verification_uri_complete", it));
        Ok(Self {
            client: stored.client,
            device_code: stored.device_code,
            user_code: shown::user_code(stored.user_code).map_err(refused)?,
            verification_uri: shown::uri("verification_uri", stored.verification_uri)
                .map_err(refused)?,
            verification_uri_complete: complete.transpose().map_err(refused)?,
            expires_at: stored.expires_at,
            lifetime: stored.lifetime,
            pace: stored.pace,
            here: Here::default(),
        })
    }
}

impl PendingDeviceLogin {
    pub(super) fn new(
        client: Identity,
        authorization: DeviceAuthorization,
    ) -> Result<Self, TokenError> {
        let refused = |message: String| {
            TokenError::new(TokenErrorKind::InvalidResponse, message)
                .asking(Asked::DeviceAuthorization)
        };
        let sent = authorization.sent;
        let lifetime = authorization.lifetime.unwrap_or(DEFAULT_LIFETIME);
        let lifetime = lifetime.min(MAX_DURATION);
        let deadline = Deadline::after(lifetime, sent);
        let complete = authorization.verification_uri_complete;
        let complete = complete.map(|it| shown::uri("verification_uri_complete", it));
        let pace = Pace::new(authorization.interval);
        Ok(Self {
            client,
            device_code: authorization.device_code,
            user_code: shown::user_code(authorization.user_code).map_err(refused)?,
            verification_uri: shown::uri("verification_uri", authorization.verification_uri)
                .map_err(refused)?,
            verification_uri_complete: complete.transpose().map_err(refused)?,
            expires_at: deadline.wall,
            lifetime,
            here: Here {
                deadline: Some(deadline),
                next_poll: Some(Instant::now() + pace.interval()),
                ..Here::default()
            },
            pace,
        })
    }

    /// The code that the person enters at the [address](Self::verification_uri), such as `WDJB-MJHT`: at most 64 characters,
    /// none of which is a control character. Who enters it gives this program access, so show it only to the person.
    pub fn user_code(&self) -> &str {
        &self.user_code
    }

    /// Where the person enters the [code](Self::user_code), in a browser on any device: https, or http to this machine, and
    /// at most 2048 printable characters of ASCII.
    pub fn verification_uri(&self) -> &str {
        &self.verification_uri
    }

    /// The same with the code in it, for a QR code, if the server has it. Show the code all the same, so that the person can
    /// compare it (RFC 8628 §3.3.1).
    pub fn verification_uri_complete(&self) -> Option<&str> {
        self.verification_uri_complete.as_deref()
    }

    /// When the codes expire, by the clock of this machine. If the server does not say when, it is 10 minutes after the begin.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Whether a request is on its way, or its answer has not been seen.
    pub(super) fn has_request(&self) -> bool {
        self.here.request.is_some()
    }

    pub(super) fn requested(&mut self, request: JoinHandle<Result<TokenResponse, TokenError>>) {
        self.here.request = Some(request);
    }

    /// Waits until the server may be asked, and fails when the code has expired.
    pub(super) async fn wait(&mut self, clock: &Clock) -> Result<(), TokenError> {
        loop {
            let now = clock.now();
            let deadline = self.deadline(clock);
            if deadline.has_passed(now) {
                return Err(pace::expired(self.here.failure.take()));
            }
            // A process that goes on with it does not know when the one before it has asked.
            let interval = self.pace.interval();
            let next_poll = *self.here.next_poll.get_or_insert(now.mono + interval);
            if next_poll <= now.mono {
                return Ok(());
            }
            let longest = now.mono + deadline.left(now).min(LONGEST_SLEEP);
            sleep_until(next_poll.min(longest)).await;
        }
    }

    fn deadline(&mut self, clock: &Clock) -> Deadline {
        let (at, lifetime) = (self.expires_at, self.lifetime);
        *self.here.deadline.get_or_insert_with(|| {
            let now = clock.now();
            let stored = Expiry::Stored {
                at,
                lifetime: Some(lifetime),
            };
            let left = stored.resolve(now, now).map_or(now.mono, |it| it.mono) - now.mono;
            Deadline::after(left, now)
        })
    }

    /// The answer to the request. Dropping this future does not lose it.
    pub(super) async fn answer(&mut self) -> Result<TokenResponse, TokenError> {
        let Some(request) = &mut self.here.request else {
            let message = "no request has been sent";
            return Err(TokenError::new(TokenErrorKind::Interrupted, message));
        };
        let result = request.await;
        self.here.request = None;
        result.unwrap_or_else(|error| {
            let message = "the task that was asking about the login ended early";
            Err(TokenError::new(TokenErrorKind::Interrupted, message).with_source(error))
        })
    }

    /// Takes an answer without tokens. Fails if it ends the login.
    pub(super) fn refused(&mut self, error: TokenError) -> Result<(), TokenError> {
        let answer = Answer::of(&error);
        match answer {
            Answer::Pending | Answer::SlowDown => self.here.failure = None,
            Answer::Failed => {
                tracing::warn!(%error, "asking whether the person has logged in has failed, asking again later");
            }
            Answer::Denied | Answer::Expired | Answer::Unknown | Answer::Rejected => {
                return Err(pace::ended(&answer, error, self.here.failure.take()));
            }
        }
        let wait = self.pace.after(&answer, error.retry_after());
        self.here.next_poll = Some(later(Instant::now(), wait));
        if matches!(answer, Answer::Failed) && !error.is_unsent() {
            self.here.failure = Some(error);
        }
        Ok(())
    }
}

impl fmt::Display for PendingDeviceLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "To log in, open this address in a browser on any device:\n\n  {}\n\nand enter this code:\n\n  {}\n",
            self.verification_uri, self.user_code
        )
    }
}

impl fmt::Debug for PendingDeviceLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingDeviceLogin")
            .field("verification_uri", &self.verification_uri)
            .field("expires_at", &self.expires_at)
            .field("pace", &self.pace)
            .finish_non_exhaustive()
    }
}
