use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex},
    task::Context,
};

use http::HeaderMap;
use http_body::{Body, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use proptest::prelude::*;
use tokio_test::{assert_pending, assert_ready, block_on, task};

use super::*;

mod ahead;
mod race;
mod reentrant;

/// What a [`Script`] does in one poll.
#[derive(Clone, Debug)]
enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Pending, and never woken.
    Pending,
    /// Pending, and woken at once.
    Yield,
    Fail,
}

/// A body that follows a script, and panics if it is polled after its end.
#[derive(Clone, Debug, Default)]
struct Script {
    steps: VecDeque<Step>,
    sized: bool,
    knows_its_end: bool,
    over: bool,
}

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            ..Self::default()
        }
    }

    fn size(&self) -> usize {
        let size = |step: &Step| match step {
            Step::Data(data) => data.len(),
            _ => 0,
        };
        self.steps.iter().map(size).sum()
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        assert!(!self.over, "polled after its end");
        let step = self.steps.pop_front();
        self.over = matches!(step, None | Some(Step::Fail));
        Poll::Ready(match step {
            Some(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Pending) => return Poll::Pending,
            Some(Step::Yield) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Step::Fail) => Some(Err("broken")),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized {
            SizeHint::with_exact(self.size() as u64)
        } else {
            SizeHint::default()
        }
    }
}

fn data(text: &'static str) -> Step {
    Step::Data(Bytes::from_static(text.as_bytes()))
}

fn full(text: &'static str) -> Full<Bytes> {
    Full::from(text)
}

fn trailers(name: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(name.parse().unwrap(), "x".parse().unwrap())])
}

/// Everything that a handle yields until its end or error. Polls again if it is pending.
fn drain<B>(mut body: ReplayBody<B>) -> Result<(Vec<u8>, Option<HeaderMap>), BoxError>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let (mut bytes, mut trailers, mut pending) = (Vec::new(), None, 0);
    loop {
        match poll(&mut body) {
            Poll::Pending => {
                pending += 1;
                assert!(pending < 1000, "the handle never makes progress");
            }
            Poll::Ready(None) => return Ok((bytes, trailers)),
            Poll::Ready(Some(Err(error))) => return Err(error),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
    }
}

fn poll<B>(body: &mut ReplayBody<B>) -> Polled
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    task::spawn(()).enter(|cx, _| Pin::new(body).poll_frame(cx))
}

fn next<B>(body: &mut ReplayBody<B>) -> Bytes
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let frame = assert_ready!(poll(body)).expect("not the end").unwrap();
    frame.into_data().expect("data")
}

fn failure<B>(body: &mut ReplayBody<B>) -> ReplayError
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let error = assert_ready!(poll(body)).expect("not the end").unwrap_err();
    *error.downcast_ref().expect("ours")
}

#[test]
fn an_empty_body_stays_empty() {
    for limit in [0, 10] {
        let mut body = ReplayBody::new(Empty::<Bytes>::new(), limit);
        let mut clone = body.clone();
        for body in [&mut body, &mut clone] {
            assert!(body.is_end_stream());
            assert!(body.can_replay());
            assert_eq!(body.size_hint().exact(), Some(0));
            assert!(assert_ready!(poll(body)).is_none());
        }
    }
}

#[test]
fn a_full_body_and_its_replay_end_right_after_their_frame() {
    let mut body = ReplayBody::new(full("hello"), 5);
    let mut clone = body.clone();
    for body in [&mut body, &mut clone] {
        assert!(!body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(next(body), "hello");
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(assert_ready!(poll(body)).is_none());
        assert!(assert_ready!(poll(body)).is_none());
    }
    assert!(clone.can_replay());
}

#[test]
fn the_data_of_a_replay_is_not_a_copy() {
    let sent = Bytes::from(vec![7; 100]);
    let mut body = ReplayBody::new(Full::new(sent.clone()), 1000);
    let mut clone = body.clone();
    assert_eq!(next(&mut body).as_ptr(), sent.as_ptr());
    assert_eq!(next(&mut clone).as_ptr(), sent.as_ptr());
}

#[test]
fn a_body_known_to_be_too_large_is_sent_but_not_kept() {
    for (limit, steps) in [(4, vec![data("hello")]), (0, vec![data("x"), data("y")])] {
        let script = Script {
            sized: true,
            ..Script::new(steps)
        };
        let size = script.size();
        let mut body = ReplayBody::new(script, limit);
        let mut clone = body.clone();
        assert!(!body.can_replay() && !clone.can_replay());
        assert_eq!(failure(&mut clone), ReplayError::NotReplayable);
        assert!(assert_ready!(poll(&mut clone)).is_none());
        assert!(
            !clone.is_end_stream(),
            "an incomplete body must not look complete"
        );
        assert_eq!(failure(&mut clone.clone()), ReplayError::NotReplayable);
        assert_eq!(body.size_hint().exact(), Some(size as u64));
        next(&mut body);
        assert_eq!(drain(body).unwrap().0.len(), usize::from(limit == 0));
    }
}

#[test]
fn a_body_that_is_not_kept_is_not_polled_after_its_end_or_error() {
    for last in [None, Some(Step::Fail)] {
        let mut body = ReplayBody::new(Script::new(last), 0);
        let first = assert_ready!(poll(&mut body));
        assert!(matches!(first, None | Some(Err(_))));
        assert!(assert_ready!(poll(&mut body)).is_none());
    }
}

#[test]
fn a_clone_replays_the_sent_frames_and_continues_with_the_rest() {
    let mut first = ReplayBody::new(Script::new([data("a"), data("b"), data("c")]), 10);
    let mut second = first.clone();
    assert_eq!(next(&mut first), "a");
    assert_eq!(next(&mut first), "b");
    assert_eq!(next(&mut second), "a");
    assert_eq!(next(&mut second), "b");
    assert_eq!(next(&mut second), "c");
    assert_eq!(failure(&mut first), ReplayError::Superseded);
    assert!(assert_ready!(poll(&mut first)).is_none());
    assert!(!first.is_end_stream());
    assert!(assert_ready!(poll(&mut second)).is_none());
    assert!(second.is_end_stream());
}

#[test]
fn the_handle_that_starts_last_sends_no_matter_which_was_cloned() {
    let mut original = ReplayBody::new(Script::new([data("a"), data("b")]), 10);
    let mut clone = original.clone();
    assert_eq!(next(&mut clone), "a");
    assert_eq!(drain(original.clone()).unwrap().0, b"ab");
    assert_eq!(next(&mut original), "a");
    assert_eq!(failure(&mut clone), ReplayError::Superseded);
    assert_eq!(drain(original).unwrap().0, b"ab"[1..]);
}

#[test]
fn a_handle_that_has_sent_everything_is_not_superseded() {
    let mut first = ReplayBody::new(full("a"), 10);
    let second = first.clone();
    assert_eq!(next(&mut first), "a");
    assert_eq!(drain(second).unwrap().0, b"a");
    assert!(first.is_end_stream());
    assert!(assert_ready!(poll(&mut first)).is_none());
}

#[test]
fn a_waiting_handle_is_woken_when_it_is_superseded() {
    let script = Script::new([data("a"), Step::Pending, Step::Pending, data("b")]);
    let mut first = ReplayBody::new(script, 10);
    let second = first.clone();
    assert_eq!(next(&mut first), "a");
    let mut waiting = task::spawn(first.frame());
    assert_pending!(waiting.poll());
    assert_eq!(drain(second).unwrap().0, b"ab");
    assert!(waiting.is_woken());
    let error = assert_ready!(waiting.poll()).unwrap().unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&ReplayError::Superseded));
}

#[test]
fn dropping_a_handle_does_not_affect_the_others() {
    let script = Script::new([data("a"), Step::Pending, Step::Pending, data("b")]);
    let mut first = ReplayBody::new(script, 10);
    let second = first.clone();
    assert_eq!(next(&mut first), "a");
    assert_pending!(poll(&mut first));
    drop(first);
    assert_eq!(drain(second).unwrap().0, b"ab");
}

#[test]
fn trailers_are_replayed() {
    let body = ReplayBody::new(
        Script::new([data("a"), Step::Trailers(trailers("sum"))]),
        10,
    );
    let clone = body.clone();
    for body in [body, clone] {
        assert_eq!(drain(body).unwrap(), (b"a".to_vec(), Some(trailers("sum"))));
    }
}

#[test]
fn trailers_count_against_the_limit() {
    let body = ReplayBody::new(Script::new([Step::Trailers(trailers("sum"))]), 3);
    let clone = body.clone();
    assert_eq!(drain(body).unwrap().1, Some(trailers("sum")));
    assert!(!clone.can_replay());
}

#[test]
fn exceeding_the_limit_does_not_stop_the_upload_and_no_clone_does() {
    let mut body = ReplayBody::new(Script::new([data("ab"), data("cd"), data("ef")]), 3);
    let mut clone = body.clone();
    assert_eq!(next(&mut body), "ab");
    assert!(body.can_replay());
    assert_eq!(next(&mut body), "cd");
    assert!(!body.can_replay() && !clone.can_replay());
    assert_eq!(failure(&mut clone), ReplayError::NotReplayable);
    assert_eq!(drain(body).unwrap().0, b"ef");
    assert!(assert_ready!(poll(&mut clone)).is_none());
}

#[test]
fn a_body_of_exactly_the_limit_is_kept() {
    let body = ReplayBody::new(Script::new([data("ab"), data("cd")]), 4);
    let clone = body.clone();
    assert_eq!(drain(body).unwrap().0, b"abcd");
    assert!(clone.can_replay());
    assert_eq!(drain(clone).unwrap().0, b"abcd");
}

/// Data that counts how often it is dropped.
struct CountsDrops(Arc<Mutex<u32>>);

impl AsRef<[u8]> for CountsDrops {
    fn as_ref(&self) -> &[u8] {
        b"counted"
    }
}

impl Drop for CountsDrops {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

#[test]
fn exceeding_the_limit_frees_the_kept_frames() {
    let dropped = Arc::new(Mutex::new(0));
    let step = || Step::Data(Bytes::from_owner(CountsDrops(Arc::clone(&dropped))));
    let mut body = ReplayBody::new(Script::new([step(), step(), step()]), 15);
    let _clone = body.clone();
    next(&mut body);
    next(&mut body);
    assert_eq!(*dropped.lock().unwrap(), 0);
    drop(next(&mut body));
    assert_eq!(*dropped.lock().unwrap(), 3);
}

#[test]
fn a_body_that_no_other_handle_can_send_is_dropped_with_its_handle() {
    let dropped = Arc::new(Mutex::new(0));
    let step = || Step::Data(Bytes::from_owner(CountsDrops(Arc::clone(&dropped))));
    let mut body = ReplayBody::new(Script::new([step(), step()]), 1);
    let mut clone = body.clone();
    next(&mut body);
    drop(body);
    assert_eq!(*dropped.lock().unwrap(), 2);
    assert_eq!(failure(&mut clone), ReplayError::NotReplayable);
}

#[test]
fn an_error_is_passed_on_and_ends_the_replay() {
    let mut body = ReplayBody::new(Script::new([data("a"), Step::Fail]), 10);
    let mut clone = body.clone();
    assert_eq!(next(&mut body), "a");
    let error = assert_ready!(poll(&mut body)).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "broken");
    assert!(assert_ready!(poll(&mut body)).is_none());
    assert!(
        !body.is_end_stream(),
        "an incomplete body must not look complete"
    );
    assert!(!clone.can_replay());
    assert_eq!(failure(&mut clone), ReplayError::NotReplayable);
}

#[test]
fn an_error_frees_the_kept_frames() {
    for more in 0..3 {
        let dropped = Arc::new(Mutex::new(0));
        let counted = Step::Data(Bytes::from_owner(CountsDrops(Arc::clone(&dropped))));
        let steps = [counted].into_iter();
        let steps = steps
            .chain((0..more).map(|_| data("a")))
            .chain([Step::Fail]);
        let mut body = ReplayBody::new(Script::new(steps), 20);
        let clone = body.clone();
        for _ in 0..=more {
            next(&mut body);
        }
        // The error may have been read ahead.
        if clone.can_replay() {
            assert_ready!(poll(&mut body)).unwrap().unwrap_err();
        }
        assert!(!clone.can_replay());
        let dropped = *dropped.lock().unwrap();
        assert_eq!(dropped, 1, "{more} more frames");
    }
}

/// A body that runs a closure during its first poll.
struct Meanwhile<F>(Option<F>, Script);

impl<F: FnOnce() + Unpin> Body for Meanwhile<F> {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        if let Some(act) = self.0.take() {
            act();
        }
        Pin::new(&mut self.1).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.1.is_end_stream()
    }
}

type Other = ReplayBody<Meanwhile<Box<dyn FnOnce() + Send>>>;

/// A handle whose first poll is interrupted by another handle that takes over, and that other handle, which waits.
fn interrupted(script: Script, limit: usize) -> (Other, task::Spawn<Other>) {
    let slot = Arc::new(Mutex::new(None::<task::Spawn<Other>>));
    let act: Box<dyn FnOnce() + Send> = Box::new({
        let slot = Arc::clone(&slot);
        move || {
            let mut slot = slot.lock().unwrap();
            let other = slot.as_mut().unwrap();
            assert_pending!(other.enter(|cx, body| body.poll_frame(cx)));
        }
    });
    let mut body = ReplayBody::new(Meanwhile(Some(act), script), limit);
    *slot.lock().unwrap() = Some(task::spawn(body.clone()));
    let polled = catch_unwind(AssertUnwindSafe(|| failure(&mut body)));
    let other = slot.lock().unwrap().take().unwrap();
    if let Ok(error) = polled {
        assert_eq!(error, ReplayError::Superseded);
    }
    assert!(other.is_woken(), "the poll that it waits for has ended");
    (body, other)
}

#[test]
fn a_takeover_during_a_poll_waits_for_it_and_loses_nothing() {
    for first in [data("a"), Step::Pending] {
        let pending = matches!(first, Step::Pending);
        let (mut body, other) = interrupted(Script::new([first, data("b")]), 10);
        assert!(assert_ready!(poll(&mut body)).is_none());
        let expected: &[u8] = if pending { b"b" } else { b"ab" };
        assert_eq!(drain(other.into_inner()).unwrap().0, expected);
    }
}

#[test]
fn a_takeover_during_the_last_poll_sees_the_end() {
    let (_body, other) = interrupted(Script::default(), 10);
    assert_eq!(drain(other.into_inner()).unwrap().0, b"");
}

#[test]
fn a_takeover_while_the_limit_is_exceeded_sends_everything() {
    let (body, other) = interrupted(Script::new([data("abcdef"), data("g")]), 3);
    // No handle has yielded what exceeds it.
    assert!(body.can_replay());
    assert_eq!(drain(other.into_inner()).unwrap().0, b"abcdefg");
    assert!(!body.can_replay());
}

#[test]
fn a_takeover_during_an_error_gets_the_error() {
    let (body, other) = interrupted(Script::new([Step::Fail]), 10);
    assert!(!body.can_replay());
    let error = drain(other.into_inner()).unwrap_err();
    assert_eq!(error.to_string(), "broken");
}

#[test]
fn no_handle_waits_for_a_body_that_panicked() {
    let script = Script {
        over: true,
        ..Script::default()
    };
    let (body, other) = interrupted(script, 10);
    assert!(!body.can_replay());
    let error = drain(other.into_inner()).unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&ReplayError::NotReplayable));
}

/// Yields its data, and then panics: when it is polled again, or if `ends` is set, when it is dropped.
struct Panics {
    data: Option<Bytes>,
    ends: bool,
}

impl Body for Panics {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let data = self.data.take().expect("nothing is left");
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.ends && self.data.is_none()
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        assert!(!self.is_end_stream(), "dropped at its end");
    }
}

fn panics<B: Body<Error = &'static str> + Unpin>(body: &mut ReplayBody<B>) -> bool {
    catch_unwind(AssertUnwindSafe(|| poll(body))).is_err()
}

#[test]
fn the_kept_frames_of_a_body_that_panicked_are_freed() {
    let dropped = Arc::new(Mutex::new(0));
    let data = Some(Bytes::from_owner(CountsDrops(Arc::clone(&dropped))));
    let mut body = ReplayBody::new(Panics { data, ends: false }, 10);
    let mut clone = body.clone();
    assert!(panics(&mut body));
    assert_eq!(failure(&mut body), ReplayError::NotReplayable);
    drop(body);
    let dropped = *dropped.lock().unwrap();
    assert_eq!(dropped, 1);
    assert_eq!(failure(&mut clone), ReplayError::NotReplayable);
}

#[test]
fn a_body_that_panicked_is_not_claimed() {
    let data = Some(Bytes::from("a"));
    let mut body = ReplayBody::new(Panics { data, ends: false }, 10);
    let snapshot = body.snapshot();
    assert!(panics(&mut body));
    assert!(!snapshot.can_replay());
    assert!(snapshot.claim().is_none());
}

#[test]
fn no_handle_waits_for_a_body_that_panicked_when_it_was_dropped() {
    let data = Some(Bytes::from("a"));
    let mut body = ReplayBody::new(Panics { data, ends: true }, 10);
    let mut clone = body.clone();
    assert!(panics(&mut body));
    assert!(poll(&mut clone).is_ready());
}

#[test]
fn any_type_of_data_and_error_is_supported() {
    let inner = Full::new(VecDeque::from(b"hello".to_vec())).map_err(BoxError::from);
    let body = ReplayBody::new(inner, 10);
    let clone = body.clone();
    assert_eq!(block_on(body.collect()).unwrap().to_bytes(), "hello");
    assert_eq!(block_on(clone.collect()).unwrap().to_bytes(), "hello");
}

#[test]
fn debug_shows_the_state_and_no_content() {
    let body = ReplayBody::new(full("secret"), 10);
    let debug = format!("{body:?}");
    assert_eq!(debug, "ReplayBody { kind: kept, can_replay: true, .. }");
}

#[test]
fn handles_can_be_sent_to_other_threads() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<ReplayBody<Script>>();
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let chunk = prop::collection::vec(any::<u8>(), 0..6).prop_map(|data| Step::Data(data.into()));
    let step = prop_oneof![5 => chunk, 2 => Just(Step::Pending), 1 => Just(Step::Fail)];
    let end = prop::option::of(Just(Step::Trailers(trailers("sum"))));
    (prop::collection::vec(step, 0..8), end).prop_map(|(mut steps, end)| {
        steps.extend(end);
        steps
    })
}

#[derive(Clone, Debug)]
enum Act {
    Poll(usize),
    Clone(usize),
    Drop(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..3_usize).prop_map(Act::Poll),
        2 => (0..3_usize).prop_map(Act::Clone),
        1 => (0..3_usize).prop_map(Act::Drop),
    ];
    prop::collection::vec(act, 0..40)
}

/// A handle and what it has yielded.
struct Seen {
    body: ReplayBody<Script>,
    bytes: Vec<u8>,
    trailers: Option<HeaderMap>,
    started: Option<usize>,
    ended: bool,
}

impl Seen {
    fn new(body: ReplayBody<Script>) -> Self {
        Self {
            body,
            bytes: Vec::new(),
            trailers: None,
            started: None,
            ended: false,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_replay_equals_the_original_or_fails_with_the_reason(
        steps in steps(),
        acts in acts(),
        limit in 0..40_usize,
        sized in any::<bool>(),
        knows_its_end in any::<bool>(),
    ) {
        let script = Script { sized, knows_its_end, ..Script::new(steps.clone()) };
        let whole = script.size() as u64;
        let fails = steps.iter().any(|step| matches!(step, Step::Fail));
        let bytes: Vec<u8> = steps.iter().flat_map(|step| match step {
            Step::Data(data) => data.to_vec(),
            _ => Vec::new(),
        }).collect();
        let last = steps.iter().find_map(|step| match step {
            Step::Trailers(trailers) => Some(trailers.clone()),
            _ => None,
        });
        let weight = bytes.len() + if last.is_some() { 4 } else { 0 };
        let too_large = weight > limit;

        let mut starts = 0;
        let mut handles = vec![Seen::new(ReplayBody::new(script, limit))];
        let mut acts = acts.into_iter();
        let mut last_clone = None;
        loop {
            // After all acts, one more clone is polled to its end.
            let index = match acts.next() {
                Some(Act::Poll(index)) => index % handles.len(),
                Some(Act::Clone(index)) => {
                    let clone = handles[index % handles.len()].body.clone();
                    handles.push(Seen::new(clone));
                    continue;
                }
                Some(Act::Drop(index)) if handles.len() > 1 => {
                    handles.remove(index % handles.len());
                    continue;
                }
                Some(Act::Drop(_)) => continue,
                None => *last_clone.get_or_insert_with(|| {
                    let clone = handles[0].body.clone();
                    handles.push(Seen::new(clone));
                    handles.len() - 1
                }),
            };
            let newest = handles.iter().filter_map(|handle| handle.started).max();
            let handle = &mut handles[index];
            let could_replay = handle.body.can_replay();
            let at_end = handle.body.is_end_stream();
            if sized && !handle.ended && could_replay {
                let left = whole - handle.bytes.len() as u64;
                prop_assert_eq!(handle.body.size_hint().exact(), Some(left));
            }
            let polled = poll(&mut handle.body);
            let first_poll = handle.started.is_none() && !handle.ended;
            if first_poll {
                starts += 1;
                handle.started = Some(starts);
            }
            match polled {
                Poll::Pending => {
                    prop_assert!(!at_end);
                    continue;
                }
                Poll::Ready(Some(Ok(frame))) => {
                    prop_assert!(!at_end && !handle.ended);
                    match frame.into_data() {
                        Ok(data) => {
                            handle.bytes.extend_from_slice(&data);
                            prop_assert!(bytes.starts_with(&handle.bytes));
                        }
                        Err(frame) => handle.trailers = frame.into_trailers().ok(),
                    }
                    continue;
                }
                Poll::Ready(None) => if !handle.ended {
                    prop_assert_eq!(&handle.bytes, &bytes);
                    prop_assert_eq!(&handle.trailers, &last);
                    handle.ended = true;
                },
                Poll::Ready(Some(Err(error))) => {
                    prop_assert!(!at_end && !handle.ended);
                    handle.ended = true;
                    match error.downcast_ref() {
                        Some(ReplayError::NotReplayable) => {
                            prop_assert!(first_poll && !could_replay && (too_large || fails || limit == 0));
                            // It has not become the handle that sends.
                            handle.started = None;
                        }
                        Some(ReplayError::Superseded) => prop_assert!(starts > 1 && !first_poll),
                        None => {
                            prop_assert!(fails && error.to_string() == "broken");
                            prop_assert!(!handle.body.can_replay());
                            prop_assert!(first_poll || newest == handle.started);
                        }
                    }
                }
            }
            if last_clone.is_some() {
                break;
            }
        }
    }
}

#[test]
fn take_over_stops_the_other_handles_before_any_poll() {
    let script = Script::new([
        Step::Data(Bytes::from("abc")),
        Step::Pending,
        Step::Pending,
        Step::Data(Bytes::from("much too long")),
    ]);
    let body = ReplayBody::new(script, 5);
    let snapshot = body.snapshot();
    let mut first = task::spawn(body);
    assert_ready!(first.enter(|cx, body| body.poll_frame(cx)));
    assert_pending!(first.enter(|cx, body| body.poll_frame(cx)));
    let second = snapshot.claim().unwrap();
    assert!(first.is_woken());
    let frame = assert_ready!(first.enter(|cx, body| body.poll_frame(cx)));
    let error = frame.unwrap().unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&ReplayError::Superseded));
    drop(first);
    let whole = block_on(second.collect()).unwrap().to_bytes();
    assert_eq!(whole, "abcmuch too long");
}

#[test]
fn only_a_body_that_is_kept_can_be_claimed() {
    let data = || Full::new(Bytes::from("abc"));
    let empty = ReplayBody::new(Empty::<Bytes>::new(), 0);
    assert!(empty.snapshot().claim().is_some());
    assert!(ReplayBody::new(data(), 3).snapshot().claim().is_some());
    assert!(ReplayBody::new(data(), 2).snapshot().claim().is_none());

    let script = Script::new([Step::Data(Bytes::from("abcd")), Step::Pending]);
    let body = ReplayBody::new(script, 3);
    let snapshot = body.snapshot();
    let mut first = task::spawn(body);
    assert_ready!(first.enter(|cx, body| body.poll_frame(cx)));
    assert!(snapshot.claim().is_none());
    assert_pending!(first.enter(|cx, body| body.poll_frame(cx)));

    let first = ReplayBody::new(data(), 3);
    let second = first.snapshot().claim().unwrap();
    let third = first.snapshot().claim().unwrap();
    let error = block_on(second.collect()).unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&ReplayError::Superseded));
    assert_eq!(block_on(third.collect()).unwrap().to_bytes(), "abc");
}
