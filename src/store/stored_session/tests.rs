use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn new_tokens(access: &str, refresh: Option<&str>) -> NewTokens {
    NewTokens {
        token: Some(Token::new(access).unwrap()),
        expires_at: Some(now() + Duration::from_secs(900)),
        lifetime: Some(Duration::from_secs(900)),
        refresh_token: refresh.map(Into::into),
        refresh_expires_at: None,
    }
}

fn identity() -> Identity {
    Identity::new("refresh", "rt-0")
}

fn session() -> StoredSession {
    StoredSession::begin(identity(), None).merged(new_tokens("at-1", Some("rt-1")))
}

/// What a store of another kind reads back.
fn stored(session: &StoredSession) -> StoredSession {
    serde_json::from_str(&serde_json::to_string(session).unwrap()).unwrap()
}

#[test]
fn a_session_survives_its_serialisation() {
    let session = session().refreshing(now());
    let back = stored(&session);
    assert!(back.is_written_like(&session));
    assert_eq!(back.version(), 2);
    assert_eq!(back.refreshing_since(), Some(now()));
    assert_eq!(back.token().unwrap().expose_secret(), "at-1");
    assert_eq!(back.refresh_token().unwrap().expose_secret(), "rt-1");
}

#[test]
fn a_stored_token_keeps_its_details() {
    let token = Token::new("at-2")
        .unwrap()
        .with_token_type("Bearer")
        .with_scope("read")
        .with_id_token("ey.ey.sig")
        .with_extra("tenant", json!({"id": 7}));
    let session = session().merged(NewTokens {
        token: Some(token),
        ..new_tokens("unused", None)
    });
    let token = stored(&session).token().unwrap();
    assert_eq!(token.token_type(), Some("Bearer"));
    assert_eq!(token.scope(), Some("read"));
    assert_eq!(token.id_token(), Some("ey.ey.sig"));
    assert_eq!(token.extra("tenant").unwrap(), &json!({"id": 7}));
}

#[test]
fn a_lifetime_is_not_stored_shorter_than_it_is() {
    let session = session().merged(NewTokens {
        lifetime: Some(Duration::from_millis(1_500)),
        ..new_tokens("at-2", None)
    });
    assert_eq!(
        serde_json::to_value(&session).unwrap()["access"]["lifetime_secs"],
        2
    );
}

#[test]
fn counters_that_no_save_reaches_are_rejected_and_do_not_overflow() {
    for counter in ["version", "generation"] {
        for value in [u64::MAX, u64::MAX - 1, u64::MAX / 2 + 1] {
            let mut json = serde_json::to_value(session()).unwrap();
            json[counter] = value.into();
            let error = serde_json::from_value::<StoredSession>(json).unwrap_err();
            let error = error.to_string();
            assert!(error.contains("too high"), "{counter} {value}: {error}");
        }
    }
    // A session of a program's own making: saturates, and a store rejects it as it was saved by another process.
    let highest = sample(u64::MAX, "x");
    assert_eq!(highest.refreshing(now()).version(), u64::MAX);
    assert_eq!(highest.settled(None).version(), u64::MAX);
    assert_eq!(highest.merged(new_tokens("at-2", None)).version(), u64::MAX);
    let replacing = StoredSession::new(identity()).replacing(&highest);
    assert_eq!(replacing.version(), u64::MAX);
}

#[test]
fn a_session_begins_with_its_format() {
    let json = serde_json::to_string(&session()).unwrap();
    assert!(json.starts_with("{\"format\":2,\"version\":1,"), "{json}");
}

#[test]
fn the_error_of_another_format_says_what_was_found() {
    let cases = [
        (
            json!(3),
            "format 3, and this version of tower-bearer reads formats up to 2: update it",
        ),
        (json!(0), "unknown format 0"),
        (Value::Null, "no `format`"),
    ];
    for (format, expected) in cases {
        let mut value = serde_json::to_value(session()).unwrap();
        value["format"] = format;
        let error = serde_json::from_value::<StoredSession>(value).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let mut value = serde_json::to_value(session()).unwrap();
    value.as_object_mut().unwrap().remove("format");
    let error = serde_json::from_value::<StoredSession>(value).unwrap_err();
    assert!(error.to_string().contains("no `format`"), "{error}");
}

#[test]
fn debug_shows_no_secret() {
    let shown = format!("{:?}", session());
    assert!(
        !shown.contains("at-1") && !shown.contains("rt-1"),
        "{shown}"
    );
}

#[test]
fn the_old_refresh_token_stays_if_the_response_has_none() {
    let session = session().merged(new_tokens("at-2", None));
    assert_eq!(session.refresh_token().unwrap().expose_secret(), "rt-1");
    assert_eq!(session.token().unwrap().expose_secret(), "at-2");
}

#[test]
fn only_new_tokens_raise_the_generation() {
    let session = session();
    let marked = session.refreshing(now());
    assert_eq!(marked.generation(), session.generation());
    assert_eq!(marked.settled(None).generation(), session.generation());
    let another = Identity::new("refresh", "another");
    assert_eq!(
        StoredSession::begin(another, Some(&session)).generation(),
        session.generation()
    );
    assert!(marked.merged(new_tokens("at-2", None)).generation() > session.generation());
}

#[test]
fn a_new_credential_is_told_apart_from_a_former_one() {
    let of = |name: &str| Identity::new("refresh", name);
    let mut session = StoredSession::begin(of("0"), None);
    assert!(session.is_older_than(&of("1")));
    session = StoredSession::begin(of("1"), Some(&session));
    assert!(!session.is_older_than(&of("1")) && session.began_with(&of("1")));
    assert!(!session.is_older_than(&of("0")) && !session.began_with(&of("0")));
    assert!(session.is_older_than(&of("2")));
    for n in 2..20 {
        session = StoredSession::begin(of(&n.to_string()), Some(&session));
    }
    assert_eq!(session.former_identities.len(), MAX_FORMER_IDENTITIES);
    assert!(!session.is_older_than(&of("18")));
}

#[test]
fn an_imported_session_has_the_tokens_that_were_set() {
    let token = Token::new("at-9")
        .unwrap()
        .with_scope("read")
        .expires_in(Duration::from_secs(900));
    let session = StoredSession::new(identity())
        .with_access_token(&token)
        .with_refresh_token("rt-9")
        .with_refresh_expires_at(now());
    let session = stored(&session);
    assert_eq!((session.version(), session.generation()), (1, 1));
    assert!(session.began_with(&identity()));
    assert_eq!(session.refresh_token().unwrap().expose_secret(), "rt-9");
    assert_eq!(session.refresh_expires_at(), Some(now()));
    assert_eq!(session.refreshing_since(), None);
    let token = session.token().unwrap();
    assert_eq!(token.expose_secret(), "at-9");
    assert_eq!(token.scope(), Some("read"));
    assert_eq!(
        serde_json::to_value(&session).unwrap()["access"]["lifetime_secs"],
        900
    );
    let expires_at = session.access.unwrap().expires_at().unwrap();
    assert!(expires_at > SystemTime::now());
}

#[test]
fn an_imported_session_that_replaces_another_is_newer_and_knows_its_identity() {
    let before = session().merged(new_tokens("at-2", Some("rt-2")));
    let login = Identity::new("refresh", "new login");
    let session = StoredSession::new(login.clone()).replacing(&before);
    assert_eq!(session.version(), before.version() + 1);
    assert!(session.generation() > before.generation());
    assert!(session.began_with(&login));
    assert!(!session.is_older_than(&identity()));
}
