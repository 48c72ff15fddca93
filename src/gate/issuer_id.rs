//! Index of an issuer.

/// Index of an issuer in the configuration, in the order of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssuerId(pub usize);
