//! Responses of refusals: problem documents with their challenges, and gRPC trailers.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use crate::keys::{Algorithm, KeyKind};

use super::{Challenge, Mismatch, Refusal, Row};

/// Nonce for the next proof (RFC 9449 section 9).
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Protocol of a gRPC call, by its `Content-Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcProtocol {
    /// gRPC over HTTP/2.
    Native,
    /// gRPC-Web, for browsers.
    Web,
    /// gRPC-Web in base64.
    WebText,
}

impl GrpcProtocol {
    /// Protocol of a request; `None` if it is no gRPC call.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(CONTENT_TYPE)?.as_bytes();
        let (start, rest) = kind.split_at_checked(b"application/grpc".len())?;
        if !start.eq_ignore_ascii_case(b"application/grpc") {
            return None;
        }
        let suffix = rest.split(|byte| b"+; \t".contains(byte)).next()?;
        match suffix.to_ascii_lowercase().as_slice() {
            b"" => Some(Self::Native),
            b"-web" => Some(Self::Web),
            b"-web-text" => Some(Self::WebText),
            _ => None,
        }
    }

    /// `Content-Type` of a response without a message.
    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Native => "application/grpc",
            Self::Web => "application/grpc-web+proto",
            Self::WebText => "application/grpc-web-text+proto",
        })
    }
}

/// `Retry-After` of a 503, in seconds.
const RETRY_AFTER_UNAVAILABLE: Duration = Duration::from_secs(5);

impl Refusal {
    /// Status of a gRPC call, after the gRPC project's "HTTP to gRPC Status Code Mapping"; for a status without an entry
    /// there, the nearest in meaning.
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

    /// Trailers that end a gRPC call.
    pub fn grpc_trailers(&self) -> HeaderMap {
        let mut fields = HeaderMap::with_capacity(8);
        fields.insert(
            GRPC_STATUS,
            HeaderValue::from(u16::from(self.grpc_status())),
        );
        if let Ok(message) = HeaderValue::try_from(grpc_message(&self.detail())) {
            fields.insert(GRPC_MESSAGE, message);
        }
        fields
    }

    /// Trailers-only response to a gRPC call: status 200, and the reason in `grpc-status`. A gRPC client reduces every
    /// other status to a code and loses the text. A gRPC-Web client reads them from the headers too.
    pub fn grpc_response(&self, realm: &str, protocol: GrpcProtocol) -> (StatusCode, HeaderMap) {
        let (_, mut headers, _) = self.response(realm);
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, protocol.content_type());
        headers.extend(self.grpc_trailers());
        (StatusCode::OK, headers)
    }

    /// Response with a problem document (RFC 9457) and, where the row has one, a challenge for `realm`.
    pub fn response(&self, realm: &str) -> (StatusCode, HeaderMap, Bytes) {
        let row = self.row();
        // A 404 for a mismatch must not differ from one for no route, or it hides nothing.
        let hides_owner = *self == Self::SubjectMismatch(Mismatch::NotFound);
        let reason = if hides_owner {
            Self::NoRoute.reason()
        } else {
            row.reason
        };
        let body = json!({
            "type": "about:blank",
            "title": row.status.canonical_reason().unwrap_or_default(),
            "status": row.status.as_u16(),
            "detail": self.detail(),
            "reason": reason,
        });
        // The line end keeps a shell prompt off the body's line.
        let body = Bytes::from(format!("{body}\n"));
        let mut headers = HeaderMap::with_capacity(5);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        if let Some(text) = self.challenge(realm)
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
        if let Self::ProofNonce(nonce) = self {
            headers.insert(DPOP_NONCE, nonce.clone());
        }
        if let Self::RateLimited { wait, .. } = self {
            headers.insert(RETRY_AFTER, HeaderValue::from(*wait));
        }
        if row.status == StatusCode::SERVICE_UNAVAILABLE {
            let wait = if let Self::ExchangeUnavailable { retry_after, .. } = self {
                *retry_after
            } else {
                RETRY_AFTER_UNAVAILABLE.as_secs()
            };
            headers.insert(RETRY_AFTER, HeaderValue::from(wait));
        }
        (row.status, headers, body)
    }

    fn challenge(&self, realm: &str) -> Option<String> {
        let Row { challenge, .. } = self.row();
        let detail = self.detail();
        let error = match challenge {
            Challenge::None => return None,
            Challenge::Plain => return Some(format!("Bearer realm=\"{realm}\"")),
            Challenge::InvalidRequest => "invalid_request",
            Challenge::InvalidToken => "invalid_token",
            Challenge::InsufficientScope => "insufficient_scope",
            Challenge::InvalidProof => {
                return Some(proof_challenge(realm, "invalid_dpop_proof", &detail));
            }
            Challenge::UseNonce => return Some(proof_challenge(realm, "use_dpop_nonce", &detail)),
        };
        let mut text =
            format!("Bearer realm=\"{realm}\", error=\"{error}\", error_description=\"{detail}\"");
        if let Self::ClaimDenied {
            scope: Some(scope), ..
        } = self
        {
            text.extend([", scope=\"", scope.as_ref(), "\""]);
        }
        Some(text)
    }
}

/// Adds the scheme `DPoP` to the challenge of a response (RFC 9449 section 7.1): as a challenge of its own, or instead of
/// `Bearer` for a request that uses it.
pub fn write_dpop_challenge(headers: &mut HeaderMap, is_used: bool) {
    let Some(Ok(challenge)) = headers.get(WWW_AUTHENTICATE).map(HeaderValue::to_str) else {
        return;
    };
    let Some(parameters) = challenge.strip_prefix("Bearer ") else {
        return;
    };
    let algorithms = algorithms();
    if is_used {
        let challenge = format!("DPoP {parameters}, algs=\"{algorithms}\"");
        if let Ok(value) = HeaderValue::try_from(challenge) {
            headers.insert(WWW_AUTHENTICATE, value);
        }
    } else if let Ok(value) = HeaderValue::try_from(format!("DPoP algs=\"{algorithms}\"")) {
        // After `Bearer`: some clients read only the first challenge.
        headers.append(WWW_AUTHENTICATE, value);
    }
}

/// Challenge for another proof (RFC 9449 section 7.1), with the accepted algorithms.
fn proof_challenge(realm: &str, error: &str, detail: &str) -> String {
    format!(
        "DPoP realm=\"{realm}\", error=\"{error}\", error_description=\"{detail}\", algs=\"{}\"",
        algorithms()
    )
}

/// Names of the algorithms that a proof can have.
fn algorithms() -> String {
    let algorithms = Algorithm::ALL.iter();
    let algorithms = algorithms.filter(|it| it.kind() != KeyKind::Secret);
    let algorithms: Vec<&str> = algorithms.map(|it| it.name()).collect();
    algorithms.join(" ")
}

/// Percent-encodes the text of `grpc-message`: every byte but printable ASCII without `%` (gRPC over HTTP/2,
/// "Responses").
fn grpc_message(text: &str) -> String {
    let mut message = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            message.push(char::from(byte));
        } else {
            let _infallible = write!(message, "%{byte:02X}");
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use crate::gate::path::CanonicalPath;
    use crate::gate::token_fault::MissingToken;

    use super::*;

    #[test]
    fn percent_encodes_the_grpc_message() {
        let fault = CanonicalPath::parse("/a%2Fb").unwrap_err();
        let trailers = Refusal::PathNotCanonical(fault).grpc_trailers();
        assert_eq!(
            trailers[GRPC_MESSAGE],
            "Character 3 of the path, `%252F`, is an encoded `/`: a segment cannot contain it."
        );
        assert_eq!(grpc_message("Zo\u{eb}\n~"), "Zo%C3%AB%0A~");
    }

    #[test]
    fn challenges_a_missing_token_without_an_error() {
        let missing = Refusal::TokenMissing(MissingToken {
            sources: "the cookie `a%b`".into(),
            near_miss: None,
        });
        assert_eq!(
            missing.grpc_trailers()[GRPC_MESSAGE],
            "Sign in first: this path needs a bearer token in the cookie `a%25b`."
        );
        let (status, headers, _) = missing.response("claimgate");
        assert_eq!(status, 401);
        assert_eq!(headers[WWW_AUTHENTICATE], "Bearer realm=\"claimgate\"");
    }

    #[test]
    fn names_the_expiry_in_challenge_and_body() {
        let (status, headers, body) = Refusal::TokenExpired.response("claimgate");
        assert_eq!(status, 401);
        let challenge = headers[WWW_AUTHENTICATE].to_str().unwrap();
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["detail"], "Token has expired. Please sign in again.");
        assert_eq!(body["reason"], "token_expired");
        assert_eq!(body["status"], 401);
    }

    #[test]
    fn responds_to_a_grpc_call_in_its_protocol() {
        // https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md: `application/grpc-web` with an optional format,
        // and `application/grpc-web-text` in base64.
        let (native, web) = (Some("application/grpc"), Some("application/grpc-web+proto"));
        let text = Some("application/grpc-web-text+proto");
        for (request, response) in [
            ("application/grpc", native),
            ("application/grpc+proto", native),
            ("Application/gRPC;charset=utf-8", native),
            ("application/grpc-web", web),
            ("application/grpc-web+json", web),
            ("APPLICATION/GRPC-WEB+PROTO; a=b", web),
            ("application/grpc-web-text", text),
            ("application/grpc-web-text+proto", text),
            ("application/grpcx", None),
            ("application/grpc-webx", None),
            ("application/grpc-websocket", None),
            ("application/json", None),
            ("", None),
        ] {
            let value = HeaderValue::from_static(request);
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, value)]);
            let protocol = GrpcProtocol::of(&headers);
            let written = protocol.map(|protocol| {
                let (status, headers) = Refusal::TokenExpired.grpc_response("claimgate", protocol);
                assert_eq!(status, 200);
                assert_eq!(headers[GRPC_STATUS], "16");
                headers[CONTENT_TYPE].to_str().unwrap().to_owned()
            });
            assert_eq!(written.as_deref(), response, "{request}");
        }
    }

    #[test]
    fn responds_to_a_hidden_mismatch_as_to_a_path_without_a_route() {
        let hidden = Refusal::SubjectMismatch(Mismatch::NotFound).response("claimgate");
        assert_eq!(hidden, Refusal::NoRoute.response("claimgate"));
    }
}
