//! Compiles `[[routes]]`.

mod limits;
mod rewrites;
mod tokens;

use std::collections::BTreeMap;

use crate::config::{self, Access, ConfigDocument, KeyPath, StreamEnd};
use crate::gate::access::{self, Rule};
use crate::gate::cors::Cors;
use crate::gate::issuer_id::IssuerId;
use crate::gate::refusal::Mismatch;
use crate::gate::routes::{Route, RouteId, RouteTable};
use crate::gate::token::TokenSources;
use crate::proxy::forwarding::{Forwarding, StreamEnds};
use crate::proxy::upstream::UpstreamId;

use super::checks::check_time;
use super::methods::methods;
use super::resource::Resource;
use super::{cors, requirements};

pub(super) fn compile(
    document: &mut ConfigDocument,
    cors: Option<&Cors>,
    resource: Option<&Resource>,
    warnings: &mut Vec<String>,
) -> (RouteTable, Vec<Forwarding>) {
    let section = KeyPath::of("routes");
    if document.lacks("routes") {
        document.report(
            KeyPath::default(),
            "no route is configured, so every request would be rejected; add [[routes]]",
        );
    }
    let routes = document.config.routes.clone();
    let paths: Vec<KeyPath> = document.elements(&section).take(routes.len()).collect();
    let (mut compiled, mut forwarding) = (Vec::new(), Vec::new());
    for (route, path) in routes.into_iter().zip(&paths) {
        let (route, forwarded) = one(document, path, route, cors, resource);
        compiled.push(route);
        forwarding.push(forwarded);
    }
    warn_about_ownerless(document, warnings, &compiled, &paths);
    warn_about_broad_public(document, warnings, &compiled, &paths);
    warn_about_shared_subjects(document, warnings, &compiled, &paths);
    rewrites::warn_about_merged(document, warnings, &compiled, &forwarding, &paths);
    let (table, problems) = RouteTable::new(compiled);
    for (index, problem) in problems {
        if let Some(path) = paths.get(index) {
            document.report(path.key("path"), problem.to_string());
        }
    }
    (table, forwarding)
}

fn one(
    document: &mut ConfigDocument,
    path: &KeyPath,
    route: config::Route,
    common: Option<&Cors>,
    resource: Option<&Resource>,
) -> (Route, Forwarding) {
    let public = route.access == Access::Public;
    if !public && document.config.issuers.is_empty() && document.lacks("issuers") {
        document.report(
            path.key("access"),
            "requires a token, but no issuer is configured; add [issuers.NAME]",
        );
    }
    check_time(document, &path.key("timeout"), route.timeout);
    check_time(
        document,
        &path.key("request_timeout"),
        route.request_timeout,
    );
    let streams = streams(document, path, &route);
    let mismatch = mismatch(document, path, &route);
    let tokens = tokens::compile(document, path, &route);
    let path_rewrite = rewrites::prefix(document, path, &route);
    let mut edits = |key, named: &Option<_>, tokens: Option<&TokenSources>| {
        rewrites::edits(document, &path.key(key), named.as_ref(), tokens)
    };
    let request_headers = edits("request_headers", &route.request_headers, Some(&tokens));
    // Responses carry no token, so no header is reserved for one.
    let response_headers = edits("response_headers", &route.response_headers, None);
    let methods = methods(document, path, route.methods.as_deref());
    let cors = cors::of_route(document, path, route.cors.as_ref(), common);
    if cors.is_some() {
        rewrites::report_cors(document, path, route.response_headers.as_ref());
    }
    let forwarding = Forwarding {
        upstream: upstream(document, path, route.upstream.as_deref()),
        timeout: route.timeout,
        max_body_bytes: route.max_body_bytes,
        request_timeout: route.request_timeout,
        streams,
        path_rewrite,
        forward_method_override: route.forward_method_override,
        grpc: route.grpc,
        request_headers,
        response_headers,
    };
    let requirements = requirements::compile(document, path, &route);
    let resource = resource.filter(|_| route.resource == Some(true));
    let access = access::Access {
        resource: resource.map(|resource| resource.challenge(&requirements)),
        cors: cors.map(|cors| cors.limited_to(&methods)),
        requirements,
        limits: limits::compile(document, path, &route, &methods),
        dpop: route.dpop,
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

fn streams(document: &mut ConfigDocument, path: &KeyPath, route: &config::Route) -> StreamEnds {
    if route.access == Access::Public && document.has(&path.key("at_expiry")) {
        document.report(
            path.key("at_expiry"),
            "has no effect on a public route: its streams have no token",
        );
    }
    StreamEnds {
        at_expiry: route.at_expiry == StreamEnd::Close,
        at_change: route.at_change == StreamEnd::Close,
    }
}

fn mismatch(document: &mut ConfigDocument, path: &KeyPath, route: &config::Route) -> Mismatch {
    let key = path.key("mismatch");
    if document.has(&key) && !document.is_invalid(&key) && !matches!(route.access, Access::Owner(_))
    {
        document.report(key.clone(), "has no effect on a route without an owner");
    }
    match route.mismatch {
        403 => Mismatch::Forbidden,
        404 => Mismatch::NotFound,
        401 => Mismatch::Unauthorized,
        status => {
            document.report(key, format!("must be 403, 404 or 401, got {status}"));
            Mismatch::default()
        }
    }
}

/// Index of the named upstream, or of the only one.
fn upstream(document: &mut ConfigDocument, path: &KeyPath, name: Option<&str>) -> UpstreamId {
    let names: Vec<String> = document.config.upstreams.keys().cloned().collect();
    let path = path.key("upstream");
    let Some(name) = name else {
        if names.len() > 1 {
            let names = names.join("`, `");
            document.report(
                path,
                format!("is required because several upstreams are configured: `{names}`"),
            );
        }
        return UpstreamId::default();
    };
    if let Some(index) = names.iter().position(|known| known == name) {
        return UpstreamId(index);
    }
    if !document.has(&KeyPath::of("upstreams").key(name)) {
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        if name.contains(['/', ':']) {
            // The message omits the URL: it may contain a password.
            document.report(
                path,
                "must be the name of an upstream, not a URL; add [upstreams.NAME] with this `url`, and write NAME here",
            );
            return UpstreamId::default();
        }
        let hint = match config::suggest(name, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("expected one of `{}`", known.join("`, `")),
        };
        document.report(path, format!("unknown upstream `{name}`; {hint}"));
    }
    UpstreamId::default()
}

/// Warns about a broad public route next to a stricter one: paths that only the upstream maps to the protected resources
/// match the public one.
fn warn_about_broad_public(
    document: &ConfigDocument,
    warnings: &mut Vec<String>,
    routes: &[Route],
    paths: &[KeyPath],
) {
    for (route, path) in routes.iter().zip(paths) {
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
                "{}: is public and broader than `{}`: each path that no stricter route lists is served without a token",
                document.location(&path.key("path")),
                stricter.pattern
            ));
        }
    }
}

/// Warns about routes that accept several issuers with one namespace of subjects: equal subjects are one user. Routes
/// with the same issuers share a warning.
fn warn_about_shared_subjects(
    document: &ConfigDocument,
    warnings: &mut Vec<String>,
    routes: &[Route],
    paths: &[KeyPath],
) {
    let issuers: Vec<_> = document.config.issuers.iter().collect();
    let mut warned: BTreeMap<Vec<&str>, (&KeyPath, usize)> = BTreeMap::new();
    for (route, path) in routes.iter().zip(paths) {
        if route.access.rule == Rule::Public {
            continue;
        }
        let accepted = route.access.requirements.issuers.as_ref();
        let mut namespaces: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (index, (name, issuer)) in issuers.iter().enumerate() {
            if accepted.is_none_or(|accepted| accepted.contains(&IssuerId(index))) {
                let prefix = issuer.subject_prefix.as_deref().unwrap_or_default();
                namespaces.entry(prefix).or_default().push(name);
            }
        }
        for shared in namespaces.into_values().filter(|names| names.len() > 1) {
            let (_, count) = warned.entry(shared).or_insert((path, 0));
            *count += 1;
        }
    }
    for (names, (path, count)) in warned {
        let others = match count {
            1 => String::new(),
            2 => ", like one other route".to_owned(),
            count => format!(", like {} other routes", count - 1),
        };
        warnings.push(format!(
            "{}: accepts the issuers `{}`{others}: equal subjects of these issuers are one user; set \
             `subject_prefix` on all of them but one, or `issuers` on the route",
            document.location(&path.key("path")),
            names.join("`, `"),
        ));
    }
}

/// Warns about an owner parameter in the path of a route without owner binding.
fn warn_about_ownerless(
    document: &ConfigDocument,
    warnings: &mut Vec<String>,
    routes: &[Route],
    paths: &[KeyPath],
) {
    let mut owners = vec!["user_id"];
    for route in routes {
        if let Rule::Owner { parameter, .. } = &route.access.rule {
            owners.push(parameter);
        }
    }
    for (route, path) in routes.iter().zip(paths) {
        let owner = owners
            .iter()
            .find(|owner| route.pattern.contains(&format!("{{{owner}}}")));
        if let (Some(owner), false) = (owner, matches!(route.access.rule, Rule::Owner { .. })) {
            warnings.push(format!(
                "{}: the path contains `{{{owner}}}`, but every caller may use every value; to restrict the route \
                 to the owner, set `access = {{ owner = \"{owner}\" }}`",
                document.location(&path.key("path"))
            ));
        }
    }
}
