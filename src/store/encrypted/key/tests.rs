use std::{
    error::Error,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::time::Instant;

use super::*;

/// The bytes 0 to 31.
const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1F";
const VARIABLE: &str = "TOWER_BEARER_TEST_KEY";

fn bytes() -> [u8; KEY_LEN] {
    std::array::from_fn(|index| u8::try_from(index).unwrap())
}

async fn id(key: &EncryptionKey) -> String {
    key.cipher().await.unwrap().id().to_owned()
}

async fn failure(key: &EncryptionKey) -> TokenError {
    key.cipher().await.map(drop).unwrap_err()
}

#[tokio::test]
async fn every_spelling_is_the_same_key() {
    let expected = id(&EncryptionKey::from_bytes(&bytes()).unwrap()).await;
    for text in [BASE64, BASE64.trim_end_matches('='), HEX] {
        assert_eq!(id(&EncryptionKey::from_text(text).unwrap()).await, expected);
    }
    let high = EncryptionKey::from_bytes(&[0xff; KEY_LEN]).unwrap();
    assert_ne!(id(&high).await, expected);
    for text in ["/".repeat(42) + "8=", "_".repeat(42) + "8"] {
        let key = EncryptionKey::from_text(&text).unwrap();
        assert_eq!(id(&key).await, id(&high).await, "{text}");
    }
}

#[test]
fn what_is_not_a_key_is_an_error_that_does_not_show_it() {
    for text in [
        "",
        "hunter2",
        "hunter2 hunter2 hunter2 hunter2 hunter2!",
        &BASE64[..40],
        &format!("{BASE64}\n"),
        &"hunter2/".repeat(6),
        &format!("{}zz", &HEX[..62]),
        &HEX[..62],
        &format!("{HEX}00"),
        &"ü".repeat(32),
    ] {
        let error = EncryptionKey::from_text(text).map(drop).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config, "{text}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("openssl rand -base64 32"), "{shown}");
        assert!(text.is_empty() || !shown.contains(text), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    for length in [0, 16, 31, 33, 64] {
        let error = EncryptionKey::from_bytes(&vec![7; length]).map(drop);
        let error = error.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
        assert!(error.to_string().contains("32 bytes"), "{error}");
    }
}

#[test]
fn debug_shows_no_key() {
    let shown = [
        format!("{:?}", EncryptionKey::from_bytes(&bytes()).unwrap()),
        format!("{:?}", EncryptionKey::from_text(BASE64).unwrap()),
        format!("{:?}", EncryptionKey::from_file("/run/secrets/key")),
        format!(
            "{:?}",
            EncryptionKey::from_fn(|| async { EncryptionKey::from_text(BASE64) })
        ),
    ];
    assert_eq!(shown[0], shown[1]);
    assert_eq!(shown[0].len(), "EncryptionKey(01234567)".len());
    assert_eq!(shown[2], "EncryptionKey(the file /run/secrets/key)");
    assert_eq!(
        shown[3],
        "EncryptionKey(the function for the encryption key)"
    );
}

#[tokio::test]
async fn a_file_is_read_once_and_again_when_its_key_is_not_the_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let key = EncryptionKey::from_file(&path);
    let error = failure(&key).await;
    assert_eq!(error.kind(), TokenErrorKind::Store);
    assert!(
        error.to_string().contains(&path.display().to_string()),
        "{error}"
    );
    assert!(
        error
            .source()
            .unwrap()
            .to_string()
            .contains("cannot be read")
    );

    std::fs::write(&path, "hunter2\n").unwrap();
    let error = failure(&key).await;
    assert_eq!(error.kind(), TokenErrorKind::Config);
    let shown = format!("{error} {error:?}");
    assert!(
        shown.contains(&path.display().to_string()) && !shown.contains("hunter2"),
        "{shown}"
    );

    std::fs::write(&path, format!("{BASE64}\n")).unwrap();
    let first = key.cipher().await.unwrap();
    std::fs::write(&path, "ff".repeat(KEY_LEN)).unwrap();
    assert!(Arc::ptr_eq(&first, &key.clone().cipher().await.unwrap()));
    let second = key.changed(&first).await.unwrap();
    assert_ne!(first.id(), second.id());
    // Another caller has read it again already.
    assert!(Arc::ptr_eq(&second, &key.changed(&first).await.unwrap()));
    assert!(Arc::ptr_eq(&second, &key.cipher().await.unwrap()));

    // One that cannot be read stays what it was.
    std::fs::remove_file(&path).unwrap();
    key.changed(&second).await.map(drop).unwrap_err();
    assert!(Arc::ptr_eq(&second, &key.cipher().await.unwrap()));
}

/// A key whose closure fails until it was called `failures` times, and the number of calls.
fn managed(failures: u32) -> (EncryptionKey, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let key = EncryptionKey::from_fn(move || {
        let call = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            tokio::task::yield_now().await;
            if call < failures {
                return Err(TokenError::other("access denied"));
            }
            EncryptionKey::from_text(BASE64)
        }
    });
    (key, calls)
}

#[tokio::test]
async fn a_closure_that_fails_is_a_transient_error_and_called_again() {
    let (key, calls) = managed(2);
    for _ in 0..2 {
        let error = failure(&key).await;
        assert_eq!(error.kind(), TokenErrorKind::Store);
        assert!(error.is_transient());
        assert!(
            error
                .to_string()
                .contains("did not return the encryption key"),
            "{error}"
        );
        assert!(error.source().is_some());
    }
    id(&key).await;
    id(&key.clone()).await;
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_closure_is_called_once_for_all_that_need_its_key_at_a_time() {
    let (key, calls) = managed(0);
    let (a, b, c) = tokio::join!(id(&key), id(&key), id(&key));
    assert_eq!((a.as_str(), a.as_str()), (b.as_str(), c.as_str()));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_hangs_is_an_error_after_ten_seconds() {
    let key = EncryptionKey::from_fn(std::future::pending);
    let start = Instant::now();
    let (first, second) = tokio::join!(failure(&key), failure(&key));
    for error in [first, second] {
        assert_eq!(error.kind(), TokenErrorKind::Store);
        assert!(error.to_string().contains("within 10s"), "{error}");
    }
    assert_eq!(start.elapsed(), MAX_READ);
}

#[tokio::test]
async fn a_closure_that_returns_no_key_is_an_error_of_the_configuration() {
    let key = EncryptionKey::from_fn(|| async { EncryptionKey::from_bytes(b"hunter2") });
    let error = failure(&key).await;
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert!(
        error.source().unwrap().to_string().contains("has 7"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_closure_may_return_a_key_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, HEX).unwrap();
    let key = EncryptionKey::from_fn(move || {
        let path = path.clone();
        async { Ok(EncryptionKey::from_file(path)) }
    });
    assert_eq!(
        id(&key).await,
        id(&EncryptionKey::from_text(BASE64).unwrap()).await
    );
}

#[test]
fn a_variable_that_is_not_set_is_an_error_of_the_configuration() {
    let error = EncryptionKey::from_env("TOWER_BEARER_TEST_NOT_SET").map(drop);
    let error = error.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert!(
        error.to_string().contains("TOWER_BEARER_TEST_NOT_SET"),
        "{error}"
    );
    assert!(error.to_string().contains("is not set"), "{error}");
}

/// Runs in processes of its own, because a process cannot safely set its variables.
#[test]
fn a_variable_is_a_key_or_an_error_that_does_not_show_it() {
    let runs = |value: &str| {
        let this = std::env::current_exe().unwrap();
        let name = std::thread::current().name().unwrap().to_owned();
        let mut child = Command::new(this);
        child
            .args([&name, "--exact", "--nocapture"])
            .env(VARIABLE, value);
        let output = child.output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    match EncryptionKey::from_env(VARIABLE) {
        _ if std::env::var_os(VARIABLE).is_none() => {
            let expected = EncryptionKey::from_text(BASE64).unwrap();
            assert!(runs(&format!(" {BASE64}\n")).contains(&format!("read {expected:?}")));
            let shown = runs("hunter2");
            assert!(
                shown.contains(VARIABLE) && !shown.contains("hunter2"),
                "{shown}"
            );
            assert!(shown.contains("is not an encryption key"), "{shown}");
        }
        Ok(key) => println!("read {key:?}"),
        Err(error) => println!("{error} {error:?}"),
    }
}
