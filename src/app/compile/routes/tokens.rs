//! Compiles `tokens` and `origins` of a route.

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL};

use crate::config::{self, Access, ConfigDocument, KeyPath};
use crate::gate::managed_headers::is_reserved;
use crate::gate::origin::Origin;
use crate::gate::token::{CookieName, ParameterName, Subprotocol, TokenSource, TokenSources};
use crate::proxy::headers::hop_by_hop::is_hop_by_hop;

use super::super::cors;
use super::super::headers::managed_names;

pub(super) fn compile(
    document: &mut ConfigDocument,
    path: &KeyPath,
    route: &config::Route,
) -> TokenSources {
    let mut tokens = TokenSources::default();
    if let Some(named) = &route.tokens {
        tokens.sources = sources(document, &path.key("tokens"), named);
        if route.access == Access::Public {
            document.report(
                path.key("tokens"),
                "has no effect on a public route, which verifies no token",
            );
        }
    }
    if let Some(named) = &route.origins {
        let key = path.key("origins");
        let is_cookie = |source: &TokenSource| matches!(source, TokenSource::Cookie(_));
        if !tokens.sources.iter().any(is_cookie) && !document.is_invalid(&path.key("tokens")) {
            document.report(
                key.clone(),
                "has no effect on a route without a cookie in `tokens`",
            );
        }
        tokens.origins = origins(document, &key, named);
    }
    tokens
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
    } = named;
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
                    "must have exactly one of `header`, `cookie`, `query` and `websocket`",
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
