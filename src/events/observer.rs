//! [`Observer`].

use std::sync::Arc;

use super::Event;

/// Gets what happens to the session of a cache, once each and in order.
///
/// Set with [`TokenCacheBuilder::observer`](crate::TokenCacheBuilder::observer). The [status](crate::TokenCache::subscribe)
/// of a cache only shows the last state: an observer misses nothing.
///
/// It is called without a lock of the cache, by the thread in which the event happened, or by one that delivers an earlier
/// event at that moment. So it may use the cache, but should not own it: neither would be dropped. It must not block: callers
/// wait for a token meanwhile. If it panics, the event is lost for this observer, and nothing else is.
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use tower_bearer::{Token, TokenCache, source_fn, events::{Event, EventKind, Observer}};
///
/// #[derive(Default)]
/// struct Alarm(Mutex<Vec<String>>);
///
/// impl Observer for Alarm {
///     fn on_event(&self, event: &Event<'_>) {
///         match event.kind {
///             EventKind::ReauthRequired => self.0.lock().unwrap().push(format!("{}: log in again", event.name)),
///             EventKind::Refreshed => self.0.lock().unwrap().clear(),
///             _ => {}
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer::TokenError> {
/// # use tower_bearer::{TokenError, TokenErrorKind};
/// let source = source_fn(|_| async {
///     Err(TokenError::new(TokenErrorKind::ReauthRequired, "the grant has ended"))
/// });
/// let alarm = Arc::new(Alarm::default());
/// let cache = TokenCache::builder(source).name("invoices").observer(Arc::clone(&alarm)).build();
/// assert!(cache.token().await.is_err());
/// assert_eq!(*alarm.0.lock().unwrap(), ["invoices: log in again"]);
/// # Ok(()) }
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Something has happened.
    fn on_event(&self, event: &Event<'_>);

    /// Whether [`on_event`](Observer::on_event) also gets [`RequestSent`](super::EventKind::RequestSent) and
    /// [`Waited`](super::EventKind::Waited). It is asked once, when the cache is built.
    ///
    /// They come with each request, from the thread that sends it, in no order with other events. Default: `false`.
    fn wants_requests(&self) -> bool {
        false
    }
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        impl<T: Observer + ?Sized> Observer for $pointer<T> {
            fn on_event(&self, event: &Event<'_>) {
                (**self).on_event(event);
            }

            fn wants_requests(&self) -> bool {
                (**self).wants_requests()
            }
        }
    )*};
}

forward!(Arc, Box);
