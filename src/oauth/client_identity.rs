//! What tells the clients of authorization servers apart in a store.

use secrecy::ExposeSecret;

use super::OAuthClient;
use crate::store::Identity;

impl OAuthClient {
    /// The client id, if the client authentication or a parameter has one.
    pub(crate) fn client_id(&self) -> Option<&str> {
        let of_authentication = self.settings.client_auth.id();
        of_authentication.or_else(|| self.own_parameters("client_id").next())
    }

    /// The values of the client's own parameters of this name.
    pub(crate) fn own_parameters(&self, name: &str) -> impl Iterator<Item = &str> {
        let of_name = move |(known, _): &&(String, _)| known == name;
        let found = self.settings.parameters.iter().filter(of_name);
        found.map(|(_, value)| value.expose_secret())
    }

    /// Identifies the endpoints or the issuer, the client id, the scope, the resources and the audiences. Two clients of different
    /// identities must not use each other's refresh tokens.
    ///
    /// `parts` are what a grant adds. Its scope, resources and audiences replace those of the client, as in a request.
    ///
    /// The secret, the method of the client authentication and other parameters are no part of it: they may change while
    /// the session stays the same. So may the endpoints that an issuer publishes, and no network is needed to know the issuer.
    pub(crate) fn identity(&self, parts: &[(&str, &str)]) -> Identity {
        const COMMON: [&str; 3] = ["scope", "resource", "audience"];

        let settings = &*self.settings;
        let endpoints = &settings.endpoints;
        let token_url = endpoints.token.identity();
        let refresh_url = endpoints.refresh.as_ref().map(|url| url.uri().to_string());

        let mut all = vec![(token_url.0, &*token_url.1)];
        all.extend(refresh_url.as_deref().map(|url| ("refresh_url", url)));
        let of_grant = |wanted: &str| -> Vec<&str> {
            let of_name = parts.iter().filter(|(name, _)| *name == wanted);
            of_name.map(|(_, value)| *value).collect()
        };
        all.extend(self.client_id().map(|id| ("client_id", id)));
        // The order of values means nothing (RFC 6749 §3.3, RFC 8707 §2).
        for name in COMMON {
            let mut values = of_grant(name);
            if values.is_empty() {
                values = self.own_parameters(name).collect();
            }
            if name == "scope" {
                values = values
                    .into_iter()
                    .flat_map(str::split_ascii_whitespace)
                    .collect();
            }
            values.sort_unstable();
            values.dedup();
            all.extend(values.into_iter().map(|value| (name, value)));
        }
        let mut others: Vec<_> = parts.to_vec();
        others.retain(|(name, _)| !COMMON.contains(name));
        others.sort_unstable();
        all.extend(others);
        Identity::of_parts("client", all)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use tower::service_fn;

    use super::*;
    use crate::oauth::{BodyFormat, ClientAuth};

    fn client(url: &str) -> OAuthClient {
        let service = service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        OAuthClient::with_transport(url, service).unwrap()
    }

    fn issuer(issuer: &str) -> OAuthClient {
        let service = service_fn(|_: Request<Full<Bytes>>| async {
            // No network is needed to know the issuer.
            Err::<Response<String>, _>(std::io::Error::other("down"))
        });
        OAuthClient::discover_with_transport(issuer, service).unwrap()
    }

    fn usual() -> OAuthClient {
        client("https://login.example/token")
            .client_auth(ClientAuth::client_secret_basic("app", "s3cr3t"))
            .parameter("scope", "read write")
            .parameter("resource", "https://a.example")
            .parameter("resource", "https://b.example")
            .parameter("audience", "api")
    }

    #[test]
    fn another_endpoint_client_id_scope_resource_or_audience_is_another_client() {
        let token_url = |url| {
            client(url)
                .client_auth(ClientAuth::none("app"))
                .identity(&[])
        };
        let with = |name: &str, value: &str| usual().parameter(name, value).identity(&[]);
        let refresh_url = usual()
            .refresh_url("https://login.example/refresh")
            .unwrap();
        let all = [
            usual().identity(&[]),
            usual()
                .client_auth(ClientAuth::none("another"))
                .identity(&[]),
            usual().client_auth(ClientAuth::anonymous()).identity(&[]),
            refresh_url.identity(&[]),
            with("scope", "admin"),
            with("resource", "https://c.example"),
            with("audience", "another"),
            token_url("https://login.example/token"),
            token_url("https://staging.login.example/token"),
            token_url("https://login.example/token?tenant=7"),
            token_url("https://login.example/token2"),
            client("https://login.example/token").identity(&[]),
            issuer("https://login.example/token").identity(&[]),
            issuer("https://login.example/token/").identity(&[]),
            issuer("https://login.example").identity(&[]),
            client("https://login.example/token")
                .parameter("client_id", "another")
                .identity(&[]),
        ];
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(at == other_at, one == other, "{at} and {other_at}");
            }
        }
    }

    #[test]
    fn what_a_grant_asks_for_is_part_of_the_identity_and_replaces_what_the_client_asks_for() {
        let plain = client("https://login.example/token");
        let grant = [
            ("resource", "https://b.example"),
            ("x", "1"),
            ("scope", "b a"),
        ];
        let same = plain
            .clone()
            .parameter("scope", "ignored")
            .parameter("scope", "as well");
        let reordered = [
            ("scope", "a b"),
            ("x", "1"),
            ("resource", "https://b.example"),
        ];
        assert_eq!(plain.identity(&grant), same.identity(&reordered));
        assert_eq!(
            plain.identity(&[("scope", "a")]),
            plain.clone().parameter("scope", "a").identity(&[])
        );
        for other in [
            &[][..],
            &grant[..2],
            &[
                ("resource", "https://b.example"),
                ("x", "2"),
                ("scope", "b a"),
            ],
        ] {
            assert_ne!(plain.identity(&grant), plain.identity(other));
        }
    }

    #[test]
    fn what_may_change_while_the_session_stays_is_no_part_of_the_identity() {
        let same = [
            usual().client_auth(ClientAuth::client_secret_basic("app", "rotated")),
            usual().client_auth(ClientAuth::client_secret_post("app", "s3cr3t")),
            usual().parameter("client_secret", "s3cr3t"),
            usual().header("x-api-key", "s3cr3t").unwrap(),
            usual().body_format(BodyFormat::Json),
            usual().parameter("scope", " write  read"),
            client("HTTPS://LOGIN.example:443/token")
                .client_auth(ClientAuth::none("app"))
                .parameter("audience", "api")
                .parameter("resource", "https://b.example")
                .parameter("resource", "https://a.example")
                .parameter("scope", "write")
                .parameter("scope", "read"),
            client("https://login.example/token")
                .parameter("client_id", "app")
                .parameter("scope", "read write")
                .parameter("resource", "https://a.example")
                .parameter("resource", "https://b.example")
                .parameter("audience", "api"),
        ];
        for (at, client) in same.iter().enumerate() {
            assert_eq!(client.identity(&[]), usual().identity(&[]), "{at}");
        }
    }
}
