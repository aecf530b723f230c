//! Services that log in by themselves, at authorization servers that others wrote: npm's `oidc-provider`, which is certified,
//! and `PyPI`'s Authlib.
//!
//! Needs Node.js and `OIDC_PROVIDER_HOME`, a folder where `npm install oidc-provider@9.13.3` has been run, and `AUTHLIB_HOME`,
//! a virtual environment of Python where `pip install authlib==1.6.5 flask==3.1.3` has been run.

use std::{path::PathBuf, process::Stdio};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
};
use tower_bearer::{
    ClientAuth, ClientCredentialsSource, GrantContext, JwtAlgorithm, JwtAssertion, JwtBearerSource,
    OAuthClient, ReqwestTransport, Schedule, SecurityToken, SigningKey, Token, TokenCache,
    TokenError, TokenErrorKind,
};

const SECRET: &str = "s3cr+t/=&% and more";
const HS256_SECRET: &str = "a-made-up-secret-of-at-least-32-bytes";

/// A process of an authorization server, which ends when this is dropped.
struct Server {
    url: String,
    http: reqwest::Client,
    _process: Child,
    _input: ChildStdin,
    /// Keeps the pipe open that the process logs to.
    _output: Lines<BufReader<ChildStdout>>,
}

impl Server {
    async fn start(mut command: Command, configuration: &Value) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the server's interpreter");
        let mut input = process.stdin.take().unwrap();
        let configuration = format!("{configuration}\n");
        input.write_all(configuration.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines.next_line().await.unwrap();
        Self {
            url: url.expect("the server's URL"),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            _process: process,
            _input: input,
            _output: lines,
        }
    }

    async fn oidc_provider(configuration: Value) -> Self {
        let mut command = Command::new("node");
        command
            .arg(script("machine-clients.mjs"))
            .env("OIDC_PROVIDER_HOME", home("OIDC_PROVIDER_HOME"));
        Self::start(command, &configuration).await
    }

    async fn authlib(configuration: Value) -> Self {
        let mut command = Command::new(home("AUTHLIB_HOME").join("bin/python"));
        command.arg(script("authlib_server.py"));
        Self::start(command, &configuration).await
    }

    fn client(&self, auth: ClientAuth) -> OAuthClient {
        OAuthClient::discover(&self.url).unwrap().client_auth(auth)
    }
}

fn home(variable: &str) -> PathBuf {
    let home = std::env::var_os(variable);
    PathBuf::from(home.unwrap_or_else(|| panic!("`{variable}` is not set")))
}

fn script(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "support", name]
        .iter()
        .collect()
}

/// A key pair: the private key as PEM, and the public key as JWK for this algorithm.
struct Keys {
    pem: String,
    jwk: Value,
}

/// Makes a key with Node.js, so that the server's library and ours meet only in the protocol.
async fn keys(algorithm: &str) -> Keys {
    let script = r"
        const { generateKeyPairSync } = require('node:crypto');
        const kinds = {
            RS256: ['rsa', { modulusLength: 2048 }],
            PS256: ['rsa', { modulusLength: 2048 }],
            ES256: ['ec', { namedCurve: 'P-256' }],
            EdDSA: ['ed25519', {}],
        };
        const alg = process.argv[1];
        const { privateKey, publicKey } = generateKeyPairSync(...kinds[alg]);
        console.log(JSON.stringify({
            pem: privateKey.export({ type: 'pkcs8', format: 'pem' }),
            jwk: { ...publicKey.export({ format: 'jwk' }), alg, use: 'sig', kid: 'k1' },
        }));
    ";
    let output = Command::new("node")
        .args(["-e", script, algorithm])
        .output()
        .await
        .expect("Node.js");
    assert!(output.status.success(), "{output:?}");
    let keys: Value = serde_json::from_slice(&output.stdout).unwrap();
    Keys {
        pem: keys["pem"].as_str().unwrap().to_owned(),
        jwk: keys["jwk"].clone(),
    }
}

fn algorithms() -> [(&'static str, JwtAlgorithm); 4] {
    [
        ("RS256", JwtAlgorithm::Rs256),
        ("PS256", JwtAlgorithm::Ps256),
        ("ES256", JwtAlgorithm::Es256),
        ("EdDSA", JwtAlgorithm::EdDsa),
    ]
}

async fn token(source: ClientCredentialsSource) -> Result<Token, TokenError> {
    TokenCache::new(source.scope("orders:read")).token().await
}

#[tokio::test]
#[ignore = "needs Node.js and npm's oidc-provider"]
async fn secrets_authenticate_at_oidc_provider() {
    let server = Server::oidc_provider(json!({})).await;
    for auth in [
        ClientAuth::client_secret_basic("basic:1", SECRET),
        ClientAuth::client_secret_post("post", SECRET),
        ClientAuth::client_secret_jwt("hs256", HS256_SECRET),
    ] {
        let source = ClientCredentialsSource::new(server.client(auth.clone()));
        let token = token(source).await.unwrap();
        assert_eq!(token.scope(), Some("orders:read"), "{auth:?}");
    }
    let wrong = ClientAuth::client_secret_post("post", "another");
    let error = token(ClientCredentialsSource::new(server.client(wrong)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidClient);
}

#[tokio::test]
#[ignore = "needs Node.js and npm's oidc-provider"]
async fn signed_assertions_authenticate_at_oidc_provider() {
    for hours_ahead in [0, 1] {
        let mut all = Vec::new();
        for (name, algorithm) in algorithms() {
            all.push((name, algorithm, keys(name).await));
        }
        let jwks: Value = all
            .iter()
            .map(|(name, _, keys)| ((*name).to_owned(), keys.jwk.clone()))
            .collect();
        let server = Server::oidc_provider(json!({"keys": jwks, "hours_ahead": hours_ahead})).await;
        for (name, algorithm, keys) in all {
            let key = SigningKey::from_pem(algorithm, &keys.pem)
                .unwrap()
                .key_id("k1");
            let client = server.client(ClientAuth::private_key_jwt(name, key));
            let source = ClientCredentialsSource::new(client);
            let token = token(source).await;
            token.unwrap_or_else(|error| panic!("{name}, {hours_ahead} hours ahead: {error}"));
        }
    }
}

#[tokio::test]
#[ignore = "needs Node.js and npm's oidc-provider"]
async fn a_resource_is_requested_at_oidc_provider_and_its_token_is_revoked() {
    let server = Server::oidc_provider(json!({})).await;
    let client = server.client(ClientAuth::client_secret_post("post", SECRET));
    let source = ClientCredentialsSource::new(client)
        .scope("orders:read")
        .resource("https://api.example.com");
    let cache = TokenCache::new(source);
    let token = cache.token().await.unwrap();
    assert!(server.is_live(token.expose_secret()).await);
    cache.revoke().await.unwrap();
    assert!(!server.is_live(token.expose_secret()).await);
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
}

#[tokio::test]
#[ignore = "needs Node.js and npm's oidc-provider"]
async fn a_hundred_requests_at_once_share_one_token_of_oidc_provider() {
    let server = Server::oidc_provider(json!({})).await;
    let client = server.client(ClientAuth::client_secret_basic("basic:1", SECRET));
    let cache = TokenCache::new(ClientCredentialsSource::new(client));
    let mut waiting: JoinSet<_> = (0..100)
        .map(|_| {
            let cache = cache.clone();
            async move { cache.token().await }
        })
        .collect();
    let mut tokens = std::collections::HashSet::new();
    while let Some(token) = waiting.join_next().await {
        tokens.insert(token.unwrap().unwrap().expose_secret().to_owned());
    }
    assert_eq!(tokens.len(), 1);
}

#[tokio::test]
#[ignore = "needs Node.js and npm's oidc-provider"]
async fn a_certificate_authenticates_at_oidc_provider() {
    let certificate = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let (server_certificate, server_key) = certificate("localhost");
    let (client_certificate, client_key) = certificate("client.example");
    let server = Server::oidc_provider(json!({
        "certificate": client_certificate,
        "tls": {"key": server_key, "cert": server_certificate},
    }))
    .await;
    let transport = |identity: Option<reqwest::Identity>| {
        let root = reqwest::Certificate::from_pem(server_certificate.as_bytes()).unwrap();
        let builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_certs_only([root]);
        let builder = identity
            .into_iter()
            .fold(builder, reqwest::ClientBuilder::identity);
        ReqwestTransport::from_client(builder.build().unwrap())
    };
    let pem = format!("{client_certificate}{client_key}");
    let identity = reqwest::Identity::from_pem(pem.as_bytes()).unwrap();
    for (transport, is_accepted) in [(transport(Some(identity)), true), (transport(None), false)] {
        let client = OAuthClient::discover_with_transport(&server.url, transport)
            .unwrap()
            .client_auth(ClientAuth::tls_client_auth("mtls"));
        let result = token(ClientCredentialsSource::new(client)).await;
        assert_eq!(result.is_ok(), is_accepted, "{result:?}");
    }
}

#[tokio::test]
#[ignore = "needs Python and Authlib"]
async fn client_credentials_and_revocation_work_at_authlib() {
    let server = Server::authlib(json!({"public_key": ""})).await;
    for auth in [
        // Authlib does not undo the form-encoding of RFC 6749 §2.3.1.
        ClientAuth::client_secret_basic_unencoded("basic", SECRET),
        ClientAuth::client_secret_post("post", SECRET),
    ] {
        let client = server
            .at("/token", auth)
            .revocation_url(format!("{}/revoke", server.url));
        let cache =
            TokenCache::new(ClientCredentialsSource::new(client.unwrap()).scope("orders:read"));
        let token = cache.token().await.unwrap();
        assert_eq!(token.scope(), Some("orders:read"));
        assert_eq!(
            server
                .get(&format!("/is_live/{}", token.expose_secret()))
                .await,
            "true"
        );
        cache.revoke().await.unwrap();
        assert_eq!(
            server
                .get(&format!("/is_live/{}", token.expose_secret()))
                .await,
            "false"
        );
    }
}

#[tokio::test]
#[ignore = "needs Python and Authlib"]
async fn jwt_bearer_works_at_authlib_with_a_new_assertion_each_time() {
    let keys = keys("ES256").await;
    let public = public_pem(&keys.pem).await;
    let server = Server::authlib(json!({"public_key": public})).await;
    let key = SigningKey::from_pem(JwtAlgorithm::Es256, &keys.pem).unwrap();
    let assertion = JwtAssertion::new("workload", key).subject("ann@example.com");
    let make = move |cx: GrantContext<'static>| {
        let assertion = assertion.clone();
        async move { assertion.make(cx.now(), cx.audience()).await }
    };
    let client = server.at("/token", ClientAuth::none("workload"));
    let source = JwtBearerSource::new(client, SecurityToken::from_fn(make));
    let schedule = Schedule::default().min_interval(std::time::Duration::ZERO);
    let cache = TokenCache::builder(source).schedule(schedule).build();
    let first = cache.token().await.unwrap();
    let second = cache.refresh().await.unwrap();
    assert_ne!(first.expose_secret(), second.expose_secret());
}

/// The public key of a private one.
async fn public_pem(private: &str) -> String {
    let script = "console.log(require('node:crypto').createPublicKey(process.argv[1]).export({ type: 'spki', format: 'pem' }))";
    let output = Command::new("node")
        .args(["-e", script, "--", private])
        .output()
        .await
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

impl Server {
    fn at(&self, path: &str, auth: ClientAuth) -> OAuthClient {
        OAuthClient::new(format!("{}{path}", self.url))
            .unwrap()
            .client_auth(auth)
    }

    async fn get(&self, path: &str) -> String {
        let response = self.http.get(format!("{}{path}", self.url)).send().await;
        response.unwrap().text().await.unwrap()
    }

    /// Introspects the token (RFC 7662).
    async fn is_live(&self, token: &str) -> bool {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("token", token),
                ("client_id", "post"),
                ("client_secret", SECRET),
            ])
            .finish();
        let request = self
            .http
            .post(format!("{}/token/introspection", self.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let answer = request.send().await.unwrap().bytes().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        answer["active"] == true
    }
}
