//! Options: `--name value` or `--name=value`, or else from the environment.

use std::{collections::HashMap, env};

use tower::BoxError;

/// What an example can be told.
pub(crate) struct Options {
    /// The example's name, which is also the beginning of its environment variables: `winbooks`, `WINBOOKS_HOST`.
    pub(crate) name: &'static str,
    /// What it shows, in a sentence or two.
    pub(crate) about: &'static str,
    /// What the vendor gave; all of it is needed to reach the vendor.
    pub(crate) credentials: &'static [(&'static str, &'static str)],
    /// What may be added to that.
    pub(crate) extras: &'static [(&'static str, &'static str)],
    /// What is only on or off.
    pub(crate) switches: &'static [(&'static str, &'static str)],
}

/// What it was told.
pub(crate) struct Given {
    values: HashMap<&'static str, String>,
    /// Whether to reach the vendor; else everything happens on this machine.
    pub(crate) real: bool,
}

impl Options {
    /// Reads the command line and the environment; `None` if help was asked for, and is printed.
    pub(crate) fn read(&self) -> Result<Option<Given>, BoxError> {
        let mut values = self.environment()?;
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            if argument == "--help" || argument == "-h" {
                print!("{}", self.help());
                return Ok(None);
            }
            let (written, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            let known = written.strip_prefix("--").and_then(|name| self.known(name));
            // A value in the wrong place may be a secret, so only what looks like a name is repeated.
            let Some((name, is_switch)) = known else {
                let unknown = if written.starts_with("--") {
                    written
                } else {
                    "a value without a name"
                };
                return Err(self.mistake(&format!("unknown: {unknown}")));
            };
            let value = match (is_switch, value) {
                (true, None) => String::from("on"),
                (true, Some(_)) => return Err(self.mistake(&format!("--{name} takes no value"))),
                (false, Some(value)) => value,
                (false, None) => arguments
                    .next()
                    .ok_or_else(|| self.mistake(&format!("--{name} needs a value")))?,
            };
            values.insert(name, value);
        }
        let (given, missing): (Vec<_>, Vec<_>) = self
            .credentials
            .iter()
            .partition(|(name, _)| values.get(name).is_some_and(|value| !value.is_empty()));
        let real = missing.is_empty();
        let wanted = !given.is_empty() || values.values().any(|value| !value.is_empty());
        if wanted && !real {
            let missing: Vec<_> = missing
                .iter()
                .map(|(name, what)| format!("--{name} or {} ({what})", self.variable(name)))
                .collect();
            return Err(self.mistake(&format!(
                "to reach the vendor, this is missing: {}",
                missing.join(", ")
            )));
        }
        Ok(Some(Given { values, real }))
    }

    fn all(&self) -> impl Iterator<Item = &(&'static str, &'static str)> {
        self.credentials.iter().chain(self.extras)
    }

    fn known(&self, name: &str) -> Option<(&'static str, bool)> {
        let valued = self.all().map(|(known, _)| (*known, false));
        let switches = self.switches.iter().map(|(known, _)| (*known, true));
        valued.chain(switches).find(|(known, _)| *known == name)
    }

    fn variable(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
            .replace('-', "_")
            .to_uppercase()
    }

    fn environment(&self) -> Result<HashMap<&'static str, String>, BoxError> {
        let mut values = HashMap::new();
        for (name, _) in self.all() {
            match env::var(self.variable(name)) {
                Ok(value) => {
                    values.insert(*name, value);
                }
                Err(env::VarError::NotPresent) => {}
                Err(env::VarError::NotUnicode(_)) => {
                    let variable = self.variable(name);
                    return Err(self.mistake(&format!("{variable} is not UTF-8")));
                }
            }
        }
        Ok(values)
    }

    fn mistake(&self, what: &str) -> BoxError {
        format!("{}: {what}; see --help", self.name).into()
    }

    fn help(&self) -> String {
        let name = self.name;
        let mut help = format!(
            "{}\n\nUsage: cargo run --example {name} [-- OPTIONS]\n\n\
             Without options and variables everything happens on this machine. To reach the vendor, give all of:\n",
            self.about
        );
        let valued = |(name, what): &(&str, &str)| {
            let option = format!("--{name} <VALUE>");
            format!("  {option:<27} {:<24} {what}\n", self.variable(name))
        };
        help.extend(self.credentials.iter().map(valued));
        help.push_str("\nand, if you like, some of:\n");
        help.extend(self.extras.iter().map(valued));
        help.extend(self.switches.iter().map(|(name, what)| {
            let option = format!("--{name}");
            format!("  {option:<52} {what}\n")
        }));
        help.push_str(
            "\nSecrets are better kept in the variables: command lines can be seen by others.\n",
        );
        help
    }
}

impl Given {
    /// A value; empty if it was not given.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.find(name).unwrap_or_default()
    }

    /// A value, if it was given.
    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        self.values
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Whether a switch is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.find(name).is_some()
    }
}
