//! What a replayable body costs beside what it holds.

use allocation_counter::measure;
use bytes::Bytes;
use http_body::Body;
use http_body_util::{Empty, Full};
use std::{hint::black_box, pin::Pin, task::Context};
use tower_bearer::body::{REPLAY_LIMIT, ReplayBody};

fn drain<B>(mut body: B)
where
    B: Body + Unpin,
    B::Error: std::fmt::Debug,
{
    let mut cx = Context::from_waker(std::task::Waker::noop());
    while !body.is_end_stream() {
        match Pin::new(&mut body).poll_frame(&mut cx) {
            std::task::Poll::Ready(Some(frame)) => drop(black_box(frame.unwrap())),
            _ => break,
        }
    }
}

#[test]
fn an_empty_body_costs_no_allocation() {
    let cost = measure(|| {
        let body = ReplayBody::new(Empty::<Bytes>::new(), REPLAY_LIMIT);
        let clone = body.clone();
        drain(body);
        drain(clone);
    });
    assert_eq!(cost.count_total, 0);
}

#[test]
fn a_body_that_is_passed_through_costs_no_allocation() {
    let data = Bytes::from_static(b"hello");
    let cost = measure(|| {
        for limit in [0, 4] {
            let body = ReplayBody::new(Full::new(data.clone()), limit);
            let clone = black_box(body.clone());
            drain(body);
            drop(clone);
        }
    });
    assert_eq!(cost.count_total, 0);
}

#[test]
fn a_body_of_one_chunk_costs_one_allocation_and_its_replay_none() {
    let data = Bytes::from_static(b"hello");
    let mut kept = None;
    let cost = measure(|| {
        let body = ReplayBody::new(Full::new(data.clone()), REPLAY_LIMIT);
        kept = Some(body.clone());
        drain(body);
    });
    assert_eq!(cost.count_total, 1);
    let cost = measure(|| drain(kept.take().unwrap()));
    assert_eq!(cost.count_total, 0);
}

#[test]
fn a_stream_without_end_takes_no_more_memory_than_its_limit() {
    struct Chunks(u32);
    impl Body for Chunks {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            self.0 -= 1;
            let chunk = Bytes::from(vec![1; 16 * 1024]);
            std::task::Poll::Ready((self.0 > 0).then(|| Ok(http_body::Frame::data(chunk))))
        }
    }
    let cost = measure(|| {
        let body = ReplayBody::new(Chunks(10_000), REPLAY_LIMIT);
        let clone = body.clone();
        drain(body);
        drop(clone);
    });
    // The kept chunks, the one that exceeds, the one that is next, and some bookkeeping.
    assert!(cost.bytes_max < 7 * 16 * 1024, "{} bytes", cost.bytes_max);
    assert_eq!(cost.bytes_current, 0);
}
