//! The integration tests, in one binary.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod admin;
mod binaries;
mod certificates;
mod claims;
mod configs;
mod cors;
mod documentation;
mod dpop;
mod faults;
mod forwarding;
mod framing;
mod fuzz_corpus;
mod grpc;
mod harness;
mod http2_connections;
mod identity;
mod idle_connections;
mod introspection;
mod invariants;
mod keys;
mod limits;
mod listening;
mod machines;
mod paths;
mod proxy_protocol;
mod rate_limits;
mod redis_rate_limits;
mod reloading;
mod request_heads;
mod resource;
mod response_isolation;
mod response_parsing;
mod responses;
mod revocation;
mod rewrites;
mod semantics;
mod sessions;
mod slow_readers;
mod stalls;
mod starting;
mod status;
mod stopping;
mod streams;
#[cfg(feature = "task-service")]
mod task_service;
mod tidy;
mod tls;
mod token_cache;
mod token_sources;
mod tokens;
mod traces;
mod upstreams;
mod vectors;
mod websocket;
mod why;
mod written_heads;
