//! A vendor on this machine: token endpoint and API behind one loopback port, as the vendors have them behind one host.

use std::io;

use http::Request;
use hyper::body::Incoming;
use tower::{Service, service_fn};
use tower_bearer::testing::{AuthorizationServer, ProtectedApi, Served, serve};

pub(crate) struct LocalVendor {
    pub(crate) server: AuthorizationServer,
    pub(crate) api: ProtectedApi,
    behind: Served,
}

impl LocalVendor {
    /// Serves `server` at its token path, and its API everywhere else.
    pub(crate) async fn open(server: AuthorizationServer) -> io::Result<Self> {
        let api = server.api();
        let (tokens, things, path) = (server.clone(), api.clone(), server.token_path());
        let by_path = service_fn(move |request: Request<Incoming>| {
            if request.uri().path() == path {
                tokens.clone().call(request)
            } else {
                things.clone().call(request)
            }
        });
        let behind = serve(by_path).await?;
        Ok(Self {
            server,
            api,
            behind,
        })
    }

    /// Its origin.
    pub(crate) fn url(&self) -> String {
        self.behind.url()
    }
}
