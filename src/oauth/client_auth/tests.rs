use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header::AUTHORIZATION};

use super::*;
use crate::{
    error::TokenErrorKind,
    oauth::{Parameters, RequestTime},
};

async fn applied(auth: &ClientAuth) -> Result<(Parameters, HeaderMap), TokenError> {
    let (mut parameters, mut headers) = (Parameters::new("x"), HeaderMap::new());
    let target = AuthTarget {
        url: "https://login.example.com/token",
        audience: "https://login.example.com/token",
        time: RequestTime::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
    };
    auth.apply(&target, &mut parameters, &mut headers).await?;
    Ok((parameters, headers))
}

/// The decoded `Authorization` header, and the parameters.
async fn sent(auth: ClientAuth) -> (Option<String>, Vec<(String, String)>) {
    let (parameters, headers) = applied(&auth).await.unwrap();
    let credentials = headers.get(AUTHORIZATION).map(|header| {
        assert!(header.is_sensitive());
        let encoded = header.to_str().unwrap().strip_prefix("Basic ").unwrap();
        String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
    });
    let pairs = parameters.pairs().into_iter().skip(1);
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    (credentials, pairs.collect())
}

#[tokio::test]
async fn each_method_authenticates_in_its_own_way() {
    for (auth, credentials) in [
        (
            ClientAuth::client_secret_basic("a b:c", "p+/=%ü"),
            "a+b%3Ac:p%2B%2F%3D%25%C3%BC",
        ),
        (
            ClientAuth::client_secret_basic_unencoded("a b", "p+/=:%ü"),
            "a b:p+/=:%ü",
        ),
        (ClientAuth::client_secret_basic("app", ""), "app:"),
        (
            ClientAuth::basic_user_only("ann@books.example"),
            "ann@books.example",
        ),
    ] {
        assert_eq!(sent(auth).await, (Some(credentials.to_owned()), vec![]));
    }
    for (auth, expected) in [
        (ClientAuth::anonymous(), &[][..]),
        (
            ClientAuth::client_secret_post("app", "p+/="),
            &[("client_id", "app"), ("client_secret", "p+/=")],
        ),
        (ClientAuth::none("app"), &[("client_id", "app")]),
    ] {
        let (credentials, pairs) = sent(auth).await;
        assert_eq!(credentials, None);
        let expected = expected.iter().map(|(a, b)| ((*a).into(), (*b).into()));
        assert_eq!(pairs, expected.collect::<Vec<(String, String)>>());
    }
}

#[tokio::test]
async fn an_id_that_cannot_be_sent_is_a_configuration_error() {
    for auth in [
        ClientAuth::client_secret_basic("", "hunter2"),
        ClientAuth::client_secret_basic_unencoded("", "hunter2"),
        ClientAuth::client_secret_basic_unencoded("a:b", "hunter2"),
        ClientAuth::client_secret_post("", "hunter2"),
        ClientAuth::none(""),
        ClientAuth::basic_user_only(""),
    ] {
        let error = applied(&auth).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config, "{auth:?}");
        assert!(!format!("{error}{error:?}").contains("hunter2"));
    }
}

#[test]
fn debug_shows_neither_id_nor_secret() {
    for auth in [
        ClientAuth::client_secret_basic("hunter1", "hunter2"),
        ClientAuth::client_secret_basic_unencoded("hunter1", "hunter2"),
        ClientAuth::client_secret_post("hunter1", "hunter2"),
        ClientAuth::none("hunter1"),
        ClientAuth::basic_user_only("hunter1"),
    ] {
        assert!(!format!("{auth:?}{auth:#?}").contains("hunter"));
    }
}
