//! Route table: routes by path and method.
//!
//! A path is looked up in its decoded form and forwarded as received. Paths that some APIs treat as one get one decision:
//! see `spelling`. Only this file and `spelling` use matchit.

mod foreign;
mod methods;
mod near;
mod pattern;
mod problem;
mod spelling;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderValue, Method};
use matchit::{InsertError, Router};

use super::access::{Access, Rule};
use super::path::{BoundSegment, CanonicalPath, decode};
use super::refusal::Refusal;

use pattern::PathPattern;
use spelling::{AccessClass, FoldedRoute, SpellingTable, SpellingTableBuilder};

pub use methods::METHODS;
pub use problem::RouteProblem;

/// Near routes in a message.
const MAX_NEAR: usize = 3;

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
    /// Indices of `entries` by the decoded form of their paths.
    paths: Router<usize>,
    entries: Vec<PathEntry>,
    spellings: SpellingTable,
}

/// Routes of one path.
#[derive(Debug)]
struct PathEntry {
    pattern: PathPattern,
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
    class: AccessClass,
}

/// Route of a request.
#[derive(Debug)]
pub struct RouteMatch<'a> {
    pub route: &'a Arc<Route>,
    /// Segment that names the owner, on a route with an owner rule.
    pub owner: Option<BoundSegment<'a>>,
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
        let mut by_form: BTreeMap<String, usize> = BTreeMap::new();
        for (index, mut route) in routes.into_iter().enumerate() {
            route.id = RouteId(index);
            if let Err(problem) = table.add(route, &mut by_form) {
                problems.push((index, problem));
            }
        }
        for entry in by_form.into_values() {
            table.add_bare_forms(entry);
        }
        problems.extend(table.add_spellings());
        (table, problems)
    }

    fn add(
        &mut self,
        route: Route,
        by_form: &mut BTreeMap<String, usize>,
    ) -> Result<(), RouteProblem> {
        let pattern = PathPattern::parse(&route.pattern)?;
        let owner = owner_segment(&route, &pattern)?;
        let route = EntryRoute {
            class: self.class(&route.access, owner),
            route: Arc::new(route),
            owner,
        };
        let form = pattern.lookup_form();
        if let Some(entry) = by_form.get(&form).and_then(|at| self.entries.get_mut(*at)) {
            return entry.add(route);
        }
        let number = self.entries.len();
        if let Err(error) = self.paths.insert(form.as_str(), number) {
            let with = spelling::conflicting(&error).and_then(|with| by_form.get(with));
            let with = with.and_then(|at| self.entries.get(*at)?.routes().next());
            let with = with.map(|with| with.pattern.as_ref());
            return Err(insert_problem(&route.route.pattern, &error, with));
        }
        by_form.insert(form, number);
        let allow = allow(std::slice::from_ref(&route));
        self.entries.push(PathEntry {
            pattern,
            routes: vec![route],
            allow,
        });
        Ok(())
    }

    /// Class of an access, equal for equal ones.
    fn class(&self, access: &Access, owner: Option<usize>) -> AccessClass {
        let known = || self.entries.iter().flat_map(|entry| &entry.routes);
        let mut same = known().filter(|one| one.owner == owner && one.route.access == *access);
        match same.next() {
            Some(one) => one.class,
            None => AccessClass(known().count()),
        }
    }

    /// Lets `/x/{*rest}` match `/x` and `/x/` too, unless other routes match them.
    fn add_bare_forms(&mut self, entry: usize) {
        let forms = self
            .entries
            .get(entry)
            .map(|entry| entry.pattern.bare_forms());
        for form in forms.into_iter().flatten() {
            // A conflict means that another route has this path. It was inserted first and stays.
            let _other_route = self.paths.insert(form, entry);
        }
    }

    /// Fills the table of spellings. Returns the routes that other routes contradict.
    fn add_spellings(&mut self) -> Vec<(usize, RouteProblem)> {
        let mut builder = SpellingTableBuilder::default();
        let mut problems = Vec::new();
        for entry in &self.entries {
            for EntryRoute { route, class, .. } in &entry.routes {
                let folded = FoldedRoute {
                    class: *class,
                    pattern: Arc::clone(&route.pattern),
                };
                if let Err(with) = builder.add(&entry.pattern, &route.methods, &folded) {
                    let problem = RouteProblem::Spelling {
                        pattern: route.pattern.as_ref().to_owned(),
                        with: with.as_ref().to_owned(),
                    };
                    problems.push((route.id.0, problem));
                }
            }
        }
        self.spellings = builder.build();
        problems
    }

    /// Finds the route of a request and binds its owner segment.
    pub fn find<'a>(
        &'a self,
        method: &Method,
        path: CanonicalPath<'a>,
    ) -> Result<RouteMatch<'a>, Refusal> {
        let Some(entry) = self.entry(path) else {
            return Err(Refusal::NoRoute);
        };
        let mut routes = entry.routes.iter();
        let Some(EntryRoute {
            route,
            owner,
            class,
        }) = routes.find(|one| one.route.methods.contains(method))
        else {
            return Err(Refusal::MethodNotAllowed(entry.allow.clone()));
        };
        if path.has_escapes() {
            let checked = entry.pattern.check_literals(path);
            checked.map_err(Refusal::PathNotCanonical)?;
        }
        let checked = self.spellings.check(method, path, *class);
        checked.map_err(Refusal::PathNotCanonical)?;
        let owner = match owner.and_then(|index| path.segments().nth(index)) {
            Some((at, segment)) => {
                Some(BoundSegment::new(segment, at).map_err(Refusal::PathNotCanonical)?)
            }
            None => None,
        };
        Ok(RouteMatch { route, owner })
    }

    fn entry(&self, path: CanonicalPath<'_>) -> Option<&PathEntry> {
        let decoded = path.decoded();
        let found = self.paths.at(&decoded).ok()?;
        self.entries.get(*found.value)
    }

    /// Returns whether any route of this path has a CORS policy.
    pub(super) fn has_cors_at(&self, path: CanonicalPath<'_>) -> bool {
        let entry = self.entry(path);
        entry.is_some_and(|entry| entry.routes().any(|route| route.access.cors.is_some()))
    }

    /// Paths of up to three routes near a path that has none, the nearest first. For messages: takes time.
    pub fn near(&self, path: &str) -> Vec<&str> {
        let path = decode(path).unwrap_or_default();
        let distances = self.entries.iter().filter_map(|entry| {
            let route = entry.routes().next()?;
            Some((near::distance(&entry.pattern, &path)?, &*route.pattern))
        });
        let mut found: Vec<(usize, &str)> = distances.collect();
        found.sort_unstable();
        let nearest = found.into_iter().take(MAX_NEAR);
        nearest.map(|(_, pattern)| pattern).collect()
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
fn owner_segment(route: &Route, pattern: &PathPattern) -> Result<Option<usize>, RouteProblem> {
    let Rule::Owner { parameter, .. } = &route.access.rule else {
        return Ok(None);
    };
    let segment = pattern.whole_segment(parameter);
    match segment {
        Some(_) => Ok(segment),
        None => Err(RouteProblem::MissingOwner {
            pattern: route.pattern.as_ref().to_owned(),
            parameter: parameter.clone(),
        }),
    }
}

/// Problem of a pattern that matchit rejects.
fn insert_problem(pattern: &str, error: &InsertError, with: Option<&str>) -> RouteProblem {
    if let InsertError::Conflict { with: form } = error {
        return RouteProblem::Conflict {
            pattern: pattern.to_owned(),
            with: with.unwrap_or(form).to_owned(),
        };
    }
    RouteProblem::Path {
        pattern: pattern.to_owned(),
        fault: "is not a valid route path",
    }
}

#[cfg(test)]
mod tests;
