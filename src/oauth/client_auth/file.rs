//! Reads secrets from files that others replace.

use std::{io::Read, path::Path};

use secrecy::{SecretString, zeroize::Zeroizing};

use crate::error::{Recovery, TokenError, TokenErrorKind};

/// The largest file that is read. A larger one is no secret.
const MAX_LEN: u64 = 64 * 1024;

/// Reads a file, without the white space around its content. `what` is named in the error.
pub(in crate::oauth) async fn read_secret(
    path: &Path,
    what: &'static str,
) -> Result<SecretString, TokenError> {
    let path = path.to_owned();
    // Reading may block, as on a network file system.
    let read = tokio::task::spawn_blocking(move || read_blocking(&path, what)).await;
    read.unwrap_or_else(|error| {
        Err(unreadable(what, "the task that was reading it ended early").with_source(error))
    })
}

fn read_blocking(path: &Path, what: &'static str) -> Result<SecretString, TokenError> {
    let failed = |error: std::io::Error| unreadable(what, "it cannot be read").with_source(error);
    let file = std::fs::File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len().min(MAX_LEN);
    // Room for one byte more than expected: a buffer that grows leaves a copy behind that is not wiped.
    let room = usize::try_from(length).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let limit = u64::try_from(room).unwrap_or(MAX_LEN);
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() >= room {
        return Err(unreadable(
            what,
            "it is too large, or grew while it was read",
        ));
    }
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| unreadable(what, "its content is not UTF-8"))?
        .trim();
    if text.is_empty() {
        return Err(unreadable(what, "it is empty"));
    }
    Ok(SecretString::from(text))
}

/// Somebody may be replacing the file, so the error is not final. The path is in the configuration of the program, and is no
/// secret, but the cause names it where it matters.
fn unreadable(what: &str, problem: &str) -> TokenError {
    let message = format!("the file with the {what} is not usable: {problem}");
    TokenError::new(TokenErrorKind::Config, message).with_recovery(Recovery::Slowly)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[tokio::test]
    async fn white_space_around_a_secret_is_no_part_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "\n hunter2 \r\n").unwrap();
        let secret = read_secret(&path, "secret").await.unwrap();
        assert_eq!(secret.expose_secret(), "hunter2");
    }

    #[tokio::test]
    async fn a_file_without_a_secret_is_an_error_that_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let long = vec![b'a'; 70_000];
        for (content, problem) in [
            (None, "cannot be read"),
            (Some(&b" \n"[..]), "empty"),
            (Some(b"hunter2\xff"), "UTF-8"),
            (Some(&long), "too large"),
        ] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = read_secret(&path, "secret").await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Config);
            assert!(
                !error.is_final() && error.to_string().contains(problem),
                "{error}"
            );
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }
}
