//! Encrypted sessions: in every store, with the wrong key, changed by somebody, and while keys and stores are changed.

#![cfg(all(feature = "encrypted-store", feature = "file-store"))]

#[path = "support/endpoint.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]
mod endpoint;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use endpoint::{TokenEndpoint, first, json, next};
use serde_json::Value;
use tempfile::TempDir;
use tower_bearer::{
    BoxStoreLease, BoxTokenStore, ClientAuth, ClientCredentialsSource, EncryptedStore,
    EncryptionKey, ExchangeTokenSource, FileStore, Identity, MemoryLease, MemoryStore,
    RefreshTokenSource, StoreLease, StoredSession, Token, TokenContext, TokenError, TokenErrorKind,
    TokenSource, TokenStore,
    testing::{sample_session, store_conformance},
};

const URL: &str = "https://login.example/token";
const NAME: &str = "vendor";

fn key(byte: u8) -> EncryptionKey {
    EncryptionKey::from_bytes(&[byte; 32]).unwrap()
}

fn encrypted<S: TokenStore + Clone>(inner: &S, byte: u8) -> EncryptedStore<S> {
    EncryptedStore::new(inner.clone(), NAME, key(byte))
}

fn source(endpoint: &TokenEndpoint, store: impl TokenStore) -> RefreshTokenSource {
    let client = endpoint.client(URL).client_auth(ClientAuth::none("app"));
    let client = client.revocation_url("https://login.example/revoke");
    RefreshTokenSource::new(client.unwrap(), "rt-0").store(store)
}

/// What identifies the key of the stored session.
async fn stored_key(store: &impl TokenStore) -> String {
    let stored = json(&store.load().await.unwrap().unwrap());
    stored["sealed"]["key"].as_str().unwrap().to_owned()
}

/// What identifies a key, as its `Debug` shows it.
fn id(key: &EncryptionKey) -> String {
    let shown = format!("{key:?}");
    let id = shown.strip_prefix("EncryptionKey(").unwrap();
    id.strip_suffix(')').unwrap().to_owned()
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.json");
    (folder, path)
}

/// Saves a session in a file, encrypted.
async fn save_in(path: &Path) -> StoredSession {
    let store = encrypted(&FileStore::new(path).unwrap(), 1);
    let session = sample_session(1, "first");
    let mut lease = store.lease().await.unwrap();
    lease.save(0, &session).await.unwrap();
    lease.release().await;
    session
}

/// The source gets the stored token.
async fn assert_adopts(source: &impl TokenSource, stored: &Token) {
    let token = first(source).await.unwrap();
    assert_eq!(token.expose_secret(), stored.expose_secret());
}

async fn failure(store: &impl TokenStore) -> TokenError {
    store.load().await.unwrap_err()
}

/// A source gets `kind` from the store, sends nothing, and leaves what is stored as it is. Returns the error.
async fn assert_is_kept_out(
    store: impl TokenStore + Clone,
    inner: &impl TokenStore,
    kind: TokenErrorKind,
) -> TokenError {
    let endpoint = TokenEndpoint::default();
    let before = json(&inner.load().await.unwrap().unwrap());
    let source = source(&endpoint, store.clone());
    let held = Token::new("held").unwrap();
    for cx in [
        TokenContext::new(),
        TokenContext::new().replacing(held.clone()),
        TokenContext::new().rejected(held.clone()),
        TokenContext::new().after_reset(),
    ] {
        let error = source.token(cx.clone()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!error.is_final());
        assert!(source.stored_token(cx).await.is_none());
        assert!(!source.has_changed().await);
    }
    let error = source.revoke(TokenContext::new()).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    source.flush().await.unwrap();
    assert_eq!(endpoint.sent(), [""; 0]);
    // Nor does it hold a lease, which a revocation and this would have taken.
    drop(store.lease_and_load().await);
    inner.lease().await.unwrap().release().await;
    assert_eq!(json(&inner.load().await.unwrap().unwrap()), before);
    error
}

#[tokio::test(start_paused = true)]
async fn an_envelope_around_memory_conforms() {
    let inner = MemoryStore::new();
    store_conformance(|| encrypted(&inner, 1)).await;
    let inner = MemoryStore::new();
    let store = encrypted(&inner, 1).boxed();
    store_conformance(|| store.clone()).await;
    let inner = MemoryStore::new();
    let twice = EncryptedStore::new(encrypted(&inner, 1), "outer", key(2));
    store_conformance(|| twice.clone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_of_several_threads_around_one_file_conform() {
    let (_folder, path) = folder();
    store_conformance(|| encrypted(&FileStore::new(&path).unwrap(), 1)).await;
    let inner: BoxTokenStore = FileStore::new(&path).unwrap().boxed();
    assert_eq!(stored_key(&inner).await, id(&key(1)));
}

#[tokio::test]
async fn what_is_stored_shows_the_version_and_the_key_and_nothing_else() {
    let (_folder, path) = folder();
    let session = save_in(&path).await;
    let written = fs::read_to_string(&path).unwrap();
    let stored: Value = serde_json::from_str(&written).unwrap();
    let data = stored["sealed"]["data"].as_str().unwrap();
    let expected = format!(
        "{{\"format\":4,\"version\":1,\"sealed\":{{\"key\":\"{}\",\"data\":\"{data}\"}}}}\n",
        id(&key(1))
    );
    assert_eq!(written, expected);

    // No text of the session is there, in whatever it is written.
    let mut texts = Vec::new();
    collect_texts(&json(&session), &mut texts);
    assert!(texts.len() > 10, "{texts:?}");
    for text in &texts {
        assert!(!written.contains(text.as_str()), "{text}");
    }
    let store = FileStore::new(&path).unwrap();
    let shown = format!("{:?}", store.load().await.unwrap());
    assert!(
        shown.contains("encrypted_with") && !shown.contains(data),
        "{shown}"
    );
}

/// The names and the values of more than three characters in a JSON text, but for those that both formats have.
fn collect_texts(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                if !["format", "version"].contains(&name.as_str()) {
                    texts.push(name.clone());
                }
                collect_texts(value, texts);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, texts)),
        Value::String(text) if text.len() > 3 => texts.push(text.clone()),
        Value::Number(number) if number.to_string().len() > 3 => texts.push(number.to_string()),
        _ => {}
    }
}

#[tokio::test]
async fn a_wrong_key_is_an_error_that_names_it_and_overwrites_nothing() {
    let (_folder, path) = folder();
    save_in(&path).await;
    let before = fs::read(&path).unwrap();
    let inner = FileStore::new(&path).unwrap();
    let store = encrypted(&inner, 2).decryption_key(key(3));
    let error = assert_is_kept_out(store, &inner, TokenErrorKind::Config).await;
    let [right, wrong, other] = [1, 2, 3].map(|byte| id(&key(byte)));
    let expected = format!(
        "the session \"vendor\" is encrypted with the key \"{right}\", which is none of the configured keys ({wrong}, {other})"
    );
    assert!(error.to_string().contains(&expected), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_session_of_another_name_is_refused() {
    let (_folder, path) = folder();
    save_in(&path).await;
    let inner = FileStore::new(&path).unwrap();
    let store = EncryptedStore::new(inner.clone(), "seller", key(1));
    let error = assert_is_kept_out(store, &inner, TokenErrorKind::Store).await;
    let text = error.to_string();
    for part in [
        "\"seller\"",
        "was changed, or belongs to another name or version",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn a_session_that_is_given_another_version_is_refused() {
    let (_folder, path) = folder();
    save_in(&path).await;
    let written = fs::read_to_string(&path).unwrap();
    for version in ["2", "1000"] {
        let changed = written.replace("\"version\":1,", &format!("\"version\":{version},"));
        fs::write(&path, changed).unwrap();
        let inner = FileStore::new(&path).unwrap();
        let store = encrypted(&inner, 1);
        assert_is_kept_out(store, &inner, TokenErrorKind::Store).await;
    }
}

/// A store of another kind, which has what somebody has written.
struct Written(Vec<u8>);

impl TokenStore for Written {
    type Lease = MemoryLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        serde_json::from_slice(&self.0)
            .map(Some)
            .map_err(|_| TokenError::new(TokenErrorKind::Store, "not a session"))
    }

    async fn lease(&self) -> Result<MemoryLease, TokenError> {
        MemoryStore::new().lease().await
    }
}

#[tokio::test]
async fn no_bit_of_what_is_stored_can_be_changed_and_no_end_be_cut_off() {
    let inner = MemoryStore::new();
    let mut lease = encrypted(&inner, 1).lease().await.unwrap();
    let session = sample_session(1, "first");
    lease.save(0, &session).await.unwrap();
    let written = serde_json::to_vec(&inner.load().await.unwrap()).unwrap();
    let load = async |bytes: &[u8]| {
        let store = EncryptedStore::new(Written(bytes.to_vec()), NAME, key(1));
        store.load().await
    };
    for byte in 0..written.len() {
        for bit in 0..8 {
            let mut changed = written.clone();
            changed[byte] ^= 1 << bit;
            let error = load(&changed).await.unwrap_err();
            let is_expected =
                matches!(error.kind(), TokenErrorKind::Store | TokenErrorKind::Config);
            assert!(is_expected, "{error}");
        }
    }
    for end in 0..written.len() {
        load(&written[..end]).await.unwrap_err();
    }
    let loaded = load(&written).await.unwrap().unwrap();
    assert_eq!(json(&loaded), json(&session));
}

#[tokio::test]
async fn the_error_of_changed_data_shows_none_of_it() {
    for (from, to) in [
        ("\"key\":\"", "\"key\":\"s3cret "),
        ("\"data\":\"", "\"data\":\"s3cret "),
        ("\"format\":4", "\"format\":\"s3cret\""),
    ] {
        let (_folder, path) = folder();
        save_in(&path).await;
        let written = fs::read_to_string(&path).unwrap();
        fs::write(&path, written.replace(from, to)).unwrap();
        let store = encrypted(&FileStore::new(&path).unwrap(), 1);
        let error = failure(&store).await;
        assert_eq!(error.kind(), TokenErrorKind::Store);
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn the_members_may_come_back_in_any_order() {
    let inner = MemoryStore::new();
    let store = encrypted(&inner, 1);
    let session = sample_session(1, "first");
    store
        .lease()
        .await
        .unwrap()
        .save(0, &session)
        .await
        .unwrap();
    let stored = serde_json::to_string(&inner.load().await.unwrap()).unwrap();
    let sealed = stored.find("\"sealed\"").unwrap();
    let (head, sealed) = (&stored[1..sealed - 1], &stored[sealed..stored.len() - 1]);
    let reordered = format!("{{{sealed},{head}}}").into_bytes();
    let store = EncryptedStore::new(Written(reordered), NAME, key(1));
    assert_eq!(json(&store.load().await.unwrap().unwrap()), json(&session));
}

#[test]
fn an_encrypted_session_without_its_data_is_not_deserialized() {
    for (text, expected) in [
        (r#"{"format":4,"version":1}"#, "missing field `sealed`"),
        (
            r#"{"format":4,"version":1,"sealed":{"key":"00"}}"#,
            "missing field `data`",
        ),
        (r#"{"format":3,"version":1}"#, "missing field `identity`"),
        (
            r#"{"format":3,"version":1,"sealed":{"key":"00","data":""}}"#,
            "missing field `identity`",
        ),
    ] {
        let error = serde_json::from_str::<StoredSession>(text).unwrap_err();
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_without_the_envelope_is_told_so_and_overwrites_nothing() {
    let endpoint = TokenEndpoint::default();
    let inner = MemoryStore::new();
    first(&source(&endpoint, encrypted(&inner, 1)))
        .await
        .unwrap();
    for store in [inner.clone().boxed(), inner.clone().boxed().boxed()] {
        let error = assert_is_kept_out(store, &inner, TokenErrorKind::Config).await;
        let text = error.to_string();
        for part in ["is encrypted", "`EncryptedStore`", &id(&key(1))] {
            assert!(text.contains(part), "{text}");
        }
    }
    // Other grants do not either. This one can go on without the store.
    let exchange = ExchangeTokenSource::new(endpoint.client(URL), "et").store(inner.clone());
    let error = first(&exchange).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    let client = endpoint.client(URL).client_auth(ClientAuth::none("app"));
    let credentials = ClientCredentialsSource::new(client).store(inner.clone());
    first(&credentials).await.unwrap();
    assert_eq!(stored_key(&inner).await, id(&key(1)));
}

#[tokio::test(start_paused = true)]
async fn a_running_source_overwrites_no_session_that_is_encrypted_later() {
    let endpoint = TokenEndpoint::default();
    let inner = MemoryStore::new();
    let plain = source(&endpoint, inner.clone());
    let token = first(&plain).await.unwrap();
    let enveloped = source(&endpoint, encrypted(&inner, 1).accept_unencrypted());
    next(&enveloped, &token).await.unwrap();
    let before = json(&inner.load().await.unwrap().unwrap());
    endpoint.sent();
    let error = next(&plain, &token).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert_eq!(endpoint.sent(), [""; 0]);
    assert_eq!(json(&inner.load().await.unwrap().unwrap()), before);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_not_encrypted_is_refused_unless_it_is_accepted() {
    let endpoint = TokenEndpoint::default();
    let inner = MemoryStore::new();
    let token = first(&source(&endpoint, inner.clone())).await.unwrap();
    let store = encrypted(&inner, 1);
    let error = assert_is_kept_out(store.clone(), &inner, TokenErrorKind::Config).await;
    let text = error.to_string();
    for part in [
        "\"vendor\" is stored without encryption",
        "`accept_unencrypted`",
    ] {
        assert!(text.contains(part), "{text}");
    }

    // Read as it is, and encrypted by its next save.
    let migrating = source(&endpoint, store.clone().accept_unencrypted());
    assert_adopts(&migrating, &token).await;
    assert!(json(&inner.load().await.unwrap().unwrap())["sealed"].is_null());
    let token = next(&migrating, &token).await.unwrap();
    assert_eq!(stored_key(&inner).await, id(&key(1)));
    assert_adopts(&source(&endpoint, store), &token).await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_rotated_without_losing_the_session() {
    let endpoint = TokenEndpoint::default();
    let inner = MemoryStore::new();
    let old = source(&endpoint, encrypted(&inner, 1));
    let both = source(&endpoint, encrypted(&inner, 1).decryption_key(key(2)));
    let new = source(&endpoint, encrypted(&inner, 2).decryption_key(key(1)));
    let token = first(&old).await.unwrap();
    assert_adopts(&both, &token).await;
    // Reading encrypts nothing anew.
    assert_adopts(&new, &token).await;
    assert_eq!(stored_key(&inner).await, id(&key(1)));
    let token = next(&new, &token).await.unwrap();
    assert_eq!(stored_key(&inner).await, id(&key(2)));
    assert_adopts(&both, &token).await;

    // A process that has only the old key sends nothing and overwrites nothing.
    endpoint.sent();
    let error = next(&old, &token).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert_eq!(endpoint.sent(), [""; 0]);
    assert_eq!(stored_key(&inner).await, id(&key(2)));
    // One that has both encrypts with its own, which all of them have.
    let token = next(&both, &token).await.unwrap();
    assert_eq!(stored_key(&inner).await, id(&key(1)));
    assert_adopts(&new, &token).await;
    assert_adopts(&old, &token).await;
}

#[tokio::test]
async fn a_running_process_reads_the_file_with_its_key_again_when_another_has_a_new_one() {
    let (folder, path) = folder();
    let file = folder.path().join("key");
    fs::write(&file, "01".repeat(32)).unwrap();
    let inner = FileStore::new(&path).unwrap();
    let endpoint = TokenEndpoint::default();
    let running = EncryptedStore::new(inner.clone(), NAME, EncryptionKey::from_file(&file));
    let running = source(&endpoint, running);
    let token = first(&running).await.unwrap();

    let new = source(&endpoint, encrypted(&inner, 2).decryption_key(key(1)));
    let token = next(&new, &token).await.unwrap();
    let error = next(&running, &token).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    fs::write(&file, "02".repeat(32)).unwrap();
    next(&running, &token).await.unwrap();
    assert_eq!(stored_key(&inner).await, id(&key(2)));
}

#[tokio::test]
async fn nothing_is_sent_while_the_key_cannot_be_read() {
    let (folder, path) = folder();
    let file = folder.path().join("key");
    let inner = FileStore::new(&path).unwrap();
    let endpoint = TokenEndpoint::default();
    let key = EncryptionKey::from_file(&file);
    let store = EncryptedStore::new(inner.clone(), NAME, key.clone());
    let source = source(&endpoint, store.clone());
    // Although nothing is stored yet.
    let error = first(&source).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store);
    assert_eq!(endpoint.sent(), [""; 0]);
    assert!(inner.load().await.unwrap().is_none());
    let mut lease = store.lease().await.unwrap();
    let saved = lease.save(0, &sample_session(1, "first")).await;
    assert_eq!(saved.unwrap_err().kind(), TokenErrorKind::Store);
    lease.release().await;
    assert!(inner.load().await.unwrap().is_none());

    // The other keys do not help: what they decrypt could not be saved.
    save_in(&path).await;
    let with_other = EncryptedStore::new(inner.clone(), NAME, key);
    let with_other = with_other.decryption_key(self::key(1));
    assert_eq!(failure(&with_other).await.kind(), TokenErrorKind::Store);
    fs::write(&file, "02".repeat(32)).unwrap();
    with_other.load().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_not_taken_for_a_wrong_one() {
    let (folder, path) = folder();
    save_in(&path).await;
    let missing = EncryptionKey::from_file(folder.path().join("missing"));
    let store = encrypted(&FileStore::new(&path).unwrap(), 2).decryption_key(missing);
    let error = failure(&store).await;
    assert_eq!(error.kind(), TokenErrorKind::Store);
    assert!(error.to_string().contains("missing"), "{error}");
    // It is not needed for what another key decrypts.
    let missing = EncryptionKey::from_file(folder.path().join("missing"));
    let store = encrypted(&FileStore::new(&path).unwrap(), 1).decryption_key(missing);
    store.load().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_repeated_save_succeeds_with_any_lease_of_any_process() {
    let inner = MemoryStore::new();
    let session = sample_session(1, "first");
    for _ in 0..3 {
        let mut lease = encrypted(&inner, 1).lease().await.unwrap();
        lease.save(0, &session).await.unwrap();
        lease.save(0, &session).await.unwrap();
    }
    let mut lease = encrypted(&inner, 1).lease().await.unwrap();
    let saved = lease.save(0, &sample_session(1, "second")).await;
    assert_eq!(saved.unwrap_err().kind(), TokenErrorKind::LeaseLost);
}

/// Saves, and then reports every first save as failed, as if the connection broke before the answer.
#[derive(Clone)]
struct LosesAnswers {
    inner: BoxTokenStore,
    fails: Arc<AtomicBool>,
}

struct LosesAnswersLease {
    inner: BoxStoreLease,
    fails: Arc<AtomicBool>,
}

impl TokenStore for LosesAnswers {
    type Lease = LosesAnswersLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        self.inner.load().await
    }

    async fn lease(&self) -> Result<LosesAnswersLease, TokenError> {
        Ok(LosesAnswersLease {
            inner: self.inner.lease().await?,
            fails: Arc::clone(&self.fails),
        })
    }
}

impl StoreLease for LosesAnswersLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        let saved = self.inner.save(replaces, session).await;
        saved.expect("a repeated save is the same text");
        if self.fails.fetch_xor(true, Ordering::Relaxed) {
            return Err(TokenError::new(
                TokenErrorKind::Store,
                "the answer was lost",
            ));
        }
        Ok(())
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        self.inner.is_held().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_repeats_a_save_whose_answer_was_lost() {
    let endpoint = TokenEndpoint::default();
    let inner = MemoryStore::new();
    let store = LosesAnswers {
        inner: inner.clone().boxed(),
        fails: Arc::new(AtomicBool::new(true)),
    };
    let source = source(&endpoint, encrypted(&store, 1));
    let token = first(&source).await.unwrap();
    let token = next(&source, &token).await.unwrap();
    assert_eq!(endpoint.sent().len(), 2);
    let fresh = self::source(&endpoint, encrypted(&inner, 1));
    assert_adopts(&fresh, &token).await;
    // The mark and the new session, twice.
    assert_eq!(inner.load().await.unwrap().unwrap().version(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_imported_and_exported() {
    let endpoint = TokenEndpoint::default();
    let inner = MemoryStore::new();
    let store = encrypted(&inner, 1);
    let session = StoredSession::new(Identity::new("refresh", "rt-0")).with_refresh_token("rt-x");
    store
        .lease()
        .await
        .unwrap()
        .save(0, &session)
        .await
        .unwrap();
    first(&source(&endpoint, store.clone())).await.unwrap();
    assert!(endpoint.sent()[0].contains("refresh_token=rt-x"));

    let mut lease = inner.lease().await.unwrap();
    let session = store.load().await.unwrap().unwrap();
    let mut plain = json(&session);
    plain["version"] = (session.version() + 1).into();
    let plain: StoredSession = serde_json::from_value(plain).unwrap();
    lease.save(session.version(), &plain).await.unwrap();
    lease.release().await;
    first(&source(&endpoint, inner)).await.unwrap();
    assert_eq!(endpoint.sent(), [""; 0]);
}

#[test]
fn debug_shows_keys_by_what_identifies_them() {
    let store = encrypted(&MemoryStore::new(), 1).decryption_key(key(2));
    let shown = format!("{store:?}");
    for part in [NAME, "MemoryStore", &id(&key(1)), &id(&key(2))] {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(
        !shown.contains("0101") && !shown.contains("1, 1"),
        "{shown}"
    );
    let _: (&MemoryStore, MemoryStore) = (store.get_ref(), store.clone().into_inner());
}
