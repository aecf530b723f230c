//! The Redis store over TLS, with a real server.

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/redis.rs"]
mod server;

use std::{env, path::Path, process::Command};

use certificates::certificates;
use redis::{Client, TlsCertificates};
use server::Server;
use tempfile::TempDir;
use tower_bearer::{
    RedisStore, StoreLease, TokenErrorKind, TokenStore,
    testing::{sample_session, store_conformance},
};

/// The URL that the program of a user connects to. Set for the process that a test starts.
const URL_VARIABLE: &str = "TOWER_BEARER_REDISS_URL";

/// As a program does that takes `rustls` with several providers into its tree.
fn install_crypto_provider() {
    drop(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default());
}

struct TlsServer {
    server: Server,
    /// The certificate of its authority, in PEM.
    authority: String,
    folder: TempDir,
}

impl TlsServer {
    async fn start() -> Self {
        install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let [authority, certificate, key] = certificates();
        let write = |name: &str, contents: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, contents).unwrap();
            path.to_str().unwrap().to_owned()
        };
        write("authority.pem", &authority);
        let certificate = write("certificate.pem", &certificate);
        let key = write("key.pem", &key);
        let server = Server::start_with_tls(&[
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-auth-clients",
            "no",
        ])
        .await;
        Self {
            server,
            authority,
            folder,
        }
    }

    fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.server.tls_port().unwrap())
    }

    /// A store that trusts only this authority.
    fn store_trusting(&self, authority: &str) -> RedisStore {
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: Some(authority.into()),
        };
        let client = Client::build_with_tls(self.url(), certificates).unwrap();
        RedisStore::with_client(client, "test").unwrap()
    }
}

async fn save_and_load(store: &RedisStore) {
    let mut lease = store.lease().await.unwrap();
    lease.save(0, &sample_session(1, "first")).await.unwrap();
    lease.release().await;
    assert_eq!(store.load().await.unwrap().unwrap().version(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis_tls -- --ignored"]
async fn stores_conform_over_tls() {
    let server = TlsServer::start().await;
    store_conformance(|| server.store_trusting(&server.authority)).await;
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis_tls -- --ignored"]
async fn a_server_with_another_certificate_or_without_tls_is_not_used() {
    let server = TlsServer::start().await;
    let [other, ..] = certificates();
    let without_tls = format!("rediss://127.0.0.1:{}", server.server.port);
    let tls_port = server.server.tls_port().unwrap();
    let stores = [
        server.store_trusting(&other),
        // The authorities of this machine do not know the certificate.
        RedisStore::new(&server.url(), "test").unwrap(),
        RedisStore::new(&without_tls, "test").unwrap(),
        RedisStore::new(&format!("redis://127.0.0.1:{tls_port}"), "test").unwrap(),
    ];
    for store in stores {
        let store = store.command_timeout(std::time::Duration::from_secs(2));
        let error = store.load().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Store, "{error}");
        assert!(error.is_transient(), "{error}");
    }
}

/// What the program of a user does with the documented dependencies. Does nothing unless the test below has started it.
#[tokio::test]
async fn program() {
    if let Ok(url) = env::var(URL_VARIABLE) {
        install_crypto_provider();
        save_and_load(&RedisStore::new(&url, "program").unwrap()).await;
    }
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis_tls -- --ignored"]
async fn a_url_is_enough_if_the_machine_trusts_the_authority() {
    let server = TlsServer::start().await;
    let run = |trusted: &Path| {
        let test = env::current_exe().unwrap();
        let output = Command::new(test)
            .args(["--exact", "program"])
            .env(URL_VARIABLE, server.url())
            .env("SSL_CERT_FILE", trusted)
            .env_remove("SSL_CERT_DIR")
            .output();
        output.unwrap().status.success()
    };
    assert!(run(&server.folder.path().join("authority.pem")));
    let [other, ..] = certificates();
    let path = server.folder.path().join("other.pem");
    std::fs::write(&path, other).unwrap();
    assert!(!run(&path));
}
