//! [`Asked`]: which endpoint an error is about.

/// Which endpoint was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Asked {
    #[default]
    Token,
    Metadata,
    Revocation,
    #[cfg(feature = "login")]
    Authorization,
    #[cfg(feature = "login")]
    DeviceAuthorization,
}

impl Asked {
    pub(super) fn endpoint(self) -> &'static str {
        match self {
            Self::Token => "the token endpoint",
            Self::Metadata => "the metadata endpoint",
            Self::Revocation => "the revocation endpoint",
            #[cfg(feature = "login")]
            Self::Authorization => "the authorization endpoint",
            #[cfg(feature = "login")]
            Self::DeviceAuthorization => "the device authorization endpoint",
        }
    }

    /// What was asked for.
    pub(super) fn wanted(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Metadata => "metadata",
            Self::Revocation => "revocation",
            #[cfg(feature = "login")]
            Self::Authorization => "authorization",
            #[cfg(feature = "login")]
            Self::DeviceAuthorization => "device authorization",
        }
    }

    /// The same as the object of a sentence.
    pub(super) fn answer(self) -> &'static str {
        match self {
            Self::Token => "a token",
            Self::Metadata => "its metadata",
            Self::Revocation => "a revocation",
            #[cfg(feature = "login")]
            Self::Authorization => "an authorization",
            #[cfg(feature = "login")]
            Self::DeviceAuthorization => "a device authorization",
        }
    }
}
