//! Which pages of other origins may call and read the answers (CORS, in the Fetch standard).
//!
//! A browser asks before it lets a page send what a form could not (a preflight), and lets the page read an answer only
//! if its headers say so. No token is looked at for either: a preflight has none.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::origin::Origin;
use super::refusal::Refusal;

/// What answers of the gate say beside their bodies, so that a page can always read it.
const EXPOSED: [&str; 7] = [
    "www-authenticate",
    "retry-after",
    "ratelimit",
    "ratelimit-policy",
    "x-request-id",
    "grpc-status",
    "grpc-message",
];

const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const VARY_BY_ORIGIN: HeaderValue = HeaderValue::from_static("origin");
const VARY_OF_PREFLIGHT: HeaderValue = HeaderValue::from_static(
    "origin, access-control-request-method, access-control-request-headers",
);

/// What pages of other origins may do on a route.
#[derive(Debug, Clone)]
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

/// Whose pages.
#[derive(Debug, Clone)]
pub enum Origins {
    /// Everybody's.
    Any,
    /// Those of these origins.
    Of(Vec<OriginPattern>),
}

/// One origin, or those of all hosts one name below another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// This one.
    One(Origin),
    /// `https://*.example.com`: the origins that begin and end so, with one name in between.
    Below {
        /// `https://`
        start: String,
        /// `.example.com`, and the port if there is one.
        end: String,
    },
}

/// What a request says about the page that sent it.
#[derive(Debug, Clone)]
pub struct CorsRequest {
    /// Its origin, if the browser says one.
    origin: Option<HeaderValue>,
    is_preflight: bool,
}

/// A browser's question whether a page may send a request.
#[derive(Debug)]
pub struct PreflightRequest<'a> {
    origin: &'a HeaderValue,
    /// The method of the request.
    pub method: Method,
    headers: &'a HeaderMap,
}

impl Cors {
    /// Puts the parts together.
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

    /// The same for a route that has these methods.
    #[must_use]
    pub fn of_methods(&self, methods: &[Method]) -> Self {
        let both = self.methods.iter().filter(|it| methods.contains(it));
        let both: Vec<Method> = both.cloned().collect();
        Self {
            allow_methods: list(both.iter().map(Method::as_str)),
            methods: both,
            ..self.clone()
        }
    }

    /// Answers a browser that asks.
    pub fn preflight(&self, preflight: &PreflightRequest<'_>) -> Result<HeaderMap, Refusal> {
        let Some(origin) = self.allowed(Some(preflight.origin)) else {
            return Err(Refusal::PreflightOrigin);
        };
        if !self.methods.contains(&preflight.method) {
            return Err(Refusal::PreflightMethod);
        }
        if !preflight.names().all(|name| self.takes(name)) {
            return Err(Refusal::PreflightHeaders);
        }
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.allow_methods.clone());
        if !self.headers.is_empty() {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.allow_headers.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        headers.insert(VARY, VARY_OF_PREFLIGHT);
        Ok(headers)
    }

    /// Lets the page read an answer, if it may. What the upstream says about that is taken away: two answers to one
    /// question would be read in two ways.
    pub fn write_headers(&self, request: &CorsRequest, headers: &mut HeaderMap) {
        let theirs = |name: &&HeaderName| name.as_str().starts_with("access-control-");
        let theirs: Vec<HeaderName> = headers.keys().filter(theirs).cloned().collect();
        for name in theirs {
            headers.remove(name);
        }
        if request.is_preflight {
            vary(headers, VARY_OF_PREFLIGHT);
            return;
        }
        if matches!(self.origins, Origins::Of(_)) {
            vary(headers, VARY_BY_ORIGIN);
        }
        if let Some(origin) = self.allowed(request.origin.as_ref()) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            if self.credentials {
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
            }
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.clone());
        }
    }

    /// What `Access-Control-Allow-Origin` says to this origin; nothing if its pages may not.
    fn allowed(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        match &self.origins {
            Origins::Any => Some(ANY),
            Origins::Of(patterns) => {
                let origin = origin?;
                let text = origin.to_str().ok()?;
                let is_one = patterns.iter().any(|pattern| pattern.matches(text));
                is_one.then(|| origin.clone())
            }
        }
    }

    fn takes(&self, name: &str) -> bool {
        let mut headers = self.headers.iter();
        headers.any(|known| known.as_str().eq_ignore_ascii_case(name))
    }
}

impl OriginPattern {
    /// Takes an origin, or one whose host begins with `*.` and has two names or more after it.
    pub fn new(text: &str) -> Option<Self> {
        let Some((start, below)) = text.split_once("*.") else {
            return Origin::new(text).map(Self::One);
        };
        let host = below.split(':').next()?;
        let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        let is_name = host.contains('.') && !host.split('.').any(str::is_empty);
        let is_address = host.rsplit('.').next().is_some_and(is_number);
        let valid = start.ends_with("://")
            && is_name
            && !is_address
            && Origin::new(&format!("{start}{below}")).is_some();
        valid.then(|| Self::Below {
            start: start.to_owned(),
            end: format!(".{below}"),
        })
    }

    /// Browsers write an origin in one way (RFC 6454 section 6.2), so bytes are compared.
    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::One(one) => one.as_str() == origin,
            Self::Below { start, end } => {
                let name = origin.strip_prefix(start.as_str());
                let name = name.and_then(|rest| rest.strip_suffix(end.as_str()));
                let plain = |byte: u8| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte)
                };
                name.is_some_and(|name| !name.is_empty() && name.bytes().all(plain))
            }
        }
    }
}

impl CorsRequest {
    /// Reads what the browser says.
    pub fn of(head: &Parts) -> Self {
        Self {
            origin: only(&head.headers, &ORIGIN).cloned(),
            is_preflight: PreflightRequest::of(head).is_some(),
        }
    }
}

impl<'a> PreflightRequest<'a> {
    /// A preflight is OPTIONS with an origin and with the method of the request that is to come. Whatever else has
    /// OPTIONS is a request like any other.
    pub fn of(head: &'a Parts) -> Option<Self> {
        if head.method != Method::OPTIONS {
            return None;
        }
        let method = only(&head.headers, &ACCESS_CONTROL_REQUEST_METHOD)?;
        Some(Self {
            origin: only(&head.headers, &ORIGIN)?,
            method: Method::from_bytes(method.as_bytes()).ok()?,
            headers: &head.headers,
        })
    }

    /// The names of the headers that the page wants to send. One that is not text is none that is allowed.
    fn names(&self) -> impl Iterator<Item = &'a str> {
        let fields = self.headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
        fields
            .flat_map(|field| field.to_str().unwrap_or("?").split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty())
    }
}

/// Adds to what the answer depends on already.
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

/// The one field of this name.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests;
