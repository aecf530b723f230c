use super::*;

#[tokio::test]
async fn a_rotated_refresh_token_is_rejected_and_its_successor_is_accepted() {
    for dialect in [Dialect::TwoBa, Dialect::Xoxoday] {
        let server = AuthorizationServer::new(dialect);
        let first = server.issue_refresh_token();
        let (second, _) = refresh_tokens(&server, dialect, &first).await;
        assert_eq!(status(&server, refresh(dialect, &first)).await, 400);
        refresh_tokens(&server, dialect, &second).await;
        assert_eq!((server.refreshes(), server.rejected()), (2, 1));
        assert_eq!((server.reuse_detected(), server.live_sessions()), (0, 1));
    }
}

#[tokio::test]
async fn reuse_ends_the_whole_session_and_no_other() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let other = server.issue_refresh_token();
    let first = server.issue_refresh_token();
    let (second, access) = refresh_tokens(&server, Dialect::Rfc6749, &first).await;
    assert_eq!(
        status(&server, refresh(Dialect::Rfc6749, &first)).await,
        400
    );
    assert_eq!(
        status(&server, refresh(Dialect::Rfc6749, &second)).await,
        400
    );
    assert!(!server.is_live(&access));
    assert_eq!((server.reuse_detected(), server.live_sessions()), (1, 1));
    refresh_tokens(&server, Dialect::Rfc6749, &other).await;
}

#[tokio::test(start_paused = true)]
async fn a_replaced_refresh_token_still_works_during_its_grace() {
    let server = AuthorizationServer::new(Dialect::Rfc6749).grace(Duration::from_secs(30));
    let first = server.issue_refresh_token();
    refresh_tokens(&server, Dialect::Rfc6749, &first).await;
    tokio::time::advance(Duration::from_secs(29)).await;
    refresh_tokens(&server, Dialect::Rfc6749, &first).await;
    assert_eq!(server.live_sessions(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(
        status(&server, refresh(Dialect::Rfc6749, &first)).await,
        400
    );
    assert_eq!((server.reuse_detected(), server.live_sessions()), (1, 0));
}

#[tokio::test]
async fn an_exchange_token_works_once_or_always() {
    for (once, expected) in [(true, 400), (false, 200)] {
        let server = AuthorizationServer::new(Dialect::Winbooks).exchange_once(once);
        let code = server.issue_exchange_token();
        assert_eq!(status(&server, exchange(&code)).await, 200);
        assert_eq!(status(&server, exchange(&code)).await, expected);
        server.revoke_exchange_tokens();
        assert_eq!(status(&server, exchange(&code)).await, 400);
        assert_eq!(server.live_sessions(), server.exchanges());
    }
}

#[tokio::test]
async fn without_refresh_tokens_in_responses_nothing_rotates() {
    let server = AuthorizationServer::new(Dialect::TwoBa).give_refresh_token(false);
    let token = server.issue_refresh_token();
    for _ in 0..2 {
        let answer = answer(&server, refresh(Dialect::TwoBa, &token)).await;
        assert_eq!(answer.get("refresh_token"), None);
    }
}

#[tokio::test]
async fn a_refresh_can_revoke_the_older_access_tokens() {
    for dialect in DIALECTS {
        let server = AuthorizationServer::new(dialect);
        let token = server.issue_refresh_token();
        let (token, first) = refresh_tokens(&server, dialect, &token).await;
        let (_, second) = refresh_tokens(&server, dialect, &token).await;
        assert_eq!(server.is_live(&first), dialect != Dialect::Xoxoday);
        assert!(server.is_live(&second));
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_expire_by_the_clock_of_the_server() {
    let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH);
    let server = AuthorizationServer::new(Dialect::TwoBa)
        .clock(clock.clone())
        .refresh_lifetime(Duration::from_secs(3_600));
    let token = server.issue_refresh_token();
    let (token, access) = refresh_tokens(&server, Dialect::TwoBa, &token).await;

    tokio::time::advance(Duration::from_secs(899)).await;
    assert!(server.is_live(&access));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!server.is_live(&access));
    assert_eq!(server.live_sessions(), 1);

    clock.step(3_600); // The machine was suspended.
    assert_eq!(server.live_sessions(), 0);
    assert_eq!(status(&server, refresh(Dialect::TwoBa, &token)).await, 400);
}

#[tokio::test]
async fn an_unlimited_lifetime_does_not_overflow() {
    let server = AuthorizationServer::new(Dialect::Xoxoday)
        .access_lifetime(Duration::MAX)
        .refresh_lifetime(Duration::MAX)
        .grace(Duration::MAX);
    let token = server.issue_refresh_token();
    let answer = answer(&server, refresh(Dialect::Xoxoday, &token)).await;
    assert_eq!(answer["expires_in"], u64::MAX.to_string());
    assert_eq!(answer.get("access_token_expiry"), None);
    refresh_tokens(&server, Dialect::Xoxoday, &token).await;
}

#[tokio::test]
async fn revoking_and_expiring_affects_only_the_named_tokens() {
    let server = AuthorizationServer::new(Dialect::TwoBa);
    let token = server.issue_refresh_token();
    let (token, first) = refresh_tokens(&server, Dialect::TwoBa, &token).await;
    server.expire_access_tokens();
    assert!(!server.is_live(&first));
    let (token, second) = refresh_tokens(&server, Dialect::TwoBa, &token).await;
    server.revoke_access_tokens();
    assert!(!server.is_live(&second));
    let (_, third) = refresh_tokens(&server, Dialect::TwoBa, &token).await;
    let other = server.issue_access_token();
    assert!(server.revoke_session(&third));
    assert!(!server.revoke_session(&third) && !server.revoke_session("at-none"));
    assert!(!server.is_live(&third) && server.is_live(&other));
    assert_eq!(server.live_sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_date_header_follows_the_clock_and_its_skew() {
    let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400));
    let server = AuthorizationServer::new(Dialect::TwoBa).clock(clock);
    let date = async |server: &AuthorizationServer| {
        let response = send(server, refresh(Dialect::TwoBa, "rt-none")).await;
        let date = response.headers().get(header::DATE)?;
        Some(date.to_str().unwrap().to_owned())
    };
    let at = |time: &str| Some(time.to_owned());
    assert_eq!(date(&server).await, at("Fri, 02 Jan 1970 00:00:00 GMT"));
    let server = server.skew(-3_600);
    assert_eq!(date(&server).await, at("Thu, 01 Jan 1970 23:00:00 GMT"));
    // Before the first time that a `Date` header can represent.
    let server = server.skew(-100_000);
    assert_eq!(date(&server).await, None);
    let server = server.skew(0).date(false);
    assert_eq!(date(&server).await, None);
}
