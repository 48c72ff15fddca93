//! The other side of the gate: what it is spoken to in, and what becomes of requests when it fails.

mod health;
mod http2;
mod mixed;
mod queue;
mod tls;
mod trouble;
