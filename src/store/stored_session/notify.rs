//! Which saves other processes are told of.

use super::StoredSession;

/// For stores that notify other processes.
impl StoredSession {
    /// Whether a store tells other processes when it saves this session, if it can: see
    /// [`TokenStore::changes`](crate::TokenStore::changes).
    ///
    /// It is `true` for what a running process would otherwise notice too late: a new login, an import, a revocation, and a
    /// session that lives again although it was declared dead. A refresh is none of them, and neither is what the store
    /// has returned: it is about a save, so it is not stored.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::{Identity, StoredSession};
    ///
    /// let import = StoredSession::new(Identity::new("refresh", "the-refresh-token"));
    /// assert!(import.should_notify());
    ///
    /// let json = serde_json::to_string(&import)?;
    /// let loaded: StoredSession = serde_json::from_str(&json)?;
    /// assert!(!loaded.should_notify());
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn should_notify(&self) -> bool {
        self.is_news
    }
}
