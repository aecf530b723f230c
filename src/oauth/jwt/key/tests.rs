use aws_lc_rs::{
    encoding::AsDer,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, ED25519, KeyPair,
        RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::*;

/// A made-up key of 1,024 bits.
const SHORT_RSA: &str = "-----BEGIN RSA PRIVATE KEY-----
MIICXAIBAAKBgQC4pkBsvYYFPUWsT3Vvl2Rfb19VrYFRJFfVlX+IUxTsxgki4tCB
8kvnUYJFo6OJRdjp/lQB8D8Sv7JGjqzkRT7XgtvPuzaepm1IJUw6PoKPARrd/Jfm
IA1AauL5OlRf3cKqSY9Pkny0uIHqruI7MwG+qQe/1LYMGYM+5qUMZ0nREwIDAQAB
AoGAD6GjWpFAwzjIqSmg222Jhbq761jg1amp9d7OCRBfeRvasiVZWWbVniN8T8Dm
mzxafJSXMALSlBe+U9LIOBrUku0DEjitkOGBBqHid1+R87sbQtl1N5cEX8H/pzlP
IRg6ef+2Cnt+uP8Mx5kZH4ipcsA6+ND2OOkCznTfsOtNlSECQQDsxM3L0Lx5JvAo
E3Mo0jjJWDbJ0d9zYxpJEK2hBsnCocGdiM5FTYt1OuC6fGXXBlxefSfPRAwaSIJc
kV1feXKFAkEAx6W3YUnBvDq1ne605x2ilNSmnIeXvIoXEod81bvZUcgHBnafgBH5
7kr6LfNeyEejjUbO14gP581PeP9MVNlktwJAVlSMFTzO+/3Oo040NzYvrnqTv5Le
vtvrwahrJsOq3WTNi/tN+scDioMlXdnt6DFRjMJluZU+NHcr0UTPnvhRYQJARIrc
XoZYASuW1tXxPbeq7bXkTbEvowc1zKK/dRG9Fpq57rojIHELgYg0RDpdvBz8RbCd
qtmHvGl8c2oS5r6MGQJBANjpdeRGdBeNplMd3cplxd3pGVPny+MBa+/OHXS6KJNb
LPJS2dLQfvgIHnV+YD1ufRWtJO1S1Pe0r1+fBHUHPyU=
-----END RSA PRIVATE KEY-----
";

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// A new key of each kind, as PKCS #8, with its public key.
fn rsa_key() -> (String, Vec<u8>) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    (
        pem("PRIVATE KEY", der.as_ref()),
        pair.public_key().as_ref().to_vec(),
    )
}

fn ecdsa_key() -> (String, Vec<u8>) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let der = pair.to_pkcs8v1().unwrap();
    (
        pem("PRIVATE KEY", der.as_ref()),
        pair.public_key().as_ref().to_vec(),
    )
}

fn ed25519_key() -> (String, Vec<u8>) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let der = pair.to_pkcs8v1().unwrap();
    (
        pem("PRIVATE KEY", der.as_ref()),
        pair.public_key().as_ref().to_vec(),
    )
}

type Case = (
    JwtAlgorithm,
    (String, Vec<u8>),
    &'static dyn VerificationAlgorithm,
);

#[tokio::test]
async fn each_algorithm_makes_signatures_that_its_public_key_verifies() {
    use JwtAlgorithm::{EdDsa, Es256, Ps256, Rs256};

    let cases: [Case; 4] = [
        (Rs256, rsa_key(), &RSA_PKCS1_2048_8192_SHA256),
        (Ps256, rsa_key(), &RSA_PSS_2048_8192_SHA256),
        (Es256, ecdsa_key(), &ECDSA_P256_SHA256_FIXED),
        (EdDsa, ed25519_key(), &ED25519),
    ];
    for (algorithm, (pem, public), verification) in cases {
        let key = SigningKey::from_pem(algorithm, &pem).unwrap().key_id("k1");
        assert_eq!(JwtSigner::key_id(&key), Some("k1"));
        let signature = key.sign(b"header.claims").await.unwrap();
        let public = UnparsedPublicKey::new(verification, public);
        public.verify(b"header.claims", &signature).unwrap();
        public.verify(b"header.other", &signature).unwrap_err();
        let shown = format!("{key:?}");
        assert!(!shown.contains(pem.lines().nth(1).unwrap()), "{shown}");
    }
}

#[test]
fn the_forms_of_openssl_are_read_as_well() {
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let sec1 = AsDer::<aws_lc_rs::encoding::EcPrivateKeyRfc5915Der<'_>>::as_der(&ec.private_key());
    let sec1 = pem("EC PRIVATE KEY", sec1.unwrap().as_ref());
    SigningKey::from_pem(JwtAlgorithm::Es256, &sec1).unwrap();
}

#[test]
fn a_key_that_does_not_fit_its_algorithm_is_rejected_when_it_is_read() {
    use JwtAlgorithm::{EdDsa, Es256, Ps256, Rs256};

    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let p384 = pem("PRIVATE KEY", p384.to_pkcs8v1().unwrap().as_ref());
    let (rsa, ec, ed) = (rsa_key().0, ecdsa_key().0, ed25519_key().0);
    for (algorithm, pem, problem) in [
        (
            Rs256,
            ec.as_str(),
            "RS256, which needs an RSA key of at least 2,048",
        ),
        (Ps256, &ed, "PS256, which needs an RSA key"),
        (Rs256, SHORT_RSA, "at least 2,048 bits"),
        (
            Es256,
            &rsa,
            "ES256, which needs an elliptic curve key over P-256",
        ),
        (Es256, &p384, "P-256"),
        (EdDsa, &ec, "EdDSA, which needs an Ed25519 key"),
        (EdDsa, "", "not a private key in PEM"),
        (
            EdDsa,
            "-----BEGIN PRIVATE KEY-----\nhunter2\n",
            "not a private key in PEM",
        ),
        (
            Rs256,
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "decrypted first",
        ),
    ] {
        let error = SigningKey::from_pem(algorithm, pem).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config, "{algorithm:?}");
        assert!(error.to_string().contains(problem), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn an_assertion_has_the_claims_that_servers_check() {
    let decoded = |part: &str| -> Value {
        let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part);
        serde_json::from_slice(&json.unwrap()).unwrap()
    };
    let key = SigningKey::from_pem(JwtAlgorithm::EdDsa, &ed25519_key().0).unwrap();
    let assertion = super::super::JwtAssertion::new("app", key.key_id("k1"))
        .claim("scope", "read")
        .claim("aud", "overwritten");
    let now = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let mut ids = std::collections::HashSet::new();
    for _ in 0..100 {
        let text = assertion
            .make(now, "https://login.example.com")
            .await
            .unwrap();
        let parts: Vec<_> = text.split('.').collect();
        let header = serde_json::json!({"alg": "EdDSA", "typ": "JWT", "kid": "k1"});
        assert_eq!(decoded(parts[0]), header);
        let mut claims = decoded(parts[1]);
        let id = claims.as_object_mut().unwrap().remove("jti").unwrap();
        assert!(
            ids.insert(id.as_str().unwrap().to_owned()),
            "a new id each time"
        );
        assert_eq!(
            claims,
            serde_json::json!({
                "iss": "app", "sub": "app", "aud": "https://login.example.com", "scope": "read",
                "iat": 1_699_999_990_u64, "exp": 1_700_000_060_u64,
            })
        );
    }
}

#[test]
fn a_certificate_must_be_one_and_that_of_the_key() {
    // A certificate contains the public key in these forms. A real one is in the tests of the `testing` server.
    let certificate = |public: &[u8]| pem("CERTIFICATE", &[b"\x30\x82", public, b"..."].concat());
    let (rsa, ec, ed) = (rsa_key(), ecdsa_key(), ed25519_key());
    let cases = [
        (JwtAlgorithm::Ps256, rsa),
        (JwtAlgorithm::Es256, ec),
        (JwtAlgorithm::EdDsa, ed),
    ];
    let mut thumbprints = std::collections::HashSet::new();
    for (algorithm, (pem, public)) in cases {
        let key = || SigningKey::from_pem(algorithm, &pem).unwrap();
        let own = certificate(&public);
        let chain = format!("{own}{}", certificate(b"of the issuer"));
        let named = [&own, &chain].map(|pem| key().certificate(pem).unwrap());
        let [own, chain] = named.map(|key| JwtSigner::certificate_thumbprint(&key).unwrap());
        assert_eq!(own, chain);
        assert!(thumbprints.insert(own));
        assert_eq!(JwtSigner::certificate_thumbprint(&key()), None);
        for (wrong, problem) in [
            (certificate(b"of another key"), "another public key"),
            (pem.clone(), "none in PEM"),
            (String::new(), "none in PEM"),
        ] {
            let error = key().certificate(&wrong).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Config);
            assert!(error.to_string().contains(problem), "{error}");
        }
    }
}
