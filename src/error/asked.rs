//! [`Asked`]: which endpoint an error is about.

/// Which endpoint was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Asked {
    #[default]
    Token,
    Metadata,
    Revocation,
}

impl Asked {
    pub(super) fn endpoint(self) -> &'static str {
        match self {
            Self::Token => "the token endpoint",
            Self::Metadata => "the metadata endpoint",
            Self::Revocation => "the revocation endpoint",
        }
    }

    /// What was asked for.
    pub(super) fn wanted(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Metadata => "metadata",
            Self::Revocation => "revocation",
        }
    }

    /// The same as the object of a sentence.
    pub(super) fn answer(self) -> &'static str {
        match self {
            Self::Token => "a token",
            Self::Metadata => "its metadata",
            Self::Revocation => "a revocation",
        }
    }
}
