//! Options: `--name value` or `--name=value`, or else an environment variable.

use std::{collections::HashMap, env};

/// A name and what it is for.
type Described = (&'static str, &'static str);

/// What an example shows, and the options that it takes.
pub(crate) struct Options {
    /// The arguments of `cargo run` that start the example, which end with its name.
    pub(crate) command: &'static str,
    /// What the example shows.
    pub(crate) about: &'static str,
    /// Options that the vendor's servers need. All or none of them must be given.
    pub(crate) credentials: &'static [Described],
    /// Options with a value that may be added to the credentials.
    pub(crate) optional: &'static [Described],
    /// Options without a value.
    pub(crate) switches: &'static [Described],
    /// The switch with which the example goes on until it is interrupted.
    pub(crate) endless: Option<&'static str>,
}

/// The options that were given.
pub(crate) struct Arguments {
    values: HashMap<&'static str, String>,
    /// Whether the credentials were given. Without them everything happens on this machine.
    pub(crate) has_credentials: bool,
}

pub(super) enum Parsed {
    Run(Arguments),
    Help(String),
}

impl Options {
    /// Only `--help`.
    pub(crate) const fn new(command: &'static str, about: &'static str) -> Self {
        Self {
            command,
            about,
            credentials: &[],
            optional: &[],
            switches: &[],
            endless: None,
        }
    }

    /// Reads the command line and the environment.
    pub(super) fn read(&self) -> Result<Parsed, String> {
        let mut values = self.environment()?;
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            if argument == "--help" || argument == "-h" {
                return Ok(Parsed::Help(self.help()));
            }
            let (option, value) = match argument.split_once('=') {
                Some((option, value)) => (option, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            let known = option.strip_prefix("--").and_then(|name| self.find(name));
            let Some((name, is_switch)) = known else {
                // The value of a misspelt option may be a secret, so only names are repeated.
                let unknown = if option.starts_with("--") {
                    format!("unknown option {option}")
                } else {
                    String::from("an argument that is not an option")
                };
                return Err(self.error(&unknown));
            };
            let value = match (is_switch, value) {
                (true, None) => String::from("on"),
                (true, Some(_)) => return Err(self.error(&format!("--{name} takes no value"))),
                (false, Some(value)) => value,
                (false, None) => arguments
                    .next()
                    .ok_or_else(|| self.error(&format!("--{name} needs a value")))?,
            };
            values.insert(name, value);
        }
        values.retain(|_, value| !value.is_empty());
        let missing: Vec<_> = self
            .credentials
            .iter()
            .filter(|(name, _)| !values.contains_key(name))
            .map(|(name, what)| format!("--{name} or {} ({what})", self.variable(name)))
            .collect();
        if !values.is_empty() && !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(self.error(&format!("the vendor's servers also need {missing}")));
        }
        let has_credentials = !values.is_empty();
        Ok(Parsed::Run(Arguments {
            values,
            has_credentials,
        }))
    }

    /// The option with this name, and whether it is a switch.
    fn find(&self, name: &str) -> Option<(&'static str, bool)> {
        let valued = self.valued().map(|(known, _)| (*known, false));
        let switches = self.switches.iter().map(|(known, _)| (*known, true));
        valued.chain(switches).find(|(known, _)| *known == name)
    }

    fn valued(&self) -> impl Iterator<Item = &Described> {
        self.credentials.iter().chain(self.optional)
    }

    fn environment(&self) -> Result<HashMap<&'static str, String>, String> {
        let mut values = HashMap::new();
        for (name, _) in self.valued() {
            match env::var(self.variable(name)) {
                Ok(value) => {
                    values.insert(*name, value);
                }
                Err(env::VarError::NotPresent) => {}
                Err(env::VarError::NotUnicode(_)) => {
                    return Err(self.error(&format!("{} is not UTF-8", self.variable(name))));
                }
            }
        }
        Ok(values)
    }

    /// `WINBOOKS_HOST` for the option `host` of the example `winbooks`.
    fn variable(&self, option: &str) -> String {
        format!("{}_{option}", self.name())
            .replace('-', "_")
            .to_uppercase()
    }

    fn name(&self) -> &'static str {
        self.command.rsplit(' ').next().unwrap_or(self.command)
    }

    fn error(&self, what: &str) -> String {
        format!("{}: {what}; see --help", self.name())
    }

    fn help(&self) -> String {
        let mut help = format!(
            "{}\n\nUsage: cargo run {} [-- OPTIONS]\n",
            self.about, self.command
        );
        let valued = |(name, what): &Described| {
            let option = format!("--{name} <VALUE>");
            format!("  {option:<27} {:<24} {what}\n", self.variable(name))
        };
        if !self.credentials.is_empty() {
            help.push_str(
                "\nWithout options and variables, everything happens on this machine. To use the vendor's servers, give \
                 all of:\n",
            );
            help.extend(self.credentials.iter().map(valued));
        }
        if !self.optional.is_empty() || !self.switches.is_empty() {
            help.push_str(if self.credentials.is_empty() {
                "\nOptions:\n"
            } else {
                "\nand optionally:\n"
            });
            help.extend(self.optional.iter().map(valued));
            help.extend(self.switches.iter().map(|(name, what)| {
                let option = format!("--{name}");
                format!("  {option:<52} {what}\n")
            }));
            help.push_str(
                "\nKeep secrets in the variables: other users of the machine can see command lines.\n",
            );
        }
        help.push_str("\n  -h, --help  Print this help\n");
        help
    }
}

impl Arguments {
    /// The value of an option; empty if it was not given.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.find(name).unwrap_or_default()
    }

    /// The value of an option, if it was given.
    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Whether a switch was given.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
}
