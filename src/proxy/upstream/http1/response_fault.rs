//! Faults of a response.

use crate::proxy::upstream::send::{MAX_RESPONSE_FIELDS, MAX_RESPONSE_HEAD_BYTES};

/// Longest start of an invalid status line in a message, in bytes: enough to recognize another protocol. It may be the rest
/// of a body, so that no more of it is logged.
const MAX_EXCERPT: usize = 16;

/// Rule that a response breaks. The text has no byte of the response but the start of an invalid status line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseFault {
    #[error("empty line before the status line")]
    LeadingEmptyLine,
    #[error("status line is not HTTP/1.1 or HTTP/1.0: `{start}`")]
    Version { start: String },
    #[error("invalid status line `{start}`")]
    StatusLine { start: String },
    #[error("status code {code} is not between 100 and 999")]
    StatusCode { code: u16 },
    #[error("101 Switching Protocols for a request without `Upgrade`")]
    UnrequestedUpgrade,
    /// Also a folded line (RFC 9112 section 5.2), and whitespace before the colon (section 5.1).
    #[error("invalid field name, folded line or whitespace before a colon")]
    FieldName,
    #[error("control character in a field value")]
    FieldValue,
    #[error("line ends with LF without CR")]
    BareLineFeed,
    #[error("CR without LF")]
    BareCarriageReturn,
    #[error("head or trailers longer than {MAX_RESPONSE_HEAD_BYTES} bytes")]
    TooLong,
    #[error("more than {MAX_RESPONSE_FIELDS} header fields or trailer fields")]
    TooManyFields,
    #[error("`Content-Length` is not a number, or too large")]
    ContentLength,
    #[error("more than one `Content-Length`")]
    RepeatedContentLength,
    #[error("both `Content-Length` and `Transfer-Encoding`")]
    TwoLengths,
    #[error("`Transfer-Encoding` is not exactly `chunked`")]
    TransferEncoding,
    #[error("`Transfer-Encoding` in HTTP/1.0")]
    TransferEncodingInHttp10,
    #[error("chunk size is not a number of 1 to 16 hexadecimal digits")]
    ChunkSize,
    #[error("invalid chunk extension")]
    ChunkExtension,
    #[error("chunk extensions are too long")]
    ChunkExtensionsTooLong,
    #[error("chunk is longer than its size")]
    ChunkEnd,
    #[error("connection closed before the end of the body")]
    IncompleteBody,
}

impl ResponseFault {
    /// Fault of the section at the start of the buffer.
    pub(super) fn of(error: httparse::Error, section: &[u8]) -> Self {
        let start = || {
            let line = section.split(|byte| *byte == b'\n').next();
            let start = line.unwrap_or_default().trim_ascii_end();
            start
                .get(..MAX_EXCERPT)
                .unwrap_or(start)
                .escape_ascii()
                .to_string()
        };
        match error {
            httparse::Error::Version => Self::Version { start: start() },
            httparse::Error::Status | httparse::Error::Token => Self::StatusLine { start: start() },
            httparse::Error::HeaderName => Self::FieldName,
            httparse::Error::HeaderValue => Self::FieldValue,
            httparse::Error::NewLine => Self::BareCarriageReturn,
            httparse::Error::TooManyHeaders => Self::TooManyFields,
        }
    }
}
