//! `keys = { … }` and `better_auth`, compiled: where the keys of an issuer come from.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use http::Uri;

use crate::config::{self, KeyPath, Keys, OneOrMany, Written};
use crate::files::Fingerprint;
use crate::keys::fetch::Fetcher;
use crate::keys::remote::{KeySetLocation, REFRESH, RemoteKeys};
use crate::keys::secret::{Secret, Secrets};
use crate::keys::{Algorithm, KeyKind, KeyRing, jwks, pem};
use crate::tls;

use super::check_time;
use super::urls::{self, Purpose};

/// How long keys are used after the last successful fetch, if the configuration does not say.
const MAX_STALE: Duration = Duration::from_hours(24);

const KEYS: Purpose = Purpose {
    example: "https://app.example/api/auth/jwks",
    danger: "would fetch keys from another machine without TLS, where anybody between could put in their own",
};

/// What the configuration says of where an issuer's keys come from, and what follows from it.
#[derive(Default)]
pub(super) struct Origin {
    pub(super) keys: Option<Keys>,
    pub(super) place: KeyPath,
    pub(super) names: Names,
}

/// The names that an issuer uses in its tokens, unless the configuration says others.
#[derive(Default)]
pub(super) struct Names {
    pub(super) issuer: Option<OneOrMany>,
    pub(super) audience: Option<OneOrMany>,
}

/// Where the keys of one issuer come from.
pub(super) enum Source {
    Ring(KeyRing),
    Remote(Box<RemoteKeys>),
}

pub(super) fn origin(written: &mut Written, path: &KeyPath, issuer: &config::Issuer) -> Origin {
    let (keys, server) = (path.key("keys"), path.key("better_auth"));
    match (&issuer.keys, &issuer.better_auth) {
        (Some(_), Some(_)) => {
            written.report(
                server,
                "says where the keys are, and `keys` does too: leave one of them out",
            );
            Origin::default()
        }
        (None, None) => {
            if !written.is_broken(&keys) && !written.is_broken(&server) {
                written.report(
                    path.clone(),
                    "needs the key `keys` or the key `better_auth`",
                );
            }
            Origin::default()
        }
        (Some(found), None) => Origin {
            names: Names {
                issuer: found
                    .discovery
                    .as_deref()
                    .and_then(described_issuer)
                    .map(|issuer| {
                        // Some issuers end their name with a `/`, which their description's URL has only once.
                        OneOrMany(vec![issuer.to_owned(), format!("{issuer}/")])
                    }),
                audience: None,
            },
            keys: Some(found.clone()),
            place: keys,
        },
        (None, Some(url)) => better_auth(written, server, url),
    }
}

/// A Better Auth server signs with the keys at `/jwks` under its base path, and calls itself and its audience by the
/// origin of its URL.
fn better_auth(written: &mut Written, place: KeyPath, text: &str) -> Origin {
    let url: Option<Uri> = text.parse().ok();
    let parts = url
        .as_ref()
        .and_then(|url| Some((url.scheme_str()?, url.authority()?, url.path())));
    let Some((scheme @ ("http" | "https"), authority, base)) = parts else {
        written.report(
            place,
            format!("`{text}` is not a URL such as \"https://app.example\""),
        );
        return Origin::default();
    };
    let host = authority.host().to_ascii_lowercase();
    let usual = if scheme == "https" { 443 } else { 80 };
    let port = authority.port_u16().filter(|port| *port != usual);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let base = match base.trim_end_matches('/') {
        "" => "/api/auth",
        base => base,
    };
    let origin = format!("{scheme}://{host}{port}");
    Origin {
        keys: Some(Keys {
            jwks_url: Some(format!("{scheme}://{authority}{base}/jwks")),
            ..Keys::default()
        }),
        place,
        names: Names {
            issuer: Some(OneOrMany(vec![origin.clone()])),
            audience: Some(OneOrMany(vec![origin])),
        },
    }
}

/// OpenID Connect Discovery 1.0 section 4: the description of an issuer stands under its name.
fn described_issuer(url: &str) -> Option<&str> {
    url.strip_suffix("/.well-known/openid-configuration")
}

/// Loads the keys, or says how they are fetched.
pub(super) fn source(
    written: &mut Written,
    warnings: &mut Vec<String>,
    path: &KeyPath,
    keys: &Keys,
    algorithms: Option<&[Algorithm]>,
) -> Option<Source> {
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
        if !sources
            .iter()
            .any(|(key, _)| written.is_broken(&path.key(key)))
        {
            let found = if named.is_empty() {
                "there is none".to_owned()
            } else {
                format!("there are `{}`", named.join("`, `"))
            };
            let known = sources.map(|(key, _)| key).join("`, `");
            written.report(
                path.clone(),
                format!("needs exactly one of `{known}`; {found}"),
            );
        }
        return None;
    };
    check_companions(written, path, keys, key);
    if !check_kinds(written, path, key, algorithms.unwrap_or_default()) {
        return None;
    }
    let place = path.key(key);
    let loaded = match *key {
        "jwks_url" | "discovery" => return remote(written, path, key, keys, algorithms),
        "pem_file" => pem::load(keys.pem_file.as_deref()?, algorithms),
        "jwks_file" => jwks::load(keys.jwks_file.as_deref()?, algorithms).map(|set| {
            for skipped in &set.skipped {
                warnings.push(format!("{}: skipped {skipped}", written.place(&place)));
            }
            set.keys
        }),
        _ => {
            if keys.secret_file.as_deref().is_some_and(is_open_to_all) {
                let place = written.place(&place);
                warnings.push(format!(
                    "{place}: every user of this machine may read the file"
                ));
            }
            let encoding = keys.encoding.unwrap_or_default();
            let secrets = match (&keys.secret_env, &keys.secret_file) {
                (Some(name), _) => Secrets::from_variable(name, written.variable(name), encoding),
                (None, Some(file)) => Secrets::from_file(file, encoding),
                (None, None) => return None,
            };
            secrets.and_then(|secrets| {
                let mut looks = secrets.iter().filter_map(Secret::looks_like);
                if let Some(looks) = looks.next().filter(|_| keys.encoding.is_none()) {
                    warnings.push(format!(
                        "{}: the secret looks like {looks}, and is used as it is written; if it is {looks}, say \
                         `encoding = \"{looks}\"`, if not, `encoding = \"utf8\"`",
                        written.place(&place)
                    ));
                }
                if secrets.are_alike() {
                    warnings.push(format!(
                        "{}: both lines of the file are the same secret",
                        written.place(&place)
                    ));
                }
                secrets.verification_keys(algorithms)
            })
        }
    };
    match loaded {
        Ok(keys) => Some(Source::Ring(KeyRing::local(keys))),
        Err(error) => {
            written.report(place, error.to_string());
            None
        }
    }
}

/// Whether every user of the machine may read a file.
fn is_open_to_all(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// A secret verifies nothing that a public key does, nor the other way round.
fn check_kinds(
    written: &mut Written,
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
        "`{}` cannot be verified with the keys of `{source}`",
        misfit.name()
    );
    written.report(issuer.key("algorithms"), message);
    false
}

/// Some keys only mean something beside one source.
fn check_companions(written: &mut Written, path: &KeyPath, keys: &Keys, source: &str) {
    let is_secret = source.starts_with("secret_");
    let is_remote = matches!(source, "jwks_url" | "discovery");
    let misplaced = [
        ("encoding", keys.encoding.is_some() && !is_secret),
        ("refresh", keys.refresh.is_some() && !is_remote),
        ("max_stale", keys.max_stale.is_some() && !is_remote),
        ("allow_http", keys.allow_http && !is_remote),
        ("ca_file", keys.ca_file.is_some() && !is_remote),
        ("token_file", keys.token_file.is_some() && !is_remote),
    ];
    for (key, is_misplaced) in misplaced {
        if is_misplaced {
            written.report(path.key(key), format!("means nothing beside `{source}`"));
        }
    }
}

fn remote(
    written: &mut Written,
    path: &KeyPath,
    source: &str,
    keys: &Keys,
    algorithms: Option<&[Algorithm]>,
) -> Option<Source> {
    // The preset of Better Auth stands at the key itself.
    let is_preset = !written.has(&path.key(source));
    let place = if is_preset {
        path.clone()
    } else {
        path.key(source)
    };
    let text = keys.jwks_url.as_deref().or(keys.discovery.as_deref())?;
    let url = urls::callable(written, &place, text, keys.allow_http, &KEYS)?;
    if let Some(refresh) = keys.refresh {
        check_time(written, &path.key("refresh"), Some(refresh));
    }
    let max_stale = keys.max_stale.unwrap_or(MAX_STALE);
    if max_stale < keys.refresh.unwrap_or(REFRESH) {
        written.report(
            path.key("max_stale"),
            "is shorter than `refresh`: the keys would be too old before they are fetched again",
        );
    }
    let fingerprint = Fingerprint::of(keys.ca_file.as_deref());
    let tls = match tls::client_config(keys.ca_file.as_deref()) {
        Ok(tls) => tls,
        Err(error) => {
            let place = if keys.ca_file.is_some() {
                path.key("ca_file")
            } else {
                place
            };
            written.report(place, error.to_string());
            return None;
        }
    };
    if let Some(Err(error)) = keys.token_file.as_deref().map(std::fs::metadata) {
        written.report(path.key("token_file"), format!("cannot be read: {error}"));
    }
    let place = if keys.discovery.is_some() {
        let Some(issuer) = described_issuer(text) else {
            written.report(
                place,
                format!("`{text}` does not end with /.well-known/openid-configuration"),
            );
            return None;
        };
        KeySetLocation::Discovery {
            issuer: issuer.to_owned(),
            allow_http: keys.allow_http || urls::is_this_machine(&url),
            url,
        }
    } else {
        KeySetLocation::Set(url)
    };
    Some(Source::Remote(Box::new(RemoteKeys {
        location: place,
        fetcher: Fetcher {
            tls,
            ca_file: keys.ca_file.clone(),
            ca_fingerprint: fingerprint,
            token_file: keys.token_file.clone(),
        },
        algorithms: algorithms.map(<[_]>::to_vec),
        refresh: keys.refresh,
        max_stale,
    })))
}
