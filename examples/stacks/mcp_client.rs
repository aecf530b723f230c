//! A client of the Model Context Protocol (MCP): it learns from the server where to log in, and what for.
//!
//! `cargo run -p stack-examples --example mcp_client` runs it with servers on this machine, checks what it does, and ends. With
//! `-- --url URL` it lists the tools of a server, and calls the first one that needs no arguments. A browser is opened for the
//! login.
//!
//! The server answers 401, and says in `WWW-Authenticate` where its metadata are (RFC 9728) and which scope it wants. The
//! metadata name the authorization server, which must be on a list, or be confirmed by the person. A later request may need more
//! scope: then a machine gets it by itself, as far as its list allows, and a person is asked once more.
//!
//! What a program of yours would contain is in the folder `mcp`.

#[path = "mcp/mod.rs"]
mod mcp;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use mcp::{Client, Settings};
use serde_json::{Value, json};
use support::{Arguments, Options, check};
use tower::{BoxError, ServiceExt, service_fn};
use tower_bearer::testing::{
    self, AuthorizationServer, Dialect, ProtectedApi, RecordedRequest, Served,
};

const OPTIONS: Options = Options {
    optional: &[
        ("url", "an MCP server; default: one on this machine"),
        (
            "protocol",
            "the version of the protocol; default: 2025-11-25",
        ),
        (
            "credentials",
            "the client, if it was registered before: a JSON object",
        ),
        ("client-id-url", "the document that describes the client"),
        (
            "issuers",
            "the authorization servers that may be used, with spaces between them",
        ),
        (
            "scopes",
            "the scopes that the server may ask a machine for, with spaces between them",
        ),
    ],
    switches: &[("yes", "agrees to everything that a person would be asked")],
    endless: Some("url"),
    ..Options::new(
        "-p stack-examples --example mcp_client",
        "A client of the Model Context Protocol, which logs in when the server asks for it.",
    )
};

/// Lists the tools of a server, and calls the first one that needs no arguments. Returns the names of all.
async fn use_tools(client: &mut Client) -> Result<Vec<String>, BoxError> {
    client.begin().await?;
    let list = client.request("tools/list", json!({})).await?;
    let tools = list["tools"].as_array().cloned().unwrap_or_default();
    let name = |tool: &Value| tool["name"].as_str().unwrap_or_default().to_owned();
    let needs_nothing = |tool: &&Value| tool["inputSchema"]["required"].is_null();
    if let Some(tool) = tools.iter().find(needs_nothing) {
        let parameters = json!({"name": name(tool), "arguments": {}});
        client.request("tools/call", parameters).await?;
    }
    Ok(tools.iter().map(name).collect())
}

async fn example(arguments: Arguments) -> Result<(), BoxError> {
    let words = |name| {
        let words = arguments.value(name).split_whitespace();
        words.map(str::to_owned).collect()
    };
    let settings = Settings {
        protocol: arguments
            .find("protocol")
            .unwrap_or("2025-11-25")
            .to_owned(),
        credentials: match arguments.find("credentials") {
            Some(json) => serde_json::from_str(json)?,
            None => Value::Null,
        },
        client_id_url: arguments.find("client-id-url").map(str::to_owned),
        issuers: words("issuers"),
        scopes: words("scopes"),
        agrees: arguments.is_on("yes"),
    };
    let Some(url) = arguments.find("url") else {
        return on_this_machine(settings).await;
    };
    let tools = use_tools(&mut Client::new(url, settings)?).await?;
    println!("tools: {}", tools.join(", "));
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------
// Servers on this machine, and checks.

/// An MCP server with one tool. To call it, a token needs another scope than to list it.
async fn serve(api: &ProtectedApi) -> Result<Served, BoxError> {
    let api = api.clone();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let api = api.clone();
        async move {
            let (mut head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let message: Value = serde_json::from_slice(&body).unwrap_or_default();
            // The API knows paths, and all messages go to one.
            if let Some(method) = message["method"].as_str() {
                head.uri = format!("{}/{method}", head.uri.path()).parse()?;
            }
            let request = Request::from_parts(head, Full::new(body));
            let mut response = api.oneshot(request).await?.map(BodyExt::boxed);
            if response.status() == StatusCode::OK && message["method"].is_string() {
                let tool = json!({"name": "greet", "inputSchema": {"type": "object"}});
                let answer =
                    json!({"jsonrpc": "2.0", "id": message["id"], "result": {"tools": [tool]}});
                *response.body_mut() = Full::<Bytes>::from(answer.to_string()).boxed();
                response.headers_mut().remove(header::CONTENT_LENGTH);
            }
            Ok::<Response<_>, BoxError>(response)
        }
    });
    Ok(testing::serve(service).await?)
}

async fn on_this_machine(settings: Settings) -> Result<(), BoxError> {
    for (kind, grant) in [
        ("a person", "authorization_code"),
        ("a machine", "client_credentials"),
    ] {
        let server = AuthorizationServer::new(Dialect::Rfc6749).client("program", "s3cr3t");
        let api = server
            .api()
            .require_scope("/mcp/tools", "tools:list")
            .require_scope("/mcp/tools/call", "tools:call")
            .challenge("/mcp/admin", StatusCode::UNAUTHORIZED, "Bearer scope=admin");
        let (logins, tools) = (testing::serve(server.clone()).await?, serve(&api).await?);
        let (issuer, url) = (logins.url(), format!("{}/mcp", tools.url()));
        let server = server
            .issuer(&issuer)
            .metadata_member("authorization_endpoint", format!("{issuer}/authorize"))
            .metadata_member("grant_types_supported", json!([grant]));
        let api = api
            .resource_metadata(&url, ["https://login.of-somebody-else.example", &issuer])
            .resource_member("scopes_supported", json!(["tools:list"]));

        println!("For {kind}:");
        let settings = Settings {
            credentials: json!({"client_id": "program", "client_secret": "s3cr3t", "issuer": issuer}),
            issuers: vec![issuer],
            scopes: vec!["tools:list".to_owned(), "tools:call".to_owned()],
            agrees: grant == "authorization_code",
            ..settings.clone()
        };
        let tools = use_tools(&mut Client::new(&url, settings.clone())?).await?;
        println!("  tools: {}", tools.join(", "));
        check(
            "the tool was listed and called",
            tools == ["greet"] && api.accepted() == 4,
        )?;
        let requests = if grant == "authorization_code" {
            server.code_grants()
        } else {
            server.client_credentials()
        };
        check("one login, and one more for the other scope", requests == 2)?;

        let machine = settings.clone();
        let other = Settings {
            issuers: vec!["https://login.example".to_owned()],
            agrees: false,
            ..settings
        };
        let refused = use_tools(&mut Client::new(&url, other)?).await;
        let error = refused
            .err()
            .ok_or("an unknown authorization server was used")?;
        println!("  with another list of authorization servers: {error}");
        check(
            "nothing was sent to it",
            server.token_requests() == requests,
        )?;

        if grant == "client_credentials" {
            // As if the token were bad, the server asks for a scope that is not on the list.
            let mut client = Client::new(&url, machine)?;
            client.begin().await?;
            let refused = client.request("admin", json!({})).await;
            let asks_for_admin =
                |it: &RecordedRequest| it.param("scope").is_some_and(|it| it.contains("admin"));
            check(
                "what is not on the list was not requested",
                refused.is_err() && !server.requests().iter().any(asks_for_admin),
            )?;
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    support::run(&OPTIONS, example).await
}
