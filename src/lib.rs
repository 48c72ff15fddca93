//! claimgate
pub mod clock;
pub mod config;
pub mod gate;
pub mod keys;
