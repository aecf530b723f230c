//! The device authorization endpoint of an [`AuthorizationServer`](super::AuthorizationServer) (RFC 8628), and its codes.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use http::{Response, StatusCode, Uri, header::HOST};
use serde_json::json;

use super::{
    body::ResponseBody,
    dialect::{Dialect, Rejected, is_resource},
    faults::Fault,
    grants::reject_other_grants,
    metadata,
    params::Params,
    recorded::RecordedRequest,
    responses,
    rules::{Invalid, Issued, Rules},
    scopes::names,
    server::{AuthorizationServer, State},
    sessions::{Sessions, end, is_past},
};

/// The path of the endpoint, after the prefix.
pub(super) const PATH: &str = "/device_authorization";

/// The path of the page on which a person enters the code, after the prefix. There is no page: the test decides.
const PAGE: &str = "/device";

pub(super) const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// RFC 8628 §3.5: how much longer each `slow_down` makes the interval.
const SLOW_DOWN: Duration = Duration::from_secs(5);

/// The letters that RFC 8628 §6.1 proposes for codes that people type.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// How the server issues device codes.
#[derive(Clone, Debug)]
pub(super) struct DeviceSettings {
    lifetime: Duration,
    interval: Duration,
}

impl Default for DeviceSettings {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(600),
            interval: Duration::from_secs(5),
        }
    }
}

/// Logins with another device, in [`Dialect::Rfc6749`].
impl AuthorizationServer {
    /// The path of the device authorization endpoint (RFC 8628 §3.1) of [`Dialect::Rfc6749`], with the prefix.
    ///
    /// It authenticates clients like the token endpoint. Its person is the test, which [approves](Self::approve_device) or
    /// [denies](Self::deny_device) the user code. Until then, the token endpoint answers `authorization_pending`, and `slow_down`
    /// to a client that asks again before the [interval](Self::device_interval) has passed, which is then 5 seconds longer. A
    /// device code gives tokens once.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::Request;
    /// use http_body_util::BodyExt;
    /// use tower::ServiceExt;
    /// use tower_bearer::testing::{AuthorizationServer, Dialect};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// let server = AuthorizationServer::new(Dialect::Rfc6749).public_client("tv");
    /// let request = Request::post(server.device_authorization_path())
    ///     .header("content-type", "application/x-www-form-urlencoded")
    ///     .body(String::from("client_id=tv"))?;
    /// let response = server.clone().oneshot(request).await?.into_body().collect().await?.to_bytes();
    /// let codes: serde_json::Value = serde_json::from_slice(&response)?;
    ///
    /// assert_eq!(codes["interval"], 5);
    /// assert!(server.approve_device(codes["user_code"].as_str().unwrap()));
    /// # Ok(()) }
    /// ```
    pub fn device_authorization_path(&self) -> String {
        format!("{}{PATH}", self.lock().settings.prefix)
    }

    /// The lifetime of device codes. Default: 600 s.
    pub fn device_lifetime(self, lifetime: Duration) -> Self {
        self.set(|it| it.device.lifetime = lifetime)
    }

    /// How long a client must wait between two requests with a device code, as the response says in whole seconds. Default: 5 s.
    ///
    /// [`Fault::member`] changes only what the response says.
    pub fn device_interval(self, interval: Duration) -> Self {
        self.set(|it| it.device.interval = interval)
    }

    /// A person enters this user code, and agrees. Returns whether there is such a code that nobody has decided about.
    pub fn approve_device(&self, user_code: &str) -> bool {
        self.decide(user_code, Decision::Approved)
    }

    /// A person enters this user code, and refuses: the token endpoint answers `access_denied`. Returns whether there is such a
    /// code that nobody has decided about.
    pub fn deny_device(&self, user_code: &str) -> bool {
        self.decide(user_code, Decision::Denied)
    }

    fn decide(&self, user_code: &str, decision: Decision) -> bool {
        self.lock()
            .with_sessions(|sessions, _, now| sessions.decide(user_code, decision, now))
    }

    /// Adds a fault for one device authorization request, after those that were added before. The other faults do not apply to
    /// these requests.
    pub fn device_authorization_fault(&self, fault: Fault) {
        self.lock()
            .device_authorization_faults
            .next
            .push_back(fault);
    }

    /// Sets the fault of every device authorization request that has none of its own. `None` ends it.
    pub fn device_authorization_fault_always(&self, fault: impl Into<Option<Fault>>) {
        self.lock().device_authorization_faults.always = fault.into();
    }

    /// How many device authorization requests arrived, with any result.
    pub fn device_authorization_requests(&self) -> usize {
        self.lock().counts.device_authorization_requests
    }

    /// How many device codes were issued, even if a fault has changed or lost the response.
    pub fn device_authorizations(&self) -> usize {
        self.lock().counts.device_authorizations
    }

    /// How many device codes were exchanged for tokens, even if the reply was lost.
    pub fn device_grants(&self) -> usize {
        self.lock().counts.device_grants
    }
}

/// A device code, and what it waits for.
#[derive(Debug)]
pub(super) struct Device {
    user_code: String,
    resources: Vec<String>,
    pub(super) scopes: BTreeSet<String>,
    expires: Option<SystemTime>,
    interval: Duration,
    asked: Option<SystemTime>,
    decision: Option<Decision>,
    is_spent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Approved,
    Denied,
}

/// A token request with a device code (RFC 8628 §3.4).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DeviceRequest {
    pub(super) device_code: String,
    resources: Vec<String>,
}

impl DeviceRequest {
    pub(super) fn read(params: &Params) -> Result<Self, Rejected> {
        let others = ["code", "refresh_token", "assertion", "subject_token"];
        reject_other_grants(params, &others)?;
        Ok(Self {
            device_code: params.required("device_code")?.to_owned(),
            resources: params.all("resource").map(str::to_owned).collect(),
        })
    }
}

impl State {
    pub(super) fn is_device_authorization(&self, request: &RecordedRequest) -> bool {
        let path = request.uri.path().strip_prefix(&*self.settings.prefix);
        self.settings.dialect == Dialect::Rfc6749 && path == Some(PATH)
    }

    pub(super) fn authorize_device(&mut self, request: &RecordedRequest) -> Response<ResponseBody> {
        let wanted = self.client_params(request).and_then(|params| {
            if params.get("grant_type").is_some() {
                return Err(Rejected::Malformed(
                    "a parameter that this request does not have",
                ));
            }
            let resources: Vec<_> = params.all("resource").map(str::to_owned).collect();
            if !resources.iter().all(|uri| is_resource(uri)) {
                return Err(Rejected::InvalidTarget);
            }
            let scopes = names(params.get("scope").unwrap_or_default());
            let granted = self.settings.scopes.as_ref();
            if !granted.is_none_or(|granted| scopes.is_subset(granted)) {
                return Err(Rejected::InvalidScope);
            }
            Ok((resources, scopes))
        });
        let (resources, scopes) = match wanted {
            Ok(wanted) => wanted,
            Err(rejected) => {
                self.counts.rejected += 1;
                return responses::rejected(&self.settings, &rejected);
            }
        };
        self.counts.device_authorizations += 1;
        let DeviceSettings { lifetime, interval } = self.settings.device;
        let expires = end(self.settings.now(), lifetime);
        let sessions = &mut self.sessions;
        let (device_code, user_code) =
            sessions.issue_device_code(resources, scopes, expires, interval);
        let page = match self.settings.metadata.issuer {
            Some(_) => metadata::endpoint(&self.settings, PAGE),
            None => format!("{}{}{PAGE}", origin(request), self.settings.prefix),
        };
        let codes = json!({
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": page,
            "verification_uri_complete": format!("{page}?user_code={user_code}"),
            "expires_in": lifetime.as_secs(),
            "interval": interval.as_secs(),
        });
        responses::object(StatusCode::OK, &codes)
    }
}

/// Where the request was sent, as far as it tells. Over a connection it does not tell its scheme.
fn origin(request: &RecordedRequest) -> String {
    let of_uri = |uri: &Uri| Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?));
    let host = request.headers.get(HOST).and_then(|it| it.to_str().ok());
    of_uri(&request.uri).unwrap_or_else(|| format!("http://{}", host.unwrap_or("localhost")))
}

impl Sessions {
    /// Returns the device code and the user code.
    fn issue_device_code(
        &mut self,
        resources: Vec<String>,
        scopes: BTreeSet<String>,
        expires: Option<SystemTime>,
        interval: Duration,
    ) -> (String, String) {
        let mut number = self.devices.len() + 1;
        let mut user_code = String::new();
        for at in 0..8 {
            if at == 4 {
                user_code.push('-');
            }
            // The numbers of 20 letters repeat after 20^8.
            user_code.push(char::from(LETTERS[(number * 7 + at) % LETTERS.len()]));
            number /= LETTERS.len();
        }
        let device_code = self.new_token("dc");
        let device = Device {
            user_code: user_code.clone(),
            resources,
            scopes,
            expires,
            interval,
            asked: None,
            decision: None,
            is_spent: false,
        };
        self.devices.insert(device_code.clone(), device);
        (device_code, user_code)
    }

    fn decide(&mut self, user_code: &str, decision: Decision, now: SystemTime) -> bool {
        let mut undecided = self
            .devices
            .values_mut()
            .filter(|device| device.decision.is_none() && !is_past(device.expires, now));
        let Some(device) = undecided.find(|device| device.user_code == user_code) else {
            return false;
        };
        device.decision = Some(decision);
        true
    }

    pub(super) fn exchange_device_code(
        &mut self,
        request: &DeviceRequest,
        rules: &Rules,
        now: SystemTime,
    ) -> Result<Result<Issued, Invalid>, Rejected> {
        let Some(device) = self.devices.get_mut(&request.device_code) else {
            return Ok(Err(Invalid::Unknown));
        };
        if device.is_spent {
            return Ok(Err(Invalid::Spent));
        }
        if is_past(device.expires, now) {
            return Err(Rejected::Device("expired_token"));
        }
        let asked = device.asked.replace(now);
        if asked.is_some_and(|asked| !is_past(end(asked, device.interval), now)) {
            device.interval += SLOW_DOWN;
            return Err(Rejected::Device("slow_down"));
        }
        match device.decision {
            None => return Err(Rejected::Device("authorization_pending")),
            Some(Decision::Denied) => return Err(Rejected::Device("access_denied")),
            Some(Decision::Approved) => {}
        }
        if !request
            .resources
            .iter()
            .all(|uri| device.resources.contains(uri))
        {
            return Err(Rejected::InvalidTarget);
        }
        device.is_spent = true;
        let scopes = Some(device.scopes.clone()).filter(|scopes| !scopes.is_empty());
        let session = self.all.len();
        let issued = self.begin(rules.give_refresh_token, rules, now);
        self.all[session].scopes = scopes;
        Ok(Ok(issued))
    }
}
