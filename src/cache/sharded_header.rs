//! The same header value as often as there are processors.
//!
//! To put a token on a request is to raise a reference count, and to drop the request is to lower it. If all threads did
//! that to the same count, they would wait for each other's writes to reach them, although they have nothing to tell.

use std::{
    cell::Cell,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use bytes::Bytes;
use http::HeaderValue;

/// More than this, and a session would be large on large machines.
const MOST: usize = 8;

/// Clones of a header value that share its bytes, but no reference count. A power of two of them.
#[derive(Clone)]
pub(super) struct Spread(Arc<[HeaderValue]>);

impl Spread {
    pub(super) fn of(value: &HeaderValue) -> Self {
        static PLACES: OnceLock<usize> = OnceLock::new();
        let places = *PLACES.get_or_init(|| {
            let processors = thread::available_parallelism().map_or(1, usize::from);
            processors.next_power_of_two().min(MOST)
        });
        Self((0..places).map(|_| apart(value)).collect())
    }

    /// The one that this thread uses.
    #[inline]
    pub(super) fn here(&self) -> &HeaderValue {
        &self.0[place() & (self.0.len() - 1)]
    }
}

/// What a reference count is kept beside: nothing else that is written to is so near.
#[repr(align(64))]
struct Apart(HeaderValue);

impl AsRef<[u8]> for Apart {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn apart(value: &HeaderValue) -> HeaderValue {
    let bytes = Bytes::from_owner(Apart(value.clone()));
    // It is one already.
    let mut apart = HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| value.clone());
    apart.set_sensitive(value.is_sensitive());
    apart
}

/// A number that neighbouring threads don't share.
#[inline]
fn place() -> usize {
    const NONE: usize = usize::MAX;
    thread_local! {
        static PLACE: Cell<usize> = const { Cell::new(NONE) };
    }
    #[cold]
    fn next() -> usize {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed) % NONE;
        PLACE.set(next);
        next
    }
    match PLACE.get() {
        NONE => next(),
        place => place,
    }
}

impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spread").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    #[test]
    fn all_are_the_same_value_in_the_same_memory() {
        let token = Token::new("abc").unwrap();
        let spread = Spread::of(token.header());
        assert!(spread.0.len().is_power_of_two() && spread.0.len() <= MOST);
        for value in spread.0.iter() {
            assert_eq!(value, "Bearer abc");
            assert!(value.is_sensitive() && value.clone().is_sensitive());
            assert_eq!(
                value.as_bytes().as_ptr(),
                token.header().as_bytes().as_ptr()
            );
        }
        assert!(!format!("{spread:?}").contains("abc"));
    }

    #[test]
    fn a_thread_stays_at_its_place_and_the_next_has_another() {
        let places = || (place(), place());
        let (here, again) = places();
        assert_eq!(here, again);
        let others: Vec<_> = (0..4)
            .map(|_| thread::spawn(places).join().unwrap())
            .collect();
        for (number, (there, again)) in others.iter().enumerate() {
            assert_eq!(there, again);
            assert!(*there != here && others[..number].iter().all(|(it, _)| it != there));
        }
    }
}
