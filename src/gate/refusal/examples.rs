//! Examples of refusals, for tests.

use http::{HeaderName, HeaderValue};

use crate::config::RateKey;
use crate::gate::path::PathFaultKind;
use crate::gate::proof_fault::ProofFault;
use crate::gate::token_fault::{MissingToken, TokenFault};

use super::{Mismatch, Refusal};

impl Refusal {
    /// One refusal of each row, for tests that compare the rows with the documentation.
    #[doc(hidden)]
    pub fn examples() -> Vec<Self> {
        let value = HeaderValue::from_static;
        vec![
            Self::PathNotCanonical(PathFaultKind::DotSegment.at(11)),
            Self::RequestMalformed,
            Self::Misdirected,
            Self::NoRoute,
            Self::HttpsRequired(value("https://api.example/")),
            Self::MethodNotAllowed(value("GET, HEAD")),
            Self::TokenMissing(MissingToken {
                sources: "`Authorization`".into(),
                near_miss: None,
            }),
            Self::TokenRepeated,
            Self::TokenMalformed(TokenFault::NoExpiry),
            Self::TokenOpaque,
            Self::TokenSignature,
            Self::TokenAlgorithm,
            Self::TokenKeyUnknown,
            Self::TokenExpired,
            Self::TokenNotYetValid,
            Self::TokenLifetime,
            Self::TokenIssuer,
            Self::TokenAudience,
            Self::TokenSubject,
            Self::TokenType,
            Self::SessionInvalid,
            Self::TokenInactive,
            Self::TokenConfirmation,
            Self::TokenMachine,
            Self::TokenUnbound,
            Self::ProofInvalid(ProofFault::Missing),
            Self::ProofReplayed,
            Self::ProofNonce(value("nonce")),
            Self::SubjectMismatch(Mismatch::Forbidden),
            Self::SubjectMismatch(Mismatch::NotFound),
            Self::SubjectMismatch(Mismatch::Unauthorized),
            Self::ClaimDenied {
                requirement: "`scope` has `tasks`".into(),
                scope: Some("tasks".into()),
            },
            Self::CertificateDenied {
                requirement: "`dns` has `web.example`".into(),
            },
            Self::OriginNotAllowed,
            Self::PreflightOrigin,
            Self::PreflightMethod,
            Self::PreflightHeaders(Some(HeaderName::from_static("x-tenant"))),
            Self::RateLimited {
                by: RateKey::ClientAddress,
                wait: 60,
            },
            Self::RateLimited {
                by: RateKey::Subject,
                wait: 60,
            },
            Self::RequestTimeout,
            Self::BodyTooLarge,
            Self::TargetTooLong,
            Self::HeadersTooLarge,
            Self::KeysUnavailable,
            Self::ProofsUnavailable,
            Self::ExchangeUnavailable {
                retry_after: 1,
                cause: "status: 500".into(),
            },
            Self::RateLimitUnavailable {
                by: RateKey::ClientAddress,
            },
            Self::RateLimitUnavailable {
                by: RateKey::Subject,
            },
            Self::Overloaded,
            Self::Draining,
            Self::UpstreamUnreachable,
            Self::UpstreamInvalidResponse,
            Self::UpstreamTimeout,
        ]
    }
}
