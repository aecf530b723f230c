//! Thousands of takeovers by handles on other threads.

use std::{
    hint,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use super::*;

struct Unpark(thread::Thread, AtomicBool);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::Release);
        self.0.unpark();
    }
}

/// Everything that a handle yields. It is polled only after wake-ups, so a lost wake-up fails the test.
fn drive<B>(mut body: ReplayBody<B>) -> Result<Vec<u8>, BoxError>
where
    B: Body<Error: Into<BoxError>> + Unpin,
{
    let unpark = Arc::new(Unpark(thread::current(), AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&unpark));
    let mut cx = Context::from_waker(&waker);
    let mut bytes = Vec::new();
    loop {
        match Pin::new(&mut body).poll_frame(&mut cx) {
            Poll::Ready(None) => return Ok(bytes),
            Poll::Ready(Some(Err(error))) => return Err(error),
            Poll::Ready(Some(Ok(frame))) => bytes.extend(frame.into_data().expect("data")),
            Poll::Pending => {
                let deadline = Instant::now() + Duration::from_secs(5);
                while !unpark.1.swap(false, Ordering::Acquire) {
                    assert!(Instant::now() < deadline, "a wake-up was lost");
                    thread::park_timeout(Duration::from_millis(100));
                }
            }
        }
    }
}

#[test]
fn one_of_several_racing_handles_sends_everything_and_the_others_fail_with_the_reason() {
    const HANDLES: usize = 3;

    for seed in 0..3_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (script, expected) = script(&mut random);
        let too_large = random.bool();
        let body = ReplayBody::new(script, expected.len() - usize::from(too_large));
        let kept = body.clone();

        let start = &Barrier::new(HANDLES);
        let results = thread::scope(|scope| {
            let threads = [(); HANDLES].map(|()| {
                let body = body.clone();
                scope.spawn(move || {
                    start.wait();
                    drive(body)
                })
            });
            threads.map(|thread| thread.join().unwrap())
        });

        let mut complete = 0;
        for result in results {
            match result {
                Ok(bytes) => {
                    assert_eq!(bytes, expected, "seed {seed}");
                    complete += 1;
                }
                Err(error) => match error.downcast_ref() {
                    Some(ReplayError::Superseded) => {}
                    Some(ReplayError::NotReplayable) => assert!(too_large, "seed {seed}"),
                    None => panic!("seed {seed}: {error}"),
                },
            }
        }
        assert!(complete >= 1, "seed {seed}");
        assert_eq!(kept.can_replay(), !too_large, "seed {seed}");
        assert_eq!(drain(kept).is_ok(), !too_large, "seed {seed}");
    }
}

pub(super) fn script(random: &mut fastrand::Rng) -> (Script, Vec<u8>) {
    let mut expected = vec![1, 2];
    let mut steps = vec![Step::Data(Bytes::from_static(&[1, 2]))];
    for _ in 0..random.usize(..12) {
        if random.bool() {
            steps.push(Step::Yield);
        } else {
            let data: Vec<u8> = (0..random.usize(..20)).map(|_| random.u8(..)).collect();
            expected.extend_from_slice(&data);
            steps.push(Step::Data(data.into()));
        }
    }
    let script = Script {
        knows_its_end: random.bool(),
        ..Script::new(steps)
    };
    (script, expected)
}

/// Counts how often a handle is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_handle_that_begins_to_wait_during_a_takeover_fails_or_is_woken() {
    const ROUNDS: usize = 20_000;

    // What is to be claimed, and what was, passed between two threads for each round.
    let (give, receive) = mpsc::sync_channel::<BodySnapshot<Script>>(0);
    let (give_back, claims) = mpsc::sync_channel(0);
    let claiming = thread::spawn(move || {
        for snapshot in receive {
            give_back.send(snapshot.claim()).unwrap();
        }
    });
    for round in 0..ROUNDS {
        let mut body = ReplayBody::new(Script::new([Step::Pending, data("a")]), 10);
        let woken = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&woken));
        give.send(body.snapshot()).unwrap();
        // The other thread has to wake up first.
        for _ in 0..round % 2_000 {
            hint::spin_loop();
        }
        let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker));
        let mut claimed = claims.recv().unwrap().unwrap();
        let is_woken = woken.0.load(Ordering::SeqCst) > 0;
        // If it has started last, the claimed handle is the one that fails.
        if polled.is_pending() && !is_woken {
            assert_eq!(
                failure(&mut claimed),
                ReplayError::Superseded,
                "round {round}"
            );
        }
    }
    drop(give);
    claiming.join().unwrap();
}

#[test]
fn a_waiting_handle_is_woken_even_if_superseded_ones_are_polled_during_the_takeover() {
    for round in 0..300 {
        let mut waiting =
            ReplayBody::new(Script::new([data("a"), Step::Pending, Step::Pending]), 10);
        let mut superseded: Vec<_> = (0..100).map(|_| waiting.clone()).collect();
        for body in superseded.iter_mut().chain([&mut waiting]) {
            assert_eq!(next(body), "a");
        }
        let woken = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&woken));
        assert_pending!(Pin::new(&mut waiting).poll_frame(&mut Context::from_waker(&waker)));
        let snapshot = waiting.snapshot();
        let start = &Barrier::new(2);
        let claimed = thread::scope(|scope| {
            scope.spawn(move || {
                start.wait();
                for mut body in superseded {
                    assert_eq!(failure(&mut body), ReplayError::Superseded);
                }
            });
            start.wait();
            snapshot.claim()
        });
        assert!(claimed.is_some());
        assert_eq!(woken.0.load(Ordering::SeqCst), 1, "round {round}");
    }
}

/// A body whose frames come from another thread.
struct Channel(tokio::sync::mpsc::UnboundedReceiver<Result<Bytes, &'static str>>);

impl Body for Channel {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let received = self.0.poll_recv(cx);
        received.map(|next| next.map(|data| data.map(Frame::data)))
    }
}

#[test]
fn handles_that_take_over_while_frames_arrive_lose_and_repeat_nothing() {
    const HANDLES: usize = 3;

    for seed in 0..2_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let frames: Vec<u8> = (0..random.u8(2..20)).collect();
        let (too_large, fails) = (random.u8(..4) == 0, random.u8(..4) == 0);
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let body = ReplayBody::new(Channel(receiver), frames.len() - usize::from(too_large));
        let pauses: Vec<u32> = (0..=HANDLES).map(|_| random.u32(..3_000)).collect();
        let pause = |count| (0..count).for_each(|_| hint::spin_loop());
        let (start, frames) = (&Barrier::new(HANDLES + 1), &frames);

        let results = thread::scope(|scope| {
            let threads = [0, 1, 2].map(|index| {
                let (other, snapshot) = (body.clone(), body.snapshot());
                let (is_claimed, before) = (random.bool(), pauses[index]);
                scope.spawn(move || {
                    start.wait();
                    pause(before);
                    if is_claimed {
                        snapshot.claim().map(drive)
                    } else {
                        Some(drive(other))
                    }
                })
            });
            start.wait();
            for &frame in frames {
                pause(pauses[HANDLES] / 10);
                // The receiver is gone if the handle that went on alone has been dropped.
                sender.send(Ok(Bytes::from(vec![frame]))).ok();
            }
            if fails {
                sender.send(Err("broken")).ok();
            }
            drop(sender);
            threads.map(|thread| thread.join().unwrap())
        });

        let mut complete = 0;
        for result in results {
            match result {
                Some(Ok(bytes)) => {
                    assert_eq!(bytes, *frames, "seed {seed}");
                    complete += 1;
                }
                None => assert!(too_large || fails, "seed {seed}"),
                Some(Err(error)) => match error.downcast_ref() {
                    Some(ReplayError::Superseded) => {}
                    Some(ReplayError::NotReplayable) => assert!(too_large || fails, "seed {seed}"),
                    None => {
                        assert!(
                            fails && error.to_string() == "broken",
                            "seed {seed}: {error}"
                        );
                        complete += 1;
                    }
                },
            }
        }
        assert!(complete >= 1, "seed {seed}");
        assert!(!fails || complete == 1, "seed {seed}");
    }
}
