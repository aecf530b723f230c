use http::HeaderMap;
use http_body_util::Full;
use proptest::prelude::*;
use tokio_test::{assert_pending, assert_ready, block_on, task};

use super::*;

type Item = Result<Frame<Bytes>, &'static str>;

/// A body of these frames, where `None` is pending. It panics if it is polled after its end.
struct Frames {
    items: VecDeque<Option<Item>>,
    size: Option<u64>,
    polls: usize,
    over: bool,
}

fn frames(items: impl IntoIterator<Item = Option<Item>>) -> Frames {
    Frames {
        items: items.into_iter().collect(),
        size: None,
        polls: 0,
        over: false,
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Item>> {
        assert!(!self.over, "polled after its end");
        self.polls += 1;
        let Some(item) = self.items.pop_front() else {
            self.over = true;
            return Poll::Ready(None);
        };
        let Some(item) = item else {
            return Poll::Pending;
        };
        if let (Some(size), Ok(frame)) = (&mut self.size, &item) {
            *size -= frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(Some(item))
    }

    fn size_hint(&self) -> SizeHint {
        self.size.map(SizeHint::with_exact).unwrap_or_default()
    }
}

#[allow(clippy::unnecessary_wraps)]
fn data(text: &str) -> Option<Item> {
    Some(Ok(Frame::data(Bytes::copy_from_slice(text.as_bytes()))))
}

#[allow(clippy::unnecessary_wraps)]
fn trailers() -> Option<Item> {
    let map = HeaderMap::from_iter([("sum".parse().unwrap(), "1".parse().unwrap())]);
    Some(Ok(Frame::trailers(map)))
}

fn full(text: &'static str) -> Full<Bytes> {
    Full::from(text)
}

/// A frame or an error as text.
fn words(item: Item) -> String {
    match item {
        Ok(frame) if frame.is_trailers() => "trailers".into(),
        Ok(frame) => format!("{:?}", frame.into_data().unwrap()),
        Err(error) => error.into(),
    }
}

fn drain<B: Body<Data = Bytes, Error = &'static str>>(body: B) -> Vec<String> {
    let mut body = task::spawn(body);
    let mut seen = Vec::new();
    loop {
        match body.enter(|cx, body| body.poll_frame(cx)) {
            Poll::Pending => {}
            Poll::Ready(None) => return seen,
            Poll::Ready(Some(item)) => seen.push(words(item)),
        }
    }
}

#[test]
fn the_beginning_is_cut_at_the_limit_but_the_body_stays_whole() {
    let body = frames([data("abc"), data("defg"), data("h")]);
    let (beginning, body) = block_on(PeekBody::new(body, 5).peek());
    assert_eq!(beginning, "abcde");
    assert_eq!(body.get_ref().polls, 2, "it reads no more than needed");
    assert_eq!(drain(body), [r#"b"abc""#, r#"b"defg""#, r#"b"h""#]);
}

#[test]
fn peeking_into_one_frame_copies_nothing() {
    let sent = Bytes::from(vec![b'x'; 100]);
    for (limit, seen) in [(1000, 100), (7, 7)] {
        let (beginning, _) = block_on(PeekBody::new(Full::new(sent.clone()), limit).peek());
        assert_eq!(beginning.as_ptr(), sent.as_ptr());
        assert_eq!(beginning.len(), seen);
    }
}

#[test]
fn an_error_keeps_its_position() {
    let body = frames([data("ab"), Some(Err("broken")), data("c")]);
    let (beginning, body) = block_on(PeekBody::new(body, 100).peek());
    assert_eq!(beginning, "ab");
    assert!(!body.is_end_stream());
    assert_eq!(drain(body), [r#"b"ab""#, "broken", r#"b"c""#]);
}

#[test]
fn trailers_keep_their_position_and_end_the_peek() {
    let body = frames([data("ab"), trailers()]);
    let (beginning, body) = block_on(PeekBody::new(body, 100).peek());
    assert_eq!(beginning, "ab");
    assert_eq!(body.get_ref().polls, 2);
    assert_eq!(drain(body), [r#"b"ab""#, "trailers"]);
}

#[test]
fn a_limit_of_zero_reads_nothing_ahead() {
    let (beginning, body) = block_on(PeekBody::new(frames([data("ab")]), 0).peek());
    assert!(beginning.is_empty());
    assert_eq!(body.get_ref().polls, 0);
    assert_eq!(drain(body), [r#"b"ab""#]);
}

#[test]
fn an_endless_series_of_empty_frames_is_bounded_by_the_limit() {
    let body = frames(std::iter::repeat_with(|| data("")).take(1000));
    let (_, body) = block_on(PeekBody::new(body, 10).peek());
    assert_eq!(body.get_ref().polls, 10);
}

#[test]
fn a_body_that_reports_its_end_is_not_polled_again() {
    /// `Full`, but it panics if it is polled after its end.
    struct Strict(Full<Bytes>);

    impl Body for Strict {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            assert!(!self.is_end_stream(), "polled after its end");
            Pin::new(&mut self.0).poll_frame(cx)
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_end_stream()
        }

        fn size_hint(&self) -> SizeHint {
            self.0.size_hint()
        }
    }

    let (_, body) = block_on(PeekBody::new(Strict(full("ab")), 100).peek());
    assert!(!body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(2));
    let mut body = task::spawn(body);
    let frame = assert_ready!(body.enter(|cx, body| body.poll_frame(cx)));
    assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "ab");
    assert!(body.is_end_stream());
}

#[test]
fn a_pending_peek_continues_where_it_stopped() {
    let mut peek = task::spawn(PeekBody::new(frames([data("a"), None, data("b")]), 9).peek());
    assert_pending!(peek.poll());
    let (beginning, body) = assert_ready!(peek.poll());
    assert_eq!(beginning, "ab");
    assert_eq!(drain(body), [r#"b"a""#, r#"b"b""#]);
}

/// A body that is not `Unpin`.
#[derive(Clone)]
struct Pinned(&'static str, std::marker::PhantomPinned);

impl Body for Pinned {
    type Data = &'static [u8];
    type Error = &'static str;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<&'static [u8]>, &'static str>>> {
        Poll::Ready(Some(Ok(Frame::data(self.0.as_bytes()))))
    }
}

#[test]
fn poll_peek_works_on_a_body_that_is_not_unpin() {
    let body = Pinned("ab", std::marker::PhantomPinned);
    let mut body = task::spawn(PeekBody::new(body, 3));
    assert_ready!(body.enter(|cx, body| body.poll_peek(cx)));
    let beginning = body.enter(|_, body| body.as_ref().beginning());
    assert_eq!(beginning, "aba");
    let mut seen = Vec::new();
    for _ in 0..3 {
        let frame = assert_ready!(body.enter(|cx, body| body.poll_frame(cx)));
        seen.push(frame.unwrap().unwrap().into_data().unwrap());
    }
    assert_eq!(seen, ["ab", "ab", "ab"]);
}

fn items() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..6_u8, 0..12)
}

/// 0 is pending, 5 is an error, and any other number is data of that length minus one.
fn build(items: &[u8], trailing: bool, sized: bool) -> Frames {
    let item = |&item: &u8| match item {
        0 => None,
        5 => Some(Err("broken")),
        size => data(&"xyz"[..usize::from(size) - 1]),
    };
    let mut frames = frames(items.iter().map(item).chain(trailing.then(trailers)));
    frames.size = sized.then(|| {
        let data = items.iter().filter(|item| (1..5).contains(*item));
        data.map(|&size| u64::from(size) - 1).sum()
    });
    frames
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_body_is_the_same_after_a_peek(
        items in items(),
        trailing in any::<bool>(),
        sized in any::<bool>(),
        limit in 0..12_usize,
    ) {
        let expected = drain(build(&items, trailing, sized));
        let body = build(&items, trailing, sized);
        let whole = body.size_hint().exact();

        let mut peek = task::spawn(PeekBody::new(body, limit).peek());
        let (beginning, body) = loop {
            if let Poll::Ready(ready) = peek.poll() {
                break ready;
            }
        };
        prop_assert!(beginning.len() <= limit);
        let ended = body.get_ref().over;
        let hint = body.size_hint().exact();
        prop_assert!(hint == whole || (!sized && ended));
        let data = b"xyz";
        let text: Vec<u8> = items.iter().take_while(|item| **item != 5).filter(|item| **item > 0)
            .flat_map(|&size| data[..usize::from(size) - 1].iter().copied()).collect();
        prop_assert!(text.starts_with(&beginning));
        prop_assert_eq!(drain(body), expected);
    }
}
