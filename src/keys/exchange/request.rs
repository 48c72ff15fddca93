//! Request of one exchange, and its response.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderName, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::sleep;

use crate::client::CallError;
use crate::keys::credential::{Credential, CredentialForm, Outcome};
use crate::keys::fetch::{FetchError, retry_after};

use super::ExchangeSettings;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// Characters that a form must encode, and some that it may.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Delay requested by an issuer that names none.
const DEFAULT_DELAY: Duration = Duration::from_secs(10);

/// Delay before the only retry. Half of it is random, so that gates do not retry together.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Endpoint of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `/token` of Better Auth: a session becomes a JWT.
    Token,
    /// `/get-session` of Better Auth: user and session.
    GetSession,
    /// Token introspection (RFC 7662).
    Introspection(BasicCredentials),
}

/// Credentials of the gate at the issuer (RFC 6749 section 2.3.1). Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct BasicCredentials(HeaderValue);

impl BasicCredentials {
    /// Encodes client ID and secret; `None` if they cannot be a header value.
    pub fn new(client_id: &str, secret: &str) -> Option<Self> {
        let (id, secret) = (form_encoded(client_id), form_encoded(secret));
        let text = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }
}

impl Endpoint {
    /// Method of its requests.
    pub fn method(&self) -> Method {
        match self {
            Self::Token | Self::GetSession => Method::GET,
            Self::Introspection(_) => Method::POST,
        }
    }
}

impl fmt::Debug for BasicCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BasicCredentials(..)")
    }
}

/// Response of the issuer.
#[derive(Debug)]
pub(super) enum Response {
    Valid {
        outcome: Outcome,
        /// Renewed session cookie.
        set_cookie: Option<HeaderValue>,
    },
    Rejected,
    /// 429 with its delay.
    Limited {
        retry_after: Duration,
    },
    Failed {
        cause: String,
        /// True if the issuer, and not this credential, is the likely cause.
        is_down: bool,
    },
}

impl Response {
    /// Value of the metric label `outcome`.
    pub(super) fn label(&self) -> crate::observe::metrics::ExchangeOutcome {
        use crate::observe::metrics::ExchangeOutcome;
        match self {
            Self::Valid { .. } => ExchangeOutcome::Valid,
            Self::Rejected => ExchangeOutcome::Rejected,
            Self::Limited { .. } => ExchangeOutcome::Limited,
            Self::Failed { .. } => ExchangeOutcome::Failed,
        }
    }
}

/// Sends a credential to its issuer, once more if the issuer is unreachable.
pub(super) async fn send(
    settings: &ExchangeSettings,
    credential: &Credential,
    client: Option<IpAddr>,
    refreshes: bool,
) -> Response {
    let first = attempt(settings, credential, client, refreshes).await;
    if !matches!(first, Response::Failed { is_down: true, .. }) {
        return first;
    }
    sleep(RETRY_DELAY.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    attempt(settings, credential, client, refreshes).await
}

async fn attempt(
    settings: &ExchangeSettings,
    credential: &Credential,
    client: Option<IpAddr>,
    refreshes: bool,
) -> Response {
    let Some((request, url)) = request(settings, credential, client, refreshes) else {
        return Response::Rejected;
    };
    let response = match settings.fetcher.call(request, &url).await {
        Ok(response) => response,
        Err(error) => return failed(&error),
    };
    let (head, body) = response.into_parts();
    let status = head.status;
    match (&settings.endpoint, status) {
        (Endpoint::Token, StatusCode::OK) => token(&body, &head.headers, credential),
        (Endpoint::GetSession, StatusCode::OK) => session(&body, &head.headers, credential),
        (Endpoint::Introspection(_), StatusCode::OK) => introspected(&body),
        (Endpoint::Token | Endpoint::GetSession, StatusCode::UNAUTHORIZED) => Response::Rejected,
        (_, StatusCode::TOO_MANY_REQUESTS) => Response::Limited {
            retry_after: retry_after(&head.headers).unwrap_or(DEFAULT_DELAY),
        },
        (endpoint, status) => Response::Failed {
            cause: format!("status: {status}{}", hint(endpoint, status)),
            is_down: matches!(
                status,
                StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            ),
        },
    }
}

/// Likely cause of a status.
fn hint(endpoint: &Endpoint, status: StatusCode) -> &'static str {
    match (endpoint, status) {
        (Endpoint::Token, StatusCode::NOT_FOUND) => {
            ": the server has no JWT plugin, or another base path; without the plugin, set `sessions = { via = \"get-session\" }`"
        }
        (Endpoint::Token | Endpoint::GetSession, StatusCode::INTERNAL_SERVER_ERROR) => {
            ": a server with `allowedHosts` rejects other names; set `host` to one of them"
        }
        (Endpoint::Introspection(_), StatusCode::UNAUTHORIZED) => {
            ": the issuer rejects `client_id` or the client secret of `introspection`"
        }
        (Endpoint::Introspection(_), StatusCode::BAD_REQUEST) => {
            ": the client must be registered with `client_secret_basic`"
        }
        _ => "",
    }
}

fn failed(error: &FetchError) -> Response {
    let is_down = match error {
        FetchError::Call(CallError::Url | CallError::Encoded(_))
        | FetchError::Redirect { .. }
        | FetchError::Status { .. }
        | FetchError::KeySet { .. }
        | FetchError::Keys(_)
        | FetchError::TokenFile(_)
        | FetchError::Discovery(_) => false,
        FetchError::Call(_) | FetchError::Unproxied { .. } => true,
    };
    Response::Failed {
        cause: error.to_string(),
        is_down,
    }
}

/// Builds the request. It carries the one credential, and nothing else of the client's request.
pub(super) fn request(
    settings: &ExchangeSettings,
    credential: &Credential,
    client: Option<IpAddr>,
    refreshes: bool,
) -> Option<(Request<Full<Bytes>>, Uri)> {
    let mut request = Request::new(Full::default());
    let headers = request.headers_mut();
    headers.insert(ACCEPT, JSON);
    // Better Auth limits the rate of each client, by this header and only if it has one address.
    if let Some(client) = client
        && let Ok(address) = HeaderValue::try_from(client.to_string())
    {
        headers.insert(X_FORWARDED_FOR, address);
    }
    let mut url = settings.url.clone();
    if let Endpoint::Introspection(authorization) = &settings.endpoint {
        headers.insert(AUTHORIZATION, authorization.0.clone());
        headers.insert(CONTENT_TYPE, FORM);
        // Without the hint, an issuer can report a refresh token as active.
        let form = format!(
            "token={}&token_type_hint=access_token",
            form_encoded(credential.expose())
        );
        *request.method_mut() = settings.endpoint.method();
        *request.body_mut() = Full::new(Bytes::from(form));
        return Some((request, url));
    }
    let (name, text) = match credential.form() {
        CredentialForm::SessionCookie(name) => (COOKIE, format!("{name}={}", credential.expose())),
        CredentialForm::SessionToken | CredentialForm::AccessToken => {
            (AUTHORIZATION, format!("Bearer {}", credential.expose()))
        }
    };
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    headers.insert(name, value);
    // `session_data` would keep a signed-out session valid, and a request must not extend a session by itself.
    let query = if refreshes {
        "disableCookieCache=true"
    } else {
        "disableRefresh=true&disableCookieCache=true"
    };
    let (scheme, authority) = (url.scheme_str()?, url.authority()?);
    url = format!("{scheme}://{authority}{}?{query}", url.path())
        .parse()
        .ok()?;
    Some((request, url))
}

/// Body of `/token`.
#[derive(Deserialize)]
struct TokenBody {
    token: String,
}

fn token(body: &[u8], headers: &HeaderMap, credential: &Credential) -> Response {
    match serde_json::from_slice::<TokenBody>(body) {
        Ok(TokenBody { token }) => Response::Valid {
            outcome: Outcome::Jwt(token.into()),
            set_cookie: renewed_cookie(headers, credential),
        },
        Err(_) => unusable("expected a JSON object with `token`"),
    }
}

/// User and session of `/get-session` as claims: `sub` is the ID of the user. `null` is no session.
fn session(body: &[u8], headers: &HeaderMap, credential: &Credential) -> Response {
    let Ok(Value::Object(mut members)) = serde_json::from_slice(body) else {
        return if body.trim_ascii() == b"null" {
            Response::Rejected
        } else {
            unusable("expected a JSON object with `user` and `session`, or null")
        };
    };
    let id = members.get("user").and_then(|user| user.get("id"));
    let Some(id) = id.and_then(Value::as_str).map(str::to_owned) else {
        return unusable("`user.id` is missing");
    };
    let session = members.get_mut("session").and_then(Value::as_object_mut);
    let Some(session) = session else {
        return unusable("`session` is missing");
    };
    // The credential itself.
    session.remove("token");
    let expires = session.get("expiresAt").and_then(Value::as_str);
    let Some(expires) = expires.and_then(seconds_of) else {
        return unusable("`session.expiresAt` is not a time");
    };
    let mut claims = Map::new();
    claims.insert("sub".to_owned(), id.into());
    claims.insert("exp".to_owned(), expires.into());
    claims.extend(members);
    valid_claims(claims, renewed_cookie(headers, credential))
}

/// Response of RFC 7662 section 2.2.
fn introspected(body: &[u8]) -> Response {
    let Ok(Value::Object(mut claims)) = serde_json::from_slice(body) else {
        return unusable("expected a JSON object with `active`");
    };
    match claims.remove("active") {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => return Response::Rejected,
        _ => return unusable("`active` is not true or false"),
    }
    // RFC 9068 section 2.2: without a resource owner, the subject is the client.
    if !claims.contains_key("sub")
        && let Some(client) = claims.get("client_id").cloned()
    {
        claims.insert("sub".to_owned(), client);
    }
    valid_claims(claims, None)
}

fn valid_claims(claims: Map<String, Value>, set_cookie: Option<HeaderValue>) -> Response {
    let json = Value::Object(claims).to_string();
    Response::Valid {
        outcome: Outcome::Claims(Arc::from(json.into_bytes())),
        set_cookie,
    }
}

fn unusable(fault: &str) -> Response {
    Response::Failed {
        cause: format!("body: {fault}"),
        is_down: false,
    }
}

/// Cookie that renews the session of a cookie credential.
fn renewed_cookie(headers: &HeaderMap, credential: &Credential) -> Option<HeaderValue> {
    let CredentialForm::SessionCookie(name) = credential.form() else {
        return None;
    };
    let mut values = headers.get_all(SET_COOKIE).iter();
    let renews = |value: &&HeaderValue| {
        let rest = value.as_bytes().strip_prefix(name.as_bytes());
        let value = rest.and_then(|rest| rest.strip_prefix(b"="));
        value.is_some_and(|value| value.starts_with(credential.expose().as_bytes()))
    };
    values.find(renews).cloned()
}

/// Seconds since 1970 of a time such as `2026-11-27T23:00:00.000Z`.
fn seconds_of(time: &str) -> Option<i64> {
    let time = humantime::parse_rfc3339(time).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

/// Text in `application/x-www-form-urlencoded`.
fn form_encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, ENCODED)
}
