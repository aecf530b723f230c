//! What caches are called.

use std::sync::Arc;

use tower_bearer::{
    ClientAuth, ClientCredentialsSource, ExchangeTokenSource, OAuthClient, RefreshTokenSource,
    Token, TokenCache, TokenSource, provider, source_fn,
    testing::{AuthorizationServer, Dialect},
};

fn client(url: &str) -> OAuthClient {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    OAuthClient::with_transport(url, server)
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic("app", "hush"))
}

#[test]
fn a_source_is_called_like_its_server_and_its_grant() {
    let client = || client("https://Login.Example.com:8443/tenants/7/token?key=hush");
    let sources = [
        RefreshTokenSource::new(client(), "hush").boxed(),
        ExchangeTokenSource::new(client(), "hush").boxed(),
        ClientCredentialsSource::new(client()).boxed(),
    ];
    let grants = ["refresh_token", "exchange_token", "client_credentials"];
    for (source, grant) in sources.iter().zip(grants) {
        let source = Arc::new(Box::new(source.clone()));
        assert_eq!(source.grant(), grant);
        assert!(source.name().eq_ignore_ascii_case("login.example.com"));
        let cache = TokenCache::new(source);
        assert!(cache.name().eq_ignore_ascii_case("login.example.com"));
        assert_eq!(cache.name(), cache.group());
    }
}

#[test]
fn a_discovered_server_is_called_like_its_issuer() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let client =
        OAuthClient::discover_with_transport("https://login.example.com/tenants/7", server)
            .unwrap();
    let cache = TokenCache::new(ClientCredentialsSource::new(client));
    assert_eq!(cache.group(), "login.example.com");
}

#[test]
fn a_preset_is_called_like_its_server() {
    let server = AuthorizationServer::new(Dialect::Winbooks);
    let url = "https://rapi.example.com";
    let preset = provider::Winbooks::new(url, "anna@example.com", "hush");
    let source = preset.build_with(server).unwrap();
    assert_eq!(source.name(), "rapi.example.com");
    assert_eq!(TokenSource::grant(&source), "exchange_token");
}

#[test]
fn a_name_and_a_group_can_be_set() {
    let source = || source_fn(|_| async { Token::new("abc") });
    let names = |cache: TokenCache| (cache.name().to_owned(), cache.group().to_owned());
    let cache = TokenCache::new(source());
    assert_eq!(names(cache), ("source_fn".into(), "source_fn".into()));
    let cache = TokenCache::builder(source()).group("orders").build();
    assert_eq!(names(cache), ("orders".into(), "orders".into()));
    let cache = TokenCache::builder(source()).name("user-7").build();
    assert_eq!(names(cache), ("user-7".into(), "source_fn".into()));
    let cache = TokenCache::builder(source()).name("user-7").group("orders");
    assert_eq!(names(cache.build()), ("user-7".into(), "orders".into()));
}
