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
    let session = session().refreshing(now(), 1);
    let back = stored(&session);
    assert!(back.is_written_like(&session));
    assert_eq!(back.version(), 2);
    assert_eq!(back.refreshing_since(), Some(now()));
    assert_eq!(back.token().unwrap().expose_secret(), "at-1");
    assert_eq!(back.refresh_token().unwrap().expose_secret(), "rt-1");
}

#[test]
fn a_revoked_session_has_no_tokens_and_no_mark_and_replaces_the_one_before() {
    let dead_login = Identity::new("refresh", "dead-login");
    let before = session()
        .with_refresh_expires_at(now())
        .refreshing(now(), 7)
        .with_dead(&[dead_login.clone(), identity()], now());
    let later = now() + Duration::from_secs(60);
    let revoked = before.revoked(&[identity()], later);
    assert_eq!(revoked.version(), before.version() + 1);
    assert_eq!(revoked.generation(), before.generation() + 1);
    assert_eq!(revoked.ended().unwrap().since(), Some(later));
    assert!(!revoked.is_older_than(&dead_login));
    let json = serde_json::to_value(&revoked).unwrap();
    for field in [
        "access",
        "refresh_token",
        "refresh_expires_at",
        "refreshing_since",
        "refresh_id",
    ] {
        assert!(!serde_json::to_value(&before).unwrap()[field].is_null());
        assert!(json[field].is_null(), "{field}");
    }
}

#[test]
fn each_change_of_a_session_has_a_higher_version() {
    let marked = session().refreshing(now(), 7);
    let settled = marked.settled(None);
    let refreshed = marked.merged(new_tokens("at-2", Some("rt-2")));
    let revoked = marked.revoked(&[], now());
    let versions = [session(), marked, settled, refreshed, revoked].map(|it| it.version());
    assert_eq!(versions, [1, 2, 3, 3, 3]);
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
    assert_eq!(highest.refreshing(now(), 1).version(), u64::MAX);
    assert_eq!(highest.settled(None).version(), u64::MAX);
    assert_eq!(highest.merged(new_tokens("at-2", None)).version(), u64::MAX);
    let replacing = StoredSession::new(identity()).replacing(&highest);
    assert_eq!(replacing.version(), u64::MAX);
}

#[test]
fn a_session_begins_with_its_format() {
    let json = serde_json::to_string(&session()).unwrap();
    assert!(json.starts_with("{\"format\":3,\"version\":1,"), "{json}");
}

#[test]
fn the_error_of_another_format_says_what_was_found() {
    let cases = [
        (
            json!(5),
            "format 5, and this version of tower-bearer reads formats up to 4: update it",
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
    let marked = session.refreshing(now(), 1);
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
    assert_eq!(session.former_identities.len(), owner::MAX_IDENTITIES);
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

#[test]
fn a_session_of_the_second_format_is_deserialized_and_written_in_the_present_format() {
    let second = r#"{"format":2,"version":3,"generation":2,"identity":"abc","former_identities":["def"],
        "access":{"token":"at","expires_at":1700000900000,"lifetime_secs":900},"refresh_token":"rt",
        "refresh_expires_at":null,"refreshing_since":1700000000000}"#;
    let session: StoredSession = serde_json::from_str(second).unwrap();
    assert_eq!((session.version(), session.generation()), (3, 2));
    assert_eq!(session.refresh_token().unwrap().expose_secret(), "rt");
    assert_eq!(session.token().unwrap().expose_secret(), "at");
    assert!(session.client().is_none() && session.ended().is_none());
    let mut expected: Value = serde_json::from_str(second).unwrap();
    expected["format"] = 3.into();
    expected["client"] = Value::Null;
    expected["ended"] = Value::Null;
    assert_eq!(serde_json::to_value(&session).unwrap(), expected);
}

#[test]
fn the_client_and_the_end_of_a_session_are_written_and_read() {
    let client = Identity::new("client", "a");
    let dead = [Identity::new("refresh", "rt-1")];
    let session = session().of_client(client.clone()).with_dead(&dead, now());
    let json = serde_json::to_value(&session).unwrap();
    assert_eq!(json["client"], serde_json::to_value(&client).unwrap());
    let expected =
        json!({"since": 1_700_000_000_000_u64, "credentials": dead, "reason": "rejected"});
    assert_eq!(json["ended"], expected);
    let back = stored(&session);
    assert!(back.is_written_like(&session));
    assert_eq!(back.client(), Some(&client));
    assert!(back.ended().unwrap().contains(&dead[0]));
    assert_eq!(back.ended().unwrap().since(), Some(now()));
}

#[test]
fn a_dead_credential_stays_dead_until_the_server_accepts_it() {
    let of = |credential: &str| Identity::new("refresh", credential);
    let dead = [of("rt-1"), of("login")];
    let session = session().of_client(identity()).with_dead(&dead, now());
    let is_dead = |session: &StoredSession, credential: &str| {
        session
            .ended()
            .is_some_and(|ended| ended.contains(&of(credential)))
    };
    assert!(is_dead(&session.refreshing(now(), 1), "login"));
    assert!(is_dead(&session.settled(None), "login"));
    let accepted = session.clone().without_dead(&of("rt-1"));
    let refreshed = accepted.merged(new_tokens("at-2", None));
    assert!(is_dead(&refreshed, "login") && !is_dead(&refreshed, "rt-1"));
    let begun = StoredSession::begin(identity(), Some(&session)).of_client(identity());
    assert!(is_dead(&begun, "login"));
    let accepted = refreshed.without_dead(&of("login"));
    let refreshed = accepted.merged(new_tokens("at-3", None));
    assert!(refreshed.ended().is_none());
}

#[test]
fn the_session_after_a_revoked_one_is_not_revoked() {
    let revoked = session().revoked(&[identity()], now());
    let begun = StoredSession::begin(Identity::new("refresh", "new"), Some(&revoked));
    assert!(revoked.is_revoked() && !begun.is_revoked());
    assert!(!revoked.merged(new_tokens("at-2", None)).is_revoked());
}

#[test]
fn a_later_login_is_later_whatever_the_generations_are() {
    let earlier = session();
    let mut unsaved = earlier.clone();
    for n in 0..5 {
        unsaved = unsaved.merged(new_tokens(&n.to_string(), None));
    }
    let later = StoredSession::begin(Identity::new("refresh", "new"), Some(&earlier));
    let later = later.merged(new_tokens("at-2", None));
    assert!(unsaved.generation() > later.generation());
    assert!(unsaved.is_before(&later) && !later.is_before(&unsaved));
    assert!(earlier.is_before(&unsaved) && !unsaved.is_before(&earlier));
    assert!(!earlier.is_before(&earlier));
}

#[test]
fn the_marks_of_two_refreshes_are_not_equal() {
    let interrupted = session().refreshing(now(), 1);
    let (one, other) = (
        interrupted.refreshing(now(), 2),
        interrupted.refreshing(now(), 3),
    );
    assert_eq!(one.refreshing_since(), other.refreshing_since());
    assert!(!one.is_written_like(&other) && stored(&one).is_written_like(&one));
    assert!(one.settled(None).is_written_like(&other.settled(None)));
}

#[test]
fn a_session_that_was_marked_as_ended_keeps_its_history() {
    let before = StoredSession::begin(Identity::new("refresh", "new"), Some(&session()))
        .merged(new_tokens("at-2", Some("rt-2")));
    let ended = before.clone().with_dead(&[identity()], now());
    assert_eq!(ended.version(), before.version());
    assert_eq!(ended.generation(), before.generation());
    assert_eq!(ended.former_identities, before.former_identities);
    assert_eq!(ended.token().unwrap().expose_secret(), "at-2");
}

#[test]
fn the_list_of_dead_credentials_is_bounded_and_keeps_the_newest() {
    let of = |n: u32| Identity::new("refresh", &n.to_string());
    let mut session = session();
    for n in 0..20 {
        session = session.with_dead(&[of(n)], now() + Duration::from_secs(n.into()));
    }
    let ended = session.ended().unwrap();
    assert!(ended.contains(&of(19)) && !ended.contains(&of(11)));
    // The same credential once more does not change when it was declared dead.
    let again = session.clone().with_dead(&[of(19)], now());
    assert_eq!(again.ended().unwrap().since(), ended.since());
}
