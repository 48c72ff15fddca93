//! Compiles the key source of an issuer: `keys = { … }` or `better_auth`.

mod discovery;
mod ignored_proxy;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use http::uri::Authority;
use http::{HeaderValue, Uri};

use crate::config::{self, BetterAuth, ConfigDocument, KeyPath, Keys, OneOrMany, SessionEndpoint};
use crate::files::Fingerprint;
use crate::keys::fetch::Fetcher;
use crate::keys::remote::{KeySetLocation, RemoteKeys};
use crate::keys::secret::{Secret, Secrets};
use crate::keys::{Algorithm, KeyKind, KeyRing, jwks, pem};
use crate::tls;

use super::checks::check_time;
use super::urls::{self, UrlKind};

const KEY_SET_URL: UrlKind = UrlKind {
    example: "https://app.example/api/auth/jwks",
    risk: "would fetch keys from another machine without TLS, where an attacker on the network could replace them",
};

/// Key source of an issuer as configured, and the claim values derived from it.
#[derive(Default)]
pub(super) struct KeySourceConfig {
    pub(super) keys: Option<Keys>,
    pub(super) path: KeyPath,
    pub(super) defaults: ClaimDefaults,
}

/// Claim values that a key source implies, used unless the configuration sets its own.
#[derive(Default)]
pub(super) struct ClaimDefaults {
    pub(super) issuer: Option<OneOrMany>,
    pub(super) audience: Option<OneOrMany>,
}

/// Loaded local keys, or the remote key set to fetch.
pub(super) enum ResolvedKeys {
    Local(KeyRing),
    Remote(Box<RemoteKeys>),
}

pub(super) fn source_config(
    document: &mut ConfigDocument,
    path: &KeyPath,
    issuer: &config::Issuer,
) -> KeySourceConfig {
    let (keys, server) = (path.key("keys"), path.key("better_auth"));
    match (&issuer.keys, &issuer.better_auth) {
        (Some(_), Some(_)) => {
            document.report(server, "conflicts with `keys`; set only one of them");
            KeySourceConfig::default()
        }
        (None, None) if issuer.introspection.is_some() => KeySourceConfig::default(),
        (None, None) => {
            if !document.is_invalid(&keys) && !document.is_invalid(&server) {
                document.report(
                    path.clone(),
                    "requires `keys`, `better_auth` or `introspection`",
                );
            }
            KeySourceConfig::default()
        }
        (Some(keys_config), None) => KeySourceConfig {
            defaults: ClaimDefaults {
                issuer: discovered_issuers(keys_config).map(OneOrMany),
                audience: None,
            },
            keys: Some(keys_config.clone()),
            path: keys,
        },
        (None, Some(config)) => better_auth(document, &server, config),
    }
}

/// Better Auth publishes its key set at `/jwks` below its base path. Its `iss` and `aud` are the origin of its public URL.
fn better_auth(
    document: &mut ConfigDocument,
    path: &KeyPath,
    config: &BetterAuth,
) -> KeySourceConfig {
    let text = &config.url;
    // The URL is the value itself, or a key of the table.
    let is_table = document.has(&path.key("url"));
    let url_path = if is_table {
        path.key("url")
    } else {
        path.clone()
    };
    let url = server_url(document, &url_path, text);
    let public = match &config.public {
        Some(public) => server_url(document, &path.key("public"), public),
        None => url.clone(),
    };
    let (Some(url), Some(public)) = (url, public) else {
        return KeySourceConfig::default();
    };
    if url.scheme_str() == Some("http") && !config.allow_http && !urls::is_this_machine(&url) {
        let risk = KEY_SET_URL.risk;
        let fix = if is_table {
            "set `allow_http = true`".to_owned()
        } else {
            format!("write `better_auth = {{ url = \"{text}\", allow_http = true }}`")
        };
        document.report(url_path, format!("{risk}; use `https://`, or {fix}"));
        return KeySourceConfig::default();
    }
    let sessions = config.sessions.0.as_ref();
    let has_no_keys = sessions.is_some_and(|it| it.via == SessionEndpoint::GetSession);
    let jwks_url = endpoint(&url, "jwks");
    let origin = origin(&public);
    KeySourceConfig {
        // Without the JWT plugin, the server has no key set.
        keys: (!has_no_keys).then(|| Keys {
            jwks_url,
            allow_http: config.allow_http,
            ca_file: config.ca_file.clone(),
            host: config.host.clone(),
            ..Keys::default()
        }),
        path: url_path,
        defaults: ClaimDefaults {
            issuer: Some(OneOrMany(vec![origin.clone()])),
            audience: Some(OneOrMany(vec![origin])),
        },
    }
}

/// URL of an endpoint of a Better Auth server.
pub(super) fn endpoint(server: &Uri, name: &str) -> Option<String> {
    let base = match server.path().trim_end_matches('/') {
        "" => config::BETTER_AUTH_BASE_PATH,
        base => base,
    };
    let (scheme, authority) = (server.scheme_str()?, server.authority()?);
    Some(format!("{scheme}://{authority}{base}/{name}"))
}

/// Parses the URL of a Better Auth server and reports problems.
fn server_url(document: &mut ConfigDocument, path: &KeyPath, text: &str) -> Option<Uri> {
    let url: Option<Uri> = text.parse().ok();
    let authority = url.as_ref().and_then(Uri::authority);
    if authority.is_some_and(|authority| authority.as_str().contains('@')) {
        document.report(path.clone(), urls::HAS_CREDENTIALS);
        return None;
    }
    let is_server =
        |url: &Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.authority().is_some();
    let Some(url) = url.filter(is_server) else {
        let meant = urls::meant(text, "https://app.example");
        document.report(
            path.clone(),
            format!("`{text}` is not a valid URL; {meant}"),
        );
        return None;
    };
    if let Some(server) = text.trim_end_matches('/').strip_suffix("/jwks") {
        let message = format!(
            "must be the URL of the server, such as \"{server}\": the gate appends `/jwks` itself"
        );
        document.report(path.clone(), message);
        return None;
    }
    Some(url)
}

/// Origin of a URL as Better Auth writes it (RFC 6454): host in lower case, no default port.
fn origin(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    let default_port = if scheme == "https" { 443 } else { 80 };
    let port = url.port_u16().filter(|port| *port != default_port);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{host}{port}")
}

/// Values of `iss` that an issuer names in the configuration, or derives from its key source.
pub(super) fn named_issuers(issuer: &config::Issuer) -> Vec<String> {
    if let Some(OneOrMany(named)) = &issuer.issuer {
        return named.clone();
    }
    if let Some(config) = &issuer.better_auth {
        let url = config.public.as_ref().unwrap_or(&config.url).parse().ok();
        return url.iter().map(origin).collect();
    }
    let keys = issuer.keys.as_ref();
    keys.and_then(discovered_issuers).unwrap_or_default()
}

/// Issuers that the metadata at `discovery` may belong to. Their tokens have the same `iss`.
fn discovered_issuers(keys: &Keys) -> Option<Vec<String>> {
    let url = keys.discovery.as_deref()?;
    match &keys.discovery_issuer {
        Some(issuer) => Some(vec![issuer.clone()]),
        None => discovery::issuers(url).map(Vec::from),
    }
}

/// Loads local keys or prepares a remote key set.
pub(super) fn resolve(
    document: &mut ConfigDocument,
    warnings: &mut Vec<String>,
    path: &KeyPath,
    keys: &Keys,
    algorithms: Option<&[Algorithm]>,
) -> Option<ResolvedKeys> {
    let sources = [
        ("secret_env", keys.secret_env.is_some()),
        ("secret_file", keys.secret_file.is_some()),
        ("pem_file", keys.pem_file.is_some()),
        ("jwks_file", keys.jwks_file.is_some()),
        ("jwks_url", keys.jwks_url.is_some()),
        ("discovery", keys.discovery.is_some()),
    ];
    let named: Vec<&str> = sources
        .iter()
        .filter(|(_, is_named)| *is_named)
        .map(|(key, _)| *key)
        .collect();
    let [key] = named.as_slice() else {
        let is_reported = |(key, _): &(&str, bool)| {
            document.is_invalid(&path.key(key)) || document.is_misspelled(path, key)
        };
        if !sources.iter().any(is_reported) {
            let found = if named.is_empty() {
                "got none".to_owned()
            } else {
                format!("got `{}`", named.join("`, `"))
            };
            let known = sources.map(|(key, _)| key).join("`, `");
            document.report(
                path.clone(),
                format!("must have exactly one of `{known}`, {found}"),
            );
        }
        return None;
    };
    check_companions(document, path, keys, key);
    if !check_kinds(document, path, key, algorithms.unwrap_or_default()) {
        return None;
    }
    let key_path = path.key(key);
    let loaded = match *key {
        "jwks_url" | "discovery" => return remote(document, path, key, keys, algorithms),
        "pem_file" => pem::load(keys.pem_file.as_deref()?, algorithms),
        "jwks_file" => jwks::load(keys.jwks_file.as_deref()?, algorithms).map(|set| {
            for skipped in &set.skipped {
                warnings.push(format!(
                    "{}: skipped {skipped}",
                    document.location(&key_path)
                ));
            }
            set.keys
        }),
        _ => {
            if keys.secret_file.as_deref().is_some_and(is_open_to_all) {
                let location = document.location(&key_path);
                warnings.push(format!(
                    "{location}: the file is readable by every user of this machine; restrict its permissions"
                ));
            }
            let encoding = keys.encoding.unwrap_or_default();
            let secrets = match (&keys.secret_env, &keys.secret_file) {
                (Some(name), _) => Secrets::from_variable(name, document.variable(name), encoding),
                (None, Some(file)) => Secrets::from_file(file, encoding),
                (None, None) => return None,
            };
            secrets.and_then(|secrets| {
                let mut looks = secrets.iter().filter_map(Secret::looks_like);
                if let Some(looks) = looks.next().filter(|_| keys.encoding.is_none()) {
                    warnings.push(format!(
                        "{}: the secret looks like {looks} but is used as plain text; set `encoding = \"{looks}\"` to \
                         decode it, or `encoding = \"utf8\"` to keep it",
                        document.location(&key_path)
                    ));
                }
                if secrets.looks_wrapped {
                    warnings.push(format!(
                        "{}: the two lines of the file look like one base64 text: if they are one secret, write it on \
                         one line; the second line is the previous secret",
                        document.location(&key_path)
                    ));
                }
                if secrets.are_alike() {
                    warnings.push(format!(
                        "{}: both lines of the file contain the same secret",
                        document.location(&key_path)
                    ));
                }
                secrets.verification_keys(algorithms)
            })
        }
    };
    match loaded {
        Ok(keys) => Some(ResolvedKeys::Local(KeyRing::local(keys))),
        Err(error) => {
            document.report(key_path, error.to_string());
            None
        }
    }
}

/// True if the file is world-readable.
fn is_open_to_all(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// Reports symmetric algorithms for public keys and asymmetric ones for secrets.
fn check_kinds(
    document: &mut ConfigDocument,
    path: &KeyPath,
    source: &str,
    algorithms: &[Algorithm],
) -> bool {
    let is_secret = source.starts_with("secret_");
    let misfit = |algorithm: &&Algorithm| (algorithm.kind() == KeyKind::Secret) != is_secret;
    let Some(misfit) = algorithms.iter().find(misfit) else {
        return true;
    };
    let (issuer, _) = path.split_last();
    let message = format!(
        "`{}` cannot be verified with keys from `{source}`",
        misfit.name()
    );
    document.report(issuer.key("algorithms"), message);
    false
}

/// Reports keys that have no effect with the source.
fn check_companions(document: &mut ConfigDocument, path: &KeyPath, keys: &Keys, source: &str) {
    let is_secret = source.starts_with("secret_");
    let is_remote = matches!(source, "jwks_url" | "discovery");
    let misplaced = [
        ("encoding", keys.encoding.is_some() && !is_secret),
        ("refresh", keys.refresh.is_some() && !is_remote),
        ("max_stale", keys.max_stale.is_some() && !is_remote),
        ("allow_http", keys.allow_http && !is_remote),
        ("ca_file", keys.ca_file.is_some() && !is_remote),
        ("token_file", keys.token_file.is_some() && !is_remote),
        ("host", keys.host.is_some() && !is_remote),
        (
            "discovery_issuer",
            keys.discovery_issuer.is_some() && source != "discovery",
        ),
    ];
    for (key, is_misplaced) in misplaced {
        if is_misplaced {
            document.report(path.key(key), format!("has no effect with `{source}`"));
        }
    }
}

fn remote(
    document: &mut ConfigDocument,
    path: &KeyPath,
    source: &str,
    keys: &Keys,
    algorithms: Option<&[Algorithm]>,
) -> Option<ResolvedKeys> {
    // `better_auth` is itself the key of the URL.
    let is_preset = !document.has(&path.key(source));
    let url_path = if is_preset {
        path.clone()
    } else {
        path.key(source)
    };
    let text = keys.jwks_url.as_deref().or(keys.discovery.as_deref())?;
    let url = urls::parse(document, &url_path, text, keys.allow_http, &KEY_SET_URL)?;
    if let Some(refresh) = keys.refresh {
        check_time(document, &path.key("refresh"), Some(refresh));
    }
    let max_stale = keys.max_stale.unwrap_or(config::DEFAULT_MAX_STALE);
    let refresh = keys.refresh.unwrap_or(config::DEFAULT_REFRESH);
    if max_stale < refresh {
        document.report(
            path.key("max_stale"),
            format!(
                "must be at least `refresh` ({}), got {}: the keys would expire before they are refreshed",
                humantime::format_duration(refresh),
                humantime::format_duration(max_stale)
            ),
        );
    }
    let files = IssuerServer {
        path: if is_preset {
            path.split_last().0
        } else {
            path.clone()
        },
        url_path: url_path.clone(),
        ca_file: keys.ca_file.clone(),
        token_file: keys.token_file.clone(),
        host: keys.host.clone(),
    };
    let fetcher = fetcher(document, &url, files)?;
    let location = if keys.discovery.is_some() {
        let Some(issuers) = discovered_issuers(keys) else {
            document.report(
                url_path,
                format!(
                    "must end with `/.well-known/openid-configuration`, got `{text}`; for metadata at another URL, set \
                     `discovery_issuer` to its `issuer`"
                ),
            );
            return None;
        };
        KeySetLocation::Discovery {
            issuers,
            allow_http: keys.allow_http || urls::is_this_machine(&url),
            url,
        }
    } else {
        KeySetLocation::Set(url)
    };
    Some(ResolvedKeys::Remote(Box::new(RemoteKeys {
        location,
        fetcher,
        algorithms: algorithms.map(<[_]>::to_vec),
        refresh: keys.refresh,
        max_stale,
    })))
}

/// Settings for the requests to an issuer's server.
pub(super) struct IssuerServer {
    /// Path of the table with the settings.
    pub(super) path: KeyPath,
    /// Path of the URL.
    pub(super) url_path: KeyPath,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) host: Option<String>,
}

/// Compiles the settings for the requests to an issuer's server, and reports problems.
pub(super) fn fetcher(
    document: &mut ConfigDocument,
    url: &Uri,
    server: IssuerServer,
) -> Option<Fetcher> {
    let IssuerServer {
        path,
        url_path,
        ca_file,
        token_file,
        host,
    } = server;
    let ca_fingerprint = Fingerprint::of(ca_file.as_deref());
    let tls = match tls::client_config(ca_file.as_deref()) {
        Ok(tls) => tls,
        Err(error) => {
            let path = if ca_file.is_some() {
                path.key("ca_file")
            } else {
                url_path
            };
            document.report(path, error.to_string());
            return None;
        }
    };
    if let Some(Err(error)) = token_file.as_deref().map(std::fs::metadata) {
        document.report(path.key("token_file"), format!("cannot be read: {error}"));
    }
    let host = host.and_then(|host| host_field(document, path.key("host"), &host));
    Some(Fetcher {
        tls,
        ca_file,
        ca_fingerprint,
        token_file,
        host,
        ignored_proxy: ignored_proxy::variable(url, |name| document.variable(name)),
    })
}

/// Value of a `Host` header: a host with an optional port.
fn host_field(document: &mut ConfigDocument, path: KeyPath, host: &str) -> Option<HeaderValue> {
    let authority: Option<Authority> = host.parse().ok();
    let is_host = authority.is_some_and(|it| it.as_str() == host && !host.contains('@'));
    let value = HeaderValue::from_str(host).ok().filter(|_| is_host);
    if value.is_none() {
        let message = format!(
            "`{host}` is not a host with an optional port, such as \"app.example\" or \"localhost:3000\""
        );
        document.report(path, message);
    }
    value
}
