//! claimgate
