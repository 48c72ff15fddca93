//! Compiles `[cors]` and `cors` of a route.

use http::HeaderName;

use crate::config::{self, ConfigDocument, KeyPath, RouteCors};
use crate::gate::cors::{Cors, OriginPattern, Origins};
use crate::gate::origin::Origin;

use super::methods::methods;

/// Compiles `[cors]`, the policy of all routes without their own.
pub(super) fn compile(document: &mut ConfigDocument) -> Option<Cors> {
    let config = document.config.cors.clone()?;
    Some(compile_policy(document, &KeyPath::of("cors"), &config))
}

/// CORS policy of one route.
pub(super) fn of_route(
    document: &mut ConfigDocument,
    path: &KeyPath,
    config: Option<&RouteCors>,
    common: Option<&Cors>,
) -> Option<Cors> {
    let path = path.key("cors");
    match config {
        None => common.cloned(),
        Some(RouteCors::Off) => {
            if !document.has(&KeyPath::of("cors")) {
                document.report(path, "has no effect without [cors]");
            }
            None
        }
        Some(RouteCors::Own(config)) => Some(compile_policy(document, &path, config)),
    }
}

fn compile_policy(document: &mut ConfigDocument, path: &KeyPath, config: &config::Cors) -> Cors {
    let config::Cors {
        origins,
        credentials,
        methods,
        headers,
        expose,
        max_age,
    } = config;
    let origins = self::origins(document, &path.key("origins"), origins, *credentials);
    let methods = self::methods(document, path, methods.as_deref());
    let headers = self::headers(document, &path.key("headers"), headers);
    let expose = self::headers(document, &path.key("expose"), expose);
    Cors::new(
        origins,
        *credentials,
        methods,
        headers,
        &expose,
        max_age.as_secs(),
    )
}

fn origins(
    document: &mut ConfigDocument,
    path: &KeyPath,
    texts: &[String],
    credentials: bool,
) -> Origins {
    if texts.is_empty() && !document.is_invalid(path) {
        document.report(path.clone(), "must list at least one origin");
    }
    let elements: Vec<KeyPath> = document.elements(path).take(texts.len()).collect();
    let mut patterns = Vec::new();
    let mut any = None;
    for (text, element) in texts.iter().zip(elements) {
        match text.as_str() {
            "*" => any = Some(element),
            "null" => document.report(
                element,
                "`null` cannot be allowed: every page with an opaque origin sends it",
            ),
            text if text.contains('*') => match OriginPattern::new(text) {
                Some(pattern) => patterns.push(pattern),
                None => document.report(
                    element,
                    format!(
                        "`{text}` can have `*` only as the first label of a host with at least two more labels, such as \
                         `https://*.app.example`"
                    ),
                ),
            },
            text => match origin(text) {
                Ok(origin) => patterns.push(OriginPattern::Exact(origin)),
                Err(problem) => document.report(element, problem),
            },
        }
    }
    let Some(element) = any else {
        return Origins::Listed(patterns);
    };
    if credentials {
        document.report(
            element,
            "`*` cannot be combined with `credentials = true`: every website could act as its visitors; list \
             the origins",
        );
    } else if !patterns.is_empty() {
        document.report(element, "`*` matches every origin; remove the others");
    }
    Origins::Any
}

/// Parses an origin in its serialized form (RFC 6454 section 6.2). Fails with a message.
pub(super) fn origin(text: &str) -> Result<Origin, String> {
    if let Some(origin) = Origin::new(text) {
        return Ok(origin);
    }
    let meant = Origin::nearest(text).map(|near| format!("; did you mean `{near}`?"));
    let meant = meant.unwrap_or_else(|| {
        "; expected scheme and host in lowercase, and the port unless it is the default, such as \
         `https://app.example`"
            .to_owned()
    });
    Err(format!(
        "`{text}` is not an origin in the form that browsers send{meant}"
    ))
}

fn headers(document: &mut ConfigDocument, path: &KeyPath, names: &[String]) -> Vec<HeaderName> {
    let elements: Vec<KeyPath> = document.elements(path).take(names.len()).collect();
    let mut headers = Vec::new();
    for (name, element) in names.iter().zip(elements) {
        if name == "*" {
            // Fetch standard: `*` does not cover `Authorization`, and is not a wildcard with credentials.
            document.report(
                element,
                "`*` is not supported: browsers do not apply it to `Authorization`; list the headers",
            );
            continue;
        }
        match name.parse::<HeaderName>() {
            Ok(name) if headers.contains(&name) => {
                document.report(element, "duplicates an earlier header");
            }
            Ok(name) => headers.push(name),
            Err(_) => document.report(element, format!("`{name}` is not a valid header name")),
        }
    }
    headers
}
