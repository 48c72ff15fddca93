//! The other side of the gate: what it is spoken to in, and what becomes of requests when it fails.

mod http2;
