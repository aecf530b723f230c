//! [`LoginPrompt`]: what a person is told while a login waits.

use std::fmt;

/// What a person must be told while a login in a browser waits.
///
/// `Display` is a text in English. By default it is printed to standard error.
///
/// # Examples
///
/// ```
/// use tower_bearer::login::LoginPrompt;
///
/// let prompt = LoginPrompt::Open { url: "https://login.example.com/authorize?..." };
/// assert!(prompt.to_string().contains("https://login.example.com/authorize"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoginPrompt<'a> {
    /// A browser is being opened. Show the URL all the same: nobody knows whether a window appears.
    Opening {
        /// Where the person logs in.
        url: &'a str,
    },
    /// No browser can be opened here, so the person must open the URL.
    Open {
        /// Where the person logs in.
        url: &'a str,
    },
    /// What was [pasted](super::BrowserLogin::pasted) is not the answer to this login, which still waits.
    WrongPaste,
}

impl fmt::Display for LoginPrompt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening { url } => write!(
                f,
                "Opening your browser to log in. If no window appears, open this address:\n\n  {url}\n"
            ),
            Self::Open { url } => write!(f, "To log in, open this address in a browser:\n\n  {url}\n"),
            Self::WrongPaste => f.write_str(
                "This is not the address that the login ends at. Copy all of it from the browser, and paste it again.",
            ),
        }
    }
}
