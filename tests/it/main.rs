//! The integration tests, in one binary.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod admin;
mod answers;
mod binaries;
mod certificates;
mod claims;
mod configs;
mod cors;
mod documentation;
mod forwarding;
mod framing;
mod grpc;
mod harness;
mod http2_connections;
mod identity;
mod invariants;
mod keys;
mod limits;
mod listening;
mod mixed;
mod paths;
mod proxy_protocol;
mod rates;
mod reloading;
mod remembered;
mod revocation;
mod rewrites;
mod semantics;
mod shared_rates;
mod sources;
mod starting;
mod status;
mod stopping;
mod streams;
#[cfg(feature = "task-service")]
mod task_service;
mod tidy;
mod tls;
mod tokens;
mod traces;
mod upstreams;
mod vectors;
mod websocket;
mod why;
