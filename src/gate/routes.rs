//! Route table: routes by path and method. The only file that uses matchit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::{HeaderValue, Method};
use matchit::{InsertError, Router};

use super::access::{Access, Rule};
use super::path::{BoundSegment, CanonicalPath};
use super::refusal::Refusal;

/// Methods that a route can have. CONNECT and TRACE are never served.
pub const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// A compiled route: the requests it matches and the access they need.
#[derive(Debug)]
pub struct Route {
    /// Index of the route in its configuration.
    pub id: RouteId,
    /// Configured path; the route's name in logs and metrics.
    pub pattern: Arc<str>,
    pub methods: Vec<Method>,
    pub access: Access,
}

/// Index of a route in its configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteId(pub usize);

/// Routes by path and method. The gate forwards no request without a route.
#[derive(Debug, Default)]
pub struct RouteTable {
    paths: Router<usize>,
    entries: Vec<PathEntry>,
}

/// Routes of one path.
#[derive(Debug)]
struct PathEntry {
    routes: Vec<EntryRoute>,
    /// `Allow` of the path.
    allow: HeaderValue,
}

/// A route of the table.
#[derive(Debug)]
struct EntryRoute {
    route: Arc<Route>,
    /// Index of the segment that names the owner.
    owner: Option<usize>,
}

/// Route of a request.
#[derive(Debug)]
pub struct RouteMatch<'a> {
    pub route: &'a Arc<Route>,
    /// Segment that names the owner, on a route with an owner rule.
    pub owner: Option<BoundSegment<'a>>,
}

/// Reason why the table rejects a route.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RouteProblem {
    #[error("must start with `/`, got an empty string")]
    Empty,
    #[error("`{pattern}` {fault}")]
    Path {
        pattern: String,
        fault: &'static str,
    },
    /// An owner rule would compare only one of the two segments.
    #[error("`{pattern}` has two parameters `{{{parameter}}}`; give each a different name")]
    DuplicateParameter { pattern: String, parameter: String },
    #[error(
        "`{pattern}` conflicts with route `{with}`: some requests match both; use the same parameter names, or make the \
         paths distinct"
    )]
    Conflict {
        pattern: String,
        /// Path of the other route.
        with: String,
    },
    #[error(
        "another route has the path `{pattern}` and the method {method}; remove the method from one of them"
    )]
    Duplicate { pattern: String, method: Method },
    #[error(
        "`{pattern}` has no segment `{{{parameter}}}`, which `owner` names; add the segment or change `owner`"
    )]
    MissingOwner { pattern: String, parameter: String },
}

impl Route {
    /// Creates a route for every method, without requirements beyond its rule.
    pub fn new(pattern: &str, rule: Rule) -> Self {
        Self {
            id: RouteId::default(),
            pattern: pattern.into(),
            methods: METHODS.to_vec(),
            access: Access::new(rule),
        }
    }
}

impl RouteTable {
    /// Builds the table. Returns each rejected route as its index in `routes` and the reason.
    pub fn new(routes: Vec<Route>) -> (Self, Vec<(usize, RouteProblem)>) {
        let mut table = Self::default();
        let mut problems = Vec::new();
        let mut by_pattern: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for (index, mut route) in routes.into_iter().enumerate() {
            route.id = RouteId(index);
            if let Err(problem) = table.add(route, &mut by_pattern) {
                problems.push((index, problem));
            }
        }
        let patterns: Vec<_> = by_pattern.into_iter().collect();
        for (pattern, entry) in patterns {
            table.add_bare_forms(&pattern, entry);
        }
        (table, problems)
    }

    fn add(
        &mut self,
        route: Route,
        by_pattern: &mut BTreeMap<Arc<str>, usize>,
    ) -> Result<(), RouteProblem> {
        check_pattern(&route.pattern)?;
        let owner = owner_segment(&route)?;
        let route = EntryRoute {
            route: Arc::new(route),
            owner,
        };
        let pattern = Arc::clone(&route.route.pattern);
        if let Some(entry) = by_pattern
            .get(&pattern)
            .and_then(|at| self.entries.get_mut(*at))
        {
            return entry.add(route);
        }
        let number = self.entries.len();
        let inserted = self.paths.insert(pattern.as_ref(), number);
        inserted.map_err(|error| insert_problem(&pattern, &error))?;
        by_pattern.insert(pattern, number);
        let allow = allow(std::slice::from_ref(&route));
        self.entries.push(PathEntry {
            routes: vec![route],
            allow,
        });
        Ok(())
    }

    /// Lets `/x/{*rest}` match `/x` and `/x/` too, unless other routes match them.
    fn add_bare_forms(&mut self, pattern: &str, entry: usize) {
        let Some((bare, _)) = pattern.rsplit_once("/{*") else {
            return;
        };
        for form in [bare.to_owned(), format!("{bare}/")] {
            if !form.is_empty() {
                // A conflict means that another route has this path. It was inserted first and stays.
                let _other_route = self.paths.insert(form, entry);
            }
        }
    }

    /// Finds the route of a request and binds its owner segment.
    pub fn find<'a>(
        &'a self,
        method: &Method,
        path: CanonicalPath<'a>,
    ) -> Result<RouteMatch<'a>, Refusal> {
        let Ok(found) = self.paths.at(path.as_str()) else {
            return Err(Refusal::NoRoute);
        };
        let Some(entry) = self.entries.get(*found.value) else {
            return Err(Refusal::NoRoute);
        };
        let mut routes = entry.routes.iter();
        let Some(EntryRoute { route, owner }) =
            routes.find(|one| one.route.methods.contains(method))
        else {
            return Err(Refusal::MethodNotAllowed(entry.allow.clone()));
        };
        let owner = match owner.and_then(|index| path.segments().nth(index)) {
            Some((at, segment)) => {
                Some(BoundSegment::new(segment, at).map_err(Refusal::PathNotCanonical)?)
            }
            None => None,
        };
        Ok(RouteMatch { route, owner })
    }

    /// Returns whether any route of this path has a CORS policy.
    pub(super) fn has_cors_at(&self, path: CanonicalPath<'_>) -> bool {
        let found = self.paths.at(path.as_str()).ok();
        let entry = found.and_then(|found| self.entries.get(*found.value));
        entry.is_some_and(|entry| entry.routes().any(|route| route.access.cors.is_some()))
    }

    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.entries.iter().flat_map(PathEntry::routes)
    }
}

impl PathEntry {
    fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter().map(|one| &one.route)
    }

    fn add(&mut self, added: EntryRoute) -> Result<(), RouteProblem> {
        let route = &added.route;
        for method in &route.methods {
            if self.routes().any(|other| other.methods.contains(method)) {
                return Err(RouteProblem::Duplicate {
                    pattern: route.pattern.as_ref().to_owned(),
                    method: method.clone(),
                });
            }
        }
        self.routes.push(added);
        self.allow = allow(&self.routes);
        Ok(())
    }
}

/// Value of `Allow` (RFC 9110 section 10.2.1).
fn allow(routes: &[EntryRoute]) -> HeaderValue {
    let has = |method: &&Method| {
        let mut routes = routes.iter();
        routes.any(|one| one.route.methods.contains(method))
    };
    let names: Vec<&str> = METHODS.iter().filter(has).map(Method::as_str).collect();
    HeaderValue::from_str(&names.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Index of the segment that names the owner, on a route with an owner rule.
fn owner_segment(route: &Route) -> Result<Option<usize>, RouteProblem> {
    let Rule::Owner { parameter, .. } = &route.access.rule else {
        return Ok(None);
    };
    let wanted = format!("{{{parameter}}}");
    let mut segments = route.pattern.split('/').skip(1);
    if let Some(index) = segments.position(|segment| segment == wanted) {
        return Ok(Some(index));
    }
    Err(RouteProblem::MissingOwner {
        pattern: route.pattern.as_ref().to_owned(),
        parameter: parameter.clone(),
    })
}

/// Rejects a pattern that no canonical path matches: the gate matches only canonical paths.
fn check_pattern(pattern: &str) -> Result<(), RouteProblem> {
    if pattern.is_empty() {
        return Err(RouteProblem::Empty);
    }
    if !pattern.starts_with('/') {
        return Err(invalid_path(pattern, "must start with `/`"));
    }
    let mut example = String::new();
    let mut names = BTreeSet::new();
    let mut rest = pattern;
    while let Some((text, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        if !names.insert(name) {
            return Err(RouteProblem::DuplicateParameter {
                pattern: pattern.to_owned(),
                parameter: name.to_owned(),
            });
        }
        example.extend([text, "x"]);
        rest = after;
    }
    example.push_str(rest);
    if CanonicalPath::parse(&example).is_err() {
        return Err(invalid_path(
            pattern,
            "matches no request; remove dot segments, empty segments and characters that RFC 3986 does not allow in \
             a path",
        ));
    }
    Ok(())
}

fn insert_problem(pattern: &str, error: &InsertError) -> RouteProblem {
    let fault = match error {
        InsertError::Conflict { with } => {
            return RouteProblem::Conflict {
                pattern: pattern.to_owned(),
                with: with.clone(),
            };
        }
        InsertError::InvalidParamSegment => {
            "has two parameters in one segment; use one parameter per segment"
        }
        InsertError::InvalidParam => {
            "has a parameter without a name or a closing brace; write `{name}`"
        }
        InsertError::InvalidCatchAll => {
            "has a wildcard `{*…}` before its end; only the last segment can be a wildcard"
        }
        _ => "is not a valid route path",
    };
    invalid_path(pattern, fault)
}

fn invalid_path(pattern: &str, fault: &'static str) -> RouteProblem {
    RouteProblem::Path {
        pattern: pattern.to_owned(),
        fault,
    }
}

#[cfg(test)]
mod tests;
