//! Thousands of takeovers by handles on other threads.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
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
fn drive(mut body: ReplayBody<Script>) -> Result<Vec<u8>, BoxError> {
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
