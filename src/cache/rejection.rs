//! Rejections of a token that stays in use, and what requests remember to tell whether they were sent after one.

use std::num::NonZeroU32;

use http::Uri;

use super::issued::Generation;
use crate::origins::OriginHash;

/// What a request remembers of the token that it was sent with.
///
/// Kept small, because it is a part of every request's future.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentToken {
    pub(crate) generation: Generation,
    /// Where the request went. `None` if that does not matter, because the token was settled.
    pub(super) origin: Option<OriginHash>,
    /// The last rejection of the token before it was sent.
    pub(super) rejection: Option<NonZeroU32>,
}

impl SentToken {
    /// A token that the API had accepted, and not rejected since.
    #[inline]
    pub(super) fn settled(generation: Generation) -> Self {
        Self {
            generation,
            origin: None,
            rejection: None,
        }
    }

    #[cold]
    pub(super) fn unsettled(
        generation: Generation,
        rejection: Option<Rejection>,
        uri: &Uri,
    ) -> Self {
        Self {
            generation,
            origin: Some(OriginHash::of(uri)),
            rejection: rejection.map(|rejection| rejection.number),
        }
    }

    /// Whether the API had accepted the token, and not rejected it since. Then another success says nothing new.
    #[inline]
    pub(crate) fn is_settled(self) -> bool {
        self.origin.is_none()
    }

    pub(super) fn rejected_by(self) -> RejectedBy {
        self.origin.map_or(RejectedBy::Unknown, RejectedBy::One)
    }

    /// The same with `origin` where it is not known yet.
    pub(crate) fn or_to(self, origin: Option<OriginHash>) -> Self {
        Self {
            origin: self.origin.or(origin),
            ..self
        }
    }
}

/// The last rejection of a token that is still in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    /// Tells the rejections of a token apart: a request that was sent with the token knows the last one before it.
    pub(super) number: NonZeroU32,
    pub(super) by: RejectedBy,
}

impl Rejection {
    /// Whether `sent`, which the API has accepted, shows that the token is good after all: it was sent after the last
    /// rejection, and to the only origin that has rejected the token.
    pub(super) fn is_disproved_by(self, sent: SentToken) -> bool {
        sent.rejection == Some(self.number)
            && sent
                .origin
                .is_some_and(|origin| self.by == RejectedBy::One(origin))
    }
}

/// Where a token was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RejectedBy {
    /// By the origin of a request that did not remember it. The next rejected request does.
    Unknown,
    One(OriginHash),
    /// By several origins, or as the user has found out.
    Several,
}

impl RejectedBy {
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, by) | (by, Self::Unknown) => by,
            (before, by) if before == by => by,
            _ => Self::Several,
        }
    }
}
