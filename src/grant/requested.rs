//! What a token request asks for beside its grant: scope, resources, audiences and further parameters.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use crate::{oauth::Parameters, zeroize::secret};

/// The parameters that several grants have in common, in the order in which they are sent. None is sent unasked.
#[derive(Clone, Default)]
pub struct Requested {
    scope: Option<String>,
    others: Vec<(String, SecretString)>,
}

/// A grant that asks for a scope, resources and audiences.
pub trait Requests {
    /// What it asks for.
    fn requested(&mut self) -> &mut Requested;
}

impl Requested {
    pub(crate) fn add_scope(&mut self, scope: impl Into<String>) {
        let scope = scope.into();
        match &mut self.scope {
            Some(all) => {
                all.push(' ');
                all.push_str(&scope);
            }
            None => self.scope = Some(scope),
        }
    }

    pub(crate) fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.others.push((name.into(), secret(value)));
    }

    #[cfg(feature = "login")]
    pub(crate) fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// The names and values of all but the scope.
    #[cfg(feature = "login")]
    pub(crate) fn others(&self) -> impl Iterator<Item = (&str, &str)> {
        let others = self.others.iter();
        others.map(|(name, value)| (&**name, value.expose_secret()))
    }

    /// The values of all of this name. The scope is none of them.
    #[cfg(feature = "login")]
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let found = self.others().filter(move |(known, _)| *known == name);
        found.map(|(_, value)| value)
    }

    pub(super) fn add_to(&self, mut parameters: Parameters) -> Parameters {
        for (name, value) in self.parts() {
            parameters = parameters.with(name, value);
        }
        parameters
    }

    /// All names and values.
    pub(super) fn parts(&self) -> Vec<(&str, &str)> {
        let scope = self.scope.as_deref().map(|scope| ("scope", scope));
        let others = self.others.iter();
        scope
            .into_iter()
            .chain(others.map(|(name, value)| (&**name, value.expose_secret())))
            .collect()
    }
}

impl fmt::Debug for Requested {
    /// Names the parameters, and shows no values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.parts().into_iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

/// The setters of a grant with a field `requested`.
macro_rules! requested_setters {
    ($grant:ident) => {
        impl $grant {
            /// Adds to the scope (RFC 6749 §3.3): one or more names with spaces between them. Default: none is sent, and the
            /// server decides.
            pub fn scope(mut self, scope: impl Into<String>) -> Self {
                self.requested.add_scope(scope);
                self
            }

            /// Adds a resource (RFC 8707 §2), the absolute URI of an API. It may be set several times. Default: none.
            pub fn resource(mut self, resource: impl Into<String>) -> Self {
                self.requested.add("resource", resource);
                self
            }

            /// Adds an audience: the logical name of an API. It may be set several times. Default: none.
            pub fn audience(mut self, audience: impl Into<String>) -> Self {
                self.requested.add("audience", audience);
                self
            }

            /// Adds any other parameter. It may be set several times. Default: none.
            pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
                self.requested.add(name, value);
                self
            }
        }

        impl $crate::grant::Requests for $grant {
            fn requested(&mut self) -> &mut $crate::grant::Requested {
                &mut self.requested
            }
        }
    };
}
pub(super) use requested_setters;
