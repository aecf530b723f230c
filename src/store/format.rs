//! How durable stores write a session: JSON that names its format, so that what is stored can be told from what isn't.
//!
//! `{"format":1,"session":{…}}`. A reader takes only the format it knows. A format with more in it is a newer one, so that
//! an older process says so, instead of dropping what it doesn't know with its next save.

use std::fmt;

use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};

use super::StoredSession;
use crate::error::{TokenError, TokenErrorKind};

/// The format that is written, and the only one that is read.
const FORMAT: u64 = 1;

/// What is longer is no session: token answers are limited to 64 KiB.
pub(super) const LONGEST: usize = 1 << 20;

#[derive(Serialize)]
struct Written<'a> {
    format: u64,
    session: &'a StoredSession,
}

#[derive(Deserialize)]
struct Label {
    format: u64,
}

#[derive(Deserialize)]
struct Read {
    session: StoredSession,
}

/// A session as it is stored; wiped when dropped.
pub(super) type Encoded = Zeroizing<Vec<u8>>;

pub(super) fn encode(session: &StoredSession) -> Result<Encoded, TokenError> {
    // Room enough for most sessions: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(8 * 1024));
    let written = Written {
        format: FORMAT,
        session,
    };
    serde_json::to_writer(&mut *bytes, &written).map_err(|_| {
        TokenError::new(
            TokenErrorKind::Store,
            "the session can't be written as JSON",
        )
    })?;
    bytes.push(b'\n');
    if bytes.len() > LONGEST {
        let message = format!(
            "the session has {} bytes, and stores keep at most {LONGEST}",
            bytes.len()
        );
        return Err(TokenError::new(TokenErrorKind::Store, message));
    }
    Ok(bytes)
}

/// What is stored at `place`, if it is a session.
pub(super) fn decode(bytes: &[u8], place: &dyn fmt::Display) -> Result<StoredSession, TokenError> {
    parse(bytes).map_err(|what| {
        let message = format!("{place} {what}; it is left as it is");
        TokenError::new(TokenErrorKind::Store, message)
    })
}

/// The version that a save would replace; 0 for nothing.
pub(super) fn version(stored: Option<&[u8]>, place: &dyn fmt::Display) -> Result<u64, TokenError> {
    stored.map_or(Ok(0), |bytes| Ok(decode(bytes, place)?.version()))
}

/// The messages of `serde_json` quote what they don't like, which here may be a token: none of them leaves this function.
fn parse(bytes: &[u8]) -> Result<StoredSession, String> {
    const REMEDY: &str =
        "restore it, or remove it to begin anew with the credential that is configured";
    if bytes.len() > LONGEST {
        return Err(format!("holds more than {LONGEST} bytes, so no session"));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(format!("is empty, which no save leaves behind: {REMEDY}"));
    }
    let label: Label = serde_json::from_slice(bytes).map_err(|error| {
        if error.is_eof() {
            format!("ends in the middle of a session, as a torn copy does: {REMEDY}")
        } else {
            "holds something else than a session of this crate: choose another place".to_owned()
        }
    })?;
    if label.format > FORMAT {
        return Err(format!(
            "holds a session of format {}, and this version of the crate knows formats up to {FORMAT}: update it",
            label.format
        ));
    }
    if label.format != FORMAT {
        return Err(format!("holds a session of an unknown format: {REMEDY}"));
    }
    let read: Read = serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("holds a session that is damaged at line {line}, column {column}: {REMEDY}")
    })?;
    if read.session.version() == 0 {
        return Err(format!(
            "holds a session of version 0, and they count from 1: {REMEDY}"
        ));
    }
    Ok(read.session)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sample;

    fn rejection(bytes: &[u8]) -> String {
        let error = decode(bytes, &"the file").unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Store);
        assert!(std::error::Error::source(&error).is_none());
        error.to_string()
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same_bytes() {
        let encoded = encode(&sample(3, "a \"quoted\" ü")).unwrap();
        let session = decode(&encoded, &"the file").unwrap();
        assert_eq!(session.version(), 3);
        assert_eq!(encode(&session).unwrap(), encoded);
    }

    #[test]
    fn every_cut_of_a_session_is_told_as_such_and_never_taken_for_one() {
        let encoded = encode(&sample(3, "x")).unwrap();
        let json = encoded.trim_ascii_end();
        assert!(rejection(b"").contains("is empty"));
        for end in 1..json.len() {
            let told = rejection(&json[..end]);
            assert!(told.contains("ends in the middle"), "at {end}: {told}");
        }
    }

    #[test]
    fn each_kind_of_foreign_content_gets_its_own_message() {
        let valid = String::from_utf8(encode(&sample(3, "x")).unwrap().to_vec()).unwrap();
        let cases = [
            ("  \n", "is empty"),
            ("hello", "something else"),
            ("[1,2]", "something else"),
            ("{\"token\":\"s3cret\"}", "something else"),
            ("{\"format\":\"s3cret\"}", "something else"),
            ("{\"format\":2,\"s3cret\":{}}", "format 2"),
            ("{\"format\":0,\"session\":{}}", "unknown format"),
            ("{\"format\":1,\"session\":\"s3cret\"}", "damaged at line 1"),
            ("{\"format\":1}", "damaged"),
            (
                &valid.replace("\"version\":3", "\"version\":0"),
                "version 0",
            ),
            (
                &valid.replace("\"version\":3", "\"version\":\"s3cret\""),
                "damaged",
            ),
            (&format!("{valid} s3cret"), "something else"),
            (&" ".repeat(LONGEST + 1), "more than"),
        ];
        for (content, told) in cases {
            let error = rejection(content.as_bytes());
            assert!(error.contains(told), "{told}: {error}");
            assert!(error.contains("left as it is"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_session_that_could_not_be_read_back_is_not_written() {
        let huge = sample(1, &"x".repeat(LONGEST));
        assert_eq!(encode(&huge).unwrap_err().kind(), TokenErrorKind::Store);
    }
}
