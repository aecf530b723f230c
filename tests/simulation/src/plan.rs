//! What a seed decides beforehand.

use std::fmt;

use fastrand::Rng;

/// Milliseconds since the simulation began, or a number of them.
pub(crate) type Ms = u64;

pub(crate) const SECOND: Ms = 1_000;
pub(crate) const MINUTE: Ms = 60 * SECOND;

/// What the authorization server does with a refresh token that it has replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Its use ends the session and all its tokens.
    Strict,
    /// It is rejected.
    SingleUse,
    /// It is accepted for some time. Then its use ends the session.
    Grace(Ms),
    /// It is accepted.
    Lenient,
    /// Refresh tokens are not replaced.
    NoRotation,
}

/// How the processes begin the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GrantKind {
    RefreshToken,
    /// May begin the session again and again.
    ExchangeToken,
}

/// What the store is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// As a file: it is always reached, and a lease ends with its process.
    Local,
    /// As Redis: it is reached over the network, and a lease ends after this time.
    Remote { lease: Ms },
}

/// Something that happens now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Crash,
    Stop,
    Suspend,
    CutFromStore,
    CutFromServer,
    CutFromAll,
    ServerDown,
    StoreDown,
    StoreFull,
    StoreSlow,
    Failover,
    StepClock,
    SuspendMachine,
    Login,
    Revoke,
    Reset,
    RevokeAccess,
    EndSession,
    Refresh,
}

const EVENTS: [Event; 19] = [
    Event::Crash,
    Event::Stop,
    Event::Suspend,
    Event::CutFromStore,
    Event::CutFromServer,
    Event::CutFromAll,
    Event::ServerDown,
    Event::StoreDown,
    Event::StoreFull,
    Event::StoreSlow,
    Event::Failover,
    Event::StepClock,
    Event::SuspendMachine,
    Event::Login,
    Event::Revoke,
    Event::Reset,
    Event::RevokeAccess,
    Event::EndSession,
    Event::Refresh,
];

/// How likely it is that something happens to one message, or at one step of a process. From 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) lost_request: f64,
    pub(crate) lost_response: f64,
    pub(crate) duplicate: f64,
    /// A message takes many seconds.
    pub(crate) delay: f64,
    /// An error page of a gateway, in place of the request.
    pub(crate) page_before: f64,
    /// An error page of a gateway, in place of the response.
    pub(crate) page_after: f64,
    /// An error of the authorization server that is not about the grant.
    pub(crate) refused: f64,
    pub(crate) crash: f64,
    pub(crate) suspend: f64,
    /// The API rejects a valid token.
    pub(crate) rejected: f64,
    /// A caller stops waiting.
    pub(crate) dropped_caller: f64,
}

#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) processes: usize,
    pub(crate) mode: Mode,
    pub(crate) grant: GrantKind,
    pub(crate) store: StoreKind,
    /// The lifetime of access tokens.
    pub(crate) lifetime: Ms,
    /// The time limit of a token request.
    pub(crate) token_timeout: Ms,
    /// The time limit of a refresh as a whole.
    pub(crate) refresh_timeout: Ms,
    pub(crate) background_refresh: bool,
    /// Between two requests of a process to the API, on average.
    pub(crate) request_interval: Ms,
    /// The longest usual time of a message.
    pub(crate) latency: Ms,
    /// How long faults occur.
    pub(crate) faults_until: Ms,
    /// What happens, and between two of it, on average.
    pub(crate) events: Vec<Event>,
    pub(crate) event_interval: Ms,
    pub(crate) rates: Rates,
}

impl Plan {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let lifetime = [20, 60, 120, 300, 900][rng.usize(..5)] * SECOND;
        let mode = match rng.u8(..10) {
            0..4 => Mode::Strict,
            4..6 => Mode::SingleUse,
            6..8 => Mode::Grace(rng.u64(10..=90) * SECOND),
            8 => Mode::Lenient,
            _ => Mode::NoRotation,
        };
        let store = if rng.u8(..3) == 0 {
            StoreKind::Local
        } else {
            StoreKind::Remote {
                lease: rng.u64(3..=15) * SECOND,
            }
        };
        // In a few seeds nothing fails. Then no request may fail, and each refresh token is sent once.
        let quiet = rng.u8(..25) == 0;
        let events = EVENTS
            .iter()
            .filter(|_| !quiet && rng.u8(..10) < 3)
            .copied()
            .collect();
        let rates = if quiet { Rates::default() } else { rates(rng) };
        Self {
            processes: rng.usize(1..=4),
            mode,
            grant: if rng.u8(..4) == 0 {
                GrantKind::ExchangeToken
            } else {
                GrantKind::RefreshToken
            },
            store,
            lifetime,
            token_timeout: [3, 10, 30][rng.usize(..3)] * SECOND,
            refresh_timeout: if rng.u8(..6) == 0 {
                rng.u64(1..=20) * SECOND
            } else {
                120 * SECOND
            },
            background_refresh: rng.u8(..3) == 0,
            request_interval: lifetime / rng.u64(4..=16),
            latency: [2, 20, 200][rng.usize(..3)],
            faults_until: lifetime * rng.u64(6..=20),
            events,
            event_interval: lifetime * rng.u64(2..=20) / 10,
            rates,
        }
    }
}

fn rates(rng: &mut Rng) -> Rates {
    let mut rate = |max: f64| {
        let on = rng.u8(..10) < 4;
        let rate = rng.f64() * max;
        if on { rate } else { 0.0 }
    };
    Rates {
        lost_request: rate(0.2),
        lost_response: rate(0.3),
        duplicate: rate(0.1),
        delay: rate(0.1),
        page_before: rate(0.2),
        page_after: rate(0.15),
        refused: rate(0.2),
        crash: rate(0.06),
        suspend: rate(0.04),
        rejected: rate(0.03),
        dropped_caller: rate(0.1),
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} processes, {:?}, {:?}, {:?}, tokens live {} s, requests every {} s, token timeout {} s, refresh timeout {} s, \
             background {}, latency {} ms, faults until {} s, every {} s one of {:?}, {:?}",
            self.processes,
            self.mode,
            self.grant,
            self.store,
            self.lifetime / SECOND,
            self.request_interval / SECOND,
            self.token_timeout / SECOND,
            self.refresh_timeout / SECOND,
            self.background_refresh,
            self.latency,
            self.faults_until / SECOND,
            self.event_interval / SECOND,
            self.events,
            self.rates
        )
    }
}
