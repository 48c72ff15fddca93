//! The certificate that a client has shown and proven to be its own.

/// What a client certificate says (RFC 5280). The proxy puts it among the extensions of a head, in an `Arc`, after the
/// handshake of TLS has proven that the client has its key and that a trusted authority has signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject, as text (RFC 4514).
    pub subject: String,
    /// The DNS names among the subject alternative names.
    pub dns_names: Vec<String>,
    /// The URIs among the subject alternative names, as a SPIFFE ID.
    pub uris: Vec<String>,
    /// The SHA-256 of the whole certificate, as `x5t#S256` has it (RFC 8705 section 3.1).
    pub thumbprint: [u8; 32],
}
