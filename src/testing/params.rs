//! [`Params`]: the parameters of a token request.

use std::collections::HashSet;

use super::dialect::Rejected;

/// The parameters of a request, without repetitions.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn new(params: Vec<(String, String)>) -> Result<Self, Rejected> {
        let mut names = HashSet::new();
        let may_be_repeated = |name: &str| ["resource", "audience"].contains(&name);
        let is_repeated =
            |(name, _): &(String, String)| !names.insert(name.clone()) && !may_be_repeated(name);
        if params.iter().any(is_repeated) {
            // RFC 6749 §3.2
            return Err(Rejected::Malformed("a repeated parameter"));
        }
        Ok(Self(params))
    }

    /// A parameter without a value counts as missing (RFC 6749 §3.2).
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(key, _)| key == name);
        found
            .next()
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// All values of a parameter that may be repeated.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let found = self.0.iter().filter(move |(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn required(&self, name: &'static str) -> Result<&str, Rejected> {
        self.get(name)
            .ok_or(Rejected::Malformed("a parameter is missing"))
    }

    pub(super) fn any(&self, mut test: impl FnMut(&str) -> bool) -> bool {
        self.0.iter().any(|(name, _)| test(name))
    }
}
