//! Signed assertions: which ones the server accepts, of clients and in grants.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::*;
use crate::{
    ClientAuth, JwtAlgorithm, JwtAssertion, JwtBearerSource, JwtSigner, OAuthClient, SecurityToken,
    SigningKey, TokenContext, TokenError, TokenSource,
};

const TOKEN_URL: &str = "https://login.example.com/token";
const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const NOW: u64 = 1_700_000_000;
const LONG_SECRET: &str = "a-made-up-secret-of-at-least-32-bytes";

fn new_key(algorithm: JwtAlgorithm) -> SigningKey {
    let der = match algorithm {
        JwtAlgorithm::Rs256 | JwtAlgorithm::Ps256 => {
            let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
            let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
            der.as_ref().to_vec()
        }
        JwtAlgorithm::Es256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            pair.to_pkcs8v1().unwrap().as_ref().to_vec()
        }
        JwtAlgorithm::EdDsa => {
            let pair = Ed25519KeyPair::generate().unwrap();
            pair.to_pkcs8v1().unwrap().as_ref().to_vec()
        }
    };
    let text = BASE64_STANDARD.encode(der);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    SigningKey::from_pem(algorithm, &pem).unwrap()
}

/// Ed25519 makes the tests fast.
fn key() -> SigningKey {
    new_key(JwtAlgorithm::EdDsa)
}

fn server(key: &SigningKey) -> AuthorizationServer {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    AuthorizationServer::new(Dialect::Rfc6749)
        .client_key("app", key)
        .clock(SimulatedClock::new(now))
}

fn part(json: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(json.to_string())
}

async fn signed(key: &SigningKey, header: &Value, claims: &Value) -> String {
    let input = format!("{}.{}", part(header), part(claims));
    let signature = key.sign(input.as_bytes()).await.unwrap();
    format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn good() -> (Value, Value) {
    let claims = json!({
        "iss": "app", "sub": "app", "aud": TOKEN_URL, "jti": "1", "iat": NOW - 10, "exp": NOW + 60,
    });
    (json!({ "alg": "EdDSA", "typ": "JWT" }), claims)
}

fn request(params: &[(&str, &str)]) -> TokenRequest {
    let grant = [("grant_type", "client_credentials")];
    post(TOKEN_URL, FORM, form(&[&grant, params].concat()))
}

fn asserted(assertion: &str) -> TokenRequest {
    request(&[
        ("client_assertion_type", CLIENT_ASSERTION),
        ("client_assertion", assertion),
    ])
}

/// The status, the code and the description of an error response.
async fn error(server: &AuthorizationServer, request: TokenRequest) -> (u16, String, String) {
    let response = send(server, request).await;
    let status = response.status().as_u16();
    let error: Value = serde_json::from_str(&text(response).await).unwrap();
    let field = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (status, field("error"), field("error_description"))
}

#[tokio::test]
async fn each_assertion_that_this_crate_signs_for_a_client_is_accepted() {
    use JwtAlgorithm::{EdDsa, Es256, Ps256, Rs256};

    let server = || AuthorizationServer::new(Dialect::Rfc6749);
    let mut cases: Vec<_> = [Rs256, Ps256, Es256, EdDsa]
        .into_iter()
        .map(|algorithm| {
            let key = new_key(algorithm).key_id("k1");
            let server = server().client_key("app", &key);
            (server, ClientAuth::private_key_jwt("app", key))
        })
        .collect();
    let auth = ClientAuth::client_secret_jwt("app", LONG_SECRET);
    cases.push((server().client("app", LONG_SECRET), auth));
    for (server, auth) in cases {
        for auth in [
            auth.clone(),
            auth.assertion_typ("client-authentication+jwt"),
        ] {
            let at_url = OAuthClient::with_transport(TOKEN_URL, server.clone()).unwrap();
            let at_url = at_url.client_auth(auth.clone());
            at_url.grant("client_credentials", &[]).await.unwrap();
            let issuer = "https://login.example.com/tenant";
            let discovered = server.clone().issuer(issuer);
            let discovered = OAuthClient::discover_with_transport(issuer, discovered).unwrap();
            let discovered = discovered.client_auth(auth);
            discovered.grant("client_credentials", &[]).await.unwrap();
        }
        assert_eq!((server.client_credentials(), server.rejected()), (4, 0));
    }
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn over_a_connection_the_token_endpoint_is_that_of_the_host() {
    let key = key();
    let server = AuthorizationServer::new(Dialect::Rfc6749).client_key("app", &key);
    let running = serve(server.clone()).await.unwrap();
    let client = OAuthClient::new(format!("{}/token", running.url())).unwrap();
    let auth = ClientAuth::private_key_jwt("app", key);
    let client = client.client_auth(auth.clone());
    client.grant("client_credentials", &[]).await.unwrap();
    let auth = auth.assertion_audience("http://127.0.0.1/token");
    let client = client.client_auth(auth);
    let rejected = client.grant("client_credentials", &[]).await;
    assert_eq!(rejected.unwrap_err().oauth_code(), Some("invalid_client"));
}

#[tokio::test]
async fn the_metadata_name_how_the_client_authenticates() {
    let issuer = "https://login.example.com";
    let (methods, algorithms) = (
        "token_endpoint_auth_methods_supported",
        "token_endpoint_auth_signing_alg_values_supported",
    );
    let document = async |server: AuthorizationServer| {
        let path = "/.well-known/openid-configuration";
        let request = Request::get(path).body(Full::default()).unwrap();
        answer(&server.issuer(issuer), request).await
    };
    let of_key = document(server(&key())).await;
    assert_eq!(of_key[methods], json!(["private_key_jwt"]));
    assert_eq!(of_key[algorithms], json!(["EdDSA"]));
    let of_secret = document(AuthorizationServer::new(Dialect::Rfc6749)).await;
    let expected = json!([
        "client_secret_basic",
        "client_secret_post",
        "client_secret_jwt"
    ]);
    assert_eq!(of_secret[methods], expected);
    assert_eq!(of_secret[algorithms], json!(["HS256"]));
    let public = document(server(&key()).public_client("app")).await;
    assert_eq!(public[methods], json!(["none"]));
    assert!(public[algorithms].is_null());
}

/// Changes the header and the claims.
type Change = fn(&mut Value, &mut Value);

#[tokio::test]
async fn each_wrong_assertion_is_an_invalid_client() {
    let cases: &[(&str, Change)] = &[
        ("`alg`", |header, _| header["alg"] = "none".into()),
        ("`alg`", |header, _| header["alg"] = "HS256".into()),
        ("`alg`", |header, _| header["alg"] = Value::Null),
        ("`typ`", |header, _| header["typ"] = "at+jwt".into()),
        ("`typ`", |header, _| {
            header["typ"] = "authorization-grant+jwt".into();
        }),
        ("`crit`", |header, _| header["crit"] = json!(["b64"])),
        ("`kid`", |header, _| header["kid"] = "another".into()),
        ("`iss`", |_, claims| claims["iss"] = "another".into()),
        ("`sub`", |_, claims| claims["sub"] = "another".into()),
        ("`sub`", |_, claims| claims["sub"] = Value::Null),
        ("`aud`", |_, claims| {
            claims["aud"] = "https://other.example".into();
        }),
        ("`aud`", |_, claims| claims["aud"] = json!([TOKEN_URL])),
        ("`aud`", |_, claims| claims["aud"] = Value::Null),
        ("has expired", |_, claims| claims["exp"] = NOW.into()),
        ("hour", |_, claims| claims["exp"] = (NOW + 3_601).into()),
        ("not a number", |_, claims| claims["exp"] = "1".into()),
        ("`exp` is missing", |_, claims| {
            claims.as_object_mut().unwrap().remove("exp");
        }),
        ("issued in the future", |_, claims| {
            claims["iat"] = (NOW + 1).into();
        }),
        ("not valid yet", |_, claims| {
            claims["nbf"] = (NOW + 1).into();
        }),
        ("`jti`", |_, claims| claims["jti"] = Value::Null),
        ("`jti`", |_, claims| claims["jti"] = 1.into()),
    ];
    let key = key();
    for (problem, change) in cases {
        let server = server(&key);
        let (mut header, mut claims) = good();
        change(&mut header, &mut claims);
        let assertion = signed(&key, &header, &claims).await;
        let (status, code, description) = error(&server, asserted(&assertion)).await;
        assert_eq!(
            (status, &*code),
            (401, "invalid_client"),
            "{header}{claims}"
        );
        assert!(description.contains(problem), "{description}");

        // A rejected one does not use up its `jti`.
        let (header, claims) = good();
        let assertion = signed(&key, &header, &claims).await;
        assert_eq!(status_of(&server, &assertion).await, 200);
    }
}

async fn status_of(server: &AuthorizationServer, assertion: &str) -> u16 {
    status(server, asserted(assertion)).await
}

#[tokio::test]
async fn a_signature_of_another_key_or_of_another_text_is_rejected() {
    let (key, other) = (key(), key());
    let server = server(&key);
    let (header, claims) = good();
    let assertion = signed(&key, &header, &claims).await;
    let (input, signature) = assertion.rsplit_once('.').unwrap();
    let none = json!({ "alg": "none" });
    for (problem, wrong) in [
        ("signature", signed(&other, &header, &claims).await),
        ("signature", {
            let claims = part(&json!({ "sub": "admin" }));
            format!("{}.{claims}.{signature}", part(&header))
        }),
        ("signature", format!("{input}.")),
        ("`alg`", format!("{}.{}.", part(&none), part(&claims))),
        ("JWT", input.to_owned()),
        ("JWT", format!("{assertion}.{signature}")),
        ("JWT", format!("{assertion}=")),
        ("JWT", "a.b.c".to_owned()),
    ] {
        let (status, code, description) = error(&server, asserted(&wrong)).await;
        assert_eq!((status, &*code), (401, "invalid_client"), "{wrong}");
        assert!(description.contains(problem), "{wrong}: {description}");
    }
    assert_eq!(status_of(&server, &assertion).await, 200);
}

#[tokio::test(start_paused = true)]
async fn an_assertion_is_accepted_once_and_until_it_expires() {
    let key = key();
    let server = server(&key);
    let (header, mut claims) = good();
    let assertion = signed(&key, &header, &claims).await;
    assert_eq!(status_of(&server, &assertion).await, 200);
    let (_, _, description) = error(&server, asserted(&assertion)).await;
    assert!(
        description.contains("`jti` was used before"),
        "{description}"
    );

    claims["jti"] = "2".into();
    let second = signed(&key, &header, &claims).await;
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(status_of(&server, &second).await, 401);
    // By the server's own clock, whatever the others show.
    let server = server.skew(-1);
    assert_eq!(status_of(&server, &second).await, 200);
}

#[tokio::test]
async fn what_is_sent_beside_an_assertion_must_agree_with_it() {
    let key = key();
    let server = server(&key);
    let (header, claims) = good();
    let assertion = &*signed(&key, &header, &claims).await;
    let (type_, text) = (
        ("client_assertion_type", CLIENT_ASSERTION),
        ("client_assertion", assertion),
    );
    for (params, code) in [
        (&[text][..], "invalid_client"),
        (&[("client_assertion_type", "saml"), text], "invalid_client"),
        (&[type_, text, ("client_id", "another")], "invalid_client"),
        (&[type_], "invalid_request"),
        (&[type_, text, ("client_secret", "x")], "invalid_request"),
        (
            &[("client_id", "app"), ("client_secret", "x")],
            "invalid_client",
        ),
        (&[("client_id", "app")], "invalid_client"),
    ] {
        assert_eq!(error(&server, request(params)).await.1, code, "{params:?}");
    }
    let basic = with_authorization(asserted(assertion), &basic("app:"));
    assert_eq!(error(&server, basic).await.1, "invalid_request");
    let params = [type_, text, ("client_id", "app")];
    assert_eq!(status(&server, request(&params)).await, 200);
}

#[tokio::test]
async fn the_algorithm_of_a_secret_is_fixed_as_well() {
    let key = key();
    let (header, claims) = good();
    let assertion = signed(&key, &header, &claims).await;
    for (server, problem) in [
        (server(&key).client("app", LONG_SECRET), "`alg`"),
        (server(&key).client("app", "short"), "too short"),
        (server(&key).public_client("app"), "no key"),
    ] {
        let (_, code, description) = error(&server, asserted(&assertion)).await;
        assert_eq!(code, "invalid_client");
        assert!(description.contains(problem), "{description}");
    }
}

const EC_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgPOSYhxJNZpo85wZ2
kEUlvPoE6Oify2f6VzmdN4xqceKhRANCAATRQdOR3SSW29k00bRqdLkDyuB9uUnH
OSYBBqtph4PneeMMxJErAbJb5kDZoCLvL2+VelCJwfT+CuAdCwwYQQWc
-----END PRIVATE KEY-----";
const EC_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUK/jdHlls6GoV8FIP6wk13+6DrGIwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbXktYXBwMCAXDTI2MTEzMDE2MTYzMFoYDzIxMjYxMTA2MTYx
NjMwWjARMQ8wDQYDVQQDDAZteS1hcHAwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATRQdOR3SSW29k00bRqdLkDyuB9uUnHOSYBBqtph4PneeMMxJErAbJb5kDZoCLv
L2+VelCJwfT+CuAdCwwYQQWco1MwUTAdBgNVHQ4EFgQUQnlIqLfFNonphZR3BPGt
WefZvUQwHwYDVR0jBBgwFoAUQnlIqLfFNonphZR3BPGtWefZvUQwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiBcWURYLQzmfq4wiesDFkehXkNq+Qca
9vrQlB424X7XmAIhAKgvOwAmoyT3q1iauIZm8du2J9YcRxB0UTYgDs8qGQLN
-----END CERTIFICATE-----";

#[tokio::test]
async fn a_key_with_a_certificate_is_named_by_its_thumbprint() {
    let plain = || SigningKey::from_pem(JwtAlgorithm::Es256, EC_KEY).unwrap();
    let certified = || plain().certificate(EC_CERTIFICATE).unwrap();
    let server = AuthorizationServer::new(Dialect::Rfc6749).client_key("app", &certified());
    let request = |key| {
        let client = OAuthClient::with_transport(TOKEN_URL, server.clone()).unwrap();
        let client = client.client_auth(ClientAuth::private_key_jwt("app", key));
        async move { client.grant("client_credentials", &[]).await }
    };
    request(certified()).await.unwrap();
    let sent = &server.requests()[0];
    let header = sent.param("client_assertion").unwrap().split('.').next();
    let header: Value =
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(header.unwrap()).unwrap()).unwrap();
    // What `openssl x509 -outform der | openssl dgst -sha256` says.
    let thumbprint = "hos0eXjJCOMs3FgVSUEzygOMdQWP5iuJceWkgihkizI";
    let expected = json!({ "alg": "ES256", "typ": "JWT", "x5t#S256": thumbprint });
    assert_eq!(header, expected);
    request(plain()).await.unwrap_err();
}

#[tokio::test]
async fn a_revocation_is_authenticated_for_the_token_endpoint() {
    let key = key();
    let server = AuthorizationServer::new(Dialect::Rfc6749).client_key("app", &key);
    let client = OAuthClient::with_transport(TOKEN_URL, server.clone())
        .and_then(|client| client.revocation_url("https://login.example.com/revoke"))
        .unwrap()
        .client_auth(ClientAuth::private_key_jwt("app", key));
    let source = crate::RefreshTokenSource::new(client, server.issue_refresh_token());
    source.token(TokenContext::new()).await.unwrap();
    source.revoke(TokenContext::new()).await.unwrap();
    assert_eq!((server.live_sessions(), server.rejected()), (0, 0));
}

#[tokio::test]
async fn the_token_of_a_workload_is_accepted_if_its_text_is_known() {
    let server = AuthorizationServer::new(Dialect::Rfc6749).public_client("app");
    server.accept_client_assertion("of.the.cluster");
    assert_eq!(status_of(&server, "of.the.cluster").await, 200);
    assert_eq!(status_of(&server, "of.the.cluster").await, 200);
    assert_eq!(status_of(&server, "of.another.cluster").await, 401);
}

#[tokio::test]
async fn a_known_issuer_may_authenticate_the_client_and_no_other() {
    let (cluster, own) = (key(), key());
    let server = AuthorizationServer::new(Dialect::Rfc6749)
        .client_key("app", &own)
        .assertion_issuer("cluster", &cluster);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let client = OAuthClient::with_transport(TOKEN_URL, server.clone()).unwrap();
    let client = client.client_auth(ClientAuth::assertion_file(None, &path));
    let assertions = [
        (JwtAssertion::new("cluster", own), None),
        (JwtAssertion::new("cluster", cluster), Some("app")),
    ];
    for (assertion, right_subject) in assertions {
        for subject in ["app", "another"] {
            let assertion = assertion.clone().subject(subject);
            let text = assertion.make(SystemTime::now(), TOKEN_URL).await.unwrap();
            std::fs::write(&path, text).unwrap();
            let result = client.grant("client_credentials", &[]).await;
            assert_eq!(result.is_ok(), right_subject == Some(subject), "{result:?}");
        }
    }
    assert_eq!((server.client_credentials(), server.rejected()), (1, 3));
}

/// A source whose grant is `assertion`, made anew for each request.
fn bearer(server: &AuthorizationServer, assertion: JwtAssertion) -> JwtBearerSource {
    let client = OAuthClient::with_transport(TOKEN_URL, server.clone())
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(ID, SECRET));
    let assertion = SecurityToken::from_fn(move |cx| {
        let assertion = assertion.clone();
        async move { assertion.make(cx.now(), cx.audience()).await }
    });
    JwtBearerSource::new(client, assertion)
}

#[tokio::test]
async fn each_assertion_that_this_crate_signs_for_a_grant_is_accepted() {
    use JwtAlgorithm::{EdDsa, Es256, Ps256, Rs256};

    for algorithm in [Rs256, Ps256, Es256, EdDsa] {
        let key = new_key(algorithm).key_id("k1");
        let server = AuthorizationServer::new(Dialect::Rfc6749)
            .assertion_issuer("https://idp.example", &key);
        let assertion = JwtAssertion::new("https://idp.example", key).subject("jo");
        for assertion in [assertion.clone(), assertion.typ("authorization-grant+jwt")] {
            let source = bearer(&server, assertion);
            let token = source.token(TokenContext::new()).await.unwrap();
            let next = TokenContext::new().replacing(token);
            source.token(next).await.unwrap();
        }
        assert_eq!((server.jwt_bearers(), server.rejected()), (4, 0));
    }
}

#[tokio::test]
async fn each_wrong_assertion_of_a_grant_is_an_invalid_grant() {
    let trusted = key();
    let make: [fn(SigningKey) -> JwtAssertion; 6] = [
        |key| JwtAssertion::new("https://other.example", key),
        |key| JwtAssertion::new("idp", key).audience("https://other.example"),
        |key| JwtAssertion::new("idp", key).lifetime(Duration::ZERO),
        |key| JwtAssertion::new("idp", key).lifetime(Duration::from_secs(7_200)),
        |key| JwtAssertion::new("idp", key).subject(""),
        |key| JwtAssertion::new("idp", key).typ("client-authentication+jwt"),
    ];
    let error_of = async |server: &AuthorizationServer, assertion| -> TokenError {
        let source = bearer(server, assertion);
        source.token(TokenContext::new()).await.unwrap_err()
    };
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    for make in make {
        let key = key();
        let server = server.clone().assertion_issuer("idp", &key);
        let error = error_of(&server, make(key)).await;
        assert_eq!(error.oauth_code(), Some("invalid_grant"));
    }
    let server = server.assertion_issuer("idp", &trusted);
    let error = error_of(&server, JwtAssertion::new("idp", key())).await;
    assert_eq!(error.oauth_code(), Some("invalid_grant"));
    assert_eq!(server.jwt_bearers(), 0);
}
