use super::*;

#[tokio::test]
async fn each_dialect_accepts_only_its_own_refresh_request() {
    for sent in DIALECTS {
        for expected in DIALECTS {
            let server = AuthorizationServer::new(expected);
            let token = server.issue_refresh_token();
            let status = status(&server, refresh(sent, &token)).await;
            assert_eq!(status == 200, sent == expected, "{sent:?} at {expected:?}");
            assert_eq!(server.refreshes(), usize::from(sent == expected));
            assert_eq!(server.rejected(), usize::from(sent != expected));
        }
    }
}

#[tokio::test]
async fn winbooks_responds_as_documented() {
    let server = AuthorizationServer::new(Dialect::Winbooks);
    let first = answer(&server, exchange(&server.issue_exchange_token())).await;
    let keys: Vec<_> = first.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "access_token",
            "expires_in",
            "refresh_token",
            "scope",
            "token_type"
        ]
    );
    assert_eq!(first["expires_in"], "900");
    assert_eq!(first["scope"], Value::Null);
    assert_eq!(first["token_type"], "bearer");

    let refresh_token = first["refresh_token"].as_str().unwrap();
    let second = answer(&server, refresh(Dialect::Winbooks, refresh_token)).await;
    assert_eq!(second["refresh_token"], first["refresh_token"]);
    assert_ne!(second["access_token"], first["access_token"]);
}

#[tokio::test]
async fn two_ba_responds_with_a_number_and_a_new_refresh_token() {
    let server = AuthorizationServer::new(Dialect::TwoBa);
    let token = server.issue_refresh_token();
    let answer = answer(&server, refresh(Dialect::TwoBa, &token)).await;
    assert_eq!(answer["expires_in"], 900);
    assert_ne!(answer["refresh_token"], token);
}

#[tokio::test(start_paused = true)]
async fn xoxoday_responds_with_expiry_times_in_milliseconds_since_the_epoch() {
    let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
    let server = AuthorizationServer::new(Dialect::Xoxoday)
        .clock(clock)
        .access_lifetime(Duration::from_secs(10))
        .refresh_lifetime(Duration::from_secs(20));
    let request = |token: String| refresh(Dialect::Xoxoday, &token);

    let numbers = answer(&server, request(server.issue_refresh_token())).await;
    assert_eq!(numbers["access_token_expiry"], 1_010_000);
    assert_eq!(numbers["refresh_token_expiry"], 1_020_000);
    assert_eq!(numbers["expires_in"], "10");

    let server = server
        .expiry_format(NumberFormat::String)
        .expires_in_format(NumberFormat::Omitted);
    let strings = answer(&server, request(server.issue_refresh_token())).await;
    assert_eq!(strings["access_token_expiry"], "1010000");
    assert_eq!(strings.get("expires_in"), None);

    let server = server.expiry_format(NumberFormat::Omitted);
    let absent = answer(&server, request(server.issue_refresh_token())).await;
    assert_eq!(absent.get("access_token_expiry"), None);
}

#[tokio::test]
async fn the_standard_accepts_three_grants_and_two_client_authentications() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let code = server.issue_exchange_token();
    let exchange = form(&[("grant_type", "exchange_token"), ("code", &code)]);
    let request = with_authorization(post("/token", FORM, exchange), &encoded_basic());
    assert_eq!(status(&server, request).await, 200);

    let credentials = form(&[
        ("grant_type", "client_credentials"),
        ("client_id", ID),
        ("client_secret", SECRET),
        ("scope", "a b"),
        ("audience", "unknown, so ignored"),
    ]);
    let answer = answer(&server, post("/token", FORM, credentials)).await;
    assert_eq!(answer.get("refresh_token"), None);
    assert!(server.is_live(answer["access_token"].as_str().unwrap()));
    assert_eq!((server.exchanges(), server.client_credentials()), (1, 1));
    assert_eq!(server.live_sessions(), 2);
}

#[tokio::test]
async fn each_kind_of_wrong_request_gets_its_own_status() {
    type Change = fn(&str) -> TokenRequest;
    let cases: &[(&str, Dialect, u16, Change)] = &[
        ("another path", Dialect::TwoBa, 404, |token| {
            let mut request = refresh(Dialect::TwoBa, token);
            *request.uri_mut() = Uri::from_static("/oauth/token");
            request
        }),
        ("GET", Dialect::TwoBa, 405, |token| {
            let mut request = refresh(Dialect::TwoBa, token);
            *request.method_mut() = http::Method::GET;
            request
        }),
        ("parameters in the URI", Dialect::TwoBa, 400, |token| {
            let mut request = refresh(Dialect::TwoBa, token);
            *request.uri_mut() = Uri::from_static("/OAuth/Token?client_id=x");
            request
        }),
        ("no content type", Dialect::Rfc6749, 415, |token| {
            let mut request = refresh(Dialect::Rfc6749, token);
            request.headers_mut().remove(header::CONTENT_TYPE);
            request
        }),
        ("a form for JSON", Dialect::Xoxoday, 415, |_| {
            post("/chef/v1/oauth/token/user", FORM, String::new())
        }),
        ("broken JSON", Dialect::Xoxoday, 400, |_| {
            post("/chef/v1/oauth/token/user", JSON, "{".into())
        }),
        ("a number in JSON", Dialect::Xoxoday, 400, |_| {
            let body = r#"{"grant_type":1}"#.into();
            post("/chef/v1/oauth/token/company", JSON, body)
        }),
        ("no Accept", Dialect::Winbooks, 406, |token| {
            let mut request = refresh(Dialect::Winbooks, token);
            request.headers_mut().remove(header::ACCEPT);
            request
        }),
        ("no credentials", Dialect::Winbooks, 401, |token| {
            let mut request = refresh(Dialect::Winbooks, token);
            request.headers_mut().remove(header::AUTHORIZATION);
            request
        }),
        (
            "a colon after the e-mail",
            Dialect::Winbooks,
            401,
            |token| {
                let colon = basic(&format!("{}:", AuthorizationServer::EMAIL));
                with_authorization(refresh(Dialect::Winbooks, token), &colon)
            },
        ),
        (
            "credentials that are no base64",
            Dialect::Winbooks,
            401,
            |t| with_authorization(refresh(Dialect::Winbooks, t), "Basic somebody@example.com"),
        ),
        ("unencoded Basic", Dialect::Rfc6749, 401, |token| {
            let raw = basic(&format!("{ID}:{SECRET}"));
            with_authorization(refresh(Dialect::Rfc6749, token), &raw)
        }),
        (
            "credentials sent in two ways",
            Dialect::Rfc6749,
            400,
            |_| {
                let body = form(&[("grant_type", "client_credentials"), ("client_id", ID)]);
                with_authorization(post("/token", FORM, body), &encoded_basic())
            },
        ),
        (
            "Basic where the body is required",
            Dialect::TwoBa,
            400,
            |token| with_authorization(refresh(Dialect::TwoBa, token), &encoded_basic()),
        ),
        ("another secret", Dialect::TwoBa, 401, |token| {
            let grant = ("grant_type", "refresh_token");
            let secret = ("client_secret", "wrong");
            let body = form(&[grant, ("refresh_token", token), ("client_id", ID), secret]);
            post("/OAuth/Token", FORM, body)
        }),
        ("an unknown grant", Dialect::Rfc6749, 400, |_| {
            let request = post("/token", FORM, form(&[("grant_type", "password")]));
            with_authorization(request, &encoded_basic())
        }),
        ("no token", Dialect::Rfc6749, 400, |_| {
            refresh(Dialect::Rfc6749, "")
        }),
    ];
    for (what, dialect, expected, change) in cases {
        let server = AuthorizationServer::new(*dialect);
        let token = server.issue_refresh_token();
        assert_eq!(status(&server, change(&token)).await, *expected, "{what}");
        assert_eq!((server.rejected(), server.refreshes()), (1, 0), "{what}");
        assert_eq!(status(&server, refresh(*dialect, &token)).await, 200);
    }
}

#[tokio::test]
async fn a_form_must_be_encoded_and_have_only_the_parameters_of_its_grant() {
    let server = AuthorizationServer::new(Dialect::Winbooks);
    let token = server.issue_refresh_token();
    let good = form(&[("grant_type", "refresh_token"), ("code", &token)]);
    for (what, body) in [
        (
            "unencoded",
            format!("grant_type=refresh_token&code={token}"),
        ),
        ("repeated", format!("{good}&code=x")),
        ("of another grant", format!("{good}&refresh_token=x")),
        ("half an escape", format!("{good}&x=%2")),
        ("no value", format!("{good}&x")),
    ] {
        let request = refresh(Dialect::Winbooks, &token).map(|_| Full::from(body));
        let answer = answer(&server, request).await;
        assert_eq!(answer["error"], "invalid_request", "{what}");
    }
    assert_eq!(server.refreshes(), 0);
}

#[tokio::test]
async fn the_expected_client_can_be_changed() {
    let server = AuthorizationServer::new(Dialect::Rfc6749)
        .client("an id", "a secret")
        .raw_basic(true)
        .path_prefix("/wow/v2/");
    assert_eq!(server.token_path(), "/wow/v2/token");
    let body = || form(&[("grant_type", "client_credentials")]);
    let request =
        |path, credentials: &str| with_authorization(post(path, FORM, body()), &basic(credentials));
    assert_eq!(
        status(&server, request("/wow/v2/token", "an id:a secret")).await,
        200
    );
    assert_eq!(
        status(&server, request("/wow/v2/token", "an+id:a+secret")).await,
        401
    );
    assert_eq!(
        status(&server, request("/token", "an id:a secret")).await,
        404
    );

    let server = AuthorizationServer::new(Dialect::TwoBa).public_client("app");
    for (secret, expected) in [("", 200), ("x", 401)] {
        let token = server.issue_refresh_token();
        let body = form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", &token),
            ("client_id", "app"),
            ("client_secret", secret),
        ]);
        assert_eq!(
            status(&server, post("/OAuth/Token", FORM, body)).await,
            expected
        );
    }
}

#[tokio::test]
async fn each_dialect_has_its_own_error_for_an_invalid_refresh_token() {
    for dialect in DIALECTS {
        let server = AuthorizationServer::new(dialect);
        let token = server.issue_refresh_token();
        server.revoke_sessions();
        let revoked = send(&server, refresh(dialect, &token)).await;
        let unknown = send(&server, refresh(dialect, "rt-none")).await;
        let (statuses, texts) = (
            (revoked.status().as_u16(), unknown.status().as_u16()),
            [text(revoked).await, text(unknown).await],
        );
        if dialect == Dialect::Xoxoday {
            assert_eq!(statuses, (200, 400));
            assert!(texts[0].contains("auth.token_error"));
            assert!(texts[1].contains("invalid/expired token"));
        } else {
            assert_eq!(statuses, (400, 400));
            assert_eq!(texts, [r#"{"error":"invalid_grant"}"#; 2]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn xoxoday_reports_too_many_refreshes_in_two_forms() {
    let minute = Duration::from_secs(60);
    for (penalty, expected) in [
        (None, "{\nmessage:'auth.request_limit_exceeded'\n}"),
        (
            Some(minute),
            r#"{"errors":[{"message":"auth.request_limit_exceeded","penaltySeconds":60}]}"#,
        ),
    ] {
        let server = AuthorizationServer::new(Dialect::Xoxoday).refresh_limit(1, minute, penalty);
        let token = server.issue_refresh_token();
        let (token, access) = refresh_tokens(&server, Dialect::Xoxoday, &token).await;
        let rejected = send(&server, refresh(Dialect::Xoxoday, &token)).await;
        assert_eq!(rejected.status(), 429);
        assert_eq!(text(rejected).await, expected);
        assert!(!server.is_live(&access));
        tokio::time::advance(minute).await;
        refresh_tokens(&server, Dialect::Xoxoday, &token).await;
    }

    let server = AuthorizationServer::new(Dialect::TwoBa).refresh_limit(0, minute, None);
    let token = server.issue_refresh_token();
    let rejected = send(&server, refresh(Dialect::TwoBa, &token)).await;
    assert_eq!(rejected.headers()[header::RETRY_AFTER], "60");
}

fn authenticated(params: &[(&str, &str)]) -> TokenRequest {
    with_authorization(post("/token", FORM, form(params)), &encoded_basic())
}

#[tokio::test]
async fn a_jwt_bearer_grant_needs_an_assertion_that_is_accepted() {
    let grant = ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    server.accept_assertion("h.c.s");
    let request = |assertion| authenticated(&[grant, ("assertion", assertion), ("scope", "read")]);
    let issued = answer(&server, request("h.c.s")).await;
    assert!(server.is_live(issued["access_token"].as_str().unwrap()));
    assert_eq!(issued["refresh_token"], Value::Null);
    assert_eq!(
        answer(&server, request("another")).await["error"],
        "invalid_grant"
    );
    assert_eq!(
        answer(&server, authenticated(&[grant])).await["error"],
        "invalid_request"
    );
    let alone = post("/token", FORM, form(&[grant, ("assertion", "h.c.s")]));
    assert_eq!(answer(&server, alone).await["error"], "invalid_client");
    assert_eq!((server.jwt_bearers(), server.rejected()), (1, 3));
}

#[tokio::test]
async fn a_token_exchange_needs_tokens_that_the_server_knows() {
    let access_token = "urn:ietf:params:oauth:token-type:access_token";
    let grant = (
        "grant_type",
        "urn:ietf:params:oauth:grant-type:token-exchange",
    );
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let (subject, actor) = (server.issue_access_token(), server.issue_access_token());
    let exchange = |subject: &str, more: &[(&str, &str)]| {
        let subject = [
            ("subject_token", subject),
            ("subject_token_type", access_token),
        ];
        authenticated(&[&[grant], &subject[..], more].concat())
    };
    let resources = [
        ("resource", "https://a.example"),
        ("resource", "https://b.example"),
    ];
    let issued = answer(&server, exchange(&subject, &resources)).await;
    assert_eq!(issued["issued_token_type"], access_token);
    assert_eq!(issued["token_type"], "Bearer");
    assert!(server.is_live(issued["access_token"].as_str().unwrap()));

    let acting = [("actor_token", &*actor), ("actor_token_type", access_token)];
    let requested = [(
        "requested_token_type",
        "urn:ietf:params:oauth:token-type:id-jag",
    )];
    let more = [&acting[..], &requested].concat();
    let issued = answer(&server, exchange(&subject, &more)).await;
    assert_eq!(issued["token_type"], "N_A");

    // Tokens of others, with their own types.
    let jwt = "urn:ietf:params:oauth:token-type:jwt";
    server.accept_security_token("of.a.workload", jwt);
    let of_workload = |token_type| {
        let subject = [
            ("subject_token", "of.a.workload"),
            ("subject_token_type", token_type),
        ];
        authenticated(&[&[grant], &subject[..]].concat())
    };
    let issued = answer(&server, of_workload(jwt)).await;
    assert!(server.is_live(issued["access_token"].as_str().unwrap()));
    let wrong_type = answer(&server, of_workload(access_token)).await;
    assert_eq!(wrong_type["error"], "invalid_request");
    for resource in ["/relative", "https://a.example/#part", "no uri"] {
        let target = exchange(&subject, &[("resource", resource)]);
        assert_eq!(answer(&server, target).await["error"], "invalid_target");
    }

    server.revoke_session(&actor);
    for (subject, more) in [
        ("unknown", &[][..]),
        (&*subject, &acting),
        (&*subject, &acting[..1]),
        (&*subject, &[("code", "c")]),
    ] {
        assert_eq!(
            answer(&server, exchange(subject, more)).await["error"],
            "invalid_request"
        );
    }
    assert_eq!((server.token_exchanges(), server.rejected()), (3, 8));
}

#[tokio::test]
async fn a_password_begins_a_session_where_there_is_a_user() {
    let params = |password, scope| {
        [
            ("grant_type", "password"),
            ("username", "jo"),
            ("password", password),
            ("client_id", ID),
            ("client_secret", SECRET),
            ("scope", scope),
        ]
    };
    for (dialect, path) in [
        (Dialect::Rfc6749, "/token"),
        (Dialect::TwoBa, "/OAuth/Token"),
    ] {
        let server = AuthorizationServer::new(dialect);
        let login = async |password, scope| {
            let body = form(&params(password, scope));
            answer(&server, post(path, FORM, body)).await
        };
        let without_user = login("pass+word", "offline_access").await;
        assert_eq!(without_user["error"], "unsupported_grant_type");
        let _ = server.clone().user("jo", "pass+word");
        assert_eq!(login("password", "x").await["error"], "invalid_grant");

        let issued = login("pass+word", "read offline_access").await;
        let refresh_token = issued["refresh_token"].as_str().unwrap();
        refresh_tokens(&server, dialect, refresh_token).await;
        let issued = login("pass+word", "read").await;
        // 2BA gives a refresh token only to those who ask for it.
        assert_eq!(issued["refresh_token"].is_null(), dialect == Dialect::TwoBa);
        assert_eq!((server.password_logins(), server.rejected()), (2, 2));
    }
}
