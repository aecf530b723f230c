//! A vendor on this machine: token endpoint and API behind one loopback port, like the vendors' one host.

use std::io;

use http::Request;
use hyper::body::Incoming;
use tower::{Service, service_fn};
use tower_bearer::testing::{AuthorizationServer, Dialect, ProtectedApi, Served, serve};

pub(crate) struct LocalVendor {
    pub(crate) server: AuthorizationServer,
    pub(crate) api: ProtectedApi,
    served: Served,
}

impl LocalVendor {
    /// A vendor whose token endpoint speaks `dialect`.
    pub(crate) async fn start(dialect: Dialect) -> io::Result<Self> {
        let server = AuthorizationServer::new(dialect);
        let api = server.api();
        let (token_endpoint, invoices) = (server.clone(), api.clone());
        let token_path = server.token_path();
        let by_path = service_fn(move |request: Request<Incoming>| {
            if request.uri().path() == token_path {
                token_endpoint.clone().call(request)
            } else {
                invoices.clone().call(request)
            }
        });
        Ok(Self {
            server,
            api,
            served: serve(by_path).await?,
        })
    }

    /// Its origin.
    pub(crate) fn url(&self) -> String {
        self.served.url()
    }
}
