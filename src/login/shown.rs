//! What a server wants a person to be shown. Programs print it, and terminals obey control characters.

use crate::http_url::HttpUrl;

/// More than anybody types.
const MAX_CODE: usize = 64;
/// More than any QR code of use holds.
const MAX_URI: usize = 2048;

/// The `user_code` of a device authorization response, if it can be shown: letters and digits of any script, and the spaces
/// and signs of ASCII.
pub(super) fn user_code(text: String) -> Result<String, String> {
    let is_harmless = |c: char| c.is_alphanumeric() || c == ' ' || c.is_ascii_punctuation();
    if text.chars().count() > MAX_CODE {
        return Err(refused("user_code", "is longer than 64 characters"));
    }
    if !text.chars().all(is_harmless) {
        return Err(refused(
            "user_code",
            "has characters other than letters, digits, spaces and the signs of ASCII",
        ));
    }
    Ok(text)
}

/// The URI called `name` of a device authorization response, if it can be shown and opened.
pub(super) fn uri(name: &str, text: String) -> Result<String, String> {
    if text.len() > MAX_URI {
        return Err(refused(name, "is longer than 2048 bytes"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(refused(
            name,
            "has control characters, spaces or characters outside ASCII",
        ));
    }
    let url = HttpUrl::parse(&text).map_err(|reason| refused(name, reason))?;
    if url.has_user {
        return Err(refused(name, "has a user name, which hides the host"));
    }
    match &*url.scheme {
        "https" => Ok(text),
        "http" if url.host.is_loopback() => Ok(text),
        "http" => Err(refused(name, "is http, and not to this machine")),
        _ => Err(refused(name, "has a scheme other than https")),
    }
}

/// Why a text is not shown. Repeats nothing of it, because errors are printed, too.
fn refused(name: &str, reason: &str) -> String {
    format!("`{name}` {reason}, so it is not shown to anybody")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_a_terminal_obeys_is_refused() {
        let long = "A".repeat(65);
        for (code, is_shown) in [
            ("WDJB-MJHT", true),
            ("123 456 789", true),
            ("κωδ-3", true),
            (&long[1..], true),
            (&long, false),
            ("AB\u{1b}[2JCD", false),
            ("AB\rCD", false),
            ("AB\nCD", false),
            ("AB\tCD", false),
            ("AB\u{7}", false),
            ("AB\u{8}", false),
            ("AB\u{7f}", false),
            ("AB\0", false),
            // C1: the one-character form of `ESC [`.
            ("AB\u{9b}2J", false),
            // Reverses what follows; invisible; a line end.
            ("AB\u{202e}CD", false),
            ("AB\u{200b}CD", false),
            ("AB\u{2028}CD", false),
        ] {
            let shown = user_code(code.to_owned());
            assert_eq!(shown.is_ok(), is_shown, "{code:?}");
            if let Err(error) = shown {
                assert!(!error.contains(char::is_control), "{error:?}");
            }
        }
    }

    #[test]
    fn a_uri_is_https_or_to_this_machine_and_harmless() {
        let long = format!("https://login.example.com/{}", "a".repeat(2048));
        for (text, is_shown) in [
            ("https://login.example.com/device", true),
            ("https://login.example.com/device?user_code=WDJB-MJHT", true),
            ("https://login.example.com/#/device", true),
            ("http://127.0.0.1:8080/device", true),
            ("http://localhost/device", true),
            (&long[..2048], true),
            (&long, false),
            ("http://login.example.com/device", false),
            ("https://login.example.com@evil.example/device", false),
            ("javascript:alert(1)", false),
            ("file:///etc/passwd", false),
            ("ftp://login.example.com/device", false),
            (
                "https://login.example.com/\u{1b}]8;;https://evil.example\u{7}",
                false,
            ),
            ("https://login.example.com/\u{9b}2J", false),
            ("https://login.example.com/a b", false),
            ("https://login.example.com/\u{202e}a", false),
            ("login.example.com/device", false),
            ("", false),
        ] {
            let shown = uri("verification_uri", text.to_owned());
            assert_eq!(shown.is_ok(), is_shown, "{text:?}");
            if let Err(error) = shown {
                assert!(error.contains("`verification_uri`"), "{error}");
                assert!(!error.contains(char::is_control), "{error:?}");
            }
        }
    }
}
