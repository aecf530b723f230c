use super::*;

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

fn at(site: &Served, mut request: Ask) -> Ask {
    let uri = format!("{}{}", site.url(), request.uri().path());
    *request.uri_mut() = uri.parse().unwrap();
    request
}

#[tokio::test]
async fn both_are_served_over_real_connections() {
    let server = AuthorizationServer::new(Dialect::Winbooks);
    let (tokens, api) = (server.clone(), server.api());
    let (tokens, things) = (serve(tokens).await.unwrap(), serve(api).await.unwrap());
    let client = client();

    let ask = at(&tokens, exchange(&server.issue_exchange_token()));
    let response = client.request(ask).await.unwrap();
    assert_eq!(response.headers().get_all(header::DATE).iter().count(), 1);
    let answer: Value = serde_json::from_str(&text(response).await).unwrap();

    let access_token = answer["access_token"].as_str().unwrap();
    for _ in 0..2 {
        let request = at(&things, call(access_token)).map(|_| Full::from("a body"));
        let response = client.request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["x-echo-uri"], "/things");
        assert_eq!(text(response).await, "a body");
    }
    assert_eq!((tokens.connections(), things.connections()), (1, 1));
    assert_eq!(tokens.url(), format!("http://{}", tokens.addr()));
}

#[tokio::test]
async fn an_error_of_the_service_is_a_broken_connection() {
    let server = AuthorizationServer::new(Dialect::TwoBa);
    let site = serve(server.clone()).await.unwrap();
    let token = server.issue_refresh_token();
    server.fault(Fault::DropReplyAfterCommit);
    let ask = || at(&site, refresh(Dialect::TwoBa, &token));
    assert!(client().request(ask()).await.is_err());
    assert_eq!(server.refreshes(), 1);
    assert_eq!(client().request(ask()).await.unwrap().status(), 400);
    assert_eq!(site.connections(), 2);
}

#[tokio::test]
async fn http_2_is_understood_without_tls() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let site = serve(server.api().rejection(Rejection::Grpc))
        .await
        .unwrap();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let request = at(&site, call(&server.issue_access_token()));
    let response = client.request(request).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn what_is_dropped_is_served_no_more() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server.api();
    let site = serve(api.clone()).await.unwrap();
    api.hold();
    let waiting = tokio::spawn(client().request(at(&site, call("at-none"))));
    api.parked(1).await;
    let addr = site.addr();
    drop(site);
    assert!(waiting.await.unwrap().is_err());
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}
