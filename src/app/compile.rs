//! Compiles a configuration into the parts of the gate. All problems are found here; none is left for request time.

mod checks;
mod cors;
mod exchanges;
mod headers;
mod issuers;
mod keys;
mod listen;
mod methods;
mod redis;
mod requirements;
mod resource;
mod routes;
mod tls;
mod tracing;
mod upstreams;
mod urls;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use http::HeaderName;

use crate::config::{CertificateField, Config, ConfigDocument, KeyPath, Problems, suggest};
use crate::gate::Gate;
use crate::gate::claim_path::ClaimPath;
use crate::gate::identity::IdentityClaim;
use crate::gate::managed_headers::{ManagedNames, is_reserved};
use crate::gate::proof::NonceKey;
use crate::keys::remote::RemoteKeys;
use crate::proxy::headers::HeaderPolicy;
use crate::proxy::inbound::limits::{ConnectionLimits, Timeouts};
use crate::proxy::inbound::listener::ListenerConfig;
use crate::proxy::shared::Policy;

use super::config_source::ConfigSource;

use checks::check_share;
use headers::{X_CLIENT_ID, X_USER_ID};

/// Compiled configuration, ready to start.
#[derive(Debug)]
pub struct App {
    /// Configuration that it was compiled from.
    pub config: Config,
    /// Listeners: `[listen]` first, then `[[listeners]]`.
    pub listeners: Vec<ListenerConfig>,
    /// Access policy and upstreams.
    pub policy: Policy,
    /// Remote key sets, by issuer index.
    pub remote_keys: Vec<Option<RemoteKeys>>,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
    /// File to watch for changes, if any.
    pub source: Option<ConfigSource>,
}

impl App {
    /// Compiles a file. The started gate hot reloads it.
    pub fn load(file: &Path) -> Result<Self, Problems> {
        let (result, source) = ConfigSource::open(file, Self::compile);
        let mut app = result?;
        app.source = Some(source);
        Ok(app)
    }

    /// Compiles a document. Fails with all problems at once.
    pub fn compile(mut document: ConfigDocument) -> Result<Self, Problems> {
        let mut warnings: Vec<String> = document.environment_warning().into_iter().collect();
        let listeners = listen::compile(&mut document, &mut warnings);
        let trusted_headers = headers::trusted(&mut document);
        let identity = identity(&mut document);
        let upstreams = upstreams::compile(&mut document);
        let resource = resource::compile(&mut document, &mut warnings);
        let issuers = issuers::compile(&mut document, &mut warnings);
        let cors = cors::compile(&mut document);
        let redis = redis::compile(&mut document, &mut warnings);
        let (routes, forwarding) = routes::compile(
            &mut document,
            cors.as_ref(),
            resource.as_ref(),
            &mut warnings,
        );
        let tracing = tracing::compile(&mut document);
        let sample = document.config.log.sample;
        check_share(&mut document, KeyPath::of("log").key("sample"), sample);
        let config = document.config.clone();
        document.finish()?;

        let listen = &config.listen;
        let limits = ConnectionLimits {
            timeouts: Timeouts {
                header: listen.header_timeout,
                body: listen.body_timeout,
                idle: listen.idle_timeout,
            },
            max_header_bytes: usize::try_from(listen.max_header_bytes).unwrap_or(usize::MAX),
        };
        let needs_nonce = issuers.issuers.iter().any(|it| it.nonce_lifetime.is_some());
        let gate = Gate::new(
            routes,
            issuers.issuers,
            identity,
            cors,
            limits.max_header_bytes,
        )
        .with_nonce_key(needs_nonce.then(nonce_key).flatten())
        .with_resource(resource.map(|resource| resource.metadata));
        let trusted = listen.trusted_proxies.iter().map(|network| network.0);
        let remote_keys = issuers.remote_keys;
        let refreshers = remote_keys
            .iter()
            .map(|remote| remote.as_ref().map(|_| Arc::default()));
        let policy = Policy {
            headers: HeaderPolicy {
                managed: Arc::clone(gate.managed_names()),
                credential: config.identity.credential,
                trusted_proxies: trusted.collect(),
                trusted_headers,
                has_warned: Arc::default(),
            },
            gate,
            redis,
            upstreams,
            forwarding: forwarding.into(),
            max_body_bytes: listen.max_body_bytes,
            limits,
            max_connections: listen.max_connections,
            max_connections_per_client: listen.max_connections_per_client,
            grace: config.drain.grace,
            log_sample: config.log.sample,
            tracing,
            refreshers: refreshers.collect(),
            exchangers: issuers.exchangers,
        };
        Ok(Self {
            config,
            listeners,
            policy,
            remote_keys,
            warnings,
            source: None,
        })
    }
}

/// Key of the nonces of this process; `None` without random bytes. A reload keeps it, so that clients need no new nonce.
fn nonce_key() -> Option<NonceKey> {
    static RANDOM: LazyLock<Option<[u8; 32]>> = LazyLock::new(|| {
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).ok()?;
        Some(random)
    });
    RANDOM.as_ref().map(NonceKey::new)
}

/// Identity headers: `X-User-Id`, those in `[identity]`, and `X-Client-Id` unless `[identity]` has it.
fn identity(document: &mut ConfigDocument) -> Vec<(HeaderName, IdentityClaim)> {
    let path = KeyPath::of("identity").key("headers");
    let mut identity = vec![(X_USER_ID, IdentityClaim::Subject)];
    for (header, claim) in document.config.identity.headers.clone() {
        let path = path.key(&header);
        let Ok(name) = header.parse::<HeaderName>() else {
            document.report(path, "is not a valid header name");
            continue;
        };
        if name == X_USER_ID && claim == "subject" {
            continue;
        }
        let folds_to = |(other, _): &(HeaderName, IdentityClaim)| {
            ManagedNames::new([other]).is_identity(name.as_str())
        };
        if identity.iter().any(folds_to) {
            document.report(path, "duplicates an identity header, possibly in another spelling; `X-User-Id` always carries the subject");
        } else if is_reserved(name.as_str())
            || crate::proxy::headers::hop_by_hop::is_hop_by_hop(&name)
        {
            document.report(path, "is a reserved header and cannot carry a claim");
        } else if claim.is_empty() {
            document.report(path, "must name a claim or be `subject`");
        } else if claim == "subject" {
            identity.push((name, IdentityClaim::Subject));
        } else if let Some(field) = claim.strip_prefix("certificate:") {
            identity.extend(certificate_field(document, path, field).map(|field| (name, field)));
        } else {
            match ClaimPath::parse(&claim) {
                Ok(claim_path) => identity.push((name, IdentityClaim::Named(claim_path))),
                Err(problem) => document.report(path, problem.to_string()),
            }
        }
    }
    let is_client = |(name, _): &(HeaderName, IdentityClaim)| {
        ManagedNames::new([name]).is_identity(X_CLIENT_ID.as_str())
    };
    if !identity.iter().any(is_client) {
        identity.push((X_CLIENT_ID, IdentityClaim::Client));
    }
    identity
}

/// Parses the field of `certificate:FIELD`.
fn certificate_field(
    document: &mut ConfigDocument,
    path: KeyPath,
    field: &str,
) -> Option<IdentityClaim> {
    let mut all = CertificateField::ALL.into_iter();
    let found = all.find(|known| known.name() == field);
    if found.is_none() {
        let known = CertificateField::ALL.map(CertificateField::name);
        let near = suggest(field, &known);
        let near = near.map(|near| format!("; did you mean `certificate:{near}`?"));
        let known = known.join("`, `certificate:");
        document.report(
            path,
            format!(
                "must be one of `certificate:{known}`, got `certificate:{field}`{}",
                near.unwrap_or_default()
            ),
        );
    } else if !tls::requests_certificates(document) {
        document.report(path, tls::NOT_ASKED);
    }
    found.map(IdentityClaim::Certificate)
}
