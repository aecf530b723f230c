use super::*;

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

fn at(running: &Served, mut request: TokenRequest) -> TokenRequest {
    let uri = format!("{}{}", running.url(), request.uri().path());
    *request.uri_mut() = uri.parse().unwrap();
    request
}

#[tokio::test]
async fn both_servers_work_over_real_connections() {
    let server = AuthorizationServer::new(Dialect::Winbooks);
    let (tokens, api) = (server.clone(), server.api());
    let (tokens, things) = (serve(tokens).await.unwrap(), serve(api).await.unwrap());
    let client = client();

    let request = at(&tokens, exchange(&server.issue_exchange_token()));
    let response = client.request(request).await.unwrap();
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
async fn an_error_of_the_service_closes_the_connection() {
    let server = AuthorizationServer::new(Dialect::TwoBa);
    let running = serve(server.clone()).await.unwrap();
    let token = server.issue_refresh_token();
    server.fault(Fault::DropReplyAfterCommit);
    let request = || at(&running, refresh(Dialect::TwoBa, &token));
    assert!(client().request(request()).await.is_err());
    assert_eq!(server.refreshes(), 1);
    assert_eq!(client().request(request()).await.unwrap().status(), 400);
    assert_eq!(running.connections(), 2);
}

#[tokio::test]
async fn http_2_works_without_tls() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let running = serve(
        server
            .api()
            .rejection_response(RejectionResponse::GrpcUnauthenticated),
    )
    .await
    .unwrap();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let request = at(&running, call(&server.issue_access_token()));
    let response = client.request(request).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn dropping_the_handle_stops_the_server() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server.api();
    let running = serve(api.clone()).await.unwrap();
    api.hold();
    let waiting = tokio::spawn(client().request(at(&running, call("at-none"))));
    api.wait_for_held(1).await;
    let addr = running.addr();
    drop(running);
    assert!(waiting.await.unwrap().is_err());
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}
