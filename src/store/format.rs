//! Sessions as the stores write them: JSON that begins with its format.
//!
//! A reader accepts only the formats that it knows: this one, the two before it, and that of encrypted sessions. Whatever is added makes a newer format, so
//! that an older process reports it, and does not drop what it does not know with its next save.

use std::fmt;

use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use super::{
    StoredSession,
    stored_session::{FIRST_FORMAT, FirstFormat, MAX_COUNT, SEALED_FORMAT},
};
use crate::{
    error::{TokenError, TokenErrorKind},
    zeroize::{extend, to_json},
};

/// The most bytes that a session is stored in. Token responses are limited to 64 KiB by default.
pub(super) const MAX_LEN: usize = 1 << 20;

/// The part of a session that tells whether it can be read.
#[derive(Deserialize)]
struct Header {
    format: u64,
}

/// The counters of a session.
#[derive(Deserialize)]
struct Counters {
    version: u64,
    #[serde(default)]
    generation: u64,
}

/// A session as it is stored; zeroized when dropped.
pub(super) type Encoded = Zeroizing<Vec<u8>>;

pub(super) fn encode(session: &StoredSession) -> Result<Encoded, TokenError> {
    // Enough for most sessions.
    let mut bytes = to_json(session, 8 * 1024).map_err(|_| {
        TokenError::new(
            TokenErrorKind::Store,
            "the session cannot be written as JSON",
        )
    })?;
    extend(&mut bytes, b"\n");
    if bytes.len() > MAX_LEN {
        let message = format!(
            "the session has {} bytes, and a store keeps at most {MAX_LEN}",
            bytes.len()
        );
        return Err(TokenError::new(TokenErrorKind::Store, message));
    }
    Ok(bytes)
}

/// Reads a session. `location` is named in the error.
pub(super) fn decode(
    bytes: &[u8],
    location: &dyn fmt::Display,
) -> Result<StoredSession, TokenError> {
    parse(bytes).map_err(|problem| {
        let message = format!("{location} {problem}; it is left as it is");
        TokenError::new(TokenErrorKind::Store, message)
    })
}

/// The version of what is stored; 0 if nothing is.
#[cfg(feature = "file-store")]
pub(super) fn version(
    stored: Option<&[u8]>,
    location: &dyn fmt::Display,
) -> Result<u64, TokenError> {
    stored.map_or(Ok(0), |bytes| Ok(decode(bytes, location)?.version()))
}

/// Reads a session. An error is the problem in words of our own: messages of `serde_json` quote the content, which may be a
/// token.
fn parse(bytes: &[u8]) -> Result<StoredSession, String> {
    const REMEDY: &str =
        "restore it, or remove it to begin a new session with the configured credential";
    const OTHER_PLACE: &str = "choose another place, or remove it to begin a new session";
    if bytes.len() > MAX_LEN {
        return Err(format!(
            "has more than {MAX_LEN} bytes, so it is not a session: {OTHER_PLACE}"
        ));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(format!("is empty, which no save leaves behind: {REMEDY}"));
    }
    let header: Header = serde_json::from_slice(bytes).map_err(|error| {
        if error.is_eof() {
            format!("ends in the middle of a session, as an incomplete copy does: {REMEDY}")
        } else {
            format!("is not a session of this crate: {OTHER_PLACE}")
        }
    })?;
    if header.format > SEALED_FORMAT {
        return Err(format!(
            "is a session of format {}, and this version of tower-bearer reads formats up to {SEALED_FORMAT}: update it",
            header.format
        ));
    }
    if header.format == 0 {
        return Err(format!(
            "is a session of the unknown format {}: {REMEDY}",
            header.format
        ));
    }
    let session = match header.format {
        FIRST_FORMAT => serde_json::from_slice::<FirstFormat>(bytes).map(StoredSession::from),
        _ => serde_json::from_slice(bytes),
    };
    let session = session.map_err(|error| {
        if let Ok(Counters { version, generation }) = serde_json::from_slice(bytes)
            && version.max(generation) > MAX_COUNT
        {
            return format!(
                "is a session whose version or generation is too high, and no save has written it: {REMEDY}"
            );
        }
        let (line, column) = (error.line(), error.column());
        format!("is a session that is damaged at line {line}, column {column}: {REMEDY}")
    })?;
    if session.version() == 0 {
        return Err(format!(
            "is a session of version 0, and versions count from 1: {REMEDY}"
        ));
    }
    Ok(session)
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
    fn an_encoded_session_decodes_to_the_same_bytes() {
        let encoded = encode(&sample(3, "a \"quoted\" ü")).unwrap();
        let session = decode(&encoded, &"the file").unwrap();
        assert_eq!(session.version(), 3);
        assert_eq!(encode(&session).unwrap(), encoded);
    }

    #[test]
    fn a_session_cut_at_any_byte_is_reported_as_incomplete() {
        let encoded = encode(&sample(3, "x")).unwrap();
        let json = encoded.trim_ascii_end();
        assert!(rejection(b"").contains("is empty"));
        for end in 1..json.len() {
            let error = rejection(&json[..end]);
            assert!(error.contains("ends in the middle"), "at {end}: {error}");
        }
    }

    #[test]
    fn each_kind_of_other_content_has_a_message_that_quotes_nothing() {
        let valid = String::from_utf8(encode(&sample(3, "x")).unwrap().to_vec()).unwrap();
        let cases = [
            ("  \n", "is empty"),
            ("hello", "not a session of this crate"),
            ("[1,2]", "not a session of this crate"),
            ("{\"token\":\"s3cret\"}", "not a session of this crate"),
            ("{\"format\":\"s3cret\"}", "not a session of this crate"),
            ("{\"format\":5,\"s3cret\":{}}", "format 5"),
            ("{\"version\":1,\"format\":5}", "update it"),
            ("{\"format\":0,\"version\":1}", "unknown format 0"),
            ("{\"format\":2,\"access\":\"s3cret\"}", "damaged at line 1"),
            ("{\"format\":1,\"session\":\"s3cret\"}", "damaged at line 1"),
            ("{\"format\":1}", "damaged"),
            ("{\"format\":2}", "damaged"),
            ("{\"format\":3}", "damaged"),
            (
                "{\"format\":3,\"ended\":{\"reason\":\"s3cret\"}}",
                "damaged at line 1",
            ),
            (
                &valid.replace("\"version\":3", "\"version\":0"),
                "version 0",
            ),
            (
                &valid.replace("\"version\":3", "\"version\":\"s3cret\""),
                "damaged",
            ),
            (&format!("{valid} s3cret"), "not a session of this crate"),
            (&" ".repeat(MAX_LEN + 1), "more than"),
        ];
        for (content, expected) in cases {
            let error = rejection(content.as_bytes());
            assert!(error.contains(expected), "{expected}: {error}");
            assert!(error.contains("left as it is"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_session_of_the_first_version_is_read_and_written_in_the_present_format() {
        let first = r#"{"format":1,"session":{"version":3,"generation":2,"seed":"abc","retired":["def"],
            "access":{"token":"at","expires_at":1700000900000,"lifetime_secs":900,"scope":null},"refresh_token":"rt",
            "refresh_expires_at":null,"refreshing_since":1700000000000}}"#;
        let session = decode(first.as_bytes(), &"the file").unwrap();
        assert_eq!((session.version(), session.generation()), (3, 2));
        let written: serde_json::Value =
            serde_json::from_slice(&encode(&session).unwrap()).unwrap();
        let expected = serde_json::json!({
            "format": 3, "version": 3, "generation": 2, "identity": "abc", "former_identities": ["def"], "client": null,
            "access": {"token": "at", "expires_at": 1_700_000_900_000_u64, "lifetime_secs": 900},
            "refresh_token": "rt", "refresh_expires_at": null, "refreshing_since": 1_700_000_000_000_u64,
            "ended": null,
        });
        assert_eq!(written, expected);
    }

    #[test]
    fn a_session_of_the_second_format_is_read_and_written_in_the_present_format() {
        let second = r#"{"format":2,"version":3,"generation":2,"identity":"abc","former_identities":["def"],
            "access":{"token":"at","expires_at":1700000900000,"lifetime_secs":900},"refresh_token":"rt",
            "refresh_expires_at":null,"refreshing_since":null}"#;
        let session = decode(second.as_bytes(), &"the file").unwrap();
        assert_eq!((session.version(), session.generation()), (3, 2));
        let written: serde_json::Value =
            serde_json::from_slice(&encode(&session).unwrap()).unwrap();
        assert_eq!(written["format"], 3);
        assert_eq!(written["refresh_token"], "rt");
        assert!(written["client"].is_null() && written["ended"].is_null());
    }

    #[test]
    fn the_error_of_a_counter_that_is_too_high_says_so() {
        let valid = String::from_utf8(encode(&sample(3, "x")).unwrap().to_vec()).unwrap();
        let highest = format!("\"version\":{}", u64::MAX);
        let error = rejection(valid.replace("\"version\":3", &highest).as_bytes());
        assert!(error.contains("too high"), "{error}");
        let highest = format!("\"generation\":{}", u64::MAX);
        let error = rejection(valid.replace("\"generation\":1", &highest).as_bytes());
        assert!(error.contains("too high"), "{error}");
    }

    #[test]
    fn the_longest_session_that_is_written_is_read_back() {
        let session = |length| sample(1, "x").with_refresh_token("x".repeat(length));
        let rest = encode(&session(0)).unwrap().len();
        let longest = encode(&session(MAX_LEN - rest)).unwrap();
        assert_eq!(longest.len(), MAX_LEN);
        decode(&longest, &"the file").unwrap();
        let too_long = encode(&session(MAX_LEN - rest + 1));
        assert_eq!(too_long.unwrap_err().kind(), TokenErrorKind::Store);
    }
}
