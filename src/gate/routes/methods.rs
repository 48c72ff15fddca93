//! Methods of routes.

use http::Method;

/// Methods that a route can have. CONNECT and TRACE are never served.
pub const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];
