//! Upstreams: protocols, health checks, queues, retries and outlier detection.

mod failures;
mod health;
mod http2;
mod queue;
mod response_isolation;
mod surplus;
mod tls;
