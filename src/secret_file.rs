//! Secrets in files that others replace: client secrets, assertions, tokens.

use std::{io::Read, path::Path};

use secrecy::{SecretString, zeroize::Zeroizing};

use crate::error::{TokenError, TokenErrorKind};

/// The largest file that is read. A larger one is no secret.
const MAX_LEN: usize = 64 * 1024;

/// Reads a file, without a byte order mark and the white space around its content. `what` and the path are named in the error.
pub(crate) async fn read_secret(
    path: &Path,
    what: &'static str,
) -> Result<SecretString, TokenError> {
    let path = path.to_owned();
    // Reading may block, as on a network file system.
    let read = tokio::task::spawn_blocking(move || read_blocking(&path, what)).await;
    read.unwrap_or_else(|error| {
        let message = format!("the task that was reading the file with the {what} ended early");
        Err(TokenError::new(TokenErrorKind::Source, message).with_source(error))
    })
}

fn read_blocking(path: &Path, what: &str) -> Result<SecretString, TokenError> {
    let unusable = |problem: &str| {
        let message = format!("the file {} with the {what} {problem}", path.display());
        TokenError::new(TokenErrorKind::Source, message)
    };
    let failed = |error: std::io::Error| unusable("cannot be read").with_source(error);
    // Its full capacity at once: a buffer that grows leaves copies behind that are not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LEN + 1));
    let limit = u64::try_from(MAX_LEN + 1).unwrap_or(u64::MAX);
    let mut file = std::fs::File::open(path).map_err(failed)?.take(limit);
    while file.read_to_end(&mut bytes).map_err(failed)? > 0 {}
    if bytes.len() > MAX_LEN {
        return Err(unusable("is longer than 64 KiB"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable("is not UTF-8"))?;
    // Editors on Windows write a byte order mark, which is no white space.
    match text.trim_start_matches('\u{feff}').trim() {
        "" => Err(unusable("is empty")),
        text => Ok(SecretString::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[tokio::test]
    async fn white_space_and_a_byte_order_mark_are_no_part_of_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for text in ["\n hunter2 \r\n", "\u{feff}hunter2\n"] {
            std::fs::write(&path, text).unwrap();
            let secret = read_secret(&path, "secret").await.unwrap();
            assert_eq!(secret.expose_secret(), "hunter2", "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_file_without_a_secret_is_an_error_that_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let long = vec![b'a'; 70_000];
        for (content, problem) in [
            (None, "cannot be read"),
            (Some(&b" \n"[..]), "is empty"),
            (Some(b"\xef\xbb\xbf\n"), "is empty"),
            (Some(b"hunter2\xff"), "is not UTF-8"),
            (Some(&long), "is longer than 64 KiB"),
        ] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = read_secret(&path, "secret").await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Source);
            assert!(
                !error.is_final() && error.to_string().contains(problem),
                "{error}"
            );
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }
}
