//! The integration tests, in one binary.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod binaries;
mod configs;
mod readme;
#[cfg(feature = "task-service")]
mod task_service;
mod tokens;
mod harness;

mod admin;
mod answers;
mod forwarding;
mod framing;
mod identity;
mod invariants;
mod keys;
mod limits;
mod paths;
mod stopping;
mod tidy;
mod websocket;

#[cfg(feature = "task-service")]
mod task_service;
