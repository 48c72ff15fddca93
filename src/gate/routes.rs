//! The route table: which requests exist. The only file that names matchit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::{HeaderValue, Method};
use matchit::{InsertError, Router};

use super::access::{Access, Rule};
use super::path::{BoundSegment, CanonicalPath};
use super::refusal::Refusal;

/// The methods that a route may have. CONNECT and TRACE are never served.
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

/// Every route by path and method. What is not in it does not exist.
#[derive(Debug, Default)]
pub struct RouteTable {
    paths: Router<usize>,
    entries: Vec<PathEntry>,
}

/// All that is at one path.
#[derive(Debug)]
struct PathEntry {
    routes: Vec<Arc<Route>>,
    allow: HeaderValue,
}

/// A route that has the path and the method of a request.
#[derive(Debug)]
pub struct RouteMatch<'a> {
    /// The route.
    pub route: &'a Arc<Route>,
    /// The segment that names the owner, if the route has one.
    pub owner: Option<BoundSegment<'a>>,
}

/// Why a route cannot be in the table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RouteProblem {
    /// The path is not one that matchit can read.
    #[error("{0}")]
    Path(&'static str),
    /// One name stands for two segments, of which only one would be looked at.
    #[error("has two segments `{{{parameter}}}`: give each a name of its own")]
    TwoSegments {
        /// The name of both.
        parameter: String,
    },
    /// Another route has the same requests.
    #[error("conflicts with the route `{with}`: some requests would belong to both")]
    Conflict {
        /// The other route's path.
        with: String,
    },
    /// The same path and method twice.
    #[error("is there already: two routes have the path `{pattern}` and the method {method}")]
    Repeated {
        /// The path of both.
        pattern: String,
        /// A method of both.
        method: Method,
    },
    /// The owner is not a part of the path.
    #[error("its owner is `{{{parameter}}}`, but its path `{pattern}` has no such segment")]
    NoSuchParameter {
        /// The name that was asked for.
        parameter: String,
        /// The path.
        pattern: String,
    },
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
    /// Builds the table. Gives every route that cannot be in it, with its place in `routes`.
    pub fn new(routes: Vec<Route>) -> (Self, Vec<(usize, RouteProblem)>) {
        let mut table = Self::default();
        let mut problems = Vec::new();
        let mut by_pattern: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for (index, mut route) in routes.into_iter().enumerate() {
            route.id = RouteId(index);
            if let Err(problem) = table.add(Arc::new(route), &mut by_pattern) {
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
        route: Arc<Route>,
        by_pattern: &mut BTreeMap<Arc<str>, usize>,
    ) -> Result<(), RouteProblem> {
        check_pattern(&route.pattern)?;
        check_parameter(&route)?;
        if let Some(entry) = by_pattern
            .get(&route.pattern)
            .and_then(|at| self.entries.get_mut(*at))
        {
            return entry.add(route);
        }
        let number = self.entries.len();
        let inserted = self.paths.insert(route.pattern.as_ref(), number);
        inserted.map_err(|error| explain(&error))?;
        by_pattern.insert(Arc::clone(&route.pattern), number);
        let allow = allow(std::slice::from_ref(&route));
        self.entries.push(PathEntry {
            routes: vec![route],
            allow,
        });
        Ok(())
    }

    /// `/x/{*rest}` also covers `/x` and `/x/`, unless a route of their own does.
    fn add_bare_forms(&mut self, pattern: &str, entry: usize) {
        let Some((bare, _)) = pattern.rsplit_once("/{*") else {
            return;
        };
        for form in [bare.to_owned(), format!("{bare}/")] {
            if !form.is_empty() {
                // A conflict is a route of its own: it was put in first and stays.
                let _own_route = self.paths.insert(form, entry);
            }
        }
    }

    /// Finds the route of a request.
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
        let Some(route) = routes.find(|route| route.methods.contains(method)) else {
            return Err(Refusal::MethodNotAllowed(entry.allow.clone()));
        };
        let Rule::Owner { parameter, .. } = &route.access.rule else {
            return Ok(RouteMatch { route, owner: None });
        };
        let segment = found.params.get(parameter).unwrap_or_default();
        let owner = BoundSegment::new(segment).map_err(|_| Refusal::PathNotCanonical)?;
        Ok(RouteMatch {
            route,
            owner: Some(owner),
        })
    }

    /// Whether browsers are answered here for some route of this path.
    pub(super) fn has_cors_at(&self, path: CanonicalPath<'_>) -> bool {
        let found = self.paths.at(path.as_str()).ok();
        let entry = found.and_then(|found| self.entries.get(*found.value));
        entry.is_some_and(|entry| entry.routes.iter().any(|route| route.access.cors.is_some()))
    }

    /// Every route.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.entries.iter().flat_map(|entry| &entry.routes)
    }
}

impl PathEntry {
    fn add(&mut self, route: Arc<Route>) -> Result<(), RouteProblem> {
        for method in &route.methods {
            if self
                .routes
                .iter()
                .any(|other| other.methods.contains(method))
            {
                return Err(RouteProblem::Repeated {
                    pattern: route.pattern.as_ref().to_owned(),
                    method: method.clone(),
                });
            }
        }
        self.routes.push(route);
        self.allow = allow(&self.routes);
        Ok(())
    }
}

/// The value of `Allow` (RFC 9110 section 10.2.1).
fn allow(routes: &[Arc<Route>]) -> HeaderValue {
    let has = |method: &&Method| routes.iter().any(|route| route.methods.contains(method));
    let names: Vec<&str> = METHODS.iter().filter(has).map(Method::as_str).collect();
    HeaderValue::from_str(&names.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn check_parameter(route: &Route) -> Result<(), RouteProblem> {
    let Rule::Owner { parameter, .. } = &route.access.rule else {
        return Ok(());
    };
    let wanted = format!("{{{parameter}}}");
    if route.pattern.split('/').any(|segment| segment == wanted) {
        return Ok(());
    }
    Err(RouteProblem::NoSuchParameter {
        parameter: parameter.clone(),
        pattern: route.pattern.as_ref().to_owned(),
    })
}

/// A request is matched only after its path was found to have one reading.
fn check_pattern(pattern: &str) -> Result<(), RouteProblem> {
    if !pattern.starts_with('/') {
        return Err(RouteProblem::Path("must start with `/`"));
    }
    let mut example = String::new();
    let mut names = BTreeSet::new();
    let mut rest = pattern;
    while let Some((text, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        if !names.insert(name) {
            let parameter = name.to_owned();
            return Err(RouteProblem::TwoSegments { parameter });
        }
        example.extend([text, "x"]);
        rest = after;
    }
    example.push_str(rest);
    if CanonicalPath::parse(&example).is_err() {
        return Err(RouteProblem::Path(
            "matches no request: a path with dot segments, empty segments or characters that RFC 3986 does not allow \
             is refused before",
        ));
    }
    Ok(())
}

fn explain(error: &InsertError) -> RouteProblem {
    match error {
        InsertError::Conflict { with } => RouteProblem::Conflict { with: with.clone() },
        InsertError::InvalidParamSegment => {
            RouteProblem::Path("has two parameters in one segment: give each a segment of its own")
        }
        InsertError::InvalidParam => RouteProblem::Path(
            "has a parameter without a name or without its braces: write `{name}`",
        ),
        InsertError::InvalidCatchAll => {
            RouteProblem::Path("has `{*…}` before its end: it can only be the last segment")
        }
        _ => RouteProblem::Path("is not a path that can be matched"),
    }
}

#[cfg(test)]
mod tests;
