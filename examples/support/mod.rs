//! What all examples share: options, a time limit, and checks that what an example shows is true.

#![allow(dead_code, reason = "not every example uses all of it")]

mod options;

use std::{process::ExitCode, time::Duration};

use tokio::time::timeout;
use tower::BoxError;

use self::options::Parsed;
pub(crate) use self::options::{Arguments, Options};

/// No example takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// Reads the command line and runs an example.
///
/// Exit codes: 0 if all checks held or `--help` was given, 1 if the example failed, 2 if its options were wrong.
pub(crate) async fn run(
    options: &Options,
    example: impl AsyncFnOnce(Arguments) -> Result<(), BoxError>,
) -> ExitCode {
    let arguments = match options.read() {
        Ok(Parsed::Run(arguments)) => arguments,
        Ok(Parsed::Help(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let is_endless = options
        .endless
        .is_some_and(|switch| arguments.is_on(switch));
    let limit = if is_endless { Duration::MAX } else { LIMIT };
    let result = timeout(limit, example(arguments))
        .await
        .unwrap_or_else(|_| Err(format!("the example is not done after {limit:?}").into()));
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("{error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  caused by: {error}");
        cause = error.source();
    }
    ExitCode::FAILURE
}

/// Fails the example unless `holds`.
pub(crate) fn check(what: &str, holds: bool) -> Result<(), BoxError> {
    if holds {
        Ok(())
    } else {
        Err(format!("this should hold, but does not: {what}").into())
    }
}
