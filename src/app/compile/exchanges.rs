//! Compiles `sessions` and `introspection` of `[issuers.NAME]`.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use crate::config::{
    self, BetterAuth, ConfigDocument, Introspection, KeyPath, SessionEndpoint, Sessions,
};
use crate::gate::issuer_id::IssuerId;
use crate::gate::token::SessionSource;
use crate::keys::exchange::{BasicCredentials, Endpoint, ExchangeSettings, Exchanger};
use crate::keys::remote::RemoteKeys;
use crate::proxy::shared::Exchangers;

use super::keys::{IssuerServer, endpoint, fetcher};
use super::urls::{self, UrlKind};

/// Range of `max_age`.
const MAX_AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(15);

const INTROSPECTION_URL: UrlKind = UrlKind {
    example: "https://login.example/oauth2/introspect",
    risk: "would send tokens and the client secret to another machine without TLS",
};

/// Exchanges of one issuer. `keys` is its key set, if it has one at a URL.
pub(super) fn compile(
    document: &mut ConfigDocument,
    path: &KeyPath,
    name: &str,
    issuer: &config::Issuer,
    keys: Option<&RemoteKeys>,
) -> Exchangers {
    let server = issuer.better_auth.as_ref();
    let sessions = server.and_then(|server| Some((server, server.sessions.0.as_ref()?)));
    Exchangers {
        sessions: sessions.and_then(|(server, sessions)| {
            let path = path.key("better_auth");
            self::sessions(document, &path, name, server, sessions, keys)
        }),
        introspection: issuer.introspection.as_ref().and_then(|introspection| {
            let audience = issuer.audience.is_some() || server.is_some();
            let path = path.key("introspection");
            self::introspection(document, &path, name, introspection, audience)
        }),
    }
}

fn sessions(
    document: &mut ConfigDocument,
    path: &KeyPath,
    name: &str,
    server: &BetterAuth,
    sessions: &Sessions,
    keys: Option<&RemoteKeys>,
) -> Option<Arc<Exchanger>> {
    let table = path.key("sessions");
    let max_age = max_age(document, &table, sessions.max_age);
    if SessionSource::new(IssuerId(0), &sessions.cookie_prefix).is_none() {
        let message = format!("`{}` cannot start a cookie name", sessions.cookie_prefix);
        document.report(table.key("cookie_prefix"), message);
    }
    if sessions.cookie_cache && sessions.via == SessionEndpoint::GetSession {
        let message =
            "has no effect with `via = \"get-session\"`: the JWT plugin signs the cookie cache";
        document.report(table.key("cookie_cache"), message);
    }
    let url: Uri = server.url.parse().ok()?;
    let (endpoint_name, kind) = match sessions.via {
        SessionEndpoint::Token => ("token", Endpoint::Token),
        SessionEndpoint::GetSession => ("get-session", Endpoint::GetSession),
    };
    let url: Uri = endpoint(&url, endpoint_name)?.parse().ok()?;
    let fetcher = match sessions.via {
        // The key set of the same server, which has reported its problems.
        SessionEndpoint::Token => keys?.fetcher.clone(),
        SessionEndpoint::GetSession => {
            let files = IssuerServer {
                path: path.clone(),
                url_path: path.clone(),
                ca_file: server.ca_file.clone(),
                token_file: None,
                host: server.host.clone(),
            };
            fetcher(document, &url, files)?
        }
    };
    Some(Arc::new(Exchanger::new(ExchangeSettings {
        issuer: name.into(),
        fetcher,
        url,
        endpoint: kind,
        max_age: max_age?,
        refresh: sessions.refresh,
    })))
}

fn introspection(
    document: &mut ConfigDocument,
    path: &KeyPath,
    name: &str,
    introspection: &Introspection,
    has_audience: bool,
) -> Option<Arc<Exchanger>> {
    if !has_audience {
        let (issuer, _) = path.split_last();
        document.report(
            issuer.key("audience"),
            "is required with `introspection`: the issuer reports every token as active, also those for other services",
        );
    }
    let max_age = max_age(document, path, introspection.max_age);
    let credentials = credentials(document, path, introspection);
    let url_path = path.key("url");
    let url = urls::parse(
        document,
        &url_path,
        &introspection.url,
        introspection.allow_http,
        &INTROSPECTION_URL,
    )?;
    let files = IssuerServer {
        path: path.clone(),
        url_path,
        ca_file: introspection.ca_file.clone(),
        token_file: None,
        host: introspection.host.clone(),
    };
    Some(Arc::new(Exchanger::new(ExchangeSettings {
        issuer: name.into(),
        fetcher: fetcher(document, &url, files)?,
        url,
        endpoint: Endpoint::Introspection(credentials?),
        max_age: max_age?,
        refresh: false,
    })))
}

/// Longest use of a response, in seconds.
fn max_age(document: &mut ConfigDocument, table: &KeyPath, age: Duration) -> Option<i64> {
    let path = table.key("max_age");
    if !MAX_AGE.contains(&age) || age.subsec_nanos() > 0 {
        let age = humantime::format_duration(age);
        let message = format!("must be whole seconds between 1s and 15m, got {age}");
        document.report(path, message);
        return None;
    }
    i64::try_from(age.as_secs()).ok()
}

/// Client credentials of the gate, from exactly one source of the secret.
fn credentials(
    document: &mut ConfigDocument,
    path: &KeyPath,
    introspection: &Introspection,
) -> Option<BasicCredentials> {
    let Introspection {
        client_id,
        client_secret_file,
        client_secret_env,
        ..
    } = introspection;
    let (key, secret) = match (client_secret_file, client_secret_env) {
        (Some(file), None) => ("client_secret_file", read_secret(file)),
        (None, Some(name)) => {
            let value = document.variable(name);
            let missing = || {
                format!(
                    "the environment variable {name} is not set; set it in the environment that starts the gate"
                )
            };
            ("client_secret_env", value.ok_or_else(missing))
        }
        _ => {
            if !document.is_invalid(path) {
                document.report(
                    path.clone(),
                    "must have exactly one of `client_secret_file` and `client_secret_env`",
                );
            }
            return None;
        }
    };
    let secret = match secret {
        Ok(secret) if secret.trim().is_empty() => {
            document.report(path.key(key), "the client secret is empty");
            return None;
        }
        Ok(secret) => secret,
        Err(problem) => {
            document.report(path.key(key), problem);
            return None;
        }
    };
    if client_id.is_empty() {
        document.report(path.key("client_id"), "must not be empty");
        return None;
    }
    BasicCredentials::new(client_id, secret.trim())
}

fn read_secret(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))
}
