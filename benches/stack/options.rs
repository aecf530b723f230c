//! The command line.

use std::{env, time::Duration};

use tower::BoxError;

pub(crate) struct Options {
    /// For all stacks together.
    pub(crate) time: Duration,
    pub(crate) rebuilds: u32,
    /// A part of the names of the stacks to run.
    pub(crate) only: String,
    pub(crate) list: bool,
    pub(crate) instructions: bool,
    /// The contender to profile.
    pub(crate) profile: Option<String>,
}

impl Options {
    pub(crate) fn read() -> Result<Self, BoxError> {
        let mut options = Self {
            time: Duration::from_secs(110),
            rebuilds: 6,
            only: String::new(),
            list: false,
            instructions: false,
            profile: None,
        };
        let mut args = env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match &*arg {
                "--seconds" => options.time = Duration::from_secs(value()?.parse()?),
                "--only" => options.only = value()?,
                "--list" => options.list = true,
                "--instructions" => options.instructions = true,
                "--profile" => options.profile = Some(value()?),
                "--quick" => {
                    options.time = Duration::ZERO;
                    options.rebuilds = 1;
                }
                // `cargo bench` adds it.
                "--bench" => {}
                _ => return Err(format!("unknown option {arg}").into()),
            }
        }
        Ok(options)
    }
}
