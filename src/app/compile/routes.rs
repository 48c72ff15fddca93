//! `[[routes]]`, compiled.

mod limits;
mod rewrites;
mod tokens;

use http::{HeaderName, Method};

use crate::config::{self, Access, KeyPath, StreamEnd, Written};
use crate::gate::access::{self, Rule};
use crate::gate::cors::Cors;
use crate::gate::managed_headers::ManagedNames;
use crate::gate::refusal::Mismatch;
use crate::gate::routes::{METHODS, Route, RouteId, RouteTable};
use crate::gate::token::TokenSources;
use crate::proxy::forwarding::{Forwarding, StreamEnds};
use crate::proxy::upstream::UpstreamId;

use super::{X_USER_ID, check_time, cors, requirements};

pub(super) fn compile(
    written: &mut Written,
    cors: Option<&Cors>,
    warnings: &mut Vec<String>,
) -> (RouteTable, Vec<Forwarding>) {
    let section = KeyPath::of("routes");
    if !written.has(&section) {
        written.report(
            KeyPath::default(),
            "there is no route, and what no route allows is refused: write [[routes]]",
        );
    }
    let routes = written.config.routes.clone();
    let places: Vec<KeyPath> = written.elements(&section).take(routes.len()).collect();
    let (mut compiled, mut forwarding) = (Vec::new(), Vec::new());
    for (route, place) in routes.into_iter().zip(&places) {
        let (route, forwarded) = one(written, place, route, cors);
        compiled.push(route);
        forwarding.push(forwarded);
    }
    warn_about_ownerless(written, warnings, &compiled, &places);
    warn_about_broad_public(written, warnings, &compiled, &places);
    rewrites::warn_about_merged(written, warnings, &compiled, &forwarding, &places);
    let (table, problems) = RouteTable::new(compiled);
    for (index, problem) in problems {
        if let Some(place) = places.get(index) {
            written.report(place.key("path"), problem.to_string());
        }
    }
    (table, forwarding)
}

fn one(
    written: &mut Written,
    place: &KeyPath,
    route: config::Route,
    common: Option<&Cors>,
) -> (Route, Forwarding) {
    let public = route.access == Access::Public;
    if !public && written.config.issuers.is_empty() && !written.has(&KeyPath::of("issuers")) {
        written.report(
            place.key("access"),
            "needs a token, but there is no issuer whose tokens are good: write [issuers.NAME]",
        );
    }
    check_time(written, &place.key("timeout"), route.timeout);
    check_time(
        written,
        &place.key("request_timeout"),
        route.request_timeout,
    );
    let streams = streams(written, place, &route);
    let mismatch = mismatch(written, place, &route);
    let tokens = tokens::compile(written, place, &route);
    let path_rewrite = rewrites::prefix(written, place, &route);
    let mut edits = |key, named: &Option<_>, tokens: &TokenSources| {
        rewrites::edits(written, &place.key(key), named.as_ref(), tokens)
    };
    let request_headers = edits("request_headers", &route.request_headers, &tokens);
    // A client has no token to hide from itself.
    let response_headers = edits(
        "response_headers",
        &route.response_headers,
        &TokenSources::default(),
    );
    let methods = methods(written, place, route.methods.as_deref());
    let cors = cors::of_route(written, place, route.cors.as_ref(), common);
    if cors.is_some() {
        rewrites::report_cors(written, place, route.response_headers.as_ref());
    }
    let forwarding = Forwarding {
        upstream: upstream(written, place, route.upstream.as_deref()),
        timeout: route.timeout,
        max_body_bytes: route.max_body_bytes,
        request_timeout: route.request_timeout,
        streams,
        path_rewrite,
        request_headers,
        response_headers,
    };
    let access = access::Access {
        cors: cors.map(|cors| cors.of_methods(&methods)),
        requirements: requirements::compile(written, place, &route),
        limits: limits::compile(written, place, &route, &methods),
        rule: match route.access {
            Access::Public => Rule::Public,
            Access::Authenticated => Rule::Authenticated,
            Access::Owner(parameter) => Rule::Owner {
                parameter,
                mismatch,
            },
        },
        tokens,
    };
    let route = Route {
        id: RouteId::default(),
        pattern: route.path.into(),
        methods,
        access,
    };
    (route, forwarding)
}

fn streams(written: &mut Written, place: &KeyPath, route: &config::Route) -> StreamEnds {
    if route.access == Access::Public && written.has(&place.key("at_expiry")) {
        written.report(
            place.key("at_expiry"),
            "means nothing on a public route: no token allows its streams",
        );
    }
    StreamEnds {
        at_expiry: route.at_expiry == StreamEnd::Close,
        at_change: route.at_change == StreamEnd::Close,
    }
}

fn mismatch(written: &mut Written, place: &KeyPath, route: &config::Route) -> Mismatch {
    let Some(status) = route.mismatch else {
        return Mismatch::default();
    };
    if !matches!(route.access, Access::Owner(_)) {
        written.report(
            place.key("mismatch"),
            "means nothing on a route without an owner",
        );
    }
    match status {
        403 => Mismatch::Forbidden,
        404 => Mismatch::NotFound,
        401 => Mismatch::Unauthorized,
        _ => {
            written.report(
                place.key("mismatch"),
                format!("must be 403, 404 or 401, not {status}"),
            );
            Mismatch::default()
        }
    }
}

pub(super) fn methods(
    written: &mut Written,
    place: &KeyPath,
    names: Option<&[String]>,
) -> Vec<Method> {
    let Some(names) = names else {
        return METHODS.to_vec();
    };
    let place = place.key("methods");
    if names.is_empty() {
        written.report(
            place.clone(),
            "needs at least one method; leave it out to allow all",
        );
    }
    let mut methods = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let known = METHODS.iter().find(|method| method.as_str() == name);
        match known {
            // RFC 9110 section 9.1: whoever has GET has HEAD.
            Some(method) if *method == Method::GET => methods.extend([Method::GET, Method::HEAD]),
            Some(method) => methods.push(method.clone()),
            None => {
                let known = METHODS.each_ref().map(Method::as_str).join("`, `");
                written.report(place.index(index), format!("`{name}` is none of `{known}`"));
            }
        }
    }
    methods.sort_by_key(|method| METHODS.iter().position(|known| known == method));
    methods.dedup();
    methods
}

/// The names that only the gate may write, as this configuration has them.
fn managed_names(written: &Written) -> ManagedNames {
    let identity = written.config.identity.headers.keys();
    let identity: Vec<HeaderName> = identity.filter_map(|name| name.parse().ok()).collect();
    ManagedNames::new(identity.iter().chain(&[X_USER_ID]))
}

/// The place of the named upstream in the order of their names, or of the only one.
fn upstream(written: &mut Written, place: &KeyPath, name: Option<&str>) -> UpstreamId {
    let names: Vec<String> = written.config.upstreams.keys().cloned().collect();
    let place = place.key("upstream");
    let Some(name) = name else {
        if names.len() > 1 {
            let names = names.join("`, `");
            written.report(
                place,
                format!("must be said, because there are several: `{names}`"),
            );
        }
        return UpstreamId::default();
    };
    if let Some(index) = names.iter().position(|known| known == name) {
        return UpstreamId(index);
    }
    if !written.has(&KeyPath::of("upstreams").key(name)) {
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let hint = match config::nearest(name, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are `{}`", known.join("`, `")),
        };
        written.report(place, format!("there is no upstream `{name}`; {hint}"));
    }
    UpstreamId::default()
}

/// A path that a stricter route does not see, because its upstream reads it less exactly than the gate, falls to a
/// broader public one.
fn warn_about_broad_public(
    written: &Written,
    warnings: &mut Vec<String>,
    routes: &[Route],
    places: &[KeyPath],
) {
    for (route, place) in routes.iter().zip(places) {
        let (Rule::Public, Some((prefix, _))) =
            (&route.access.rule, route.pattern.split_once("/{*"))
        else {
            continue;
        };
        let is_narrower = |other: &&Route| {
            let rest = other.pattern.strip_prefix(prefix);
            other.access.rule != Rule::Public && rest.is_some_and(|rest| rest.starts_with('/'))
        };
        if let Some(stricter) = routes.iter().find(is_narrower) {
            warnings.push(format!(
                "{}: is public and broader than `{}`: an upstream that takes no notice of case would serve \
                 what the other protects, under another spelling of its path",
                written.place(&place.key("path")),
                stricter.pattern
            ));
        }
    }
}

/// A path that names a user, on a route where any caller may name any user, is most likely a mistake.
fn warn_about_ownerless(
    written: &Written,
    warnings: &mut Vec<String>,
    routes: &[Route],
    places: &[KeyPath],
) {
    let mut owners = vec!["user_id"];
    for route in routes {
        if let Rule::Owner { parameter, .. } = &route.access.rule {
            owners.push(parameter);
        }
    }
    for (route, place) in routes.iter().zip(places) {
        let owner = owners
            .iter()
            .find(|owner| route.pattern.contains(&format!("{{{owner}}}")));
        if let (Some(owner), false) = (owner, matches!(route.access.rule, Rule::Owner { .. })) {
            warnings.push(format!(
                "{}: its path has `{{{owner}}}`, but nobody has to be that user: if only the user may, say `access = \
                 {{ owner = \"{owner}\" }}`",
                written.place(&place.key("path"))
            ));
        }
    }
}
