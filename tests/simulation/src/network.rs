//! One request and its response.

use std::{future::pending, time::Duration};

use tokio::{sync::oneshot, time::sleep};

use crate::{
    host::Host,
    plan::{Ms, SECOND, StoreKind},
    world::{State, note},
};

/// What processes talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    Store = 0,
    Server = 1,
    Api = 2,
}

/// The connection broke: the request may have arrived, or not.
#[derive(Debug)]
pub(crate) struct Broken;

/// What happens to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Arrives(Ms),
    /// The sender notices that the connection broke.
    Breaks(Ms),
    /// Neither side notices.
    Vanishes(Ms),
}

impl Way {
    fn time(self) -> Duration {
        let (Self::Arrives(ms) | Self::Breaks(ms) | Self::Vanishes(ms)) = self;
        Duration::from_millis(ms)
    }
}

impl State {
    fn way(&mut self, to: Party, lost: f64) -> Way {
        let latency = self.plan.latency;
        if to == Party::Store && self.plan.store == StoreKind::Local {
            return Way::Arrives(self.rng.u64(0..=latency));
        }
        let time = if self.happens(self.plan.rates.delay) {
            self.count("delayed message");
            self.trouble(75 * SECOND);
            self.about(8 * SECOND)
        } else {
            self.rng.u64(1..=latency)
        };
        if !self.happens(lost) {
            Way::Arrives(time)
        } else if self.rng.bool() {
            Way::Breaks(time)
        } else {
            Way::Vanishes(time)
        }
    }
}

/// Sends a request, which `handle` answers. It is answered also if the process no longer waits, and twice if the network
/// delivers it twice. Nothing ever comes if the request or the response vanishes.
pub(crate) async fn call<A: Send + 'static>(
    host: &Host,
    to: Party,
    handle: impl Fn(&mut State) -> A + Clone + Send + 'static,
) -> Result<A, Broken> {
    let (world, process) = (host.world.clone(), host.process);
    let (there, back, again) = {
        let mut state = world.lock();
        let rates = state.plan.rates;
        let there = state.way(to, rates.lost_request);
        let back = state.way(to, rates.lost_response);
        let again = (to == Party::Server && state.happens(rates.duplicate))
            .then(|| state.about(2 * SECOND));
        (there, back, again)
    };
    let (respond, response) = oneshot::channel();
    tokio::spawn(async move {
        sleep(there.time()).await;
        let arrives = {
            let mut state = world.lock();
            let is_cut = state.is_cut(process, to);
            match there {
                Way::Breaks(_) => {
                    note!(state, "p{process} request to {to:?} breaks");
                    state.trouble(75 * SECOND);
                    state.count("request lost");
                    let _ = respond.send(Err(Broken));
                    return;
                }
                Way::Vanishes(_) => {
                    note!(state, "p{process} request to {to:?} vanishes");
                    state.trouble(75 * SECOND);
                    state.count("request lost");
                    false
                }
                Way::Arrives(_) => {
                    if is_cut {
                        state.count("request into a partition");
                    }
                    !is_cut
                }
            }
        };
        if !arrives {
            return;
        }
        let answer = handle(&mut world.lock());
        if let Some(after) = again {
            let (world, handle) = (world.clone(), handle.clone());
            tokio::spawn(async move {
                sleep(Duration::from_millis(after)).await;
                let mut state = world.lock();
                note!(state, "p{process} request to {to:?} arrives again");
                state.count("request delivered twice");
                handle(&mut state);
            });
        }
        sleep(back.time()).await;
        let mut state = world.lock();
        let is_cut = state.is_cut(process, to);
        if is_cut || !matches!(back, Way::Arrives(_)) {
            note!(state, "p{process} response of {to:?} is lost");
            state.trouble(75 * SECOND);
            if to == Party::Server {
                state.count("token response lost");
            }
            if !is_cut && matches!(back, Way::Breaks(_)) {
                let _ = respond.send(Err(Broken));
            }
            return;
        }
        let _ = respond.send(Ok(answer));
    });
    match response.await {
        Ok(answer) => answer,
        Err(_) => pending().await,
    }
}
