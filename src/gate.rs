//! The gate: a request head and the time in, a decision out. No socket, no clock, no waiting.

pub mod cache;
pub mod certificate;
pub mod claim_path;
pub mod claims;
pub mod cors;
pub mod framing;
pub mod header_edits;
pub mod identity;
pub mod managed_headers;
pub mod origin;
pub mod path;
pub mod path_rewrite;
pub mod permit;
pub mod rate_limit;
mod redirect;
pub mod refusal;
pub mod requirements;
pub mod routes;
pub mod subject;
pub mod token;
pub mod upgrade;
pub mod verify;

use std::collections::BTreeSet;
use std::sync::Arc;

use http::header::{CONNECTION, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use crate::clock::UnixTime;
use crate::keys::KeyRing;

use cache::{CachedToken, TokenCache};
use certificate::ClientCertificate;
use claims::Claims;
use cors::{Cors, CorsRequest, PreflightRequest};
use identity::IdentityClaim;
use managed_headers::ManagedNames;
use path::CanonicalPath;
use permit::{Caller, KnownCaller, Permit};
use rate_limit::{Held, Rates, Uncounted};
use refusal::Refusal;
use requirements::{RequestContext, Rule};
use routes::{Route, RouteTable};
use subject::Subject;
use token::BearerToken;
use verify::{Issuer, Unverified};

/// The longest request target, in bytes.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;

/// The immutable policy that judges a request: routes, issuers with their keys, identity headers.
#[derive(Debug, Clone)]
pub struct Gate {
    routes: Arc<RouteTable>,
    issuers: Vec<Issuer>,
    identity: Arc<[(HeaderName, IdentityClaim)]>,
    managed: Arc<ManagedNames>,
    /// The claims that rules of routes ask for.
    ruling: Arc<BTreeSet<String>>,
    cors: Option<Arc<Cors>>,
    has_cors: bool,
    max_header_bytes: usize,
}

/// What the gate has decided.
#[derive(Debug)]
pub enum Decision {
    /// Let it through.
    Forward(Permit),
    /// Tell the browser that a page may send what it asks about.
    Allow(Preflight),
    /// Answer it.
    Refuse(Refused),
    /// Fetch the keys of this issuer once and ask again; if nothing new came, answer it.
    NeedsKeys {
        /// The issuer, by its place.
        issuer: usize,
        /// The name of the key that is not known; none if no key is.
        kid: Option<String>,
        /// The answer when no keys come.
        otherwise: Refused,
    },
}

/// The answer to a preflight.
#[derive(Debug)]
pub struct Preflight {
    /// The route of what it asks about.
    pub route: Arc<Route>,
    /// What the page may send there.
    pub headers: HeaderMap,
}

/// A refusal and what was known by then.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// The route, if there is one.
    pub route: Option<Arc<Route>>,
    /// The subject, if the token was good.
    pub subject: Option<Subject>,
    /// The issuer's name, if the token was good.
    pub issuer: Option<Arc<str>>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            route: None,
            subject: None,
            issuer: None,
        }
    }
}

impl Gate {
    /// Puts the parts together.
    pub fn new(
        routes: RouteTable,
        issuers: Vec<Issuer>,
        identity: Vec<(HeaderName, IdentityClaim)>,
        cors: Option<Cors>,
        max_header_bytes: usize,
    ) -> Self {
        let asked = routes
            .routes()
            .flat_map(|route| route.requirements.claims());
        Self {
            ruling: Arc::new(asked.map(str::to_owned).collect()),
            managed: Arc::new(ManagedNames::new(identity.iter().map(|(name, _)| name))),
            has_cors: cors.is_some() || routes.routes().any(|route| route.cors.is_some()),
            cors: cors.map(Arc::new),
            routes: Arc::new(routes),
            issuers,
            identity: identity.into(),
            max_header_bytes,
        }
    }

    /// The same gate with other keys for one issuer.
    #[must_use]
    pub fn with_ring(&self, issuer: usize, ring: Arc<KeyRing>) -> Self {
        let mut gate = self.clone();
        if let Some(issuer) = gate.issuers.get_mut(issuer) {
            issuer.ring = ring;
        }
        gate
    }

    /// The routes.
    pub fn routes(&self) -> &RouteTable {
        &self.routes
    }

    /// The issuers.
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// The names of the headers that only the gate may write.
    pub fn managed_names(&self) -> &Arc<ManagedNames> {
        &self.managed
    }

    /// Judges a request head, and counts it for no limit. Reads no clock, opens no socket, never waits. The cache is the
    /// caller's, and must have seen no other gate.
    pub fn decide(&self, head: &Parts, now: UnixTime, cache: &mut TokenCache) -> Decision {
        match self.decide_at_rate(head, now, cache, &mut Rates::uncounted()) {
            Ok(decision) => decision,
            // It is nobody's request that is to be counted.
            Err(_) => Decision::Refuse(Refusal::RateLimitUnavailable.into()),
        }
    }

    /// As [`Gate::decide`], and counts the request for the limits of its route. `rates` is of this request alone. What
    /// must be counted elsewhere first comes back without a decision.
    pub fn decide_at_rate(
        &self,
        head: &Parts,
        now: UnixTime,
        cache: &mut TokenCache,
        rates: &mut Rates<'_>,
    ) -> Result<Decision, Box<Uncounted>> {
        if let Err(refusal) = self.check_head(head) {
            return Ok(Decision::Refuse(refusal.into()));
        }
        let Ok(path) = CanonicalPath::parse(head.uri.path()) else {
            return Ok(Decision::Refuse(Refusal::PathNotCanonical.into()));
        };
        if self.has_cors
            && let Some(decision) = self.preflight(head, path)
        {
            return Ok(decision);
        }
        let found = match self.routes.find(&head.method, path) {
            Ok(found) => found,
            Err(refusal) => return Ok(Decision::Refuse(refusal.into())),
        };
        let route = Arc::clone(found.route);
        let refused = |refusal| Refused {
            refusal,
            route: Some(Arc::clone(&route)),
            subject: None,
            issuer: None,
        };
        // Before anything that costs: whoever tries tokens or passwords is to be slow.
        match rates.of_client(&route) {
            Ok(()) => {}
            Err(Held::Refused(refusal)) => return Ok(Decision::Refuse(refused(refusal))),
            Err(Held::Uncounted(uncounted)) => return Err(uncounted),
        }
        if route.rule == Rule::Public {
            return Ok(Decision::Forward(Permit::new(
                Caller::Anonymous,
                route,
                None,
            )));
        }
        let taken = match route.tokens.take(head) {
            Ok(taken) => taken,
            Err(refusal) => return Ok(Decision::Refuse(refused(refusal))),
        };
        // A token that is remembered says nothing about the page that sends it this time.
        if let Err(refusal) = route.tokens.check_origin(&taken, head) {
            return Ok(Decision::Refuse(refused(refusal)));
        }
        let shown = head.extensions.get::<Arc<ClientCertificate>>();
        let shown = shown.map(AsRef::as_ref);
        let CachedToken {
            mut caller,
            claims,
            issuer,
            ..
        } = match self.identify(taken.token(), shown, now, cache, rates) {
            Ok(known) => known,
            Err(Unverified {
                refusal,
                issuer: Some(issuer),
                newer_keys_may_help: true,
                kid,
            }) => {
                return Ok(Decision::NeedsKeys {
                    issuer,
                    kid,
                    otherwise: refused(refusal),
                });
            }
            Err(Unverified { refusal, .. }) => return Ok(Decision::Refuse(refused(refusal))),
        };
        match rates.of_subject(&route, &caller) {
            Ok(()) => {}
            Err(Held::Refused(refusal)) => {
                return Ok(Decision::Refuse(Refused {
                    subject: Some(caller.subject.clone()),
                    issuer: Some(Arc::clone(&caller.issuer)),
                    ..refused(refusal)
                }));
            }
            Err(Held::Uncounted(uncounted)) => return Err(uncounted),
        }
        let context = RequestContext {
            subject: &caller.subject,
            claims: &claims,
            certificate: shown,
            issuer,
        };
        if let Err(refusal) = route.requirements.admit(&route.rule, context, found.owner) {
            return Ok(Decision::Refuse(Refused {
                subject: Some(caller.subject.clone()),
                issuer: Some(Arc::clone(&caller.issuer)),
                ..refused(refusal)
            }));
        }
        if let Some(certificate) = shown {
            self.add_certificate(&mut caller, certificate);
        }
        let source = Some(taken.source);
        Ok(Decision::Forward(Permit::new(
            Caller::Known(caller),
            route,
            source,
        )))
    }

    /// Answers a browser that asks for a page, unless the upstream does that itself.
    fn preflight(&self, head: &Parts, path: CanonicalPath<'_>) -> Option<Decision> {
        let question = PreflightRequest::of(head)?;
        let route = match self.routes.find(&question.method, path) {
            Ok(found) => Arc::clone(found.route),
            Err(refusal) => {
                let is_here = self.routes.answers_browsers(path);
                return is_here.then(|| Decision::Refuse(refusal.into()));
            }
        };
        Some(match route.cors.as_ref()?.preflight(&question) {
            Ok(headers) => Decision::Allow(Preflight { route, headers }),
            Err(refusal) => Decision::Refuse(Refused {
                route: Some(route),
                ..refusal.into()
            }),
        })
    }

    /// The page that has sent a request, if answers are to say anything to pages.
    pub fn page(&self, head: &Parts) -> Option<CorsRequest> {
        self.has_cors.then(|| CorsRequest::of(head))
    }

    /// What pages may read of answers of this route, or of those without one.
    pub fn cors<'a>(&'a self, route: Option<&'a Route>) -> Option<&'a Cors> {
        match route {
            Some(route) => route.cors.as_ref(),
            None => self.cors.as_deref(),
        }
    }

    /// Finds out who the token is about and what it says, from the cache if it was asked before.
    fn identify(
        &self,
        token: BearerToken<'_>,
        shown: Option<&ClientCertificate>,
        now: UnixTime,
        cache: &mut TokenCache,
        rates: &Rates<'_>,
    ) -> Result<CachedToken, Unverified> {
        let digest = TokenCache::digest(token);
        // A request whose subject was counted elsewhere comes a second time.
        let is_first = !rates.knows_the_subject();
        if let Some(known) = cache.find(&digest, is_first) {
            // Keys that have become too old vouch for nothing any more, not even for what they have verified.
            let issuer = self.issuers.get(known.issuer);
            if issuer.is_some_and(|issuer| issuer.ring.is_usable(now)) {
                known.validity.check(now)?;
                if let Some(binding) = &known.binding {
                    binding.check(shown)?;
                }
                return Ok(known.clone());
            }
        }
        let verified = verify::verify(&self.issuers, token, shown, now);
        cache.count(&verified);
        let mut verified = verified?;
        let caller = Arc::new(KnownCaller {
            headers: self.identity_of(&verified.subject, &verified.claims).into(),
            subject: verified.subject,
            issuer: verified.issuer,
            expires: verified.validity.until(),
        });
        // Claims are about a person: what no rule asks for is not kept.
        verified.claims.keep_only(&self.ruling);
        let known = CachedToken {
            caller,
            claims: Arc::new(verified.claims),
            validity: verified.validity,
            binding: verified.binding,
            issuer: verified.place,
        };
        cache.remember(digest, known.clone());
        Ok(known)
    }

    /// Sends a request that came without encryption to where the same is served with it. No token is looked at.
    pub fn redirect(&self, head: &Parts, port: u16) -> Refusal {
        if let Err(refusal) = self.check_head(head) {
            return refusal;
        }
        if CanonicalPath::parse(head.uri.path()).is_err() {
            return Refusal::PathNotCanonical;
        }
        redirect::location(head, port).map_or(Refusal::RequestMalformed, Refusal::HttpsRequired)
    }

    /// What RFC 9112 demands of a head before its path can mean anything.
    fn check_head(&self, head: &Parts) -> Result<(), Refusal> {
        if matches!(head.method, Method::CONNECT | Method::TRACE) {
            let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
            return Err(Refusal::MethodNotAllowed(allow));
        }
        let target = head
            .uri
            .path_and_query()
            .map_or(0, |target| target.as_str().len());
        if target > MAX_TARGET_BYTES {
            return Err(Refusal::TargetTooLong);
        }
        if head_bytes(head) > self.max_header_bytes {
            return Err(Refusal::HeadersTooLarge);
        }
        self.check_connection(head)?;
        if !framing::has_unambiguous_length(&head.headers) {
            return Err(Refusal::RequestMalformed);
        }
        check_host(head)
    }

    /// RFC 9110 section 7.6.1 has a proxy drop what `Connection` names: not what the gate is about to write.
    fn check_connection(&self, head: &Parts) -> Result<(), Refusal> {
        for value in head.headers.get_all(CONNECTION) {
            let names = value.to_str().map_err(|_| Refusal::RequestMalformed)?;
            let mut names = names.split(',').map(str::trim);
            if names.any(|name| self.managed.must_not_be_dropped(name)) {
                return Err(Refusal::RequestMalformed);
            }
        }
        Ok(())
    }

    fn identity_of(&self, subject: &Subject, claims: &Claims) -> Vec<(HeaderName, HeaderValue)> {
        let headers = self.identity.iter();
        headers
            .filter_map(|(name, claim)| Some((name.clone(), claim.value(subject, claims)?)))
            .collect()
    }

    /// What the upstream is told of the certificate. It belongs to the connection, so it is not remembered with the token.
    fn add_certificate(&self, caller: &mut Arc<KnownCaller>, certificate: &ClientCertificate) {
        let fields = self.identity.iter().filter_map(|(name, claim)| {
            let value = claim.certificate_value(certificate)?;
            Some((name.clone(), value))
        });
        let mut fields = fields.peekable();
        if fields.peek().is_some() {
            let headers = caller.headers.iter().cloned().chain(fields).collect();
            Arc::make_mut(caller).headers = headers;
        }
    }
}

/// The size of a head as it was sent, within a few bytes.
fn head_bytes(head: &Parts) -> usize {
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let fields = head.headers.iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    head.method.as_str().len() + target + "  HTTP/1.1\r\n\r\n".len() + fields.sum::<usize>()
}

/// RFC 9112 section 3.2: exactly one `Host`, with a valid value; and a target in absolute form must name it.
fn check_host(head: &Parts) -> Result<(), Refusal> {
    let malformed = Refusal::RequestMalformed;
    if head.version > Version::HTTP_11 || head.version < Version::HTTP_10 {
        return Err(malformed);
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(malformed);
    };
    let host = host.to_str().map_err(|_| malformed.clone())?;
    // RFC 3986 section 3.2.2 lets a name have more characters, which no name has and parsers read differently.
    let plain = host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".:-_[]".contains(&byte));
    let valid = plain
        && host.parse::<Authority>().is_ok_and(|parsed| {
            let name = parsed.host();
            !name.is_empty() && has_plain_port(host, name)
        });
    if !valid {
        return Err(malformed);
    }
    // RFC 9113 section 8.3.1: over HTTP/2 the scheme is told, and could be any.
    if !matches!(head.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(malformed);
    }
    match head.uri.authority() {
        None => Ok(()),
        Some(named) if named.as_str().eq_ignore_ascii_case(host) => Ok(()),
        Some(_) => Err(malformed),
    }
}

/// RFC 3986 section 3.2.3: what follows the name is nothing, or a colon and digits.
fn has_plain_port(host: &str, name: &str) -> bool {
    let port = host.strip_prefix(name).unwrap_or(host);
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_number =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok();
    port.is_empty() || digits.is_empty() || (port != digits && is_number)
}

#[cfg(test)]
mod tests;
