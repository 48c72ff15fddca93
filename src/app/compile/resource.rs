//! Compiles `[resource]`: the metadata, the routes of the resource, and the defaults of these routes and their issuers.

use std::sync::Arc;

use http::Uri;
use serde_json::{Map, Value};

use crate::config::{self, Access, ConfigDocument, DpopMode, KeyPath, OneOrMany};
use crate::gate::access::Requirements;
use crate::gate::path::CanonicalPath;
use crate::gate::requirement::is_scope;
use crate::gate::resource::{ResourceChallenge, ResourceMetadata};
use crate::keys::{Algorithm, KeyKind};

use super::keys;
use super::urls;

/// Type of OAuth access tokens (RFC 9068 section 2.1).
const ACCESS_TOKEN: &str = "at+jwt";

/// Compiled resource.
pub(super) struct Resource {
    pub(super) metadata: Arc<ResourceMetadata>,
    origin: String,
    path: String,
}

impl Resource {
    /// Challenge of a route of the resource, with the scope that its requirements name.
    pub(super) fn challenge(&self, requirements: &Requirements) -> Arc<ResourceChallenge> {
        let scope = requirements.scope();
        Arc::new(ResourceChallenge::new(&self.origin, &self.path, scope))
    }
}

/// Compiles the table. Marks the routes of the resource, and sets the defaults of these routes and of the issuers of the
/// authorization servers, so it precedes both.
pub(super) fn compile(
    document: &mut ConfigDocument,
    warnings: &mut Vec<String>,
) -> Option<Resource> {
    let Some(resource) = document.config.resource.clone() else {
        report_routes_without_resource(document);
        return None;
    };
    let section = KeyPath::of("resource");
    let url = resource_url(document, &section.key("url"), &resource.url);
    let issuers = issuers(document, &section, &resource.authorization_servers);
    check_scopes(document, &section.key("scopes"), &resource.scopes);
    check_texts(document, &section, &resource);
    let url = url?;
    let all = document.config.issuers.iter();
    let of_resource = all.filter(|(name, _)| issuers.contains(name));
    let dpop: Vec<DpopMode> = of_resource.map(|(_, issuer)| issuer.dpop).collect();
    let metadata = metadata(&resource, &dpop);
    let compiled = Resource {
        metadata: Arc::new(ResourceMetadata::new(url.path(), &metadata)),
        origin: origin(&url),
        path: url.path().to_owned(),
    };
    report_shadowed_routes(document, &compiled);
    mark_routes(document, warnings, url.path(), &issuers);
    for name in &issuers {
        set_issuer_defaults(document, name, &resource.url);
    }
    Some(compiled)
}

/// Metadata document (RFC 9728 section 2).
fn metadata(resource: &config::Resource, dpop: &[DpopMode]) -> Value {
    let mut document = Map::new();
    let mut add = |name: &str, value: Value| document.insert(name.to_owned(), value);
    add("resource", resource.url.as_str().into());
    add(
        "authorization_servers",
        resource.authorization_servers.clone().into(),
    );
    add("bearer_methods_supported", vec!["header"].into());
    if dpop.iter().any(|mode| *mode != DpopMode::Off) {
        let algorithms = Algorithm::ALL.into_iter();
        let algorithms = algorithms.filter(|it| it.kind() != KeyKind::Secret);
        let algorithms: Vec<&str> = algorithms.map(Algorithm::name).collect();
        add("dpop_signing_alg_values_supported", algorithms.into());
        let is_required = dpop.iter().all(|mode| *mode == DpopMode::Required);
        add("dpop_bound_access_tokens_required", is_required.into());
    }
    if !resource.scopes.is_empty() {
        add("scopes_supported", resource.scopes.clone().into());
    }
    if let Some(name) = &resource.name {
        add("resource_name", name.as_str().into());
    }
    if let Some(url) = &resource.documentation {
        add("resource_documentation", url.as_str().into());
    }
    document.into()
}

fn origin(url: &Uri) -> String {
    let authority = url.authority().map(ToString::to_string);
    let scheme = url.scheme_str().unwrap_or_default();
    format!("{scheme}://{}", authority.unwrap_or_default())
}

fn resource_url(document: &mut ConfigDocument, path: &KeyPath, text: &str) -> Option<Uri> {
    let url = identifier(document, path, text, "https://api.example.com/tasks")?;
    if let Err(fault) = CanonicalPath::parse(url.path()) {
        document.report(path.clone(), fault.to_string());
        return None;
    }
    Some(url)
}

/// Parses an identifier of OAuth: an `https://` URL without a query and a fragment (RFC 8414 section 2, RFC 9728 section
/// 1.2), or `http://` on this machine.
fn identifier(
    document: &mut ConfigDocument,
    path: &KeyPath,
    text: &str,
    example: &str,
) -> Option<Uri> {
    let url: Option<Uri> = text.parse().ok();
    let authority = url.as_ref().and_then(Uri::authority);
    let problem = if authority.is_some_and(|authority| authority.as_str().contains('@')) {
        "must not contain a user name or a password".to_owned()
    } else if text.contains(['?', '#']) {
        format!("must have neither a query nor a fragment, such as \"{example}\"")
    } else {
        match url {
            Some(url) if url.scheme_str() == Some("https") => return Some(url),
            Some(url) if url.scheme_str() == Some("http") => {
                if urls::is_this_machine(&url) {
                    return Some(url);
                }
                format!("must use `https://`, such as \"{example}\"; `http://` is for this machine")
            }
            _ => format!(
                "`{text}` is not a valid URL; {}",
                urls::meant(text, example)
            ),
        }
    };
    document.report(path.clone(), problem);
    None
}

/// Names of the issuers of the authorization servers.
fn issuers(document: &mut ConfigDocument, section: &KeyPath, servers: &[String]) -> Vec<String> {
    let path = section.key("authorization_servers");
    if servers.is_empty() && !document.is_invalid(&path) {
        document.report(
            path.clone(),
            "must list at least one issuer identifier, such as \"https://app.example/api/auth\"",
        );
    }
    let elements: Vec<KeyPath> = document.elements(&path).take(servers.len()).collect();
    let configured = document.config.issuers.clone();
    let mut names: Vec<String> = Vec::new();
    for (server, element) in servers.iter().zip(elements) {
        let Some(_url) = identifier(document, &element, server, "https://app.example/api/auth")
        else {
            continue;
        };
        let accepts = |issuer: &config::Issuer| keys::named_issuers(issuer).contains(server);
        let found = configured.iter().find(|(_, issuer)| accepts(issuer));
        match found {
            Some((name, _)) if names.contains(name) => {}
            Some((name, _)) => names.push(name.clone()),
            None if document.is_invalid(&KeyPath::of("issuers")) => {}
            None => document.report(
                element,
                format!(
                    "no issuer accepts the `iss` \"{server}\"; add `[issuers.NAME]` with `keys = {{ discovery = \
                     \"{}/.well-known/openid-configuration\" }}`",
                    server.trim_end_matches('/')
                ),
            ),
        }
    }
    names
}

fn check_scopes(document: &mut ConfigDocument, path: &KeyPath, scopes: &[String]) {
    let elements: Vec<KeyPath> = document.elements(path).take(scopes.len()).collect();
    for (scope, element) in scopes.iter().zip(elements) {
        if !is_scope(scope) {
            document.report(
                element,
                format!("`{scope}` is not a single scope: RFC 6749 section 3.3 allows no space, quote or backslash in it"),
            );
        }
    }
}

fn check_texts(document: &mut ConfigDocument, section: &KeyPath, resource: &config::Resource) {
    let path = section.key("documentation");
    if let Some(text) = &resource.documentation {
        let url: Option<Uri> = text.parse().ok();
        let is_page = url.is_some_and(|url| matches!(url.scheme_str(), Some("http" | "https")));
        if !is_page {
            let meant = urls::meant(text, "https://api.example.com/docs");
            document.report(path, format!("`{text}` is not a valid URL; {meant}"));
        }
    }
    if let Some(name) = &resource.name
        && name.trim().is_empty()
    {
        document.report(section.key("name"), "must not be empty");
    }
}

/// Reports a route at a path of the metadata: the gate itself responds there.
fn report_shadowed_routes(document: &mut ConfigDocument, resource: &Resource) {
    let section = KeyPath::of("routes");
    let routes = document.config.routes.clone();
    let paths: Vec<KeyPath> = document.elements(&section).take(routes.len()).collect();
    for (route, path) in routes.iter().zip(paths) {
        if resource.metadata.is_at(&route.path) {
            document.report(
                path.key("path"),
                format!(
                    "`{}` is the path of the metadata of [resource], which the gate serves itself; remove the route or \
                     [resource]",
                    route.path
                ),
            );
        }
    }
}

fn report_routes_without_resource(document: &mut ConfigDocument) {
    if !document.lacks("resource") {
        return;
    }
    let section = KeyPath::of("routes");
    let count = document.config.routes.len();
    let paths: Vec<KeyPath> = document.elements(&section).take(count).collect();
    for path in paths {
        let path = path.key("resource");
        if document.has(&path) {
            document.report(path, "has no effect without [resource]");
        }
    }
}

/// Decides for each route whether it is one of the resource, and sets the default of its `issuers`.
fn mark_routes(
    document: &mut ConfigDocument,
    warnings: &mut Vec<String>,
    resource_path: &str,
    issuers: &[String],
) {
    let section = KeyPath::of("routes");
    let mut routes = document.config.routes.clone();
    let paths: Vec<KeyPath> = document.elements(&section).take(routes.len()).collect();
    for (route, path) in routes.iter_mut().zip(paths) {
        let is_public = route.access == Access::Public;
        if is_public && route.resource == Some(true) {
            document.report(
                path.key("resource"),
                "has no effect on a public route, which verifies no token",
            );
        }
        let is_below = || is_at_or_below(&route.path, resource_path);
        let is_of_resource = !is_public && route.resource.unwrap_or_else(is_below);
        route.resource = Some(is_of_resource);
        let issuers_path = path.key("issuers");
        if is_of_resource && !issuers.is_empty() && !document.has(&issuers_path) {
            route.issuers = Some(issuers.to_vec());
        }
    }
    if !routes.iter().any(|route| route.resource == Some(true)) {
        warnings.push(format!(
            "{}: no route with a token is at or below `{resource_path}`, so no challenge leads to the metadata; set \
             `resource = true` on the routes of the resource",
            document.location(&KeyPath::of("resource").key("url"))
        ));
    }
    document.config.routes = routes;
}

/// Returns whether a path pattern is at or below a path, in whole segments.
fn is_at_or_below(pattern: &str, path: &str) -> bool {
    let rest = pattern.strip_prefix(path.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Sets the defaults of an issuer of the resource. A Better Auth server has defaults of its own, for session JWTs.
fn set_issuer_defaults(document: &mut ConfigDocument, name: &str, url: &str) {
    let path = KeyPath::of("issuers").key(name);
    let has_types = document.has(&path.key("types"));
    let has_audience = document.has(&path.key("audience"));
    let Some(issuer) = document.config.issuers.get_mut(name) else {
        return;
    };
    if issuer.better_auth.is_some() {
        return;
    }
    if !has_audience && !issuer.allow_any_audience {
        issuer.audience = Some(OneOrMany(vec![url.to_owned()]));
    }
    if !has_types {
        issuer.types = vec![ACCESS_TOKEN.to_owned()];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_routes_below_a_path() {
        for (pattern, path, expected) in [
            ("/tasks", "/tasks", true),
            ("/tasks/", "/tasks", true),
            ("/tasks/{*rest}", "/tasks", true),
            ("/tasks/{*rest}", "/tasks/", true),
            ("/tasks2", "/tasks", false),
            ("/task", "/tasks", false),
            ("/{tasks}", "/tasks", false),
            ("/{*rest}", "/tasks", false),
            ("/{*rest}", "/", true),
            ("/", "/", true),
        ] {
            assert_eq!(is_at_or_below(pattern, path), expected, "{pattern} {path}");
        }
    }
}
