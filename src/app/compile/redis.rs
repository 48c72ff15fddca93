//! Compiles `[redis]`.

use std::path::PathBuf;
use std::sync::Arc;

use http::Uri;
use rustls::pki_types::ServerName;

use crate::config::{self, ConfigDocument, Encoding, KeyPath};
use crate::files::Fingerprint;
use crate::keys::secret::{Secret, Secrets};
use crate::proxy::redis::Redis;
use crate::tls;

use super::checks::check_time;
use super::urls;

pub(super) fn compile(
    document: &mut ConfigDocument,
    warnings: &mut Vec<String>,
) -> Option<Arc<Redis>> {
    let redis = document.config.redis.clone()?;
    let files = [&redis.password_file, &redis.ca_file];
    let files = files.into_iter().flatten().map(PathBuf::as_path);
    let read = (redis.clone(), Fingerprint::of(files));
    let section = KeyPath::of("redis");
    check_time(document, &section.key("timeout"), Some(redis.timeout));
    if !is_prefix(&redis.prefix) {
        document.report(
            section.key("prefix"),
            "must be 1 to 64 characters, each a letter, a digit or one of `-`, `_`, `.`, `:`",
        );
    }
    let password = password(document, &section, &redis);
    let has_password = redis.password_env.is_some() || redis.password_file.is_some();
    if redis.username.is_some() && !has_password {
        document.report(
            section.key("username"),
            "requires `password_env` or `password_file`",
        );
    }
    let endpoint = endpoint(&redis.url);
    let (encrypted, host, port, database) = match endpoint {
        Ok(endpoint) => endpoint,
        Err(message) => {
            document.report(section.key("url"), message);
            return None;
        }
    };
    if !encrypted && redis.ca_file.is_some() {
        document.report(section.key("ca_file"), "has no effect without `rediss://`");
    }
    if !encrypted && !urls::is_this_host(&host) && password.is_some() {
        warnings.push(format!(
            "{}: sends the password to another machine without TLS; use `rediss://` if the Redis server \
             supports it",
            document.location(&section.key("url"))
        ));
    }
    let tls = if encrypted {
        let config = tls::client::client_config(redis.ca_file.as_deref());
        let config =
            config.map_err(|error| document.report(section.key("ca_file"), error.to_string()));
        let name = ServerName::try_from(host.clone());
        let name = name.map_err(|_| {
            document.report(
                section.key("url"),
                "must have a host that is a valid TLS server name",
            );
        });
        Some((config.ok()?, name.ok()?))
    } else {
        None
    };
    let settings = Redis {
        host,
        port,
        tls,
        database,
        username: redis.username,
        password,
        prefix: redis.prefix,
        timeout: redis.timeout,
        when_unavailable: redis.when_unavailable,
        is_unavailable: false.into(),
        source: read,
    };
    Some(Arc::new(settings))
}

fn is_prefix(prefix: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    (1..=64).contains(&prefix.len()) && prefix.chars().all(is_plain)
}

fn password(
    document: &mut ConfigDocument,
    section: &KeyPath,
    redis: &config::Redis,
) -> Option<Secret> {
    let (path, password) = match (&redis.password_env, &redis.password_file) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            document.report(
                section.key("password_file"),
                "conflicts with `password_env`; set only one of them",
            );
            return None;
        }
        (Some(name), None) => {
            let value = document.variable(name);
            let password = Secrets::from_variable(name, value, Encoding::Utf8);
            (section.key("password_env"), password)
        }
        (None, Some(file)) => {
            let password = Secrets::from_file(file, Encoding::Utf8);
            (section.key("password_file"), password)
        }
    };
    match password.map(|secrets| secrets.current) {
        Ok(password) if password.as_text().is_some_and(|text| !text.is_empty()) => Some(password),
        Ok(_) => {
            document.report(path, "must hold a password that is non-empty UTF-8 text");
            None
        }
        Err(error) => {
            document.report(path, error.to_string());
            None
        }
    }
}

/// Parses a Redis URL: TLS, host, port and database.
fn endpoint(url: &str) -> Result<(bool, String, u16, i64), &'static str> {
    const FORM: &str =
        "must be `redis://HOST:PORT` or `rediss://HOST:PORT`, optionally followed by `/DATABASE`";
    let url: Uri = url.parse().map_err(|_| FORM)?;
    let encrypted = match url.scheme_str() {
        Some("redis") => false,
        Some("rediss") => true,
        Some(_) | None => return Err(FORM),
    };
    let authority = url.authority().ok_or(FORM)?;
    if authority.as_str().contains('@') {
        return Err("must not contain a password; use `password_env` or `password_file`");
    }
    if url.query().is_some() || authority.host().is_empty() {
        return Err(FORM);
    }
    let database = match url.path().trim_start_matches('/') {
        "" => 0,
        number => number.parse::<u16>().map_err(|_| FORM)?.into(),
    };
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    Ok((
        encrypted,
        host.to_owned(),
        authority.port_u16().unwrap_or(config::DEFAULT_REDIS_PORT),
        database,
    ))
}
