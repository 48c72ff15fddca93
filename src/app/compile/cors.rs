//! `[cors]` and the `cors` of a route, compiled.

use http::HeaderName;

use crate::config::{self, ConfigDocument, KeyPath, RouteCors};
use crate::gate::cors::{Cors, OriginPattern, Origins};
use crate::gate::origin::Origin;

use super::routes;

/// What holds for every route that says nothing else.
pub(super) fn compile(document: &mut ConfigDocument) -> Option<Cors> {
    let named = document.config.cors.clone()?;
    Some(one(document, &KeyPath::of("cors"), &named))
}

/// What holds for a route.
pub(super) fn of_route(
    document: &mut ConfigDocument,
    place: &KeyPath,
    named: Option<&RouteCors>,
    common: Option<&Cors>,
) -> Option<Cors> {
    let place = place.key("cors");
    match named {
        None => common.cloned(),
        Some(RouteCors::Off) => {
            if !document.has(&KeyPath::of("cors")) {
                document.report(place, "means nothing without [cors]");
            }
            None
        }
        Some(RouteCors::Own(named)) => Some(one(document, &place, named)),
    }
}

fn one(document: &mut ConfigDocument, place: &KeyPath, named: &config::Cors) -> Cors {
    let config::Cors {
        origins,
        credentials,
        methods,
        headers,
        expose,
        max_age,
    } = named;
    let origins = self::origins(document, &place.key("origins"), origins, *credentials);
    let methods = routes::methods(document, place, methods.as_deref());
    let headers = self::headers(document, &place.key("headers"), headers);
    let expose = self::headers(document, &place.key("expose"), expose);
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
    named: &[String],
    credentials: bool,
) -> Origins {
    if named.is_empty() && !document.is_broken(path) {
        document.report(path.clone(), "must name an origin");
    }
    let places: Vec<KeyPath> = document.elements(path).take(named.len()).collect();
    let mut patterns = Vec::new();
    let mut any = None;
    for (text, place) in named.iter().zip(places) {
        match text.as_str() {
            "*" => any = Some(place),
            "null" => document.report(
                place,
                "is what every page without an origin sends, whoever made it: it cannot be allowed",
            ),
            text if text.contains('*') => match OriginPattern::new(text) {
                Some(pattern) => patterns.push(pattern),
                None => document.report(
                    place,
                    format!(
                        "`{text}` can have `*` only for the first name of a host, with two or more after it, as in \
                         `https://*.app.example`"
                    ),
                ),
            },
            text => match origin(text) {
                Ok(origin) => patterns.push(OriginPattern::One(origin)),
                Err(problem) => document.report(place, problem),
            },
        }
    }
    let Some(place) = any else {
        return Origins::Of(patterns);
    };
    if credentials {
        document.report(
            place,
            "cannot stand beside `credentials = true`: every page of the web could act for whoever looks at it. Name \
             the origins",
        );
    } else if !patterns.is_empty() {
        document.report(place, "stands for every origin: leave the others out");
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

fn headers(document: &mut ConfigDocument, path: &KeyPath, named: &[String]) -> Vec<HeaderName> {
    let places: Vec<KeyPath> = document.elements(path).take(named.len()).collect();
    let mut headers = Vec::new();
    for (name, place) in named.iter().zip(places) {
        if name == "*" {
            // For browsers it does not stand for `Authorization`, and with credentials for nothing at all.
            document.report(
                place,
                "must be named one by one: `*` is not understood everywhere",
            );
            continue;
        }
        match name.parse::<HeaderName>() {
            Ok(name) if headers.contains(&name) => {
                document.report(place, "is there already");
            }
            Ok(name) => headers.push(name),
            Err(_) => document.report(place, format!("`{name}` is not a header name")),
        }
    }
    headers
}
