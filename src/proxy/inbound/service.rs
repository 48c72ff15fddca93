//! Passes the requests of a connection to the proxy.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;

use crate::observe::metrics::WorkerMetrics;
use crate::proxy::headers::Peer;
use crate::proxy::{ClientResponse, Proxy};

use super::connection::Connection;
use super::limits::ConnectionLimits;

/// Proxy and metrics of one worker.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) proxy: Proxy,
    pub(super) metrics: Arc<WorkerMetrics>,
}

impl Server {
    /// Limits of a connection that begins now.
    pub(super) fn limits(&self) -> ConnectionLimits {
        self.proxy.shared.limits()
    }
}

/// Service of one connection.
#[derive(Clone)]
pub(super) struct ConnectionService {
    pub(super) server: Rc<Server>,
    pub(super) connection: Rc<Connection>,
    pub(super) peer: Rc<Peer>,
}

impl ConnectionService {
    pub(super) fn call(&self, request: Request<Incoming>) -> impl Future<Output = ClientResponse> {
        let proxy = &self.server.proxy;
        proxy.handle(request, &self.connection, &self.peer)
    }
}
