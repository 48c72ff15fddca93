//! The gate: decides about a request from its head, the facts of its connection and the time.
//!
//! The decision is a row of stages, each consuming the one before: [`Gate::route`], [`Routed::authenticate`],
//! [`Authenticated::authorize`], which yields the [`Permit`]. Rate limits are counted by the caller between the stages.
//! The gate opens no socket, reads no clock and never waits.

pub mod access;
pub mod binding;
mod byte_set;
pub mod cache;
pub mod caller_kind;
pub mod certificate;
pub mod claim_path;
pub mod claims;
pub mod cors;
pub mod dpop;
mod exchanged;
pub mod framing;
mod head;
pub mod identity;
pub mod inbound;
pub mod issuer_id;
mod jws;
pub mod managed_headers;
pub mod origin;
pub mod path;
pub mod permit;
pub mod proof;
pub mod proof_fault;
pub mod rate_limit;
mod redirect;
pub mod refusal;
pub mod request_target;
pub mod requirement;
pub mod resource;
pub mod routes;
mod single_value;
pub mod stop;
pub mod subject;
pub mod token;
pub mod token_fault;
pub mod verify;

use std::collections::BTreeSet;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, HeaderValue};

use crate::clock::UnixTime;
use crate::keys::KeyRing;
use crate::keys::credential::Exchanged;

use access::{Access, RequestContext, Rule};
use binding::Possession;
use cache::{CachedToken, TokenCache};
use certificate::ClientCertificate;
use claims::Claims;
use cors::{Cors, CorsRequest, PreflightRequest};
use dpop::VerifiedProof;
use exchanged::Unidentified;
use identity::IdentityClaim;
use inbound::Inbound;
use issuer_id::IssuerId;
use managed_headers::ManagedNames;
use path::{BoundSegment, CanonicalPath};
use permit::{Caller, KnownCaller, Permit};
use proof::NonceKey;
use rate_limit::{BucketOwner, Buckets};
use refusal::Refusal;
use request_target::RequestTarget;
use resource::ResourceMetadata;
use routes::{Route, RouteTable};
use stop::{NeedsExchange, NeedsKeys, Preflight, Refused, Stop};
use subject::Subject;
use token::{BearerToken, FoundToken, Scheme, TokenForm};
use verify::{Issuer, Verified};

pub use head::{MAX_HEADER_FIELDS, MAX_TARGET_BYTES};

/// Immutable policy of one configuration: routes, issuers with their keys, identity headers, CORS.
#[derive(Debug, Clone)]
pub struct Gate {
    routes: Arc<RouteTable>,
    issuers: Vec<Issuer>,
    identity: Arc<[(HeaderName, IdentityClaim)]>,
    managed: Arc<ManagedNames>,
    /// Names of the claims that some route's requirements read.
    required_claims: Arc<BTreeSet<String>>,
    cors: Option<Arc<Cors>>,
    has_cors: bool,
    resource: Option<Arc<ResourceMetadata>>,
    max_header_bytes: usize,
    /// Largest limit of the issuers: a longer token is not parsed.
    max_token_bytes: usize,
    /// Key of the nonces that proofs need.
    nonce_key: Option<NonceKey>,
}

/// A request with a valid head, a canonical path and a route.
#[derive(Debug)]
pub struct Routed<'a> {
    gate: &'a Gate,
    inbound: &'a Inbound,
    target: RequestTarget,
    route: &'a Arc<Route>,
    owner: Option<BoundSegment<'a>>,
}

/// A routed request with a known caller: the subject of a verified token, or any client on a public route.
#[derive(Debug)]
pub struct Authenticated<'a> {
    routed: Routed<'a>,
    identity: Option<VerifiedIdentity>,
    /// Proof of a bound token.
    proof: Option<Box<VerifiedProof>>,
}

/// Facts of a request that the verification of its token depends on.
struct Presented<'a> {
    shown: Possession<'a>,
    now: UnixTime,
    /// Response of an issuer that the request waited for.
    exchanged: Option<&'a Exchanged>,
}

/// A verified token and the source it came from.
#[derive(Debug)]
struct VerifiedIdentity {
    token: CachedToken,
    /// Index among the route's token sources; `None` for a cookie of a session.
    source: Option<usize>,
}

impl Gate {
    /// Builds the gate of a compiled configuration.
    pub fn new(
        routes: RouteTable,
        issuers: Vec<Issuer>,
        identity: Vec<(HeaderName, IdentityClaim)>,
        cors: Option<Cors>,
        max_header_bytes: usize,
    ) -> Self {
        let access = || routes.routes().map(|route| &route.access);
        let has_cors = cors.is_some() || access().any(|access| access.cors.is_some());
        let required = access().flat_map(|access| access.requirements.claims());
        let required_claims = required.map(str::to_owned).collect();
        Self {
            required_claims: Arc::new(required_claims),
            managed: Arc::new(ManagedNames::new(configured_names(&identity))),
            has_cors,
            cors: cors.map(Arc::new),
            resource: None,
            routes: Arc::new(routes),
            max_token_bytes: verify::max_token_bytes(&issuers),
            issuers,
            identity: identity.into(),
            max_header_bytes,
            nonce_key: None,
        }
    }

    /// Returns the same gate with this key for nonces. Without one, no proof has a valid nonce.
    #[must_use]
    pub fn with_nonce_key(self, nonce_key: Option<NonceKey>) -> Self {
        Self { nonce_key, ..self }
    }

    /// Returns the same gate with the metadata of the protected resource.
    #[must_use]
    pub fn with_resource(self, resource: Option<Arc<ResourceMetadata>>) -> Self {
        Self { resource, ..self }
    }

    /// Returns the same gate with other keys for one issuer.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "an id is made for an issuer of this gate"
    )]
    pub fn with_ring(&self, issuer: IssuerId, ring: Arc<KeyRing>) -> Self {
        let mut gate = self.clone();
        gate.issuers[issuer.0].ring = ring;
        gate
    }

    /// Returns the verified tokens of an earlier gate that this gate would verify alike: none of another configuration,
    /// and none of an issuer with changed keys.
    pub fn inherit_tokens(&self, earlier: &Self, mut tokens: TokenCache) -> TokenCache {
        // Gates share their routes only if they differ in nothing but key rings; see `with_ring`.
        if !Arc::ptr_eq(&self.routes, &earlier.routes) {
            return TokenCache::default();
        }
        let rings = self.issuers.iter().zip(&earlier.issuers);
        let has_same_keys: Vec<bool> = rings
            .map(|(issuer, earlier)| {
                Arc::ptr_eq(&issuer.ring, &earlier.ring) || issuer.ring.has_same_keys(&earlier.ring)
            })
            .collect();
        if !has_same_keys.iter().all(|same| *same) {
            tokens.retain_issuers(|issuer| has_same_keys.get(issuer.0).is_some_and(|same| *same));
        }
        tokens
    }

    pub fn routes(&self) -> &RouteTable {
        &self.routes
    }

    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// Header names that only the gate may write.
    pub fn managed_names(&self) -> &Arc<ManagedNames> {
        &self.managed
    }

    /// Runs every stage without counting rate limits.
    pub fn decide(
        &self,
        inbound: &Inbound,
        now: UnixTime,
        cache: &mut TokenCache,
    ) -> Result<Permit, Stop> {
        self.route(inbound)?
            .authenticate(now, cache, None)?
            .authorize()
    }

    /// Decides again about a permitted request whose response is still open. Its proof was for the start of the request.
    pub fn decide_again(&self, inbound: &Inbound, now: UnixTime) -> Result<Permit, Stop> {
        self.route(inbound)?
            .authenticate_with(now, &mut TokenCache::default(), None, false)?
            .authorize()
    }

    /// Checks head and path, responds with the metadata of the resource or to a CORS preflight, and finds the route.
    pub fn route<'a>(&'a self, inbound: &'a Inbound) -> Result<Routed<'a>, Stop> {
        let path = self.canonical_path(inbound)?;
        let target = RequestTarget::read(&inbound.head.uri, path)?;
        if let Some(resource) = &self.resource
            && let Some(response) = resource.respond(&inbound.head, path)
        {
            return Err(Stop::Metadata(Box::new(response?)));
        }
        if self.has_cors
            && let Some(stop) = self.preflight(&inbound.head, path)
        {
            return Err(stop);
        }
        let found = self.routes.find(&inbound.head.method, path)?;
        Ok(Routed {
            gate: self,
            inbound,
            target,
            route: found.route,
            owner: found.owner,
        })
    }

    fn canonical_path<'a>(&self, inbound: &'a Inbound) -> Result<CanonicalPath<'a>, Refusal> {
        head::check(inbound, &self.managed, self.max_header_bytes)?;
        CanonicalPath::parse(inbound.head.uri.path()).map_err(Refusal::PathNotCanonical)
    }

    /// Responds to a CORS preflight, unless the upstream does that itself.
    fn preflight(&self, head: &Parts, path: CanonicalPath<'_>) -> Option<Stop> {
        let request = PreflightRequest::of(head)?;
        let route = match self.routes.find(&request.method, path) {
            Ok(found) => Arc::clone(found.route),
            Err(refusal) => return self.preflight_without_route(&request, path, refusal),
        };
        Some(match route.access.cors.as_ref()?.preflight(&request) {
            Ok(headers) => Stop::Preflight(Box::new(Preflight {
                route: Some(route),
                headers,
            })),
            Err(refusal) => Stop::Refuse(Refused {
                route: Some(route),
                ..refusal.into()
            }),
        })
    }

    /// Responds to a preflight of a request that will be refused. Allows it for a listed origin, so that the page can
    /// read the refusal.
    fn preflight_without_route(
        &self,
        request: &PreflightRequest<'_>,
        path: CanonicalPath<'_>,
        refusal: Refusal,
    ) -> Option<Stop> {
        // Without a policy at the path, the upstream handles CORS there.
        if refusal != Refusal::NoRoute && !self.routes.has_cors_at(path) {
            return None;
        }
        let is_missing = matches!(refusal, Refusal::NoRoute | Refusal::MethodNotAllowed(_));
        let Some(cors) = self.cors.as_deref().filter(|_| is_missing) else {
            let is_decided = refusal != Refusal::NoRoute;
            return is_decided.then(|| refusal.into());
        };
        Some(match cors.preflight_without_route(request) {
            Ok(headers) => Stop::Preflight(Box::new(Preflight {
                route: None,
                headers,
            })),
            Err(refusal) => refusal.into(),
        })
    }

    /// CORS fields of a request; `None` if no route of this gate has a CORS policy.
    pub fn cors_request(&self, head: &Parts) -> Option<CorsRequest> {
        self.has_cors.then(|| CorsRequest::of(head))
    }

    /// CORS policy of a route, or of responses without one.
    pub fn cors<'a>(&'a self, route: Option<&'a Route>) -> Option<&'a Cors> {
        match route {
            Some(route) => route.access.cors.as_ref(),
            None => self.cors.as_deref(),
        }
    }

    /// Redirects a plaintext request to the same URL over HTTPS, on `port`. Reads no token.
    pub fn redirect(&self, inbound: &Inbound, port: u16) -> Refusal {
        let head = &inbound.head;
        match self.canonical_path(inbound) {
            Ok(path) => RequestTarget::read(&head.uri, path)
                .ok()
                .and_then(|target| redirect::location(head, &target, port))
                .map_or(Refusal::RequestMalformed, Refusal::HttpsRequired),
            Err(refusal) => refusal,
        }
    }

    /// Verifies a token, or finds it in the cache. The cache must belong to this gate.
    fn identify(
        &self,
        token: BearerToken<'_>,
        request: &Presented<'_>,
        cache: &mut TokenCache,
    ) -> Result<CachedToken, Unidentified> {
        let digest = TokenCache::digest(token);
        if let Some(known) = self.known(&digest, request, cache)? {
            return Ok(known);
        }
        let verified = verify::verify(&self.issuers, token, request.shown, request.now);
        cache.count(&verified);
        let verified = verified?;
        let fresh_until = self.check_active(&verified, token, request)?;
        let known = self.remember(verified, fresh_until);
        cache.insert(digest, known.clone());
        Ok(known)
    }

    /// Finds a token in the cache, if it needs no verification and no exchange now.
    fn known(
        &self,
        digest: &cache::Digest,
        request: &Presented<'_>,
        cache: &mut TokenCache,
    ) -> Result<Option<CachedToken>, Refusal> {
        let Some(known) = cache.find(digest) else {
            return Ok(None);
        };
        // Expired keys verify no token, not even one that they verified before.
        let issuer = self.issuers.get(known.issuer.0);
        let is_usable = issuer.is_some_and(|issuer| issuer.ring.is_usable(request.now));
        if !is_usable || !known.is_fresh(request.now) {
            return Ok(None);
        }
        known.validity.check(request.now)?;
        if let Some(binding) = &known.binding {
            binding.check(request.shown)?;
        }
        Ok(Some(known.clone()))
    }

    /// Contents of a verified token, as later requests use them.
    fn remember(&self, mut verified: Verified, fresh_until: Option<UnixTime>) -> CachedToken {
        let caller = Arc::new(KnownCaller {
            kind: verified.kind,
            headers: self
                .identity_headers(&verified.subject, &verified.claims)
                .into(),
            subject: verified.subject,
            issuer: verified.issuer,
            expires: verified.validity.until(),
        });
        // Claims are personal data: those that no requirement reads are not kept.
        verified.claims.keep_only(&self.required_claims);
        CachedToken {
            caller,
            claims: Arc::new(verified.claims),
            validity: verified.validity,
            binding: verified.binding,
            issuer: verified.issuer_id,
            fresh_until,
        }
    }

    fn identity_headers(
        &self,
        subject: &Subject,
        claims: &Claims,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let headers = self.identity.iter();
        headers
            .filter_map(|(name, claim)| Some((name.clone(), claim.value(subject, claims)?)))
            .collect()
    }

    /// Adds the identity headers of a certificate. It belongs to the connection, so it is not cached with the token.
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

impl<'a> Routed<'a> {
    pub fn route(&self) -> &'a Arc<Route> {
        self.route
    }

    /// Buckets of the route's limits by client address. They are drawn from before the token is read, so that guessing
    /// tokens or passwords is slow.
    pub fn client_buckets(&self) -> Option<Buckets<'a>> {
        let limits = self.route.access.limits.by_client();
        (!limits.is_empty()).then(|| {
            let owner = BucketOwner::address(self.inbound.client);
            Buckets { limits, owner }
        })
    }

    /// Finds the one token of the request and verifies it. A public route needs none. `exchanged` is the response that the
    /// request has waited for after a stop with [`NeedsExchange`].
    pub fn authenticate(
        self,
        now: UnixTime,
        cache: &mut TokenCache,
        exchanged: Option<&Exchanged>,
    ) -> Result<Authenticated<'a>, Stop> {
        self.authenticate_with(now, cache, exchanged, true)
    }

    fn authenticate_with(
        self,
        now: UnixTime,
        cache: &mut TokenCache,
        exchanged: Option<&Exchanged>,
        needs_proof: bool,
    ) -> Result<Authenticated<'a>, Stop> {
        let Access { rule, tokens, .. } = &self.route.access;
        if *rule == Rule::Public {
            return Ok(Authenticated {
                routed: self,
                identity: None,
                proof: None,
            });
        }
        let found = tokens
            .find(self.inbound, self.gate.max_token_bytes)
            .map_err(|refusal| self.refuse(refusal))?;
        // The page differs between requests with the same cached token.
        tokens
            .check_origin(&found, self.inbound)
            .map_err(|refusal| self.refuse(refusal))?;
        let request = Presented {
            shown: Possession {
                certificate: self.inbound.certificate.as_deref(),
                has_proof: found.scheme == Scheme::Dpop,
            },
            now,
            exchanged,
        };
        let source = found.source;
        let token = self
            .verify(&found, &request, cache)
            .map_err(|unidentified| self.stop(unidentified))?;
        let mut proof = None;
        if needs_proof {
            proof = self
                .gate
                .check_proof(&found, &token, self.route.access.dpop, self.inbound, now)
                .map_err(|refusal| self.refuse(refusal))?;
        }
        Ok(Authenticated {
            routed: self,
            identity: Some(VerifiedIdentity { token, source }),
            proof,
        })
    }

    /// Verifies the token of the request. An invalid cookie cache gives way to the session cookie beside it.
    fn verify(
        &self,
        found: &FoundToken<'_>,
        request: &Presented<'_>,
        cache: &mut TokenCache,
    ) -> Result<CachedToken, Unidentified> {
        let TokenForm::Credential(issuer, form) = &found.form else {
            let identified = self.gate.identify(found.token(), request, cache);
            let is_invalid = || identified.as_ref().is_err_and(Unidentified::is_invalid);
            if found.source.is_none() && is_invalid() {
                let tokens = &self.route.access.tokens;
                if let Some(session) = tokens.find_session_cookie(&self.inbound.head.headers)? {
                    return self.verify(&session, request, cache);
                }
            }
            return identified;
        };
        let credential = found.credential(form);
        self.gate
            .identify_by_exchange(*issuer, credential, request, cache)
    }

    /// Refuses the request at this stage.
    pub fn refuse(&self, refusal: Refusal) -> Stop {
        Stop::Refuse(self.refused(refusal))
    }

    fn refused(&self, refusal: Refusal) -> Refused {
        Refused {
            refusal,
            route: Some(Arc::clone(self.route)),
            caller: None,
        }
    }

    fn stop(&self, unidentified: Unidentified) -> Stop {
        let unverified = match unidentified {
            Unidentified::Unverified(unverified) => unverified,
            Unidentified::NeedsExchange { issuer, credential } => {
                return Stop::NeedsExchange(Box::new(NeedsExchange {
                    issuer,
                    credential: Arc::new(credential),
                    otherwise: self.refused(exchanged::not_asked()),
                }));
            }
        };
        let otherwise = self.refused(unverified.refusal);
        match unverified.issuer {
            Some(issuer) if unverified.newer_keys_may_help => {
                let kid = unverified.kid;
                Stop::NeedsKeys(Box::new(NeedsKeys {
                    issuer,
                    kid,
                    otherwise,
                }))
            }
            Some(_) | None => Stop::Refuse(otherwise),
        }
    }
}

impl Authenticated<'_> {
    /// Caller of the verified token; `None` on a public route.
    pub fn caller(&self) -> Option<&Arc<KnownCaller>> {
        let identity = self.identity.as_ref()?;
        Some(&identity.token.caller)
    }

    /// Proof of a bound token. The request must be refused if the same one was accepted before.
    pub fn proof(&self) -> Option<&VerifiedProof> {
        self.proof.as_deref()
    }

    /// Buckets of the route's limits by subject.
    pub fn subject_buckets(&self) -> Option<Buckets<'_>> {
        let limits = self.routed.route.access.limits.by_subject();
        let caller = self.caller().filter(|_| !limits.is_empty())?;
        let owner = BucketOwner::Subject {
            issuer: &caller.issuer,
            subject: caller.subject.as_str(),
        };
        Some(Buckets { limits, owner })
    }

    /// Checks owner binding and requirements, and permits the request.
    pub fn authorize(self) -> Result<Permit, Stop> {
        let Some(identity) = &self.identity else {
            let route = Arc::clone(self.routed.route);
            let target = self.routed.target;
            return Ok(Permit::new(Caller::Anonymous, route, None, target));
        };
        let Routed { route, owner, .. } = &self.routed;
        let certificate = self.routed.inbound.certificate.as_deref();
        let context = RequestContext {
            subject: &identity.token.caller.subject,
            claims: &identity.token.claims,
            certificate,
            issuer: identity.token.issuer,
            kind: identity.token.caller.kind,
        };
        route
            .access
            .admit(context, owner.as_ref())
            .map_err(|refusal| self.refuse(refusal))?;
        let mut caller = Arc::clone(&identity.token.caller);
        if let Some(certificate) = certificate {
            self.routed.gate.add_certificate(&mut caller, certificate);
        }
        Ok(Permit::new(
            Caller::Known(caller),
            Arc::clone(route),
            identity.source,
            self.routed.target,
        ))
    }

    /// Refuses the request at this stage.
    pub fn refuse(&self, refusal: Refusal) -> Stop {
        Stop::Refuse(Refused {
            caller: self.caller().cloned(),
            ..self.routed.refused(refusal)
        })
    }
}

/// Names of the identity headers, except those that are managed in every configuration.
fn configured_names(identity: &[(HeaderName, IdentityClaim)]) -> impl Iterator<Item = &HeaderName> {
    let configured = identity
        .iter()
        .filter(|(_, claim)| *claim != IdentityClaim::Client);
    configured.map(|(name, _)| name)
}

#[cfg(test)]
mod tests;
