//! A token as the cache holds it.

use std::{
    cell::Cell,
    fmt,
    num::NonZeroUsize,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Uri};

use super::rejection::{Rejection, SentToken};
use crate::{
    clock::Clock,
    error::{TokenError, TokenErrorKind},
    freshness::{Deadline, Deadlines, Freshness},
    token::{Expires, Token},
};

/// Numbers the tokens of all caches of the process: a rejection can come through a policy over another cache. The same
/// secret, issued again, keeps its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(NonZeroUsize);

impl Generation {
    pub(super) fn next() -> Self {
        static ISSUED: AtomicUsize = AtomicUsize::new(0);
        let before = ISSUED.fetch_add(1, Ordering::Relaxed);
        Self(NonZeroUsize::MIN.saturating_add(before))
    }

    /// The number, for events.
    pub(super) fn number(self) -> u64 {
        self.0.get() as u64
    }
}

/// A token as the cache holds it.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(super) token: Token,
    headers: ShardedHeader,
    pub(super) generation: Generation,
    pub(super) deadlines: Deadlines,
    /// The deadlines without regard to rejections.
    scheduled: Deadlines,
    /// When it ends by the wall clock, computed once when it came.
    pub(super) expires_at: Option<SystemTime>,
    pub(super) lifetime: Option<Duration>,
    /// The API has accepted it at least once.
    accepted: AtomicBool,
    /// The API has rejected it, and no other token has come since.
    pub(super) rejection: Option<Rejection>,
}

impl Issued {
    pub(super) fn new(
        token: Token,
        generation: Generation,
        deadlines: Deadlines,
        expires: Option<Expires>,
    ) -> Self {
        Self {
            headers: ShardedHeader::new(token.header()),
            token,
            generation,
            deadlines,
            scheduled: deadlines,
            expires_at: expires.map(|expires| expires.wall),
            lifetime: expires.map(|expires| expires.lifetime),
            accepted: AtomicBool::new(false),
            rejection: None,
        }
    }

    /// The same token with a refresh that is due at `due`.
    pub(super) fn due_at(&self, due: Deadline) -> Self {
        Self {
            deadlines: self.scheduled.due_at(due),
            ..self.copy()
        }
    }

    /// The same token after the API has rejected it.
    pub(super) fn rejected(&self, rejection: Rejection) -> Self {
        Self {
            rejection: Some(rejection),
            ..self.copy()
        }
    }

    /// The same token after the API has accepted it in spite of an earlier rejection.
    pub(super) fn accepted_after_all(&self) -> Self {
        Self {
            deadlines: self.scheduled,
            accepted: AtomicBool::new(true),
            rejection: None,
            ..self.copy()
        }
    }

    fn copy(&self) -> Self {
        Self {
            token: self.token.clone(),
            headers: self.headers.clone(),
            generation: self.generation,
            deadlines: self.deadlines,
            scheduled: self.scheduled,
            expires_at: self.expires_at,
            lifetime: self.lifetime,
            accepted: AtomicBool::new(self.is_accepted()),
            rejection: self.rejection,
        }
    }

    #[inline]
    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    /// The value of the `Authorization` header.
    #[inline]
    pub(crate) fn header(&self) -> &HeaderValue {
        self.headers.of_this_thread()
    }

    /// What a request to `uri` remembers of the token.
    #[inline]
    pub(crate) fn sent_to(&self, uri: &Uri) -> SentToken {
        if self.is_accepted() && self.rejection.is_none() {
            SentToken::settled(self.generation)
        } else {
            SentToken::unsettled(self.generation, self.rejection, uri)
        }
    }

    #[inline]
    pub(crate) fn is_rejected(&self) -> bool {
        self.rejection.is_some()
    }

    #[inline]
    pub(super) fn is_accepted(&self) -> bool {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Remembers that the API accepted the token. Writes only once, so that processors keep sharing the cache line.
    pub(super) fn accept(&self) {
        if !self.is_accepted() {
            self.accepted.store(true, Ordering::Relaxed);
        }
    }

    /// Fails if this is the rejected token again.
    pub(crate) fn check_differs_from(&self, rejected: Generation) -> Result<(), TokenError> {
        if self.generation != rejected {
            return Ok(());
        }
        let message = "the token source returned the rejected token again; is it a fixed token, or does the server cache it?";
        Err(TokenError::new(TokenErrorKind::Rejected, message))
    }

    #[inline]
    pub(super) fn freshness(&self, clock: &Clock) -> Freshness {
        if self.deadlines.any() {
            self.deadlines.freshness(clock.now())
        } else {
            Freshness::Fresh
        }
    }
}

/// Bounds the size of a session on machines with many processors.
const MAX_SHARDS: usize = 8;

/// One header value for each processor.
///
/// Adding a token to a request raises a reference count, and dropping the request lowers it. If all threads did that to
/// the same count, each would wait for the others' writes. These clones share their bytes, but have counts of their own.
/// Their number is a power of two.
#[derive(Clone)]
struct ShardedHeader(Arc<[HeaderValue]>);

impl ShardedHeader {
    fn new(value: &HeaderValue) -> Self {
        static SHARDS: OnceLock<usize> = OnceLock::new();
        let shards = *SHARDS.get_or_init(|| {
            let processors = thread::available_parallelism().map_or(1, usize::from);
            processors.next_power_of_two().min(MAX_SHARDS)
        });
        Self((0..shards).map(|_| shard(value)).collect())
    }

    #[inline]
    fn of_this_thread(&self) -> &HeaderValue {
        &self.0[thread_number() & (self.0.len() - 1)]
    }
}

/// Aligned so that nothing else that is written to shares the cache line of the reference count.
#[repr(align(64))]
struct Aligned(HeaderValue);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn shard(value: &HeaderValue) -> HeaderValue {
    let bytes = Bytes::from_owner(Aligned(value.clone()));
    // The bytes are those of a header value, so this does not fail.
    let mut shard = HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| value.clone());
    shard.set_sensitive(value.is_sensitive());
    shard
}

/// Numbers the threads in the order in which they first ask.
#[inline]
fn thread_number() -> usize {
    const UNSET: usize = usize::MAX;
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(UNSET) };
    }
    #[cold]
    fn assign() -> usize {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % UNSET;
        NUMBER.set(number);
        number
    }
    match NUMBER.get() {
        UNSET => assign(),
        number => number,
    }
}

impl fmt::Debug for ShardedHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ShardedHeader").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    #[test]
    fn all_shards_have_the_same_value_in_the_same_memory() {
        let token = Token::new("abc").unwrap();
        let sharded = ShardedHeader::new(token.header());
        assert!(sharded.0.len().is_power_of_two() && sharded.0.len() <= MAX_SHARDS);
        for value in sharded.0.iter() {
            assert_eq!(value, "Bearer abc");
            assert!(value.is_sensitive() && value.clone().is_sensitive());
            assert_eq!(
                value.as_bytes().as_ptr(),
                token.header().as_bytes().as_ptr()
            );
        }
        assert!(!format!("{sharded:?}").contains("abc"));
    }

    #[test]
    fn a_thread_keeps_its_number_and_the_next_thread_has_another() {
        let numbers = || (thread_number(), thread_number());
        let (here, again) = numbers();
        assert_eq!(here, again);
        let others: Vec<_> = (0..4)
            .map(|_| thread::spawn(numbers).join().unwrap())
            .collect();
        for (number, (there, again)) in others.iter().enumerate() {
            assert_eq!(there, again);
            assert!(*there != here && others[..number].iter().all(|(it, _)| it != there));
        }
    }
}
