//! Compiles `tokens` and `origins` of a route.

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL};

use crate::config::{self, Access, ConfigDocument, DpopMode, KeyPath};
use crate::gate::issuer_id::IssuerId;
use crate::gate::managed_headers::is_reserved;
use crate::gate::origin::Origin;
use crate::gate::token::{
    CookieName, ParameterName, SessionSource, Subprotocol, TokenSource, TokenSources,
};
use crate::proxy::headers::hop_by_hop::is_hop_by_hop;

use super::super::cors;
use super::super::headers::managed_names;

pub(super) fn compile(
    document: &mut ConfigDocument,
    path: &KeyPath,
    route: &config::Route,
) -> TokenSources {
    let mut tokens = TokenSources {
        sessions: sessions(document, path, route),
        other_sessions: other_sessions(document, route),
        introspection: introspection(document, path, route),
        dpop: dpop(document, path, route),
        ..TokenSources::default()
    };
    if let Some(named) = &route.tokens {
        let key = path.key("tokens");
        tokens.sources = sources(document, &key, named);
        let reads_session = named.iter().any(|source| source.session == Some(true));
        match &mut tokens.sessions {
            Some(sessions) => {
                sessions.reads_cookie = reads_session;
                sessions.reads_cache &= reads_session;
                refuse_api_keys(document, &key, &tokens.sources);
            }
            None if reads_session && route.access != Access::Public => document.report(
                key.clone(),
                "has `session`, but no issuer of this route has sessions; set `sessions = true` in its `better_auth`",
            ),
            None => {}
        }
        if route.access == Access::Public {
            document.report(
                key,
                "has no effect on a public route, which verifies no token",
            );
        }
    }
    if let Some(named) = &route.origins {
        let key = path.key("origins");
        let is_cookie = |source: &TokenSource| matches!(source, TokenSource::Cookie(_));
        let reads_cookie = tokens.sessions.as_ref().is_some_and(|it| it.reads_cookie);
        if !reads_cookie
            && !tokens.sources.iter().any(is_cookie)
            && !document.is_invalid(&path.key("tokens"))
        {
            document.report(
                key.clone(),
                "has no effect on a route without a cookie in `tokens`",
            );
        }
        tokens.origins = origins(document, &key, named);
    }
    tokens
}

/// Issuers that a route accepts, with their indices.
fn accepted_issuers<'a>(
    document: &'a ConfigDocument,
    route: &'a config::Route,
) -> impl Iterator<Item = (IssuerId, &'a String, &'a config::Issuer)> {
    let all = document.config.issuers.iter().enumerate();
    all.filter(|(_, (name, _))| {
        let named = route.issuers.as_ref();
        route.access != Access::Public && named.is_none_or(|named| named.contains(name))
    })
    .map(|(index, (name, issuer))| (IssuerId(index), name, issuer))
}

/// Use of the scheme `DPoP` on a route, over all of its issuers.
fn dpop(document: &mut ConfigDocument, path: &KeyPath, route: &config::Route) -> DpopMode {
    if route.dpop.is_some() && route.access == Access::Public {
        document.report(
            path.key("dpop"),
            "has no effect on a public route, which verifies no token",
        );
    }
    if let Some(mode) = route.dpop {
        return mode;
    }
    let modes: Vec<DpopMode> = accepted_issuers(document, route)
        .map(|(_, _, issuer)| issuer.dpop)
        .collect();
    let all = |wanted: DpopMode| modes.iter().all(|mode| *mode == wanted);
    match (all(DpopMode::Off), all(DpopMode::Required)) {
        (true, _) => DpopMode::Off,
        (false, true) => DpopMode::Required,
        (false, false) => DpopMode::Accepted,
    }
}

/// Sessions of the one issuer that has them.
fn sessions(
    document: &mut ConfigDocument,
    path: &KeyPath,
    route: &config::Route,
) -> Option<SessionSource> {
    let found = accepted_issuers(document, route).filter_map(|(id, name, issuer)| {
        let sessions = issuer.better_auth.as_ref()?.sessions.0.as_ref()?;
        let mut source = SessionSource::new(id, &sessions.cookie_prefix)?;
        source.reads_cache = sessions.cookie_cache;
        Some((name.clone(), source))
    });
    let (names, mut sources): (Vec<_>, Vec<_>) = found.unzip();
    report_several(document, path, &names, "sessions");
    (!sources.is_empty()).then(|| sources.swap_remove(0))
}

/// Sessions of the issuers that the route does not accept.
fn other_sessions(document: &ConfigDocument, route: &config::Route) -> Vec<SessionSource> {
    let accepted: Vec<IssuerId> = accepted_issuers(document, route)
        .map(|(id, ..)| id)
        .collect();
    let all = document.config.issuers.values().enumerate();
    let others = all.filter_map(|(index, issuer)| {
        let sessions = issuer.better_auth.as_ref()?.sessions.0.as_ref()?;
        SessionSource::new(IssuerId(index), &sessions.cookie_prefix)
    });
    others
        .filter(|source| !accepted.contains(&source.issuer))
        .collect()
}

/// The one issuer that introspects opaque tokens.
fn introspection(
    document: &mut ConfigDocument,
    path: &KeyPath,
    route: &config::Route,
) -> Option<IssuerId> {
    let found = accepted_issuers(document, route);
    let found = found.filter(|(_, _, issuer)| issuer.introspection.is_some());
    let (ids, names): (Vec<_>, Vec<_>) = found.map(|(id, name, _)| (id, name.clone())).unzip();
    report_several(document, path, &names, "introspection");
    ids.first().copied()
}

/// Reports several issuers for one kind of credential: it does not name its issuer.
fn report_several(document: &mut ConfigDocument, path: &KeyPath, names: &[String], kind: &str) {
    if names.len() > 1 {
        let message = format!(
            "accepts the issuers `{}`, which all have `{kind}`: such a credential does not name its issuer; set \
             `issuers` to one of them",
            names.join("`, `")
        );
        document.report(path.clone(), message);
    }
}

/// Refuses API keys beside sessions: `/token` gives the JWT of the whole user for one, without the permissions of the key.
fn refuse_api_keys(document: &mut ConfigDocument, path: &KeyPath, sources: &[TokenSource]) {
    let is_key = |source: &TokenSource| matches!(source, TokenSource::Header(name) if name.as_str() == "x-api-key");
    if sources.iter().any(is_key) {
        document.report(
            path.clone(),
            "has the header `x-api-key`, but the gate exchanges no API keys: Better Auth would return a JWT of the user \
             without the permissions of the key; verify API keys in the API, on a public route",
        );
    }
}

fn sources(
    document: &mut ConfigDocument,
    path: &KeyPath,
    named: &[config::TokenSource],
) -> Vec<TokenSource> {
    if named.is_empty() && !document.is_invalid(path) {
        document.report(
            path.clone(),
            "must list at least one token source; omit the key for `Authorization: Bearer`",
        );
    }
    let elements: Vec<KeyPath> = document.elements(path).take(named.len()).collect();
    let mut sources: Vec<TokenSource> = Vec::new();
    for (named, element) in named.iter().zip(elements) {
        let Some(source) = source(document, &element, named) else {
            continue;
        };
        match sources.iter().find(|other| source.overlaps(other)) {
            Some(other) => {
                document.report(element, format!("duplicates another token source: {other}"));
            }
            None => sources.push(source),
        }
    }
    let mut has_websocket = false;
    for source in &mut sources {
        if let TokenSource::WebSocket(name) = source {
            if has_websocket {
                name.ignore_encoded();
            }
            has_websocket = true;
        }
    }
    sources
}

fn source(
    document: &mut ConfigDocument,
    path: &KeyPath,
    named: &config::TokenSource,
) -> Option<TokenSource> {
    let config::TokenSource {
        header,
        cookie,
        query,
        websocket,
        session,
    } = named;
    if (header, cookie, query, websocket) == (&None, &None, &None, &None) && *session == Some(true)
    {
        return None;
    }
    if session.is_some() {
        document.report(path.key("session"), "must be true, and alone in its table");
        return None;
    }
    let (key, source) = match (header, cookie, query, websocket) {
        (Some(name), None, None, None) => ("header", self::header(document, name)),
        (None, Some(name), None, None) => (
            "cookie",
            CookieName::new(name)
                .map(TokenSource::Cookie)
                .ok_or("is not a valid cookie name"),
        ),
        (None, None, Some(name), None) => (
            "query",
            ParameterName::new(name)
                .map(TokenSource::Query)
                .ok_or("must consist of letters, digits and `-._~`"),
        ),
        (None, None, None, Some(name)) => (
            "websocket",
            Subprotocol::new(name)
                .map(TokenSource::WebSocket)
                .ok_or("is not a valid subprotocol name"),
        ),
        _ => {
            if !document.is_invalid(path) {
                document.report(
                    path.clone(),
                    "must have exactly one of `header`, `cookie`, `query`, `websocket` and `session`",
                );
            }
            return None;
        }
    };
    source
        .map_err(|problem| document.report(path.key(key), problem))
        .ok()
}

fn header(document: &ConfigDocument, name: &str) -> Result<TokenSource, &'static str> {
    let Ok(name) = name.parse::<HeaderName>() else {
        return Err("is not a valid header name");
    };
    if name == AUTHORIZATION {
        return Ok(TokenSource::Authorization);
    }
    if name == COOKIE {
        return Err("is not a token header; use { cookie = \"NAME\" }");
    }
    if name == SEC_WEBSOCKET_PROTOCOL {
        return Err("is not a token header; use { websocket = \"NAME\" }");
    }
    let is_identity = managed_names(document).is_identity(name.as_str());
    if is_identity || is_reserved(name.as_str()) || is_hop_by_hop(&name) {
        return Err("is a reserved header and cannot carry a token");
    }
    Ok(TokenSource::Header(name))
}

fn origins(document: &mut ConfigDocument, path: &KeyPath, named: &[String]) -> Vec<Origin> {
    if named.is_empty() && !document.is_invalid(path) {
        document.report(
            path.clone(),
            "must list at least one origin; omit the key to accept only the request's own origin",
        );
    }
    let mut origins = Vec::new();
    let elements: Vec<KeyPath> = document.elements(path).take(named.len()).collect();
    for (text, element) in named.iter().zip(elements) {
        match cors::origin(text) {
            Ok(origin) => origins.push(origin),
            Err(problem) => document.report(element, problem),
        }
    }
    origins
}
