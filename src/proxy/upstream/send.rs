//! Limits of a response head.

/// Size limit of a response head, in bytes.
pub(super) const MAX_RESPONSE_HEAD_BYTES: usize = 64 * 1024;

/// Most fields of a response head. Some APIs set many cookies.
pub const MAX_RESPONSE_FIELDS: usize = 256;
