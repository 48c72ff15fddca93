//! CORS (Fetch standard): access of pages of other origins.
//!
//! A browser sends a preflight before a page may send more than a form could, and lets the page read a response only if
//! its headers allow that. Neither check reads a token: a preflight carries none.

use std::iter::once;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::origin::Origin;
use super::refusal::Refusal;
use super::single_value::single_value;

/// Response headers of the gate, which a page can always read.
const EXPOSED: [&str; 8] = [
    "www-authenticate",
    "dpop-nonce",
    "retry-after",
    "ratelimit",
    "ratelimit-policy",
    "x-request-id",
    "grpc-status",
    "grpc-message",
];

/// Longest header name that a refusal repeats, in bytes.
const MAX_NAMED_HEADER: usize = 64;

const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const VARY_BY_ORIGIN: HeaderValue = HeaderValue::from_static("origin");
const VARY_OF_PREFLIGHT: HeaderValue = HeaderValue::from_static(
    "origin, access-control-request-method, access-control-request-headers",
);

/// CORS policy of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    origins: Origins,
    credentials: bool,
    methods: Vec<Method>,
    headers: Vec<HeaderName>,
    allow_methods: HeaderValue,
    allow_headers: HeaderValue,
    expose: HeaderValue,
    max_age: HeaderValue,
}

/// Allowed origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    Any,
    Listed(Vec<OriginPattern>),
}

/// One origin, or all origins of a wildcard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    Exact(Origin),
    /// `https://*.example.com`: the origins with one label in place of the `*`.
    Wildcard {
        /// Text before the label: `https://`.
        start: String,
        /// Text after the label: `.example.com`, with the port if there is one.
        end: String,
    },
}

/// CORS fields of a request.
#[derive(Debug, Clone)]
pub struct CorsRequest {
    /// `Origin`, if there is exactly one.
    origin: Option<HeaderValue>,
    is_preflight: bool,
}

/// CORS preflight: asks whether a page may send a request.
#[derive(Debug)]
pub struct PreflightRequest<'a> {
    origin: &'a HeaderValue,
    /// Method of the request to come.
    pub method: Method,
    headers: &'a HeaderMap,
}

impl Cors {
    pub fn new(
        origins: Origins,
        credentials: bool,
        methods: Vec<Method>,
        headers: Vec<HeaderName>,
        expose: &[HeaderName],
        max_age: u64,
    ) -> Self {
        let expose = expose.iter().map(HeaderName::as_str);
        let expose = expose.filter(|name| !EXPOSED.contains(name));
        Self {
            origins,
            credentials,
            allow_methods: list(methods.iter().map(Method::as_str)),
            allow_headers: list(headers.iter().map(HeaderName::as_str)),
            expose: list(EXPOSED.into_iter().chain(expose)),
            max_age: max_age.into(),
            methods,
            headers,
        }
    }

    /// Returns the policy of a route with these methods.
    #[must_use]
    pub fn limited_to(&self, methods: &[Method]) -> Self {
        let both = self.methods.iter().filter(|it| methods.contains(it));
        let both: Vec<Method> = both.cloned().collect();
        Self {
            allow_methods: list(both.iter().map(Method::as_str)),
            methods: both,
            ..self.clone()
        }
    }

    /// Headers of the response to a preflight.
    pub fn preflight(&self, preflight: &PreflightRequest<'_>) -> Result<HeaderMap, Refusal> {
        self.allow(preflight, Some(&self.allow_methods))
    }

    /// Headers of the response to a preflight for a path or method without a route. Allows the requested method: the
    /// request will be refused, and the page can read why.
    pub fn preflight_without_route(
        &self,
        preflight: &PreflightRequest<'_>,
    ) -> Result<HeaderMap, Refusal> {
        self.allow(preflight, None)
    }

    /// Headers that allow the methods of the policy, or without `methods` the requested one.
    fn allow(
        &self,
        preflight: &PreflightRequest<'_>,
        methods: Option<&HeaderValue>,
    ) -> Result<HeaderMap, Refusal> {
        let Some(origin) = self.allow_origin(Some(preflight.origin)) else {
            return Err(Refusal::PreflightOrigin);
        };
        if methods.is_some() && !self.methods.contains(&preflight.method) {
            return Err(Refusal::PreflightMethod);
        }
        let mut names = preflight.header_names();
        if let Some(denied) = names.find(|name| !self.allows_header(name)) {
            return Err(Refusal::PreflightHeaders(nameable(denied)));
        }
        let methods = match methods {
            Some(methods) => methods.clone(),
            None => list(once(preflight.method.as_str())),
        };
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        if !self.headers.is_empty() {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.allow_headers.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        headers.insert(VARY, VARY_OF_PREFLIGHT);
        Ok(headers)
    }

    /// Writes the CORS headers of a response. Removes those of the upstream, so that only one policy
    /// applies.
    pub fn write_headers(&self, request: &CorsRequest, headers: &mut HeaderMap) {
        remove_headers(headers);
        if request.is_preflight {
            vary(headers, VARY_OF_PREFLIGHT);
            return;
        }
        if matches!(self.origins, Origins::Listed(_)) {
            vary(headers, VARY_BY_ORIGIN);
        }
        if let Some(origin) = self.allow_origin(request.origin.as_ref()) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            if self.credentials {
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
            }
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.clone());
        }
    }

    /// Value of `Access-Control-Allow-Origin`; `None` if the origin is not allowed.
    fn allow_origin(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        match &self.origins {
            Origins::Any => Some(ANY),
            Origins::Listed(patterns) => {
                let origin = origin?;
                let text = origin.to_str().ok()?;
                let is_listed = patterns.iter().any(|pattern| pattern.matches(text));
                is_listed.then(|| origin.clone())
            }
        }
    }

    fn allows_header(&self, name: &str) -> bool {
        let mut headers = self.headers.iter();
        headers.any(|allowed| allowed.as_str().eq_ignore_ascii_case(name))
    }
}

impl OriginPattern {
    /// Parses an origin, or an origin with `*` as the first of at least three host labels.
    pub fn new(text: &str) -> Option<Self> {
        let Some((start, domain)) = text.split_once("*.") else {
            return Origin::new(text).map(Self::Exact);
        };
        let host = domain.split(':').next()?;
        let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        let is_name = host.contains('.') && !host.split('.').any(str::is_empty);
        let is_address = host.rsplit('.').next().is_some_and(is_number);
        let valid = start.ends_with("://")
            && is_name
            && !is_address
            && Origin::new(&format!("{start}{domain}")).is_some();
        valid.then(|| Self::Wildcard {
            start: start.to_owned(),
            end: format!(".{domain}"),
        })
    }

    /// Compares bytes: every browser serializes an origin alike (RFC 6454 section 6.2).
    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.as_str() == origin,
            Self::Wildcard { start, end } => {
                let label = origin.strip_prefix(start.as_str());
                let label = label.and_then(|rest| rest.strip_suffix(end.as_str()));
                let plain = |byte: u8| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte)
                };
                label.is_some_and(|label| !label.is_empty() && label.bytes().all(plain))
            }
        }
    }
}

impl CorsRequest {
    pub fn of(head: &Parts) -> Self {
        Self {
            origin: single_value(&head.headers, &ORIGIN).ok().flatten().cloned(),
            is_preflight: PreflightRequest::of(head).is_some(),
        }
    }
}

impl<'a> PreflightRequest<'a> {
    /// Recognizes a preflight: OPTIONS with `Origin` and `Access-Control-Request-Method`. Any other OPTIONS request is
    /// an ordinary one.
    pub fn of(head: &'a Parts) -> Option<Self> {
        if head.method != Method::OPTIONS {
            return None;
        }
        let method = single_value(&head.headers, &ACCESS_CONTROL_REQUEST_METHOD).ok()??;
        Some(Self {
            origin: single_value(&head.headers, &ORIGIN).ok()??,
            method: Method::from_bytes(method.as_bytes()).ok()?,
            headers: &head.headers,
        })
    }

    /// Names of the headers that the page wants to send. A field that is not ASCII becomes `?`, which no policy allows.
    fn header_names(&self) -> impl Iterator<Item = &'a str> {
        let fields = self.headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
        fields
            .flat_map(|field| field.to_str().unwrap_or("?").split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty())
    }
}

/// Headers of a public response, which every page may read.
pub(super) fn any_page() -> HeaderMap {
    HeaderMap::from_iter([(ACCESS_CONTROL_ALLOW_ORIGIN, ANY)])
}

/// Headers that allow every page these methods and all headers, without credentials.
pub(super) fn preflight_of_any_page(methods: &HeaderValue) -> HeaderMap {
    let mut headers = any_page();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ANY);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    headers
}

/// Replaces the CORS headers of a response.
pub fn replace_headers(headers: &mut HeaderMap, cors: HeaderMap) {
    remove_headers(headers);
    headers.extend(cors);
}

fn remove_headers(headers: &mut HeaderMap) {
    let is_cors = |name: &&HeaderName| name.as_str().starts_with("access-control-");
    let names: Vec<HeaderName> = headers.keys().filter(is_cors).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// A header name of a client, if a response may repeat it.
fn nameable(name: &str) -> Option<HeaderName> {
    let is_short = name.len() <= MAX_NAMED_HEADER;
    is_short.then(|| name.parse().ok()).flatten()
}

/// Adds names to `Vary`.
fn vary(headers: &mut HeaderMap, by: HeaderValue) {
    if !headers.contains_key(VARY) {
        headers.insert(VARY, by);
        return;
    }
    let mut all = Vec::new();
    for field in headers.get_all(VARY) {
        let mut names = field.as_bytes().split(|byte| *byte == b',');
        if names.any(|name| name.trim_ascii() == b"*") {
            return;
        }
        all.extend([field.as_bytes(), b", "]);
    }
    all.push(by.as_bytes());
    let all = HeaderValue::from_bytes(&all.concat()).unwrap_or(by);
    headers.insert(VARY, all);
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> HeaderValue {
    let names: Vec<&str> = names.collect();
    HeaderValue::from_str(&names.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests;
