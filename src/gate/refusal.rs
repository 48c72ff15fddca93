//! Refusals: every response that the gate gives instead of forwarding, one row each.

mod examples;
mod response;

pub use response::{GrpcProtocol, write_dpop_challenge};

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::config::RateKey;

use super::path::PathFault;
use super::proof_fault::ProofFault;
use super::token_fault::{MissingToken, TokenFault};

/// Reason why a request is not forwarded, or why its response is cut off. [`Refusal::row`] describes each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    PathNotCanonical(PathFault),
    RequestMalformed,
    /// The target has a scheme that the connection does not have.
    Misdirected,
    NoRoute,
    /// `Location` of the same request over HTTPS.
    HttpsRequired(HeaderValue),
    /// `Allow` of the path.
    MethodNotAllowed(HeaderValue),
    TokenMissing(MissingToken),
    TokenRepeated,
    TokenMalformed(TokenFault),
    /// A session token or an opaque access token instead of a JWT.
    TokenOpaque,
    TokenSignature,
    TokenAlgorithm,
    TokenKeyUnknown,
    TokenExpired,
    /// `nbf` or `iat` is in the future.
    TokenNotYetValid,
    /// `exp` minus `iat` exceeds `max_lifetime`.
    TokenLifetime,
    TokenIssuer,
    TokenAudience,
    TokenSubject,
    TokenType,
    /// The session has ended, or the session credential is none.
    SessionInvalid,
    /// The issuer reports the token as not active (RFC 7662).
    TokenInactive,
    /// The token is sender-constrained (`cnf`, RFC 7800), and the connection does not prove the key.
    TokenConfirmation,
    /// The token of a machine, from an issuer without `machines`.
    TokenMachine,
    /// The token is not bound to a key, but its scheme, its issuer or the route requires that.
    TokenUnbound,
    /// The `DPoP` proof of a bound token is not valid for this request.
    ProofInvalid(ProofFault),
    /// The proof was used before.
    ProofReplayed,
    /// The proof needs this nonce.
    ProofNonce(HeaderValue),
    SubjectMismatch(Mismatch),
    ClaimDenied {
        /// Unmet requirement, in words for the operator.
        requirement: Arc<str>,
        /// Scope that satisfies the route, if a scope is missing.
        scope: Option<Arc<str>>,
    },
    CertificateDenied {
        /// Unmet requirement, in words for the operator.
        requirement: Arc<str>,
    },
    /// The token came in a cookie, from a page that is not allowed to use it.
    OriginNotAllowed,
    PreflightOrigin,
    PreflightMethod,
    /// The first header that is not allowed, unless its name is invalid or long.
    PreflightHeaders(Option<HeaderName>),
    RateLimited {
        by: RateKey,
        /// Seconds until a request may pass.
        wait: u64,
    },
    RequestTimeout,
    BodyTooLarge,
    TargetTooLong,
    HeadersTooLarge,
    KeysUnavailable,
    /// No more proofs can be remembered, so a replay could not be noticed.
    ProofsUnavailable,
    /// The issuer gave no usable response about a credential.
    ExchangeUnavailable {
        /// Seconds until another attempt is useful.
        retry_after: u64,
        /// Cause, for the log.
        cause: Arc<str>,
    },
    RateLimitUnavailable {
        by: RateKey,
    },
    /// Too many connections to the gate, or too many requests queued for the upstream.
    Overloaded,
    Draining,
    UpstreamUnreachable,
    UpstreamInvalidResponse,
    UpstreamTimeout,
}

/// Response to a subject that is not the owner of the path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mismatch {
    /// 403.
    #[default]
    Forbidden,
    /// 404, identical to the response for a path without a route.
    NotFound,
    /// 401, for clients that know no other status.
    Unauthorized,
}

/// Stage of a request, in order. The gate's stages end at `Authorization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Head,
    Path,
    Route,
    ClientRateLimit,
    Token,
    Verification,
    SubjectRateLimit,
    Authorization,
    Upstream,
}

/// Facts of one refusal.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// Stable name, the same in response body, log and metrics.
    pub reason: &'static str,
    pub status: StatusCode,
    pub challenge: Challenge,
    /// Stage that refuses.
    pub stage: Stage,
    /// Response text, for the client's developer; see [`Refusal::detail`].
    pub detail: &'static str,
    /// Fix, for the operator.
    pub hint: &'static str,
}

/// `WWW-Authenticate` challenge of a response (RFC 6750 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    None,
    /// Without an error, because no token was sent (RFC 6750 section 3.1).
    Plain,
    InvalidRequest,
    InvalidToken,
    InsufficientScope,
    /// RFC 9449 section 7.1.
    InvalidProof,
    /// RFC 9449 section 9.
    UseNonce,
}

impl Stage {
    /// Stages of the gate.
    pub const GATE: [Self; 8] = [
        Self::Head,
        Self::Path,
        Self::Route,
        Self::ClientRateLimit,
        Self::Token,
        Self::Verification,
        Self::SubjectRateLimit,
        Self::Authorization,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "request head",
            Self::Path => "canonical path",
            Self::Route => "route",
            Self::ClientRateLimit => "client rate limit",
            Self::Token => "token",
            Self::Verification => "verification",
            Self::SubjectRateLimit => "subject rate limit",
            Self::Authorization => "authorization",
            Self::Upstream => "upstream",
        }
    }
}

impl Refusal {
    /// Row of this refusal. The only list of reasons, statuses and texts.
    pub fn row(&self) -> &'static Row {
        match self {
            Self::PathNotCanonical(_) => &Row {
                reason: "path_not_canonical",
                status: StatusCode::BAD_REQUEST,
                challenge: Challenge::None,
                stage: Stage::Path,
                detail: "The path has more than one reading.",
                hint: "Resolve dot segments before sending, percent-encode each segment once, and spell the path as the route does.",
            },
            Self::RequestMalformed => &Row {
                reason: "request_malformed",
                status: StatusCode::BAD_REQUEST,
                challenge: Challenge::None,
                stage: Stage::Head,
                detail: "The request is malformed.",
                hint: "Send exactly one `Host`, an absolute target with the same host, no managed header in `Connection`, and one unambiguous message length.",
            },
            Self::Misdirected => &Row {
                reason: "request_misdirected",
                status: StatusCode::MISDIRECTED_REQUEST,
                challenge: Challenge::None,
                stage: Stage::Head,
                detail: "The scheme of the URL is not that of the connection.",
                hint: "Use `https` over TLS and `http` without. If a proxy terminates TLS, add it to `trusted_proxies`.",
            },
            Self::NoRoute => &Row {
                reason: "no_route",
                status: StatusCode::NOT_FOUND,
                challenge: Challenge::None,
                stage: Stage::Route,
                detail: "There is nothing at this path.",
                hint: "Add a route for the path. Case and a trailing `/` count.",
            },
            Self::HttpsRequired(_) => &Row {
                reason: "https_required",
                status: StatusCode::PERMANENT_REDIRECT,
                challenge: Challenge::None,
                stage: Stage::Head,
                detail: "This is served over HTTPS only.",
                hint: "Use `https://` in the client: `Location` has the URL. The listener has `redirect_to_https`.",
            },
            Self::MethodNotAllowed(_) => &Row {
                reason: "method_not_allowed",
                status: StatusCode::METHOD_NOT_ALLOWED,
                challenge: Challenge::None,
                stage: Stage::Route,
                detail: "This path does not have that method.",
                hint: "Use a method in `Allow`, or add the method to the route's `methods`. `CONNECT` and `TRACE` are never served.",
            },
            Self::TokenMissing(_) => &Row {
                reason: "token_missing",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::Plain,
                stage: Stage::Token,
                detail: "Sign in first: this path needs a bearer token.",
                hint: "Send `Authorization: Bearer TOKEN`, or use a token source in the route's `tokens`.",
            },
            Self::TokenRepeated => &Row {
                reason: "token_repeated",
                status: StatusCode::BAD_REQUEST,
                challenge: Challenge::InvalidRequest,
                stage: Stage::Token,
                detail: "Send exactly one token, and send it once.",
                hint: "Look for a proxy or client that adds a second token: all token sources of the route count together.",
            },
            Self::TokenMalformed(_) => &Row {
                reason: "token_malformed",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "The token is not a signed JWT that can be read.",
                hint: "Run `claimgate token inspect`: a JWT has three base64url parts without padding, at most 8 KiB, and a numeric `exp`.",
            },
            Self::TokenOpaque => &Row {
                reason: "token_opaque",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "This token is opaque. Send a JWT: from /api/auth/token for a session; for OAuth, request the token with `resource`.",
                hint: "To accept it as it is: a session token of Better Auth needs `sessions = true` in `better_auth`, an OAuth access token needs `introspection`.",
            },
            Self::TokenSignature => &Row {
                reason: "token_signature",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "The signature of the token is wrong.",
                hint: "Compare the secret or key of issuer and gate, and the secret's `encoding`.",
            },
            Self::TokenAlgorithm => &Row {
                reason: "token_algorithm",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "The algorithm of the token is not accepted.",
                hint: "Add the algorithm to the issuer's `algorithms`, if its keys may verify it.",
            },
            Self::TokenKeyUnknown => &Row {
                reason: "token_key_unknown",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "The key of the token is not known.",
                hint: "Compare the token's `kid` with the issuer's key set. Unknown key IDs cause at most four fetches in a row, then one every five seconds.",
            },
            Self::TokenExpired => &Row {
                reason: "token_expired",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "Token has expired. Please sign in again.",
                hint: "Sign in again, or refresh the token.",
            },
            Self::TokenNotYetValid => &Row {
                reason: "token_not_yet_valid",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "The token is not valid yet.",
                hint: "Set the clocks: `nbf` or `iat` is later than now by more than `leeway`.",
            },
            Self::TokenLifetime => &Row {
                reason: "token_lifetime",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "The token is valid for longer than is accepted.",
                hint: "Shorten the token's lifetime or raise `max_lifetime`; the token needs an `iat`.",
            },
            Self::TokenIssuer => &Row {
                reason: "token_issuer",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "The issuer of the token is not accepted.",
                hint: "Compare `iss` with the issuer's `issuer`, to the last `/`, and the route's `issuers`.",
            },
            Self::TokenAudience => &Row {
                reason: "token_audience",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "The token is meant for another audience.",
                hint: "Compare `aud` with `audience`, and `azp` with `authorized_party`.",
            },
            Self::TokenSubject => &Row {
                reason: "token_subject",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "The token does not name a usable subject.",
                hint: "The first present claim of `subject` must be a text of 1 to 256 bytes without control characters or space at its ends, and not in the namespace of another issuer (`subject_prefix`).",
            },
            Self::TokenType => &Row {
                reason: "token_type",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "The token is of a type that is not accepted.",
                hint: "Compare `typ` with the issuer's `types`: OAuth access tokens have `at+jwt`.",
            },
            Self::SessionInvalid => &Row {
                reason: "session_invalid",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "The session has ended or is not valid. Please sign in again.",
                hint: "The issuer knows no such session: it expired, was signed out, or belongs to another server. An opaque OAuth access token needs `introspection`.",
            },
            Self::TokenInactive => &Row {
                reason: "token_inactive",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "The token is no longer active. Please sign in again.",
                hint: "Introspection reports the token as not active: it expired or was revoked, or the gate's client may not introspect it.",
            },
            Self::TokenConfirmation => &Row {
                reason: "token_confirmation",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "The token is bound to a key that the request does not prove.",
                hint: "Send the token over a connection with the certificate it is bound to, or in the scheme `DPoP` with a proof of its key, or see `allow_bound`.",
            },
            Self::TokenMachine => &Row {
                reason: "token_machine",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "The token is that of a machine, and only users are accepted.",
                hint: "Call with a user's token, or set `machines = true` on the issuer to accept client credentials tokens. A machine owns no path.",
            },
            Self::TokenUnbound => &Row {
                reason: "token_unbound",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Verification,
                detail: "The token is not bound to a key, as the scheme `DPoP` or this path requires.",
                hint: "A token without `cnf.jkt` is a bearer token: request a DPoP-bound one, or see `dpop` of the issuer and the route.",
            },
            Self::ProofInvalid(_) => &Row {
                reason: "proof_invalid",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidProof,
                stage: Stage::Verification,
                detail: "The DPoP proof is not valid for this request.",
                hint: "The cause names the fault. If it is `htu`, compare the URL of the client with the scheme and host that the gate knows: behind a proxy, set `trusted_proxies`.",
            },
            Self::ProofReplayed => &Row {
                reason: "proof_replayed",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidProof,
                stage: Stage::Verification,
                detail: "The DPoP proof was used before: make a new one for each request.",
                hint: "The client must make a proof with a new `jti` for each request, retries included.",
            },
            Self::ProofNonce(_) => &Row {
                reason: "proof_nonce",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::UseNonce,
                stage: Stage::Verification,
                detail: "The DPoP proof needs the nonce in `DPoP-Nonce`.",
                hint: "Expected once for each client and lifetime of `dpop_nonce`: the client repeats the request with the nonce.",
            },
            Self::SubjectMismatch(Mismatch::Forbidden) => &Row {
                reason: "subject_mismatch",
                status: StatusCode::FORBIDDEN,
                challenge: Challenge::None,
                stage: Stage::Authorization,
                detail: "This path belongs to another user.",
                hint: "The token is valid, but its subject is not the user in the path.",
            },
            Self::SubjectMismatch(Mismatch::NotFound) => &Row {
                reason: "subject_mismatch",
                status: StatusCode::NOT_FOUND,
                challenge: Challenge::None,
                stage: Stage::Authorization,
                detail: "There is nothing at this path.",
                hint: "The token is valid, but its subject is not the user in the path.",
            },
            Self::SubjectMismatch(Mismatch::Unauthorized) => &Row {
                reason: "subject_mismatch",
                status: StatusCode::UNAUTHORIZED,
                challenge: Challenge::InvalidToken,
                stage: Stage::Authorization,
                detail: "This path belongs to another user.",
                hint: "The token is valid, but its subject is not the user in the path.",
            },
            Self::ClaimDenied { .. } => &Row {
                reason: "claim_denied",
                status: StatusCode::FORBIDDEN,
                challenge: Challenge::InsufficientScope,
                stage: Stage::Authorization,
                detail: "The token does not grant access to this path.",
                hint: "The token is valid, but a claim does not satisfy the route's `require`.",
            },
            Self::CertificateDenied { .. } => &Row {
                reason: "certificate_denied",
                status: StatusCode::FORBIDDEN,
                challenge: Challenge::None,
                stage: Stage::Authorization,
                detail: "The client certificate does not grant access to this path.",
                hint: "The token is valid, but the client certificate is missing or does not satisfy the route's `require`.",
            },
            Self::OriginNotAllowed => &Row {
                reason: "origin_not_allowed",
                status: StatusCode::FORBIDDEN,
                challenge: Challenge::None,
                stage: Stage::Token,
                detail: "This page may not use the cookie of this site.",
                hint: "If the page is yours, add its origin to the route's `origins`.",
            },
            Self::PreflightOrigin => &Row {
                reason: "preflight_origin",
                status: StatusCode::FORBIDDEN,
                challenge: Challenge::None,
                stage: Stage::Route,
                detail: "Pages of this origin may not call this path.",
                hint: "If the page is yours, add its origin to `origins` of [cors].",
            },
            Self::PreflightMethod => &Row {
                reason: "preflight_method",
                status: StatusCode::FORBIDDEN,
                challenge: Challenge::None,
                stage: Stage::Route,
                detail: "Pages of other origins may not use this method here.",
                hint: "Add the method to `methods` of [cors].",
            },
            Self::PreflightHeaders(_) => &Row {
                reason: "preflight_headers",
                status: StatusCode::FORBIDDEN,
                challenge: Challenge::None,
                stage: Stage::Route,
                detail: "Pages of other origins may not send one of these headers here.",
                hint: "Add every header that the page sets to `headers` of [cors].",
            },
            Self::RateLimited {
                by: RateKey::ClientAddress,
                ..
            } => &Row {
                reason: "rate_limited",
                status: StatusCode::TOO_MANY_REQUESTS,
                challenge: Challenge::None,
                stage: Stage::ClientRateLimit,
                detail: "Too many requests. Try again later.",
                hint: "Wait for `Retry-After` seconds, or raise the route's `rate_limit`. Behind a proxy, set `trusted_proxies`.",
            },
            Self::RateLimited {
                by: RateKey::Subject,
                ..
            } => &Row {
                reason: "rate_limited",
                status: StatusCode::TOO_MANY_REQUESTS,
                challenge: Challenge::None,
                stage: Stage::SubjectRateLimit,
                detail: "Too many requests. Try again later.",
                hint: "Wait for `Retry-After` seconds, or raise the route's `rate_limit`. Behind a proxy, set `trusted_proxies`.",
            },
            Self::RequestTimeout => &Row {
                reason: "request_timeout",
                status: StatusCode::REQUEST_TIMEOUT,
                challenge: Challenge::None,
                stage: Stage::Upstream,
                detail: "The request took too long to arrive.",
                hint: "Send the body without a pause of `body_timeout`, at 1024 bytes per second or faster.",
            },
            Self::BodyTooLarge => &Row {
                reason: "body_too_large",
                status: StatusCode::PAYLOAD_TOO_LARGE,
                challenge: Challenge::None,
                stage: Stage::Upstream,
                detail: "The body is larger than this path accepts.",
                hint: "Raise `max_body_bytes` of the route or of [listen].",
            },
            Self::TargetTooLong => &Row {
                reason: "target_too_long",
                status: StatusCode::URI_TOO_LONG,
                challenge: Challenge::None,
                stage: Stage::Head,
                detail: "The request target is too long.",
                hint: "Keep path and query together within 8 KiB.",
            },
            Self::HeadersTooLarge => &Row {
                reason: "headers_too_large",
                status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                challenge: Challenge::None,
                stage: Stage::Head,
                detail: "The request head is too large.",
                hint: "Send at most 100 headers, or smaller ones (often cookies), or raise `max_header_bytes`.",
            },
            Self::KeysUnavailable => &Row {
                reason: "keys_unavailable",
                status: StatusCode::SERVICE_UNAVAILABLE,
                challenge: Challenge::None,
                stage: Stage::Verification,
                detail: "The token cannot be verified at the moment. It may be valid: try again soon.",
                hint: "Look at `/readyz` for the issuer and at the log for the cause of the failed fetch.",
            },
            Self::ProofsUnavailable => &Row {
                reason: "proofs_unavailable",
                status: StatusCode::SERVICE_UNAVAILABLE,
                challenge: Challenge::None,
                stage: Stage::Verification,
                detail: "The DPoP proof cannot be checked at the moment. Try again soon.",
                hint: "The gate holds as many recent proofs as it can. Look for a client that sends far too many requests, and limit it with `rate_limit`.",
            },
            Self::ExchangeUnavailable { .. } => &Row {
                reason: "exchange_unavailable",
                status: StatusCode::SERVICE_UNAVAILABLE,
                challenge: Challenge::None,
                stage: Stage::Verification,
                detail: "The credential cannot be verified at the moment. It may be valid: try again soon.",
                hint: "The issuer must respond to the exchange of sessions or to introspection; the log has the cause.",
            },
            Self::RateLimitUnavailable {
                by: RateKey::ClientAddress,
            } => &Row {
                reason: "rate_limit_unavailable",
                status: StatusCode::SERVICE_UNAVAILABLE,
                challenge: Challenge::None,
                stage: Stage::ClientRateLimit,
                detail: "The rate limit cannot be checked at the moment. Try again soon.",
                hint: "Redis is unavailable and `when_unavailable` is \"refuse\"; the log has the cause.",
            },
            Self::RateLimitUnavailable {
                by: RateKey::Subject,
            } => &Row {
                reason: "rate_limit_unavailable",
                status: StatusCode::SERVICE_UNAVAILABLE,
                challenge: Challenge::None,
                stage: Stage::SubjectRateLimit,
                detail: "The rate limit cannot be checked at the moment. Try again soon.",
                hint: "Redis is unavailable and `when_unavailable` is \"refuse\"; the log has the cause.",
            },
            Self::Overloaded => &Row {
                reason: "overloaded",
                status: StatusCode::SERVICE_UNAVAILABLE,
                challenge: Challenge::None,
                stage: Stage::Head,
                detail: "Too many connections are open. Try again soon.",
                hint: "Raise `max_connections` of the upstream if the log line has a `route`, else `max_connections` of [listen].",
            },
            Self::Draining => &Row {
                reason: "draining",
                status: StatusCode::SERVICE_UNAVAILABLE,
                challenge: Challenge::None,
                stage: Stage::Head,
                detail: "This instance is stopping. Try again.",
                hint: "The connection was opened after the shutdown began; the client can retry.",
            },
            Self::UpstreamUnreachable => &Row {
                reason: "upstream_unreachable",
                status: StatusCode::BAD_GATEWAY,
                challenge: Challenge::None,
                stage: Stage::Upstream,
                detail: "The upstream service cannot be reached.",
                hint: "Check that the API listens at the upstream's `url` with its protocol; the log has the cause.",
            },
            Self::UpstreamInvalidResponse => &Row {
                reason: "upstream_invalid_response",
                status: StatusCode::BAD_GATEWAY,
                challenge: Challenge::None,
                stage: Stage::Upstream,
                detail: "The upstream service sent no valid response.",
                hint: "The API closed the connection or sent an invalid response; the log has the cause.",
            },
            Self::UpstreamTimeout => &Row {
                reason: "upstream_timeout",
                status: StatusCode::GATEWAY_TIMEOUT,
                challenge: Challenge::None,
                stage: Stage::Upstream,
                detail: "The upstream service took too long.",
                hint: "Compare `connect_timeout`, `response_timeout` and the route's `timeout` and `request_timeout` with the API's duration.",
            },
        }
    }

    /// Stage that refuses. After the permit, it is the upstream. A token that was verified can only fail at the route's
    /// `issuers`, in authorization.
    pub fn stage(&self, is_permitted: bool, is_verified: bool) -> Stage {
        if is_permitted {
            Stage::Upstream
        } else if is_verified && *self == Self::TokenIssuer {
            Stage::Authorization
        } else {
            self.row().stage
        }
    }

    pub fn reason(&self) -> &'static str {
        self.row().reason
    }

    pub fn status(&self) -> StatusCode {
        self.row().status
    }

    /// Text of the response: the sub-cause where it is about the form of the request, else the text of the row.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "few refusals have sub-causes"
    )]
    pub fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::PathNotCanonical(fault) => fault.to_string().into(),
            Self::PreflightHeaders(Some(name)) => {
                format!("Pages of other origins may not send the header `{name}` here.").into()
            }
            Self::TokenMissing(missing) => missing.to_string().into(),
            Self::TokenMalformed(fault) => fault.to_string().into(),
            Self::ProofInvalid(fault) => fault.to_string().into(),
            _ => self.row().detail.into(),
        }
    }

    /// Sub-cause for the log, if there is more to say than the reason.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "few refusals have sub-causes"
    )]
    pub fn cause(&self) -> Option<String> {
        match self {
            Self::PathNotCanonical(fault) => Some(match fault.other_route() {
                Some(route) => format!("{fault} The other one is of route `{route}`."),
                None => fault.to_string(),
            }),
            Self::PreflightHeaders(Some(name)) => {
                Some(format!("the header `{name}` is not allowed"))
            }
            Self::TokenMissing(missing) => missing.near_miss.map(|near| near.to_string()),
            Self::TokenMalformed(fault) => Some(fault.to_string()),
            Self::ProofInvalid(fault) => Some(fault.to_string()),
            Self::ExchangeUnavailable { cause, .. } => Some(cause.to_string()),
            _ => None,
        }
    }

    /// Returns whether the log counts this refusal as an authentication failure: the route does not accept the caller.
    pub fn is_auth_failure(&self) -> bool {
        self.row().challenge != Challenge::None
            || matches!(
                self,
                Self::SubjectMismatch(_) | Self::CertificateDenied { .. } | Self::OriginNotAllowed
            )
    }
}
