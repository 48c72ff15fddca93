//! Compiles `[issuers.NAME]` and loads local keys.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Accept, ConfigDocument, DpopMode, KeyPath, OneOrMany};
use crate::gate::claim_path::ClaimPath;
use crate::gate::claims::ClaimPolicy;
use crate::gate::subject::Namespace;
use crate::gate::token::DEFAULT_MAX_TOKEN_BYTES;
use crate::gate::verify::{Issuer, TokenProfile};
use crate::keys::remote::RemoteKeys;
use crate::keys::{Algorithm, KeyRing};
use crate::proxy::shared::Exchangers;

use super::checks::check_time;
use super::exchanges;
use super::keys::{KeySourceConfig, ResolvedKeys, resolve, source_config};

/// Longest accepted clock skew.
const MAX_LEEWAY: Duration = Duration::from_mins(5);

/// Range of `max_token_bytes`.
const MAX_TOKEN_BYTES: RangeInclusive<u64> = 1024..=64 * 1024;

/// Longest `subject_prefix`, in bytes.
const MAX_PREFIX_BYTES: usize = 64;

/// Compiled issuers, with the remote key set at the same index of `remote_keys`.
#[derive(Default)]
#[expect(clippy::struct_field_names, reason = "the field is the issuers")]
pub(super) struct Issuers {
    pub(super) issuers: Vec<Issuer>,
    pub(super) remote_keys: Vec<Option<RemoteKeys>>,
    pub(super) exchangers: Vec<Exchangers>,
}

pub(super) fn compile(document: &mut ConfigDocument, warnings: &mut Vec<String>) -> Issuers {
    let mut compiled = Issuers::default();
    let all = document.config.issuers.values();
    let prefixes: Vec<String> = all
        .map(|issuer| issuer.subject_prefix.clone().unwrap_or_default())
        .collect();
    for (name, issuer) in document.config.issuers.clone() {
        let path = KeyPath::of("issuers").key(&name);
        let algorithms = algorithms(document, &path, issuer.algorithms.as_deref());
        let KeySourceConfig {
            keys,
            path: keys_path,
            defaults,
        } = source_config(document, &path, &issuer);
        let has_source = keys.is_some();
        let resolved = keys
            .and_then(|keys| resolve(document, warnings, &keys_path, &keys, algorithms.as_deref()));
        check_template(document, &path, &issuer);
        check_nonce(document, &path, &issuer);
        let remote_keys = match &resolved {
            Some(ResolvedKeys::Remote(remote)) => Some(&**remote),
            Some(ResolvedKeys::Local(_)) | None => None,
        };
        let exchangers = exchanges::compile(document, &path, &name, &issuer, remote_keys);
        let (issuer_values, audience) = (issuer.issuer, issuer.audience.or(defaults.audience));
        let accepted = texts(
            document,
            &path.key("issuer"),
            issuer_values.or(defaults.issuer),
        );
        // An invalid key source was reported, and the values of `iss` that it implies are unknown.
        let accepted = accepted.or_else(|| (!has_source).then(Vec::new));
        let audience = texts(document, &path.key("audience"), audience);
        let authorized_party = texts(
            document,
            &path.key("authorized_party"),
            issuer.authorized_party,
        );
        if issuer.types.is_empty() || issuer.types.iter().any(String::is_empty) {
            document.report(
                path.key("types"),
                "must list at least one non-empty string, such as \"JWT\" or \"at+jwt\"",
            );
        }
        if issuer.leeway > MAX_LEEWAY {
            let leeway = humantime::format_duration(issuer.leeway);
            document.report(
                path.key("leeway"),
                format!("must be at most 5m, got {leeway}"),
            );
        }
        let subject = subject(document, &path.key("subject"), &issuer.subject);
        check_time(document, &path.key("max_lifetime"), issuer.max_lifetime);
        let prefix = prefix(document, &path.key("subject_prefix"), issuer.subject_prefix);
        let max_token_bytes = max_token_bytes(document, &path, issuer.max_token_bytes);
        match (&audience, issuer.allow_any_audience) {
            (Some(_), false) | (None, true) => {}
            (Some(audience), true) => document.report(
                path.key("allow_any_audience"),
                format!(
                    "has no effect: only tokens with the `audience` \"{}\" are accepted",
                    audience.join("\" or \"")
                ),
            ),
            (None, false) => warnings.push(format!(
                "{}: has no `audience`: tokens that this issuer created for other services are accepted",
                document.location(&path)
            )),
        }
        let (ring, remote) = match resolved {
            Some(ResolvedKeys::Local(ring)) => (ring, None),
            Some(ResolvedKeys::Remote(remote)) => (KeyRing::awaited(), Some(*remote)),
            None => (KeyRing::default(), None),
        };
        let policy = ClaimPolicy {
            audience,
            authorized_party,
            allow_bound: issuer.allow_bound,
            subject,
            namespace: Namespace::new(&prefix, prefixes.iter().map(String::as_str)),
            leeway: seconds(issuer.leeway),
            max_lifetime: issuer.max_lifetime.map(seconds),
        };
        let mut profiles = profiles(document, &path.key("accept"), &issuer.accept, &policy);
        let server = issuer.better_auth.as_ref();
        if server
            .and_then(|it| it.sessions.0.as_ref())
            .is_some_and(|it| it.cookie_cache)
        {
            profiles.push(cookie_cache(&policy));
        }
        compiled.remote_keys.push(remote);
        compiled.issuers.push(Issuer {
            name: name.into(),
            accepted,
            types: issuer.types,
            max_token_bytes,
            policy,
            profiles,
            is_introspected: exchangers.introspection.is_some(),
            dpop: issuer.dpop,
            nonce_lifetime: issuer.dpop_nonce.map(seconds),
            machines: issuer.machines,
            ring: Arc::new(ring),
        });
        compiled.exchangers.push(exchangers);
    }
    check_selection(document, &compiled.issuers);
    compiled
}

/// Range of `dpop_nonce`.
const NONCE_LIFETIME: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_hours(1);

fn check_nonce(document: &mut ConfigDocument, path: &KeyPath, issuer: &config::Issuer) {
    let Some(lifetime) = issuer.dpop_nonce else {
        return;
    };
    let path = path.key("dpop_nonce");
    if !NONCE_LIFETIME.contains(&lifetime) {
        let lifetime = humantime::format_duration(lifetime);
        document.report(path, format!("must be between 10s and 1h, got {lifetime}"));
    } else if issuer.dpop == DpopMode::Off {
        document.report(path, "has no effect with `dpop = \"off\"`");
    }
}

/// Further kinds of tokens.
fn profiles(
    document: &mut ConfigDocument,
    path: &KeyPath,
    accept: &[Accept],
    main: &ClaimPolicy,
) -> Vec<TokenProfile> {
    let elements: Vec<KeyPath> = document.elements(path).take(accept.len()).collect();
    let mut profiles = Vec::new();
    for (accept, path) in accept.iter().zip(elements) {
        if accept.types.is_empty() || accept.types.iter().any(String::is_empty) {
            document.report(
                path.key("types"),
                "must list at least one non-empty string, such as \"JWT\" or \"at+jwt\"",
            );
        }
        let OneOrMany(audience) = accept.audience.clone();
        if audience.is_empty() || audience.iter().any(String::is_empty) {
            document.report(
                path.key("audience"),
                "must have at least one value, none of them empty",
            );
        }
        let subject = match &accept.subject {
            Some(claims) => subject(document, &path.key("subject"), claims),
            None => main.subject.clone(),
        };
        profiles.push(TokenProfile {
            types: accept.types.clone(),
            policy: ClaimPolicy {
                audience: Some(audience),
                subject,
                ..main.clone()
            },
        });
    }
    profiles
}

/// The cookie cache that Better Auth signs with its key set.
fn cookie_cache(main: &ClaimPolicy) -> TokenProfile {
    TokenProfile {
        types: vec!["better-auth.session-cache+jwt".to_owned()],
        policy: ClaimPolicy {
            audience: Some(vec!["better-auth:session-cache".to_owned()]),
            authorized_party: None,
            ..main.clone()
        },
    }
}

/// Reports a template as the only accepted `iss`: the metadata of a provider for many tenants has one, and its tokens
/// have the values of their tenants.
fn check_template(document: &mut ConfigDocument, path: &KeyPath, issuer: &config::Issuer) {
    let keys = issuer.keys.as_ref();
    let template = keys.and_then(|keys| keys.discovery_issuer.as_deref());
    if issuer.issuer.is_none()
        && let Some(template) = template.filter(|template| template.contains('{'))
    {
        document.report(
            path.key("keys").key("discovery_issuer"),
            format!(
                "`{template}` is a template, which no token has as its `iss`; set `issuer` to the values of your tenants"
            ),
        );
    }
}

/// Reports issuers that accept the same `iss`: the issuer of a token must be unambiguous.
fn check_selection(document: &mut ConfigDocument, issuers: &[Issuer]) {
    for (index, issuer) in issuers.iter().enumerate() {
        let mut before = issuers.iter().take(index);
        let path = KeyPath::of("issuers").key(&issuer.name);
        match &issuer.accepted {
            None => {
                if let Some(other) = before.find(|other| other.accepted.is_none()) {
                    let message = format!(
                        "accepts any `iss`, and so does `{}`; set `issuer` on at least one of them",
                        other.name
                    );
                    document.report(path, message);
                }
            }
            Some(accepted) => {
                let shared = |other: &&Issuer| {
                    let others = other.accepted.as_ref();
                    others.is_some_and(|others| others.iter().any(|iss| accepted.contains(iss)))
                };
                if let Some(other) = before.find(shared) {
                    let message = format!(
                        "shares an `iss` with `{}`; each `iss` must belong to one issuer",
                        other.name
                    );
                    document.report(path.key("issuer"), message);
                }
            }
        }
    }
}

/// Claim paths of the subject.
fn subject(document: &mut ConfigDocument, path: &KeyPath, claims: &[String]) -> Vec<ClaimPath> {
    if claims.is_empty() {
        document.report(
            path.clone(),
            "must name at least one claim, such as \"sub\"",
        );
    }
    let mut paths = Vec::new();
    for (index, claim) in claims.iter().enumerate() {
        match ClaimPath::parse(claim) {
            Ok(path) => paths.push(path),
            Err(problem) => document.report(path.index(index), problem.to_string()),
        }
    }
    paths
}

/// Prefix of the subjects, empty by default.
fn prefix(document: &mut ConfigDocument, path: &KeyPath, prefix: Option<String>) -> String {
    let Some(prefix) = prefix else {
        return String::new();
    };
    // Characters that neither an owner segment of a path nor a list in a header can hold.
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"/\\%;,".contains(&byte);
    if prefix.is_empty() || prefix.len() > MAX_PREFIX_BYTES || !prefix.bytes().all(is_plain) {
        document.report(
            path.clone(),
            format!(
                "must have 1 to {MAX_PREFIX_BYTES} printable ASCII characters, none of them a space, `/`, `\\`, `%`, `;` \
                 or `,`, such as \"okta:\"; omit the key for no prefix"
            ),
        );
    }
    prefix
}

/// Longest accepted token.
fn max_token_bytes(document: &mut ConfigDocument, issuer: &KeyPath, bytes: Option<u64>) -> usize {
    let path = issuer.key("max_token_bytes");
    let Some(bytes) = bytes else {
        return DEFAULT_MAX_TOKEN_BYTES;
    };
    let head = document.config.listen.max_header_bytes;
    if !MAX_TOKEN_BYTES.contains(&bytes) {
        document.report(path, format!("must be between 1KiB and 64KiB, got {bytes}"));
    } else if bytes > head {
        document.report(
            path,
            format!(
                "must be at most `max_header_bytes` of [listen], {head}, which limits the head with the token, got \
                 {bytes}"
            ),
        );
    }
    usize::try_from(bytes).unwrap_or(DEFAULT_MAX_TOKEN_BYTES)
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn texts(
    document: &mut ConfigDocument,
    path: &KeyPath,
    texts: Option<OneOrMany>,
) -> Option<Vec<String>> {
    let OneOrMany(texts) = texts?;
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        document.report(
            path.clone(),
            "must have at least one value, none of them empty; omit the key to accept any value",
        );
    }
    Some(texts)
}

fn algorithms(
    document: &mut ConfigDocument,
    path: &KeyPath,
    names: Option<&[String]>,
) -> Option<Vec<Algorithm>> {
    let names = names?;
    let path = path.key("algorithms");
    let known = Algorithm::ALL.map(Algorithm::name);
    if names.is_empty() {
        document.report(
            path.clone(),
            "must list at least one algorithm; omit the key to derive the algorithms from the keys",
        );
    }
    let mut algorithms = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match Algorithm::named(name) {
            Some(algorithm) => algorithms.push(algorithm),
            None => {
                let hint = match (
                    name.to_ascii_lowercase().as_str(),
                    config::suggest(name, &known),
                ) {
                    // RFC 8725 section 3.1: anyone can make a token without a signature.
                    ("none", _) => "tokens without a signature are never accepted".to_owned(),
                    // secp256k1 and Ed448 are other curves than those of ES256 and EdDSA.
                    ("es256k" | "ed448", _) | (_, None) => {
                        format!("supported are `{}`", known.join("`, `"))
                    }
                    (_, Some(near)) => format!("did you mean `{near}`?"),
                };
                document.report(
                    path.index(index),
                    format!("`{name}` is not a supported algorithm; {hint}"),
                );
            }
        }
    }
    // None if all names were invalid and reported.
    (!algorithms.is_empty()).then_some(algorithms)
}
