//! Upstreams: protocols, health checks, queues, retries and outlier detection.

mod health;
mod http2;
mod mixed;
mod queue;
mod tls;
mod trouble;
