//! Each block of memory that is freed is searched for secrets: the crate wipes its own copies.

mod scanner;
mod server;

use std::{future::Future, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_bearer::{
    BearerAuthLayer, BodyFormat, ClientAuth, EncryptedStore, EncryptionKey, ExchangeTokenSource,
    FileStore, Identity, MemoryStore, OAuthClient, Parameters, RefreshTokenGrant,
    RefreshTokenSource, StoreLease, StoredSession, Token, TokenCache, TokenContext, TokenError,
    TokenErrorKind, TokenSource, TokenStore, provider,
};

use crate::{
    scanner::{Alone, unwatched},
    server::{Answer, Server, block_on},
};

const CLIENT_SECRET: &str = "7f3a+client/secret%:=-made-up-00000000000000";
const FIRST_REFRESH: &str = "first-7f3a-refresh-token-made-up-000000000000";
const SECOND_REFRESH: &str = "second-7f3a-refresh-token/made+up-00000000000";
const FIRST_ACCESS: &str = "first-7f3a-access-token-made-up-0000000000000";
const SECOND_ACCESS: &str = "second-7f3a-access-token/made+up=000000000000";
const ID_TOKEN: &str = "7f3a.id-token-made-up.000000000000000000000";
/// Spelled like the words of a date, as which it may be read.
const EXTRA: &str = "7F3A-Extra-Member-Made-Up-0000000000000000000000";
const NESTED: &str = "nested-7f3a-member-made-up-00000000000000000000";
const CALLERS_KEY: &str = "7f3a-key-of-the-caller-made-up-00000000000000000";
/// 32 bytes.
const ENCRYPTION_KEY: &str = "7f3a-encryption-key-made-up-0000";

/// Faults show the names only: a message that shows a secret would itself be found.
const SECRETS: &[(&str, &str)] = &[
    ("CLIENT_SECRET", CLIENT_SECRET),
    ("FIRST_REFRESH", FIRST_REFRESH),
    ("SECOND_REFRESH", SECOND_REFRESH),
    ("FIRST_ACCESS", FIRST_ACCESS),
    ("SECOND_ACCESS", SECOND_ACCESS),
    ("ID_TOKEN", ID_TOKEN),
    ("EXTRA", EXTRA),
    ("NESTED", NESTED),
    ("CALLERS_KEY", CALLERS_KEY),
    ("ENCRYPTION_KEY", ENCRYPTION_KEY),
];

const TOKEN_URL: &str = "https://login.example.com/token";

/// A text with spare room, which must not be shrunk before it is wiped.
fn roomy(secret: &str) -> String {
    let mut text = String::with_capacity(3 * secret.len());
    text.push_str(secret);
    text
}

/// Runs a scenario to its end, and panics if it has left a secret behind.
///
/// It has a stack of its own: what other scenarios have left on theirs would be copied into the unused parts of futures.
#[track_caller]
fn assert_wipes<F: Future>(test: &Alone, scenario: impl FnOnce() -> F + Send) {
    let watch = test.watch(SECRETS);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| block_on(async { drop(scenario().await) }));
        if let Err(panic) = running.join() {
            std::panic::resume_unwind(panic);
        }
    });
    watch.assert_wiped();
}

fn client(server: &Server, auth: ClientAuth, format: BodyFormat) -> OAuthClient {
    OAuthClient::with_transport(TOKEN_URL, server.clone())
        .unwrap()
        .client_auth(auth)
        .body_format(format)
}

/// A client of a public client, and a source of it that keeps the first refresh token.
fn source(server: &Server) -> RefreshTokenSource {
    let client = client(server, ClientAuth::none("app"), BodyFormat::Form);
    RefreshTokenSource::new(client, roomy(FIRST_REFRESH))
}

fn response(access: &str, refresh: &str) -> String {
    unwatched(|| {
        format!(
            r#"{{"access_token":"{access}","expires_in":900,"refresh_token":"{refresh}","id_token":"{ID_TOKEN}",
                "scope":"read","tenant":"{EXTRA}","user":{{"keys":["{NESTED}",1]}},"tenant":"{EXTRA}"}}"#
        )
    })
}

fn first_answer() -> Answer {
    Answer::new(200, response(FIRST_ACCESS, SECOND_REFRESH)).after(&[FIRST_REFRESH])
}

fn second_answer() -> Answer {
    Answer::new(200, response(SECOND_ACCESS, FIRST_REFRESH)).after(&[SECOND_REFRESH])
}

/// Gets two tokens, as after a rejection of the first one.
async fn two_tokens(source: &impl TokenSource) {
    let first = source.token(TokenContext::new()).await.unwrap();
    assert_eq!(first.expose_secret(), FIRST_ACCESS);
    let rejected = TokenContext::new().rejected(first);
    let second = source.token(rejected).await.unwrap();
    assert_eq!(second.expose_secret(), SECOND_ACCESS);
    assert_eq!(second.id_token(), Some(ID_TOKEN));
    assert_eq!(second.extra("tenant").unwrap(), EXTRA);
}

/// Sends one refresh, and returns how it has failed.
async fn failure(answers: &[Answer]) -> TokenError {
    let source = source(&Server::new(answers));
    source.token(TokenContext::new()).await.unwrap_err()
}

#[test]
fn a_freed_secret_is_found_in_every_form() {
    let test = Alone::new();
    let watch = test.watch(SECRETS);
    drop(String::from(FIRST_REFRESH));
    drop(String::from(&FIRST_REFRESH[..30]));
    let mut grown = String::from(CLIENT_SECRET);
    grown.push('.');
    unwatched(|| drop(grown));
    for before in ["", "1", "12"] {
        let longer = unwatched(|| format!("{before}{FIRST_REFRESH}."));
        drop(BASE64_STANDARD.encode(&longer));
        unwatched(|| drop(longer));
    }
    let faults = watch.faults();
    assert_eq!(faults.len(), 6, "{faults:#?}");
    assert!(faults[2].contains("CLIENT_SECRET"), "{faults:#?}");
    assert!(faults[3].contains("in base64"), "{faults:#?}");
    // Nothing is searched for after the end.
    drop(String::from(FIRST_REFRESH));
    assert!(test.watch(SECRETS).faults().is_empty());
}

#[test]
fn a_secret_freed_by_another_thread_is_found() {
    let test = Alone::new();
    let watch = test.watch(SECRETS);
    std::thread::spawn(|| drop(String::from(ID_TOKEN)))
        .join()
        .unwrap();
    assert_eq!(watch.faults().len(), 1);
}

#[test]
fn refreshes_are_wiped_with_each_client_authentication_and_body_format() {
    let test = Alone::new();
    let auth = |number| match number {
        0 => ClientAuth::client_secret_basic("app", roomy(CLIENT_SECRET)),
        1 => ClientAuth::client_secret_basic_unencoded("app", roomy(CLIENT_SECRET)),
        _ => ClientAuth::client_secret_post("app", roomy(CLIENT_SECRET)),
    };
    for number in 0..3 {
        for format in [BodyFormat::Form, BodyFormat::Json] {
            assert_wipes(&test, async || {
                let answers = [
                    first_answer().after(&[FIRST_REFRESH, CLIENT_SECRET]),
                    second_answer().after(&[SECOND_REFRESH, CLIENT_SECRET]),
                ];
                let server = Server::new(&answers);
                let client = client(&server, auth(number), format);
                two_tokens(&RefreshTokenSource::new(client, roomy(FIRST_REFRESH))).await;
                assert_eq!(server.requests(), 2);
            });
        }
    }
}

#[test]
fn other_grants_are_wiped_with_their_parameters() {
    let test = Alone::new();
    for format in [BodyFormat::Form, BodyFormat::Json] {
        assert_wipes(&test, async || {
            let auth = ClientAuth::client_secret_basic("app", CLIENT_SECRET);
            let answers = [
                first_answer().after(&[CLIENT_SECRET, EXTRA]),
                first_answer().after(&[CLIENT_SECRET, NESTED, EXTRA]),
            ];
            let client = client(&Server::new(&answers), auth, format)
                .parameter("key", roomy(EXTRA))
                .header("x-key", NESTED)
                .unwrap();
            let token = client.grant("client_credentials", &[]).await.unwrap();
            assert_eq!(token.expose_secret(), FIRST_ACCESS);
            let quoted = [
                ("assertion", NESTED),
                // Six times as long in JSON.
                ("controls", &"\u{1}".repeat(1_000)),
            ];
            client.grant("client_credentials", &quoted).await.unwrap();
        });
    }
    assert_wipes(&test, async || {
        let answer = first_answer().after(&[EXTRA]);
        let client = client(
            &Server::new(&[answer]),
            ClientAuth::anonymous(),
            BodyFormat::Form,
        );
        let source = ExchangeTokenSource::new(client, roomy(EXTRA));
        source.token(TokenContext::new()).await.unwrap();
    });
}

#[test]
fn responses_are_wiped_however_they_arrive() {
    let test = Alone::new();
    let bodies = || {
        let json = response(FIRST_ACCESS, SECOND_REFRESH);
        let escaped = unwatched(|| json.replace('/', r"\/").replace('-', r"\u002d"));
        let quoted = unwatched(|| {
            json.replace(
                EXTRA,
                &format!(r#"\"\\{EXTRA}\n\u00e9","expires_on":"{EXTRA}"#),
            )
        });
        let form = unwatched(|| {
            format!(
                "access_token={FIRST_ACCESS}&refresh_token={}&id_token={ID_TOKEN}&tenant={EXTRA}&tenant={NESTED}",
                SECOND_REFRESH.replace('/', "%2F").replace('+', "%2b"),
            )
        });
        [
            Answer::new(200, json.as_str()),
            Answer::new(200, json.as_str()).in_pieces(7),
            Answer::new(200, json.as_str()).in_pieces(100),
            Answer::new(200, json.as_str()).broken(),
            Answer::new(200, gzip(json.as_bytes())),
            Answer::new(200, gzip(json.as_bytes())).in_pieces(33),
            Answer::new(200, escaped.as_str()),
            Answer::new(200, quoted),
            Answer::new(200, gzip(escaped.as_bytes())),
            Answer::new(200, form),
        ]
    };
    for number in 0..unwatched(bodies).len() {
        assert_wipes(&test, async || {
            let source = source(&Server::new(&[unwatched(bodies)[number]]));
            let token = source.token(TokenContext::new()).await.unwrap();
            assert_eq!(token.expose_secret(), FIRST_ACCESS);
            assert_eq!(token.id_token(), Some(ID_TOKEN));
        });
    }
}

#[test]
fn error_responses_that_repeat_a_secret_are_wiped() {
    let test = Alone::new();
    let bodies: [fn() -> String; 15] = [
        || format!(r#"{{"error":"{FIRST_REFRESH}"}}"#),
        || {
            format!(
                r#"{{"error":"invalid_grant","error_description":"{FIRST_REFRESH} is unknown"}}"#
            )
        },
        || format!(r#"{{"errors":["{FIRST_REFRESH}","invalid_grant",["{FIRST_REFRESH}"]]}}"#),
        || format!(r#"{{"error":{{"code":"{FIRST_REFRESH}","message":"{EXTRA}"}}}}"#),
        || format!(r#"{{"message":"{FIRST_REFRESH}","{EXTRA}":1}}"#),
        || format!("error={FIRST_REFRESH}&{EXTRA}={NESTED}"),
        || format!("<html>{FIRST_REFRESH}</html>"),
        // The token alone: it looks like the name of a member.
        || FIRST_ACCESS.to_owned(),
        || format!(r#"{{"expires":"{EXTRA}","error":"no"}}"#),
        // Not JSON to the end: what has been parsed before is wiped as well.
        || {
            format!(
                r#"{{"access_token":"{FIRST_ACCESS}","user":{{"key":"{NESTED}","keys":["{EXTRA}",}}"#
            )
        },
        || format!(r#"{{"access_token":"{FIRST_ACCESS}","user":["{NESTED}""#),
        // A number that is too large.
        || format!(r#"{{"a":"{FIRST_ACCESS}","b":["{NESTED}",{{"a":"{EXTRA}","b":1e999}}]}}"#),
        || format!(r#"{{"{FIRST_ACCESS}":"{FIRST_ACCESS}","{NESTED}""#),
        // Usable tokens only.
        || format!(r#"{{"access_token":"{FIRST_ACCESS} x","user":{{"{NESTED}":"{EXTRA}"}}}}"#),
        || format!(r#"{{"access_token":"{FIRST_ACCESS}","token_type":"dpop"}}"#),
    ];
    for status in [200, 400, 401, 500] {
        for body in bodies {
            assert_wipes(&test, async || {
                let body = unwatched(body);
                let error = failure(&[Answer::new(status, body.as_str())]).await;
                let code = error.oauth_code().unwrap_or_default();
                assert!(code != FIRST_REFRESH && code != EXTRA, "{error}");
                unwatched(|| drop(body));
            });
        }
    }
    assert_wipes(&test, async || {
        let long = unwatched(|| format!("{}{FIRST_ACCESS}", " ".repeat(70_000)));
        let long = Answer::new(200, unwatched(|| long)).in_pieces(9_000);
        assert_eq!(
            failure(&[long]).await.kind(),
            TokenErrorKind::InvalidResponse
        );
    });
}

#[test]
fn sessions_in_memory_are_wiped() {
    let test = Alone::new();
    assert_wipes(&test, async || {
        let store = MemoryStore::new();
        let server = Server::new(&[first_answer(), second_answer()]);
        two_tokens(&source(&server).store(store.clone())).await;
        // Another source adopts what is stored.
        let adopted = source(&server).store(store.clone());
        let token = adopted.token(TokenContext::new()).await.unwrap();
        assert_eq!(token.expose_secret(), SECOND_ACCESS);
        assert_eq!(server.requests(), 2);
    });
    assert_wipes(&test, async || {
        let store = MemoryStore::new();
        save_repeatedly(&store).await;
    });
}

/// Saves a session, saves it once more, and replaces it.
async fn save_repeatedly(store: &impl TokenStore) {
    let mut lease = store.lease().await.unwrap();
    assert!(store.load().await.unwrap().is_none());
    let first = session(EXTRA);
    lease.save(0, &first).await.unwrap();
    lease.save(0, &first).await.unwrap();
    let second = session(NESTED).replacing(&first);
    lease.save(1, &second).await.unwrap();
    let error = lease.save(1, &first).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::LeaseLost);
    let loaded = store.load().await.unwrap().unwrap();
    assert_eq!(loaded.version(), second.version());
}

/// A session that is longer than the buffers are at first.
fn session(extra: &str) -> StoredSession {
    let token = Token::new(FIRST_ACCESS)
        .unwrap()
        .with_id_token(roomy(ID_TOKEN))
        .with_extra("a", extra)
        .with_extra("long", "x".repeat(50_000))
        .with_extra("z", extra)
        .expires_in(Duration::from_secs(900));
    StoredSession::new(Identity::new("refresh", FIRST_REFRESH))
        .with_refresh_token(roomy(FIRST_REFRESH))
        .with_access_token(&token)
}

#[test]
fn sessions_in_files_are_wiped() {
    let test = Alone::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.json");
    let store = || FileStore::new(&path).unwrap();
    assert_wipes(&test, async || {
        let server = Server::new(&[first_answer(), second_answer()]);
        two_tokens(&source(&server).store(store())).await;
        let adopted = source(&server).store(store());
        let token = adopted.token(TokenContext::new()).await.unwrap();
        assert_eq!(token.expose_secret(), SECOND_ACCESS);
    });
    std::fs::remove_file(&path).unwrap();
    assert_wipes(&test, async || save_repeatedly(&store()).await);
    // Damaged at its end.
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, whole.trim_end().strip_suffix('}').unwrap()).unwrap();
    assert_wipes(&test, async || store().load().await.unwrap_err());
}

#[test]
fn encrypted_sessions_are_wiped_with_their_key() {
    let test = Alone::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.json");
    let key_path = folder.path().join("key");
    let key_text = BASE64_STANDARD.encode(ENCRYPTION_KEY);
    std::fs::write(&key_path, format!("{key_text}\n")).unwrap();
    let store = |key| EncryptedStore::new(FileStore::new(&path).unwrap(), "vendor", key);
    let fixed = || EncryptionKey::from_bytes(ENCRYPTION_KEY.as_bytes()).unwrap();
    assert_wipes(&test, async || {
        let server = Server::new(&[first_answer(), second_answer()]);
        two_tokens(&source(&server).store(store(fixed()))).await;
        let adopted = source(&server).store(store(fixed()));
        let token = adopted.token(TokenContext::new()).await.unwrap();
        assert_eq!(token.expose_secret(), SECOND_ACCESS);
    });
    std::fs::remove_file(&path).unwrap();
    let encoded = key_text.as_str();
    assert_wipes(&test, async || {
        save_repeatedly(&store(EncryptionKey::from_text(encoded).unwrap())).await;
    });
    let load = async |key| store(key).load().await.map(drop);
    assert_wipes(&test, async || {
        load(EncryptionKey::from_file(&key_path)).await.unwrap();
    });
    assert_wipes(&test, async || {
        let key = EncryptionKey::from_fn(|| async {
            EncryptionKey::from_bytes(ENCRYPTION_KEY.as_bytes())
        });
        load(key).await.unwrap();
    });
    // What is not a key may be a part of one.
    assert_wipes(&test, async || {
        EncryptionKey::from_text(&encoded[..40]).unwrap_err();
        EncryptionKey::from_bytes(&ENCRYPTION_KEY.as_bytes()[1..]).unwrap_err();
    });
    // Damaged at its end: all of it is decrypted before that is noticed.
    let whole = std::fs::read_to_string(&path).unwrap();
    let end = whole.rfind("\"}}").unwrap();
    std::fs::write(
        &path,
        format!("{}AAAA{}", &whole[..end - 8], &whole[end - 4..]),
    )
    .unwrap();
    assert_wipes(&test, async || load(fixed()).await.unwrap_err());
}

#[test]
fn a_session_that_another_program_deserializes_is_wiped() {
    let test = Alone::new();
    let json = serde_json::to_string(&session(EXTRA)).unwrap();
    let watch = test.watch(SECRETS);
    let read: StoredSession = serde_json::from_str(&json).unwrap();
    drop(read.clone());
    drop(read);
    watch.assert_wiped();
}

#[test]
fn what_is_given_with_spare_room_is_wiped() {
    let test = Alone::new();
    let watch = test.watch(SECRETS);
    drop(ClientAuth::client_secret_post("app", roomy(CLIENT_SECRET)));
    drop(RefreshTokenGrant::new(roomy(FIRST_REFRESH)));
    drop(Parameters::refresh_token(roomy(FIRST_REFRESH)).with("key", roomy(EXTRA)));
    let token = Token::new(FIRST_ACCESS).unwrap();
    let token = token
        .with_id_token(roomy(ID_TOKEN))
        .with_id_token(roomy(ID_TOKEN));
    let token = token
        .with_extra("key", roomy(EXTRA))
        .with_extra("key", roomy(NESTED));
    drop(token.clone().with_scope("read"));
    drop(token);
    let server = Server::new(&[]);
    let winbooks = provider::Winbooks::new("https://books.example.com", "ann", roomy(EXTRA));
    drop(winbooks.clone().build_with(server.clone()).unwrap());
    drop(winbooks);
    let two_ba = provider::TwoBa::new("app", roomy(CLIENT_SECRET), roomy(FIRST_REFRESH));
    drop(two_ba.build_with(server.clone()).unwrap());
    drop(provider::TwoBa::public_client("app", roomy(FIRST_REFRESH)));
    let xoxoday = provider::Xoxoday::new("app", roomy(CLIENT_SECRET), roomy(FIRST_REFRESH));
    drop(xoxoday.build_with(server).unwrap());
    watch.assert_wiped();
}

#[test]
fn sources_and_caches_are_wiped_when_they_are_dropped() {
    let test = Alone::new();
    assert_wipes(&test, async || {
        let server = Server::new(&[first_answer(), second_answer()]);
        let cache = TokenCache::new(source(&server));
        let first = cache.token().await.unwrap();
        cache.reject(&first);
        assert_eq!(cache.token().await.unwrap().expose_secret(), SECOND_ACCESS);
        cache.close().await.unwrap();
    });
    // The endpoint fails after the first token.
    assert_wipes(&test, async || {
        let failed = Answer::new(400, r#"{"error":"invalid_grant"}"#).after(&[SECOND_REFRESH]);
        let cache = TokenCache::new(source(&Server::new(&[first_answer(), failed])));
        let first = cache.token().await.unwrap();
        cache.reject(&first);
        let error = cache.refresh().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
        drop(cache.peek());
    });
}

#[test]
fn a_replayed_request_is_wiped() {
    let test = Alone::new();
    assert_wipes(&test, async || {
        let server = Server::new(&[first_answer(), second_answer()]);
        let api = Server::new(&[
            Answer::new(401, "").after(&[FIRST_ACCESS]),
            Answer::new(200, "").after(&[SECOND_ACCESS]),
            Answer::new(200, "").after(&[SECOND_ACCESS]),
        ]);
        // Static: only the copies that are made of it are freed.
        let mut key = HeaderValue::from_static(CALLERS_KEY);
        key.set_sensitive(true);
        let http = BearerAuthLayer::new(source(&server)).layer(api.clone());
        for _ in 0..2 {
            let order = Request::post("https://api.example.com/orders").header("x-api-key", &key);
            let order = order.body(Full::<Bytes>::from("an order")).unwrap();
            let response = http.clone().oneshot(order).await.unwrap();
            assert_eq!(response.status(), 200);
        }
        assert_eq!(api.requests(), 3);
    });
}

/// Compressed into blocks that hold the text as it is.
fn gzip(text: &[u8]) -> Vec<u8> {
    unwatched(|| {
        let mut gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec();
        gzip.extend(miniz_oxide::deflate::compress_to_vec(text, 0));
        gzip.extend([0; 8]);
        gzip
    })
}
