//! Code of others runs while the lock is held: bodies, wakers and data. It may use handles of the same body.

use std::task::{Wake, Waker};

use super::*;

type Act = Box<dyn FnOnce() + Send>;

/// A script that runs a closure at one of its polls, and one when it is dropped.
struct Hooked {
    script: Script,
    polls: usize,
    at_poll: Option<(usize, Act)>,
    at_drop: Option<Act>,
}

impl Hooked {
    fn new(script: Script) -> Self {
        Self {
            script,
            polls: 0,
            at_poll: None,
            at_drop: None,
        }
    }

    /// Runs `act` at the poll with this number, counted from 1.
    fn at_poll(mut self, number: usize, act: impl FnOnce() + Send + 'static) -> Self {
        self.at_poll = Some((number, Box::new(act)));
        self
    }

    fn at_drop(mut self, act: impl FnOnce() + Send + 'static) -> Self {
        self.at_drop = Some(Box::new(act));
        self
    }
}

impl Body for Hooked {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.polls += 1;
        let polls = self.polls;
        if let Some((_, act)) = self.at_poll.take_if(|it| it.0 == polls) {
            act();
        }
        Pin::new(&mut self.script).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.script.is_end_stream()
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        if let Some(act) = self.at_drop.take() {
            act();
        }
    }
}

type Slot = Arc<Mutex<Option<ReplayBody<Hooked>>>>;

/// Calls `act` with the handle in the slot, which is empty meanwhile.
fn with(slot: &Slot, act: impl FnOnce(&mut ReplayBody<Hooked>)) {
    let taken = slot.lock().unwrap().take();
    if let Some(mut body) = taken {
        act(&mut body);
        *slot.lock().unwrap() = Some(body);
    }
}

/// A handle, and a slot for another one, which is claimed at a poll of the body.
fn claimed_at(number: usize, script: Script, limit: usize) -> (ReplayBody<Hooked>, Slot) {
    let (handle, claimed) = (Slot::default(), Slot::default());
    let hooked = Hooked::new(script).at_poll(number, {
        let (handle, claimed) = (Arc::clone(&handle), Arc::clone(&claimed));
        move || {
            with(&handle, |body| {
                *claimed.lock().unwrap() = body.snapshot().claim();
            });
        }
    });
    let body = ReplayBody::new(hooked, limit);
    *handle.lock().unwrap() = Some(body.clone());
    (body, claimed)
}

#[test]
fn a_handle_that_is_claimed_during_a_poll_sends_everything() {
    let cases: [(&[Step], usize, &[u8]); 5] = [
        (&[data("a"), data("b")], 10, b"ab"),
        (&[Step::Pending, data("b")], 10, b"b"),
        (&[data("abcdef"), data("g")], 3, b"abcdefg"),
        (&[], 10, b""),
        (&[data("a"), Step::Trailers(trailers("sum"))], 1, b"a"),
    ];
    for (steps, limit, expected) in cases {
        let script = Script::new(steps.iter().cloned());
        let (mut body, claimed) = claimed_at(1, script, limit);
        assert_eq!(failure(&mut body), ReplayError::Superseded);
        let claimed = claimed.lock().unwrap().take().unwrap();
        assert_eq!(drain(claimed).unwrap().0, expected);
    }
}

#[test]
fn an_error_during_which_a_handle_is_claimed_goes_to_that_handle() {
    let (mut body, claimed) = claimed_at(1, Script::new([Step::Fail]), 10);
    assert_eq!(failure(&mut body), ReplayError::Superseded);
    let mut claimed = claimed.lock().unwrap().take().unwrap();
    let error = assert_ready!(poll(&mut claimed)).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "broken");
    assert!(!body.can_replay());
}

#[test]
fn a_handle_that_is_claimed_while_reading_ahead_loses_nothing() {
    let script = Script::new([data("a"), data("b"), data("c")]);
    let (mut body, claimed) = claimed_at(2, script, 10);
    assert_eq!(next(&mut body), "a");
    assert_eq!(failure(&mut body), ReplayError::Superseded);
    let claimed = claimed.lock().unwrap().take().unwrap();
    assert_eq!(drain(claimed).unwrap().0, b"abc");
}

#[test]
fn a_body_may_use_another_handle_when_it_is_dropped_at_its_end() {
    let slot = Slot::default();
    let script = Script {
        knows_its_end: true,
        ..Script::new([data("a")])
    };
    let hooked = Hooked::new(script).at_drop({
        let slot = Arc::clone(&slot);
        move || with(&slot, |body| assert_pending!(poll(body)))
    });
    let mut body = ReplayBody::new(hooked, 10);
    *slot.lock().unwrap() = Some(body.clone());
    // The other handle starts during the poll, and so sends instead.
    assert_eq!(failure(&mut body), ReplayError::Superseded);
    let other = slot.lock().unwrap().take().unwrap();
    assert_eq!(drain(other).unwrap().0, b"a");
}

/// Data that runs a closure when it is dropped.
struct HookedData(Option<Act>);

impl AsRef<[u8]> for HookedData {
    fn as_ref(&self) -> &[u8] {
        b"data"
    }
}

impl Drop for HookedData {
    fn drop(&mut self) {
        self.0.take().unwrap()();
    }
}

#[test]
fn data_may_use_another_handle_when_it_is_freed() {
    let slot = Slot::default();
    let act: Act = Box::new({
        let slot = Arc::clone(&slot);
        move || {
            with(&slot, |body| {
                assert_eq!(failure(body), ReplayError::NotReplayable);
            });
        }
    });
    let first = Bytes::from_owner(HookedData(Some(act)));
    let hooked = Hooked::new(Script::new([Step::Data(first), data("b"), data("c")]));
    let mut body = ReplayBody::new(hooked, 4);
    *slot.lock().unwrap() = Some(body.clone());
    next(&mut body);
    assert_eq!(next(&mut body), "b");
    assert!(assert_ready!(poll(slot.lock().unwrap().as_mut().unwrap())).is_none());
    assert_eq!(drain(body).unwrap().0, b"c");
}

/// Polls a handle at once when it is woken.
struct PollsAtOnce {
    body: Slot,
    seen: Mutex<Vec<String>>,
}

impl Wake for PollsAtOnce {
    fn wake(self: Arc<Self>) {
        with(&self.body, |body| {
            let seen = format!("{:?}", poll(body));
            self.seen.lock().unwrap().push(seen);
        });
    }
}

#[test]
fn a_superseded_handle_may_be_polled_while_it_is_woken() {
    for is_claimed in [false, true] {
        let hooked = Hooked::new(Script::new([Step::Pending, data("a")]));
        let mut first = ReplayBody::new(hooked, 10);
        let second = first.snapshot();
        let polls = Arc::new(PollsAtOnce {
            body: Slot::default(),
            seen: Mutex::default(),
        });
        let waker = Waker::from(Arc::clone(&polls));
        assert_pending!(Pin::new(&mut first).poll_frame(&mut Context::from_waker(&waker)));
        let third = first.clone();
        *polls.body.lock().unwrap() = Some(first);
        let sending = if is_claimed {
            second.claim().unwrap()
        } else {
            third
        };
        assert_eq!(drain(sending).unwrap().0, b"a");
        let seen = polls.seen.lock().unwrap();
        assert_eq!(seen.len(), 1);
        assert!(seen[0].contains("Superseded"), "{}", seen[0]);
    }
}

#[test]
fn a_handle_that_goes_on_alone_keeps_no_other_waiting() {
    let slot = Slot::default();
    let script = Script::new([data("abcd"), data("e"), data("f")]);
    let hooked = Hooked::new(script).at_poll(2, {
        let slot = Arc::clone(&slot);
        move || {
            with(&slot, |body| {
                assert_eq!(failure(body), ReplayError::NotReplayable);
            });
        }
    });
    let mut body = ReplayBody::new(hooked, 3);
    *slot.lock().unwrap() = Some(body.clone());
    assert_eq!(next(&mut body), "abcd");
    assert_eq!(next(&mut body), "e");
    let mut slot = slot.lock().unwrap();
    assert!(assert_ready!(poll(slot.as_mut().unwrap())).is_none());
    assert_eq!(drain(body).unwrap().0, b"f");
}

#[test]
fn a_dropped_handle_leaves_no_waker_behind() {
    let hooked = Hooked::new(Script::new([Step::Pending]));
    let body = ReplayBody::new(hooked, 10);
    let _snapshot = body.snapshot();
    let polls = Arc::new(PollsAtOnce {
        body: Slot::default(),
        seen: Mutex::default(),
    });
    let waker = Waker::from(Arc::clone(&polls));
    let mut body = body;
    assert_pending!(Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker)));
    drop(waker);
    assert_eq!(Arc::strong_count(&polls), 2);
    drop(body);
    assert_eq!(Arc::strong_count(&polls), 1);
}

/// Handles that are polled, cloned, claimed and dropped at random, also in the middle of each other's polls.
#[derive(Default)]
struct Schedule {
    random: fastrand::Rng,
    handles: Vec<Option<Driven>>,
    expected: Vec<u8>,
    depth: u32,
}

struct Driven {
    body: ReplayBody<Busy>,
    bytes: Vec<u8>,
    end: Option<Result<(), String>>,
}

/// A script that lets the schedule go on before it is polled.
struct Busy(Arc<Mutex<Schedule>>, Script);

impl Body for Busy {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        for _ in 0..2 {
            act(&self.0);
        }
        Pin::new(&mut self.1).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.1.is_end_stream()
    }
}

fn act(schedule: &Arc<Mutex<Schedule>>) {
    let mut locked = schedule.lock().unwrap();
    if locked.depth > 3 {
        return;
    }
    let count = locked.handles.len();
    let index = locked.random.usize(..count);
    let choice = locked.random.u8(..12);
    let Some(mut driven) = locked.handles[index].take() else {
        return;
    };
    locked.depth += 1;
    drop(locked);
    let mut new = None;
    match choice {
        0 => new = Some(driven.body.clone()),
        1 => new = driven.body.snapshot().claim(),
        2 if index > 0 => {
            drop(driven);
            schedule.lock().unwrap().depth -= 1;
            return;
        }
        _ => driven.poll(),
    }
    let mut locked = schedule.lock().unwrap();
    locked.depth -= 1;
    locked.handles[index] = Some(driven);
    locked
        .handles
        .extend(new.map(|body| Some(Driven::new(body))));
}

impl Driven {
    fn new(body: ReplayBody<Busy>) -> Self {
        Self {
            body,
            bytes: Vec::new(),
            end: None,
        }
    }

    fn poll(&mut self) {
        let at_end = self.body.is_end_stream();
        match poll(&mut self.body) {
            Poll::Pending => assert!(!at_end && self.end.is_none()),
            Poll::Ready(None) => {
                self.end.get_or_insert(Ok(()));
            }
            Poll::Ready(Some(Err(error))) => {
                assert!(!at_end && self.end.is_none());
                self.end = Some(Err(error.to_string()));
            }
            Poll::Ready(Some(Ok(frame))) => {
                assert!(!at_end && self.end.is_none());
                self.bytes.extend(frame.into_data().unwrap());
            }
        }
    }
}

#[test]
fn any_schedule_of_handles_within_polls_loses_and_repeats_nothing() {
    let (mut complete, mut superseded, mut failed) = (0, 0, 0);
    for seed in 0..5_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (script, expected) = race::script(&mut random);
        let fails = random.u8(..8) == 0;
        let mut script = script;
        if fails {
            script.steps.push_back(Step::Fail);
        }
        let limit = random.usize(1..=2 * expected.len());
        let schedule = Arc::new(Mutex::new(Schedule {
            random,
            expected,
            ..Schedule::default()
        }));
        let body = ReplayBody::new(Busy(Arc::clone(&schedule), script), limit);
        schedule.lock().unwrap().handles = vec![Some(Driven::new(body))];
        for _ in 0..60 {
            act(&schedule);
        }
        // A last handle is driven to its end, with further acts in its polls.
        let (body, mut handles, expected) = {
            let mut locked = schedule.lock().unwrap();
            let handles = std::mem::take(&mut locked.handles);
            locked.depth = 10;
            let body = handles[0].as_ref().unwrap().body.clone();
            (body, handles, locked.expected.clone())
        };
        let can_replay = body.can_replay();
        let mut last = Driven::new(body);
        for _ in 0..100 {
            last.poll();
        }
        match &last.end {
            Some(Ok(())) => {
                assert!(can_replay && !fails, "seed {seed}");
                assert_eq!(last.bytes, expected, "seed {seed}");
            }
            Some(Err(reason)) => {
                let is_known = !can_replay || fails && reason == "broken";
                assert!(is_known, "seed {seed}: {reason}");
            }
            None => panic!("seed {seed}: the handle never ends"),
        }
        for driven in handles.iter_mut().flatten() {
            assert!(expected.starts_with(&driven.bytes), "seed {seed}");
            match &driven.end {
                Some(Ok(())) => {
                    assert_eq!(driven.bytes, expected, "seed {seed}");
                    complete += 1;
                }
                Some(Err(reason)) if reason.contains("later attempt") => superseded += 1,
                Some(Err(reason)) => {
                    assert!(
                        reason.contains("cannot be sent again") || fails,
                        "seed {seed}: {reason}"
                    );
                    failed += 1;
                }
                None => {}
            }
        }
    }
    assert!(
        complete > 100 && superseded > 100 && failed > 100,
        "{complete} {superseded} {failed}"
    );
}
