//! Each time that a process sends a credential, and whether it may.

use tower_bearer::Identity;

use crate::{
    host::{Host, OwnLease},
    oracle::Oracle,
    plan::{GrantKind, Ms, SECOND},
    server::{Denied, Tokens},
    store::Order,
    world::{State, note},
};

/// A token request, as the process sees it.
pub(crate) struct Sent {
    pub(crate) process: usize,
    pub(crate) life: u32,
    pub(crate) credential: String,
    pub(crate) at: Ms,
    /// When the process began to send it. It may have been suspended since.
    began_at: Ms,
    pub(crate) fate: Fate,
    pub(crate) answered_at: Ms,
    /// When the store last answered this process before.
    look: Ms,
    /// How often the stored session had changed then.
    pub(crate) look_changes: u64,
    /// The lease of the process, as far as it knows.
    pub(crate) lease: Option<OwnLease>,
    /// How often this process had begun a save before.
    saves: u64,
    /// When what came of it was saved: the new tokens, or that the credential is dead.
    pub(crate) saved_at: Option<Ms>,
    /// The store has lost that save.
    pub(crate) is_lost: bool,
    /// It is sent after a reset, or goes on with a session that such a request has begun.
    pub(crate) is_of_reset: bool,
    /// The order of the session that its tokens belong to.
    pub(crate) order: Order,
    /// When another process saved a session that those tokens do not replace.
    pub(crate) overtaken_at: Option<Ms>,
    /// The server has issued tokens.
    pub(crate) is_granted: bool,
    /// By how much the clock of the process was wrong.
    pub(crate) clock_is_wrong_by: i64,
    /// How long the machine had been suspended before the process began to send it, and before the answer came.
    pub(crate) suspended_before: Ms,
    pub(crate) suspended_until_answer: Ms,
}

/// When a process began to send a token request.
#[derive(Clone, Copy)]
pub(crate) struct Began {
    pub(crate) at: Ms,
    /// How long the machine had been suspended then.
    pub(crate) suspended_before: Ms,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    Waiting,
    /// No response came, or the process no longer waited.
    Unanswered,
    Page,
    Refused,
    Dead,
    Granted(Tokens),
}

/// Why a credential may be sent again.
type Reason = Result<&'static str, &'static str>;

impl State {
    /// A process sends a credential. Returns the number of the request.
    pub(crate) fn sends(&mut self, host: &Host, credential: &str, began: Began) -> usize {
        let number = self.oracle.sent.len();
        note!(self, "p{} send {number}: {credential}", host.process);
        self.count("token request");
        if credential.starts_with("rt-") {
            self.check_sent_again(host, credential);
        }
        self.check_may_send(host, credential);
        let now = self.now;
        let state = &self.hosts[host.process];
        let (look, look_changes, saves) = (state.last_look, state.look_changes, state.saves);
        let (lease, clock_is_wrong_by) = (state.lease, state.clock_is_wrong_by);
        let order = self.order_after(credential);
        let is_of_reset = self.is_of_reset(host, credential);
        self.oracle.sent.push(Sent {
            process: host.process,
            life: host.life,
            credential: credential.to_owned(),
            at: now,
            began_at: began.at,
            fate: Fate::Waiting,
            answered_at: 0,
            look,
            look_changes,
            lease,
            saves,
            saved_at: None,
            is_lost: false,
            is_of_reset,
            order,
            overtaken_at: None,
            is_granted: false,
            clock_is_wrong_by,
            suspended_before: began.suspended_before,
            suspended_until_answer: self.suspended_for,
        });
        number
    }

    /// The order of the session that a token request with `credential` goes on with, or begins.
    fn order_after(&self, credential: &str) -> Order {
        let mut sent = self.oracle.sent.iter().rev();
        let granted = sent.find(|sent| {
            matches!(&sent.fate, Fate::Granted(tokens) if tokens.refresh.as_deref() == Some(credential))
        });
        if let Some(granted) = granted {
            return granted.order.refreshed();
        }
        let stored = self.store.view().map(|view| view.order.clone());
        let stored = stored.unwrap_or_default();
        let identity = identity(credential);
        if stored.identity == identity {
            stored.refreshed()
        } else {
            stored.begun(identity)
        }
    }

    fn check_sent_again(&mut self, host: &Host, credential: &str) {
        let mut reasons = Vec::new();
        let mut in_this_attempt = 0;
        for sent in &self.oracle.sent {
            if sent.credential != credential {
                continue;
            }
            let is_ours = sent.process == host.process && sent.life == host.life;
            if is_ours && sent.saves == self.hosts[host.process].saves {
                in_this_attempt += 1;
            }
            reasons.push(self.may_follow(sent, host));
        }
        if in_this_attempt > 1 {
            self.violation(&format!(
                "p{} sends {credential} more than twice in one attempt",
                host.process
            ));
        }
        if in_this_attempt == 1 {
            self.count("sent again at once");
        }
        for reason in reasons {
            match reason {
                Ok(situation) => self.count(situation),
                Err(what) => self.violation(&format!(
                    "p{} sends {credential} again: {what}",
                    host.process
                )),
            }
        }
    }

    /// Whether `host` may send what was sent in `sent`.
    fn may_follow(&self, sent: &Sent, host: &Host) -> Reason {
        let sender = &self.hosts[sent.process];
        let has_died = sender.life != sent.life || !sender.is_alive;
        let is_ours = sent.process == host.process && sent.life == host.life;
        let failed_over = |reason| {
            if sent.is_lost {
                Ok("sent again: the store has lost the save")
            } else {
                reason
            }
        };
        let (look, has_lost) = (self.hosts[host.process].last_look, |at| {
            self.oracle.has_lost(at)
        });
        if !is_ours && self.is_held_up(host) {
            return Ok("sent again: a process was held up longer than its lease lasts");
        }
        match &sent.fate {
            Fate::Waiting if has_died => Ok("sent again: the process that sent it has died"),
            Fate::Waiting if is_ours => Err("the process waits for the response to it"),
            Fate::Waiting => self.has_lapsed(sent),
            Fate::Unanswered => Ok("sent again: no response came"),
            Fate::Page => Ok("sent again: a gateway has answered"),
            Fate::Refused => Ok("sent again: it was refused"),
            Fate::Dead | Fate::Granted(_) if self.is_after_reset(host) => Ok("sent again: reset"),
            Fate::Dead => match sent.saved_at {
                Some(_) => failed_over(Err("it is dead, and the store knows it")),
                None if has_died => {
                    Ok("sent again: a process died before it saved that it is dead")
                }
                None if sender.store_trouble >= sent.answered_at => {
                    Ok("sent again: the store could not save that it is dead")
                }
                // That it is dead was to replace the mark.
                None if !is_ours && has_lost(sent.look) => {
                    Ok("sent again: the store has lost the mark, and so not saved that it is dead")
                }
                None => failed_over(self.has_lapsed(sent)),
            },
            Fate::Granted(tokens) if tokens.refresh.is_none() => {
                Ok("sent again: it was not replaced")
            }
            Fate::Granted(_) => match sent.saved_at {
                // The store has lost one of the two marks, so this one was no fence: it has the version of the other one, or is
                // gone.
                Some(at) if at > look && (has_lost(sent.look) || has_lost(look)) => {
                    self.has_lapsed(sent)
                }
                Some(_) => failed_over(Err("its successor is saved")),
                None if has_died => Ok("sent again: a process died before it saved the successor"),
                None => failed_over(self.has_lapsed(sent)),
            },
        }
    }

    /// Whether the lease under which `sent` was sent has ended because the process could not extend it, since it last looked into
    /// the store before, or because the store has lost it.
    fn has_lapsed(&self, sent: &Sent) -> Reason {
        let mut lapses = self.store.lapses_of(sent.process, sent.life);
        if lapses.clone().any(|lapse| lapse.at >= sent.look) {
            return Ok("sent again: the lease of the first process has lapsed");
        }
        // A process does not ask whether it has a lease that it asked for less than a second ago.
        let is_new = |lease: OwnLease| sent.began_at < lease.asked_at + SECOND;
        let is_lost = |lease: OwnLease| {
            let mut lost = lapses.clone().filter(|lapse| lapse.is_lost_by_store);
            is_new(lease) && lost.any(|lapse| lapse.at >= lease.asked_at)
        };
        if sent.lease.is_some_and(is_lost) {
            return Ok("sent again: the store has lost the lease of the first process");
        }
        Err(if lapses.next().is_some() {
            "the lease of the first process had lapsed before it looked into the store"
        } else {
            "the first process has the lease, or has released it too early"
        })
    }

    /// Whether the lease of this process has lapsed since it last looked into the store, even if it has been extended again.
    fn is_held_up(&self, host: &Host) -> bool {
        let state = &self.hosts[host.process];
        let number = state.lease.map(|lease| lease.number);
        self.store
            .lapses_of(host.process, host.life)
            .any(|lapse| Some(lapse.owner.number) == number && lapse.at >= state.last_look)
    }

    /// The server has answered a token request. The response may still be lost.
    pub(crate) fn server_has_answered(&mut self, send: usize, result: &Result<Tokens, Denied>) {
        self.oracle.sent[send].is_granted |= result.is_ok();
    }

    /// What came back to a process, or that nothing came.
    pub(crate) fn received(&mut self, host: &Host, send: usize, fate: &Fate) {
        if host.is_dead(self) {
            return;
        }
        let now = self.now;
        note!(self, "p{} send {send}: {fate:?}", host.process);
        let request = &mut self.oracle.sent[send];
        request.answered_at = now;
        request.suspended_until_answer = self.suspended_for;
        request.fate = fate.clone();
        let (is_granted, saves, look_changes) =
            (request.is_granted, request.saves, request.look_changes);
        let is_grant = request.credential.starts_with("et-");
        match fate {
            Fate::Unanswered => {
                self.trouble(75 * SECOND);
                if is_granted {
                    self.count("response lost after a rotation");
                }
                let is_first = self.hosts[host.process].unsent != Some(saves)
                    && !self.oracle.sent[..send].iter().any(|earlier| {
                        (earlier.process, earlier.life, earlier.saves)
                            == (host.process, host.life, saves)
                    });
                let by = self.store.session.as_ref().map(|stored| stored.by);
                let is_own_mark = by == Some((host.process, host.life));
                let is_held = self.store.has_held(host.process, host.life, now);
                if is_first
                    && is_own_mark
                    && is_held
                    && self.oracle.sent[send].credential.starts_with("rt-")
                {
                    self.expect_resend(host, send);
                }
            }
            Fate::Dead => {
                let state = &mut self.hosts[host.process];
                state.dead_at = Some(now);
                // A refresh token is not the last that can be sent if an exchange token can begin the session anew.
                let is_last = self.plan.grant == GrantKind::RefreshToken || is_grant;
                state.final_changes = is_last.then_some(look_changes);
            }
            Fate::Granted(_) => {
                let state = &mut self.hosts[host.process];
                state.granted_to = state.lease.map_or(0, |lease| lease.asked_by);
            }
            Fate::Waiting | Fate::Page | Fate::Refused => {}
        }
    }

    /// Whether the refresh that has the lease of this process was asked for after a reset.
    pub(crate) fn is_after_reset(&self, host: &Host) -> bool {
        let lease = self.hosts[host.process].lease;
        lease.is_some_and(|lease| lease.is_after_reset)
    }

    /// Whether this process sends `credential` after a reset, or has it from a request that was, since the last revocation.
    pub(crate) fn is_of_reset(&self, host: &Host, credential: &str) -> bool {
        let revoked_at = self.oracle.revoked_at();
        self.is_after_reset(host)
            || self.oracle.sent.iter().any(|sent| {
                // The grant that has begun the session may begin it anew.
                let is_grant = credential.starts_with("et-") && sent.credential == credential;
                let is_from = match &sent.fate {
                    Fate::Granted(tokens) => match &tokens.refresh {
                        Some(refresh) => refresh == credential || is_grant,
                        None => sent.credential == credential,
                    },
                    _ => false,
                };
                is_from && sent.is_of_reset && sent.at >= revoked_at
            })
    }

    /// Checks some time later that a request to which no response came was sent again at once.
    fn expect_resend(&self, host: &Host, send: usize) {
        let (world, host, since) = (host.world.clone(), host.clone(), self.now);
        let version = self.store.session.as_ref().map(|stored| stored.version);
        tokio::spawn(async move {
            world.sleep_until(since + 12 * SECOND).await;
            let mut state = world.lock();
            let credential = state.oracle.sent[send].credential.clone();
            let is_again = |again: &Sent| {
                (again.process, again.life) == (host.process, host.life)
                    && again.credential == credential
            };
            let is_sent = state.oracle.sent[send + 1..].iter().any(is_again);
            let is_hindered = host.is_dead(&state)
                || state.hosts[host.process].store_trouble >= since
                || state.store.slow_until >= since
                || state
                    .store
                    .lapses_of(host.process, host.life)
                    .any(|lapse| lapse.at >= since)
                || state.store.session.as_ref().map(|stored| stored.version) != version;
            if !is_sent && !is_hindered {
                let process = host.process;
                state.violation(&format!(
                    "p{process} does not send {credential} again at once"
                ));
            }
        });
    }
}

impl Oracle {
    /// Whether the store has lost what was saved at this time.
    fn has_lost(&self, at: Ms) -> bool {
        self.lost.iter().any(|lost| lost.contains(&at))
    }

    /// The refresh tokens that a living process may hold and the store does not have.
    pub(crate) fn unsaved(&self) -> impl Iterator<Item = (&Sent, &str)> {
        self.sent.iter().filter_map(|sent| match &sent.fate {
            Fate::Granted(tokens) if sent.saved_at.is_none() || sent.is_lost => {
                Some((sent, tokens.refresh.as_deref()?))
            }
            _ => None,
        })
    }
}

/// The identity of a credential, as a store writes it.
pub(crate) fn identity(credential: &str) -> String {
    let kind = if credential.starts_with("et-") {
        "exchange"
    } else {
        "refresh"
    };
    let identity = serde_json::to_value(Identity::new(kind, credential));
    let identity = identity.expect("an identity is serialized");
    identity.as_str().unwrap_or_default().to_owned()
}
