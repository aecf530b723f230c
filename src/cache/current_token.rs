//! [`CurrentToken`]: the token of the session, as the state has it.

use std::sync::Arc;

use super::issued::Issued;
use crate::{clock::Now, freshness::Freshness};

/// The token of the session.
#[derive(Default)]
pub(super) enum CurrentToken {
    #[default]
    None,
    /// Published: requests use it until it expires.
    InUse(Arc<Issued>),
    /// The API rejected it, and a refresh runs that callers wait for. It is not published meanwhile.
    BeingReplaced(Arc<Issued>),
}

impl CurrentToken {
    /// The token that is published.
    pub(super) fn in_use(&self) -> Option<&Arc<Issued>> {
        match self {
            Self::InUse(issued) => Some(issued),
            Self::None | Self::BeingReplaced(_) => None,
        }
    }

    /// The token, whether or not it is published.
    pub(super) fn issued(&self) -> Option<&Arc<Issued>> {
        match self {
            Self::InUse(issued) | Self::BeingReplaced(issued) => Some(issued),
            Self::None => None,
        }
    }

    pub(super) fn is_rejected(&self) -> bool {
        match self {
            Self::None => false,
            Self::InUse(issued) => issued.is_rejected(),
            Self::BeingReplaced(_) => true,
        }
    }

    pub(super) fn usable(&self, now: Now) -> Option<&Arc<Issued>> {
        self.in_use()
            .filter(|issued| issued.deadlines.freshness(now) != Freshness::Expired)
    }
}
