//! Opens a browser, if there is one that the person can see.

use std::{env, io, thread};

use tokio::sync::oneshot;
use webbrowser::{Browser, BrowserOptions};

/// Opens a URL.
type Open = Box<dyn FnOnce(&str) -> io::Result<()> + Send>;

/// How a browser is opened.
pub(super) enum Opener {
    /// The default browser of the system, if the person is at this machine.
    System,
    Custom(Open),
    Never,
}

impl Opener {
    /// Begins to open `url`. `None` if that cannot work; the receiver gets whether it has worked.
    pub(super) fn open(self, url: &str) -> Option<oneshot::Receiver<bool>> {
        let open: Open = match self {
            Self::Never => return None,
            Self::System if !has_browser(|name| env::var_os(name).is_some(), NEEDS_DISPLAY) => {
                return None;
            }
            Self::System => Box::new(open_default),
            Self::Custom(open) => open,
        };
        let (opened, result) = oneshot::channel();
        let url = url.to_owned();
        // A browser in a terminal runs until the person leaves it, and no runtime should wait for that when it ends.
        let thread = thread::Builder::new().name("open-browser".into());
        let spawned = thread.spawn(move || {
            let result = open(&url);
            if let Err(error) = &result {
                tracing::info!(%error, "no browser was opened");
            }
            opened.send(result.is_ok()).ok();
        });
        spawned.is_ok().then_some(result)
    }
}

fn open_default(url: &str) -> io::Result<()> {
    let mut options = BrowserOptions::new();
    // What browsers write is of no use to the person.
    options.with_suppress_output(true);
    webbrowser::open_browser_with_options(Browser::Default, url, &options)
}

const NEEDS_DISPLAY: bool = cfg!(all(unix, not(target_vendor = "apple")));

/// Whether a browser that is opened here appears where the person is, as far as the environment tells.
fn has_browser(is_set: impl Fn(&str) -> bool, needs_display: bool) -> bool {
    let any = |names: &[&str]| names.iter().any(|name| is_set(name));
    let is_remote = any(&["SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"]);
    if !needs_display {
        return !is_remote;
    }
    // `BROWSER` is set on purpose. In a terminal over SSH, it may lead to the machine that the person is at.
    any(&["BROWSER"]) || (!is_remote && any(&["DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_opened_only_where_the_person_can_see_it() {
        for (variables, needs_display, expected) in [
            (&[][..], true, false),
            (&[], false, true),
            (&["DISPLAY"], true, true),
            (&["WAYLAND_DISPLAY"], true, true),
            (&["WSL_DISTRO_NAME"], true, true),
            (&["DISPLAY", "SSH_CONNECTION"], true, false),
            (&["DISPLAY", "SSH_CLIENT"], true, false),
            (&["SSH_TTY"], false, false),
            (&["SSH_TTY", "BROWSER"], true, true),
        ] {
            let is_set = |name: &str| variables.contains(&name);
            let found = has_browser(is_set, needs_display);
            assert_eq!(found, expected, "{variables:?} {needs_display}");
        }
    }
}
