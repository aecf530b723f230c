//! The session of a [`RedisStore`]: a string that a script replaces.

use redis::cmd;

use super::{RedisStore, millis};
use crate::{
    error::{TokenError, TokenErrorKind},
    store::{
        StoredSession,
        format::{self, Encoded},
        version_mismatch,
    },
};

/// Replaces ARGV[1] by ARGV[2]. An empty ARGV[1] means that nothing is stored. Succeeds as well if ARGV[2] is stored
/// already. Then tells those that listen to the channel ARGV[4], if it is not empty, of the session ARGV[5]. That may be
/// forbidden, which does not undo the save. If it succeeds, the owner ARGV[6] no longer has the lease KEYS[2].
const COMPARE_AND_SET: &str = "\
local stored = redis.call('GET', KEYS[1])
if stored ~= ARGV[2] then
  if (stored or '') ~= ARGV[1] then return 0 end
  if ARGV[3] == '' then
    redis.call('SET', KEYS[1], ARGV[2])
  else
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  end
  if ARGV[4] ~= '' then redis.pcall('PUBLISH', ARGV[4], ARGV[5]) end
end
if ARGV[6] ~= '' then
  local owner = redis.call('GET', KEYS[2])
  if owner == ARGV[6] or owner == ARGV[6] .. '+' then redis.call('DEL', KEYS[2]) end
end
return 1";

/// What is stored, as its reader or writer knows it.
pub(super) struct Known {
    /// 0 if nothing is stored.
    version: u64,
    /// Empty if nothing is stored.
    text: Encoded,
}

impl RedisStore {
    pub(super) async fn read(&self) -> Result<Option<Encoded>, TokenError> {
        let mut get = cmd("GET");
        get.arg(self.key("session"));
        let stored: Option<Vec<u8>> = self.run(&get).await?;
        Ok(stored.map(Encoded::new))
    }

    /// Replaces the session of version `replaces` by `session`. The lease of the owner `releases`, if there is one, is
    /// released with it. Returns `false` if this save had been done before; then no lease is released.
    ///
    /// `known` is what was stored when the caller last looked. If that has the version, it need not be read again.
    pub(super) async fn save(
        &self,
        known: &mut Option<Known>,
        replaces: u64,
        session: &StoredSession,
        releases: &str,
    ) -> Result<bool, TokenError> {
        let new = format::encode(session)?;
        let version = session.version();
        let before = known.take_if(|known| known.version == replaces);
        if let Some(before) = before
            && self.replace(&before.text, &new, session, releases).await?
        {
            *known = Some(Known { version, text: new });
            return Ok(true);
        }
        let stored = self.read().await?;
        if stored.as_ref() == Some(&new) {
            return Ok(false);
        }
        let (_, stored) = self.decode(stored)?;
        if stored.version != replaces {
            return Err(version_mismatch(replaces, stored.version));
        }
        if self.replace(&stored.text, &new, session, releases).await? {
            *known = Some(Known { version, text: new });
            return Ok(true);
        }
        let message = "another session was saved at the same time";
        Err(TokenError::new(TokenErrorKind::LeaseLost, message))
    }

    /// Replaces `stored` by `new`, which is `session`. Returns `false` if something else is stored.
    ///
    /// It does not matter whether the lease is still held. If it is lost and no other process has saved, this session may
    /// have the only refresh token that is still valid. The new holder's own save then fails before it has sent a refresh
    /// token, and it loads this session.
    async fn replace(
        &self,
        stored: &[u8],
        new: &[u8],
        session: &StoredSession,
        releases: &str,
    ) -> Result<bool, TokenError> {
        let ttl = self.session_ttl.map(millis);
        let mut compare_and_set = cmd("EVAL");
        compare_and_set
            .arg(COMPARE_AND_SET)
            .arg(2)
            .arg(self.key("session"))
            .arg(self.key("lease"))
            .arg(stored)
            .arg(new)
            .arg(ttl.map_or(String::new(), |ttl| ttl.to_string()));
        if session.should_notify() {
            compare_and_set.arg(self.channel()).arg(&self.name);
        } else {
            compare_and_set.arg("").arg("");
        }
        compare_and_set.arg(releases);
        self.run(&compare_and_set).await
    }

    /// Reads what is stored.
    pub(super) fn decode(
        &self,
        stored: Option<Encoded>,
    ) -> Result<(Option<StoredSession>, Known), TokenError> {
        let session = match &stored {
            Some(text) => Some(format::decode(text, &self.location())?),
            None => None,
        };
        let known = Known {
            version: session.as_ref().map_or(0, StoredSession::version),
            text: stored.unwrap_or_default(),
        };
        Ok((session, known))
    }
}
