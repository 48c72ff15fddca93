//! claimgate
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod gate;
pub mod keys;
pub mod observe;
pub mod proxy;
pub mod tls;
