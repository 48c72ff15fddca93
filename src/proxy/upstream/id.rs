//! Identity of an upstream within one configuration.

/// Index of an upstream in the configuration, in the order of names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpstreamId(pub usize);
