//! The one table of answers: for every reason not to serve a request, what the client sees.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use super::requirements::Requirement;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The path, or the form of the request target, has more than one reading.
    PathNotCanonical,
    /// The request breaks RFC 9110 or RFC 9112.
    RequestMalformed,
    /// No route has this path.
    NoRoute,
    /// It came without encryption, where that is not served; where it is.
    HttpsRequired(HeaderValue),
    /// Routes have this path, but none has this method; those they have.
    MethodNotAllowed(HeaderValue),
    /// No bearer token came.
    TokenMissing,
    /// More than one token came.
    TokenRepeated,
    /// The token is not a signed JWT that can be read.
    TokenMalformed,
    /// The token is a session token of Better Auth: no JWT at all.
    TokenOpaque,
    /// The signature is wrong.
    TokenSignature,
    /// The algorithm is not one of the key's.
    TokenAlgorithm,
    /// No key has this `kid`.
    TokenKeyUnknown,
    /// `exp` is past.
    TokenExpired,
    /// `nbf` or `iat` is in the future.
    TokenNotYetValid,
    /// From `iat` to `exp` is too long.
    TokenLifetime,
    /// `iss` is not accepted.
    TokenIssuer,
    /// `aud` is not accepted.
    TokenAudience,
    /// The subject is missing or cannot be used.
    TokenSubject,
    /// `typ` is not accepted.
    TokenType,
    /// The token is bound to a key, which the caller has not shown.
    TokenConfirmation,
    /// The caller is not the owner; what the route answers then.
    SubjectMismatch(Mismatch),
    /// A claim does not say what the route demands.
    ClaimDenied(UnmetRequirement),
    /// The certificate of the connection does not say what the route demands, or there is none.
    CertificateDenied(Arc<Requirement>),
    /// The token came in a cookie, and not from a page that may send it.
    OriginNotAllowed,
    /// A browser asks for a page of an origin that may not call.
    PreflightOrigin,
    /// A browser asks for a method that pages may not use.
    PreflightMethod,
    /// A browser asks for a header that pages may not send.
    PreflightHeaders,
    /// The caller comes more often than the route allows; in how many seconds it may come again.
    RateLimited(u64),
    /// The client took too long to send its request.
    RequestTimeout,
    /// The body is larger than the route allows.
    BodyTooLarge,
    /// The request target is too long.
    TargetTooLong,
    /// The head is too large.
    HeadersTooLarge,
    /// There are no keys to judge the token with.
    KeysUnavailable,
    /// Nobody can say how often the caller has come.
    RateLimitUnavailable,
    /// Too many connections are open.
    Overloaded,
    /// The gate is stopping.
    Draining,
    /// The upstream did not accept a connection.
    UpstreamUnreachable,
    /// The upstream broke off or did not speak HTTP.
    UpstreamInvalidResponse,
    /// The upstream took too long.
    UpstreamTimeout,
}

/// What a caller who is not the owner is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mismatch {
    /// 403.
    #[default]
    Forbidden,
    /// 404: the answer of a path that does not exist.
    NotFound,
    /// 401: for clients that know no other.
    Unauthorized,
}

/// What a claim does not say. The client is told the scope and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmetRequirement {
    /// What was demanded.
    pub requirement: Arc<Requirement>,
    /// The scope that a token needs for the path, if a scope is what it lacks.
    pub scope: Option<Arc<str>>,
}

/// How an answer says that a bearer token was at fault (RFC 6750 section 3).
enum Challenge {
    None,
    /// No token came: RFC 6750 section 3.1 says to give no error then.
    Plain,
    InvalidRequest,
    InvalidToken,
    /// With the scope that would be enough.
    InsufficientScope(Option<Arc<str>>),
}

/// How soon a client may try again.
const RETRY_SOON: Duration = Duration::from_secs(5);

impl Refusal {
    /// The stable name, as in the log, the metrics and the body.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PathNotCanonical => "path_not_canonical",
            Self::RequestMalformed => "request_malformed",
            Self::NoRoute => "no_route",
            Self::HttpsRequired(_) => "https_required",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::TokenMissing => "token_missing",
            Self::TokenRepeated => "token_repeated",
            Self::TokenMalformed => "token_malformed",
            Self::TokenOpaque => "token_opaque",
            Self::TokenSignature => "token_signature",
            Self::TokenAlgorithm => "token_algorithm",
            Self::TokenKeyUnknown => "token_key_unknown",
            Self::TokenExpired => "token_expired",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::TokenLifetime => "token_lifetime",
            Self::TokenIssuer => "token_issuer",
            Self::TokenAudience => "token_audience",
            Self::TokenSubject => "token_subject",
            Self::TokenType => "token_type",
            Self::TokenConfirmation => "token_confirmation",
            Self::SubjectMismatch(_) => "subject_mismatch",
            Self::ClaimDenied(_) => "claim_denied",
            Self::CertificateDenied(_) => "certificate_denied",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::PreflightOrigin => "preflight_origin",
            Self::PreflightMethod => "preflight_method",
            Self::PreflightHeaders => "preflight_headers",
            Self::RateLimited(_) => "rate_limited",
            Self::RequestTimeout => "request_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::HeadersTooLarge => "headers_too_large",
            Self::KeysUnavailable => "keys_unavailable",
            Self::RateLimitUnavailable => "rate_limit_unavailable",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamInvalidResponse => "upstream_invalid_response",
            Self::UpstreamTimeout => "upstream_timeout",
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.row().0
    }

    /// The status that a gRPC call is answered with, as the gRPC project maps those of HTTP ("HTTP to gRPC Status Code
    /// Mapping"); where it has none, the nearest in meaning.
    pub fn grpc_status(&self) -> u8 {
        match self.status() {
            StatusCode::BAD_REQUEST => 13,
            StatusCode::UNAUTHORIZED => 16,
            StatusCode::FORBIDDEN => 7,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => 12,
            StatusCode::REQUEST_TIMEOUT => 4,
            StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::URI_TOO_LONG
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => 8,
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => 14,
            _ => 2,
        }
    }

    /// The fields that end a gRPC call: its trailers, or its whole answer.
    pub fn grpc_trailers(&self) -> HeaderMap {
        let mut fields = HeaderMap::with_capacity(8);
        fields.insert(
            GRPC_STATUS,
            HeaderValue::from(u16::from(self.grpc_status())),
        );
        // The texts are printable ASCII without a percent sign, which gRPC would have escaped.
        fields.insert(GRPC_MESSAGE, HeaderValue::from_static(self.detail()));
        fields
    }

    /// The answer to a gRPC call: HTTP says that all went well, and gRPC why it did not. Clients of gRPC make one
    /// status of every 401 page and another of every 403, and lose the text.
    pub fn grpc_answer(&self, realm: &str) -> (StatusCode, HeaderMap) {
        let (_, mut headers, _) = self.answer(realm);
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.extend(self.grpc_trailers());
        (StatusCode::OK, headers)
    }

    /// The text of the answer.
    pub fn detail(&self) -> &'static str {
        self.row().2
    }

    /// Whether the caller was not who a route demands: what the log calls an authentication failure.
    pub fn is_about_the_caller(&self) -> bool {
        let (status, challenge, _) = self.row();
        !matches!(challenge, Challenge::None)
            || matches!(
                self,
                Self::SubjectMismatch(_) | Self::CertificateDenied(_) | Self::OriginNotAllowed
            )
            || status == StatusCode::UNAUTHORIZED
    }

    fn row(&self) -> (StatusCode, Challenge, &'static str) {
        use Challenge::{InsufficientScope, InvalidRequest, InvalidToken, None, Plain};
        match self {
            Self::PathNotCanonical => (
                StatusCode::BAD_REQUEST,
                None,
                "The path has more than one reading. Send it without dot segments, empty segments, encoded \
                 slashes or control characters.",
            ),
            Self::RequestMalformed => (StatusCode::BAD_REQUEST, None, "The request is malformed."),
            // A 404 for a mismatch must not differ from one for no route, or it hides nothing.
            Self::NoRoute | Self::SubjectMismatch(Mismatch::NotFound) => (
                StatusCode::NOT_FOUND,
                None,
                "There is nothing at this path.",
            ),
            Self::HttpsRequired(_) => (
                StatusCode::PERMANENT_REDIRECT,
                None,
                "This is served over HTTPS only.",
            ),
            Self::MethodNotAllowed(_) => (
                StatusCode::METHOD_NOT_ALLOWED,
                None,
                "This path does not have that method.",
            ),
            Self::TokenMissing => (
                StatusCode::UNAUTHORIZED,
                Plain,
                "Sign in first: this path needs a bearer token.",
            ),
            Self::TokenRepeated => (
                StatusCode::BAD_REQUEST,
                InvalidRequest,
                "Send exactly one token, and send it once.",
            ),
            Self::TokenMalformed => (
                StatusCode::UNAUTHORIZED,
                InvalidToken,
                "The token is not a signed JWT that can be read.",
            ),
            Self::TokenOpaque => (
                StatusCode::UNAUTHORIZED,
                InvalidToken,
                "This is a session token, not a JWT: exchange it at /api/auth/token.",
            ),
            Self::TokenSignature => (
                StatusCode::UNAUTHORIZED,
                InvalidToken,
                "The signature of the token is wrong.",
            ),
            Self::TokenAlgorithm => (
                StatusCode::UNAUTHORIZED,
                InvalidToken,
                "The algorithm of the token is not accepted.",
            ),
            Self::TokenKeyUnknown => (
                StatusCode::UNAUTHORIZED,
                InvalidToken,
                "The key of the token is not known.",
            ),
            Self::TokenExpired => (
                StatusCode::UNAUTHORIZED,
                InvalidToken,
                "Token has expired. Please sign in again.",
            ),
            Self::TokenNotYetValid => (
                StatusCode::UNAUTHORIZED,
                InvalidToken,
                "The token is not valid yet.",
            ),
            Self::TokenLifetime => (
                StatusCode::UNAUTHORIZED,
                InvalidToken,
                "The token is valid for longer than is accepted.",
            ),
            Self::TokenIssuer => (
                StatusCode::UNAUTHORIZED,
                InvalidToken,
                "The issuer of the token is not accepted.",
            ),
            Self::TokenAudience => (
                StatusCode::UNAUTHORIZED,
                InvalidToken,
                "The token is meant for another audience.",
            ),
            Self::TokenSubject => (
                StatusCode::UNAUTHORIZED,
                InvalidToken,
                "The token does not name a usable subject.",
            ),
            Self::TokenType => (
                StatusCode::UNAUTHORIZED,
                InvalidToken,
                "The token is of a type that is not accepted.",
            ),
            Self::TokenConfirmation => (
                StatusCode::UNAUTHORIZED,
                InvalidToken,
                "The token is bound to a key that was not shown.",
            ),
            Self::SubjectMismatch(Mismatch::Forbidden) => (
                StatusCode::FORBIDDEN,
                None,
                "This path belongs to another user.",
            ),
            Self::SubjectMismatch(Mismatch::Unauthorized) => (
                StatusCode::UNAUTHORIZED,
                InvalidToken,
                "This path belongs to another user.",
            ),
            Self::ClaimDenied(unmet) => (
                StatusCode::FORBIDDEN,
                InsufficientScope(unmet.scope.clone()),
                "The token does not grant what this path needs.",
            ),
            Self::CertificateDenied(_) => (
                StatusCode::FORBIDDEN,
                None,
                "The certificate of this connection does not grant what this path needs.",
            ),
            Self::OriginNotAllowed => (
                StatusCode::FORBIDDEN,
                None,
                "This page may not use the cookie of this site.",
            ),
            Self::PreflightOrigin => (
                StatusCode::FORBIDDEN,
                None,
                "Pages of this origin may not call this path.",
            ),
            Self::PreflightMethod => (
                StatusCode::FORBIDDEN,
                None,
                "Pages of other origins may not use this method here.",
            ),
            Self::PreflightHeaders => (
                StatusCode::FORBIDDEN,
                None,
                "Pages of other origins may not send one of these headers here.",
            ),
            Self::RateLimited(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                None,
                "Too many requests. Try again later.",
            ),
            Self::RequestTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                None,
                "The request took too long to arrive.",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                None,
                "The body is larger than this path accepts.",
            ),
            Self::TargetTooLong => (
                StatusCode::URI_TOO_LONG,
                None,
                "The request target is too long.",
            ),
            Self::HeadersTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                None,
                "The request head is too large.",
            ),
            Self::KeysUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                None,
                "The token cannot be checked at the moment. It may be good: try again soon.",
            ),
            Self::RateLimitUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                None,
                "The number of requests cannot be checked at the moment. Try again soon.",
            ),
            Self::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                None,
                "Too many connections are open. Try again soon.",
            ),
            Self::Draining => (
                StatusCode::SERVICE_UNAVAILABLE,
                None,
                "This instance is stopping. Try again.",
            ),
            Self::UpstreamUnreachable => (
                StatusCode::BAD_GATEWAY,
                None,
                "The service behind this gate cannot be reached.",
            ),
            Self::UpstreamInvalidResponse => (
                StatusCode::BAD_GATEWAY,
                None,
                "The service behind this gate gave no usable answer.",
            ),
            Self::UpstreamTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                None,
                "The service behind this gate took too long.",
            ),
        }
    }

    /// The answer, with `realm` in its challenge if it has one.
    pub fn answer(&self, realm: &str) -> (StatusCode, HeaderMap, Bytes) {
        let (status, challenge, detail) = self.row();
        let hides = *self == Self::SubjectMismatch(Mismatch::NotFound);
        let reason = if hides {
            Self::NoRoute.reason()
        } else {
            self.reason()
        };
        let body = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": detail,
            "reason": reason,
        });
        // A line end, so that a shell goes on below it.
        let body = Bytes::from(format!("{body}\n"));
        let mut headers = HeaderMap::with_capacity(5);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        if let Some(text) = challenge.text(realm, detail)
            && let Ok(value) = HeaderValue::from_str(&text)
        {
            headers.insert(WWW_AUTHENTICATE, value);
        }
        if let Self::MethodNotAllowed(allow) = self {
            headers.insert(ALLOW, allow.clone());
        }
        if let Self::HttpsRequired(location) = self {
            headers.insert(LOCATION, location.clone());
        }
        if let Self::RateLimited(wait) = self {
            headers.insert(RETRY_AFTER, HeaderValue::from(*wait));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SOON.as_secs()));
        }
        (status, headers, body)
    }
}

impl Challenge {
    fn text(&self, realm: &str, detail: &str) -> Option<String> {
        let error = match self {
            Self::None => return None,
            Self::Plain => return Some(format!("Bearer realm=\"{realm}\"")),
            Self::InvalidRequest => "invalid_request",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope(_) => "insufficient_scope",
        };
        let mut text =
            format!("Bearer realm=\"{realm}\", error=\"{error}\", error_description=\"{detail}\"");
        if let Self::InsufficientScope(Some(scope)) = self {
            text.extend([", scope=\"", scope.as_ref(), "\""]);
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_token_is_challenged_without_an_error() {
        let (status, headers, _) = Refusal::TokenMissing.answer("claimgate");
        assert_eq!(status, 401);
        assert_eq!(headers[WWW_AUTHENTICATE], "Bearer realm=\"claimgate\"");
    }

    #[test]
    fn an_expired_token_says_so_in_words() {
        let (status, headers, body) = Refusal::TokenExpired.answer("claimgate");
        assert_eq!(status, 401);
        let challenge = headers[WWW_AUTHENTICATE].to_str().unwrap();
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["detail"], "Token has expired. Please sign in again.");
        assert_eq!(body["reason"], "token_expired");
        assert_eq!(body["status"], 401);
    }

    #[test]
    fn a_hidden_mismatch_is_answered_like_a_path_that_does_not_exist() {
        let hidden = Refusal::SubjectMismatch(Mismatch::NotFound).answer("claimgate");
        assert_eq!(hidden, Refusal::NoRoute.answer("claimgate"));
    }
}
