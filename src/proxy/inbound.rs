//! Client side: accepts connections, reads what precedes HTTP, and serves HTTP/1.1 and HTTP/2.

pub mod acceptor;
pub mod client_connections;
pub mod connection;
mod deadlines;
mod flush_signal;
mod http1;
mod http1_body;
mod http2;
pub mod limits;
pub mod listener;
mod open_connections;
mod proxy_protocol;
pub mod serve;
mod served_connections;
mod service;
pub mod socket;
mod unread_head;
