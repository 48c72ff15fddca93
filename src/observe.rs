//! Observability: access log, metrics, traces, explanations of refusals, the status page and the admin listener.

pub mod admin;
pub mod explanation;
mod library_warnings;
pub mod log;
pub mod metrics;
mod record;
pub mod refusals;
pub mod status;
pub mod traces;

pub use record::Record;
