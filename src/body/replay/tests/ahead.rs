//! The second frame is read together with the first, if it is there at once.

use super::*;

/// Counts how often the body is polled.
struct Counted(Arc<Mutex<u32>>, Script);

impl Body for Counted {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        *self.0.lock().unwrap() += 1;
        Pin::new(&mut self.1).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.1.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.1.size_hint()
    }
}

/// How often the body has been polled after each poll of a handle, until the handle has finished.
fn polls(script: Script, limit: usize) -> Vec<u32> {
    let polls = Arc::new(Mutex::new(0));
    let mut body = ReplayBody::new(Counted(Arc::clone(&polls), script), limit);
    let mut counts = Vec::new();
    while !body.is_end_stream() {
        let is_end = matches!(poll(&mut body), Poll::Ready(None));
        counts.push(*polls.lock().unwrap());
        if is_end {
            break;
        }
    }
    counts
}

#[test]
fn a_body_of_one_frame_ends_with_it_even_if_it_does_not_know_its_end() {
    let mut body = ReplayBody::new(Script::new([data("a")]), 10);
    let mut clone = body.clone();
    for body in [&mut body, &mut clone] {
        assert_eq!(next(body), "a");
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(assert_ready!(poll(body)).is_none());
    }
}

#[test]
fn at_most_one_frame_is_read_ahead() {
    let script = Script::new([data("a"), data("b"), data("c"), data("d")]);
    assert_eq!(polls(script, 10), [2, 2, 3, 4, 5]);
}

#[test]
fn a_frame_is_not_held_back_for_the_next_one() {
    let script = Script::new([data("a"), Step::Pending, data("b")]);
    let mut body = ReplayBody::new(script, 10);
    assert_eq!(next(&mut body), "a");
    assert!(!body.is_end_stream());
    assert_eq!(next(&mut body), "b");
    assert!(!body.is_end_stream());
    assert!(assert_ready!(poll(&mut body)).is_none());
}

#[test]
fn nothing_is_read_ahead_if_the_body_says_where_it_ends() {
    let one = || Script::new([data("a")]);
    let two = || Script::new([data("a"), data("b")]);
    let sized = |script| Script {
        sized: true,
        ..script
    };
    let knows_its_end = |script| Script {
        knows_its_end: true,
        ..script
    };
    assert_eq!(polls(sized(one()), 10), [1, 2]);
    assert_eq!(polls(sized(two()), 10), [1, 2, 3]);
    assert_eq!(polls(knows_its_end(one()), 10), [1]);
}

#[test]
fn nothing_is_read_ahead_of_a_body_that_is_not_kept() {
    let script = || Script::new([data("abc"), data("d")]);
    assert_eq!(polls(script(), 0), [1, 2, 3]);
    assert_eq!(polls(script(), 2), [1, 2, 3]);
}

#[test]
fn empty_frames_are_sent_in_their_order() {
    let script = Script::new([data(""), data(""), data("a"), data("")]);
    let mut body = ReplayBody::new(script, 10);
    for expected in ["", "", "a", ""] {
        assert!(!body.is_end_stream());
        assert_eq!(next(&mut body), expected);
    }
    assert_eq!(drain(body.clone()).unwrap().0, b"a");
}

#[test]
fn a_frame_that_was_read_ahead_is_sent_by_the_handle_that_takes_over() {
    for is_claimed in [false, true] {
        let script = Script::new([data("a"), data("b"), data("c")]);
        let mut first = ReplayBody::new(script, 10);
        assert_eq!(next(&mut first), "a");
        let second = if is_claimed {
            first.snapshot().claim().unwrap()
        } else {
            first.clone()
        };
        assert_eq!(drain(second).unwrap().0, b"abc");
        assert_eq!(failure(&mut first), ReplayError::Superseded);
    }
}

#[test]
fn a_frame_that_was_read_ahead_counts_against_the_limit_when_it_is_sent() {
    let mut body = ReplayBody::new(Script::new([data("ab"), data("cd"), data("ef")]), 3);
    assert_eq!(next(&mut body), "ab");
    let mut second = body.snapshot().claim().unwrap();
    assert_eq!(next(&mut second), "ab");
    assert!(second.can_replay());
    assert_eq!(next(&mut second), "cd");
    assert!(!second.can_replay());
    assert_eq!(drain(second).unwrap().0, b"ef");
}

#[test]
fn an_error_that_was_read_ahead_follows_the_frame() {
    let mut body = ReplayBody::new(Script::new([data("a"), Step::Fail]), 10);
    let mut clone = body.clone();
    assert_eq!(next(&mut body), "a");
    assert!(!body.is_end_stream());
    // A replay would fail with the same error.
    assert_eq!(failure(&mut clone), ReplayError::NotReplayable);
    let error = assert_ready!(poll(&mut body)).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "broken");
    assert!(assert_ready!(poll(&mut body)).is_none());
    assert!(!body.is_end_stream());
}

#[test]
fn trailers_that_were_read_ahead_follow_the_data() {
    let mut body = ReplayBody::new(
        Script::new([data("a"), Step::Trailers(trailers("sum"))]),
        10,
    );
    assert_eq!(next(&mut body), "a");
    assert!(!body.is_end_stream());
    let clone = body.clone();
    assert_eq!(drain(body).unwrap().1, Some(trailers("sum")));
    assert_eq!(drain(clone).unwrap().1, Some(trailers("sum")));
}

#[test]
fn reading_ahead_leaves_the_newest_waker_with_the_body() {
    let script = Script::new([data("a"), Step::Yield, data("b")]);
    let mut body = task::spawn(ReplayBody::new(script, 10));
    assert_ready!(body.enter(|cx, body| body.poll_frame(cx)));
    assert!(body.is_woken());
}
