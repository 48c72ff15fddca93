//! Comparison of a document with the routes of a gate.

use std::collections::BTreeSet;

use http::Method;

use crate::gate::access::Rule;
use crate::gate::path::CanonicalPath;
use crate::gate::refusal::Refusal;
use crate::gate::routes::{METHODS, Route, RouteTable};

use super::operation::{Need, Operation, Security};
use super::table::Table;
use super::template::Names;

/// Operations that the routes do not serve as the document says.
#[derive(Debug)]
pub struct Audit {
    pub findings: Vec<Finding>,
    /// Paths of routes that no operation uses.
    pub unused: Vec<String>,
}

/// A fault of one path, for some of its methods.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub kind: FindingKind,
    pub methods: Vec<Method>,
    /// Path as the document has it, after the path of the server.
    pub path: String,
    /// Path of the route that serves the operation.
    pub route: Option<String>,
    pub message: String,
    /// Fix in words, up to the colon before [`Finding::lines`].
    pub fix: String,
    /// TOML to write; empty if the fix is another.
    pub lines: String,
}

/// Kind of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingKind {
    /// No route serves the operation.
    NoRoute,
    /// A public route serves it, though the document does not make it public.
    Public,
    /// It has a user in its path, and the route does not compare that user with the token.
    NoOwner,
}

impl FindingKind {
    /// Name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoRoute => "no-route",
            Self::Public => "public",
            Self::NoOwner => "no-owner",
        }
    }
}

/// Fault of one operation.
struct Fault {
    kind: FindingKind,
    route: Option<String>,
    message: String,
}

impl Audit {
    /// Looks each operation up as the gate does, with values in place of its parameters.
    pub fn of(operations: &[Operation], table: &RouteTable) -> Self {
        let templates = operations.iter().map(|operation| &operation.template);
        let names = Names::of_all(templates);
        let patterns = table.routes().map(|route| &*route.pattern);
        let written = names.clone().with_patterns(patterns);
        let mut used = BTreeSet::new();
        let mut findings: Vec<(Finding, Vec<&Operation>)> = Vec::new();
        for operation in operations {
            let Some(fault) = fault(operation, &names, table, &mut used) else {
                continue;
            };
            let path = operation.template.to_string();
            // The operations of a path follow each other.
            let mut of_path = findings
                .iter_mut()
                .rev()
                .take_while(|(finding, _)| finding.path == path);
            let same = of_path.find(|(finding, _)| finding.message == fault.message);
            if let Some((finding, same)) = same {
                finding.methods.push(operation.method.clone());
                same.push(operation);
                continue;
            }
            let finding = Finding {
                kind: fault.kind,
                methods: vec![operation.method.clone()],
                path,
                route: fault.route,
                message: fault.message,
                fix: String::new(),
                lines: String::new(),
            };
            findings.push((finding, vec![operation]));
        }
        let findings = findings.into_iter().map(|(mut finding, operations)| {
            finding.propose(&Table::with_names(operations, &names, &written));
            finding
        });
        let unused = table.routes().filter(|route| !used.contains(&route.id.0));
        Self {
            findings: findings.collect(),
            unused: unused.map(|route| route.pattern.to_string()).collect(),
        }
    }
}

impl Finding {
    fn propose(&mut self, table: &Table) {
        let rejected = table.left_out.first().map(|(_, problem)| problem);
        let changes = table
            .routes
            .first()
            .filter(|route| Some(&route.pattern) == self.route.as_ref());
        if let Some(route) = changes {
            self.fix = format!("in the route `{}`, write", route.pattern);
            self.lines = route.access();
        } else if let (true, Some(problem)) = (table.routes.is_empty(), rejected) {
            self.fix = format!("no route can have this path: {problem}");
        } else {
            let routes = table.routes.iter().map(ToString::to_string);
            "add".clone_into(&mut self.fix);
            self.lines = routes.collect::<Vec<_>>().join("\n");
        }
    }
}

/// Fault of an operation. Adds its route to the used ones.
fn fault(
    operation: &Operation,
    names: &Names,
    table: &RouteTable,
    used: &mut BTreeSet<usize>,
) -> Option<Fault> {
    // No configuration can serve it, and no client can call it.
    if !METHODS.contains(&operation.method) {
        return None;
    }
    let no_route = |message: String| {
        Some(Fault {
            kind: FindingKind::NoRoute,
            route: None,
            message,
        })
    };
    let (path, values) = operation.template.sample();
    let found = CanonicalPath::parse(&path).map_err(Refusal::PathNotCanonical);
    let found = match found.and_then(|path| table.find(&operation.method, path)) {
        Ok(found) => found,
        Err(Refusal::NoRoute) => {
            return no_route("is in no route: every request is 404".to_owned());
        }
        Err(Refusal::MethodNotAllowed(_)) => {
            return no_route(
                "is in no route: its path has only other methods, so every request is 405"
                    .to_owned(),
            );
        }
        Err(refusal) => return no_route(format!("is in no route: {}", refusal.detail())),
    };
    used.insert(found.route.id.0);
    let pattern = found.route.pattern.to_string();
    let is_public = found.route.access.rule == Rule::Public;
    let need = operation.need(names);
    if let Need::Owner(at) = need {
        let is_bound = values
            .get(at)
            .is_some_and(|value| found.owner.as_ref().is_some_and(|owner| owner.names(value)));
        // The document itself can make a user's path public.
        if is_bound || (is_public && operation.security == Security::Public) {
            return None;
        }
        // The name in this path, which another path may have under another.
        let own = Names::default();
        let name = own.at(&operation.template, at).unwrap_or_default();
        return Some(Fault {
            kind: if is_public {
                FindingKind::Public
            } else {
                FindingKind::NoOwner
            },
            message: format!(
                "has the user `{{{name}}}` in its path, but the route `{pattern}` serves {}",
                callers(found.route)
            ),
            route: Some(pattern),
        });
    }
    let is_meant = match (need, operation.security) {
        (Need::Public | Need::SignIn, _) | (_, Security::Public | Security::Optional) => true,
        (Need::Authenticated | Need::Owner(_), Security::Unstated | Security::Required) => false,
    };
    if !is_public || is_meant {
        return None;
    }
    let document = match operation.security {
        Security::Required => "the document requires credentials",
        Security::Unstated | Security::Optional | Security::Public => {
            "the document does not say `security: []`"
        }
    };
    Some(Fault {
        kind: FindingKind::Public,
        message: format!("is public by the route `{pattern}`, but {document}"),
        route: Some(pattern),
    })
}

/// Callers of a route, for a message.
fn callers(route: &Route) -> String {
    match &route.access.rule {
        Rule::Public => "every client, without a token".to_owned(),
        Rule::Authenticated => "every user with a valid token".to_owned(),
        Rule::Owner { parameter, .. } => format!("the owner of another segment, `{{{parameter}}}`"),
    }
}
