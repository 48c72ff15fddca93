//! `[cors]` and the `cors` of a route, compiled.

use http::HeaderName;

use crate::config::{self, ConfigDocument, KeyPath, RouteCors};
use crate::gate::cors::{Cors, OriginPattern, Origins};
use crate::gate::origin::Origin;

use super::methods::methods;

/// What holds for every route that says nothing else.
pub(super) fn compile(document: &mut ConfigDocument) -> Option<Cors> {
    let config = document.config.cors.clone()?;
    Some(one(document, &KeyPath::of("cors"), &config))
}

/// What holds for a route.
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
                document.report(path, "means nothing without [cors]");
            }
            None
        }
        Some(RouteCors::Own(config)) => Some(one(document, &path, config)),
    }
}

fn one(document: &mut ConfigDocument, path: &KeyPath, config: &config::Cors) -> Cors {
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
    if texts.is_empty() && !document.is_broken(path) {
        document.report(path.clone(), "must name an origin");
    }
    let elements: Vec<KeyPath> = document.elements(path).take(texts.len()).collect();
    let mut patterns = Vec::new();
    let mut any = None;
    for (text, element) in texts.iter().zip(elements) {
        match text.as_str() {
            "*" => any = Some(element),
            "null" => document.report(
                element,
                "is what every page without an origin sends, whoever made it: it cannot be allowed",
            ),
            text if text.contains('*') => match OriginPattern::new(text) {
                Some(pattern) => patterns.push(pattern),
                None => document.report(
                    element,
                    format!(
                        "`{text}` can have `*` only for the first name of a host, with two or more after it, as in \
                         `https://*.app.example`"
                    ),
                ),
            },
            text => match origin(text) {
                Ok(origin) => patterns.push(OriginPattern::One(origin)),
                Err(problem) => document.report(element, problem),
            },
        }
    }
    let Some(element) = any else {
        return Origins::Of(patterns);
    };
    if credentials {
        document.report(
            element,
            "cannot stand beside `credentials = true`: every page of the web could act for whoever looks at it. Name \
             the origins",
        );
    } else if !patterns.is_empty() {
        document.report(element, "stands for every origin: leave the others out");
    }
    Origins::Any
}

/// An origin as browsers send it, or what is wrong with it.
pub(super) fn origin(text: &str) -> Result<Origin, String> {
    if let Some(origin) = Origin::new(text) {
        return Ok(origin);
    }
    let meant = Origin::nearest(text).map(|near| format!("; did you mean `{near}`?"));
    let meant = meant.unwrap_or_else(|| {
        ": scheme and host in lower case, and the port unless it is the usual one, as in `https://app.example`"
            .to_owned()
    });
    Err(format!(
        "`{text}` is not an origin as browsers send it{meant}"
    ))
}

fn headers(document: &mut ConfigDocument, path: &KeyPath, names: &[String]) -> Vec<HeaderName> {
    let elements: Vec<KeyPath> = document.elements(path).take(names.len()).collect();
    let mut headers = Vec::new();
    for (name, element) in names.iter().zip(elements) {
        if name == "*" {
            // For browsers it does not stand for `Authorization`, and with credentials for nothing at all.
            document.report(
                element,
                "must be named one by one: `*` is not understood everywhere",
            );
            continue;
        }
        match name.parse::<HeaderName>() {
            Ok(name) if headers.contains(&name) => {
                document.report(element, "is there already");
            }
            Ok(name) => headers.push(name),
            Err(_) => document.report(element, format!("`{name}` is not a header name")),
        }
    }
    headers
}
