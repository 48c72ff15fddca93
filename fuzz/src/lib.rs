//! Invariants of the parts that read untrusted input, each as a function over arbitrary bytes that panics if one is
//! broken.
//!
//! The targets of cargo-fuzz call them with new inputs; `tests/it/fuzz_corpus.rs` calls them with the kept ones, so that
//! a fault found once is found again by `cargo test`.

pub mod configuration;
pub mod gate;
pub mod header_names;
pub mod jwks;
pub mod path;
mod policy;
pub mod request_head;
pub mod response;
pub mod token;
