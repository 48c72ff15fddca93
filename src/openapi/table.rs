//! Routes for the operations of a document, as a configuration has them.

use std::collections::BTreeMap;
use std::fmt;

use http::Method;

use crate::gate::access::{Access, Rule};
use crate::gate::refusal::Mismatch;
use crate::gate::routes::{METHODS, Route, RouteTable};

use super::operation::{Need, Operation, Security};
use super::template::Names;

/// Routes for operations.
#[derive(Debug, Default)]
pub struct Table {
    /// Public routes, then the others, by path.
    pub routes: Vec<TableRoute>,
    /// Routes that the gate would reject, with the reason.
    pub left_out: Vec<(TableRoute, String)>,
}

/// A route, written as TOML with [`fmt::Display`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRoute {
    pub pattern: String,
    /// Methods in the order of [`METHODS`]. GET includes HEAD.
    pub methods: Vec<Method>,
    access: RouteAccess,
    comments: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum RouteAccess {
    Public,
    SignIn,
    Authenticated,
    Owner(String),
}

/// Methods of one pattern, with their access and comments.
type PatternMethods = BTreeMap<usize, (Need, RouteAccess, Vec<String>)>;

impl Table {
    /// Routes for all operations of a document: one for each path, more if its operations need different access.
    pub fn of(operations: &[Operation]) -> Self {
        let templates = operations.iter().map(|operation| &operation.template);
        let names = Names::of_all(templates);
        Self::with_names(operations, &names, &names)
    }

    /// Routes for operations of a document with these names of parameters. The patterns have the names in `written`.
    pub(super) fn with_names<'a>(
        operations: impl IntoIterator<Item = &'a Operation>,
        names: &Names,
        written: &Names,
    ) -> Self {
        let mut table = Self::default();
        let mut patterns: BTreeMap<String, PatternMethods> = BTreeMap::new();
        for operation in operations {
            let route = TableRoute::of(operation, names, written);
            let Some(at) = METHODS
                .iter()
                .position(|method| *method == operation.method)
            else {
                let problem = format!("the gate serves no {} requests", operation.method);
                table.left_out.push((route, problem));
                continue;
            };
            let need = operation.need(names);
            let methods = patterns.entry(route.pattern).or_default();
            // Two operations of one pattern: `/users/{id}` and `/users/{user_id}`.
            if methods.get(&at).is_none_or(|(known, ..)| *known < need) {
                methods.insert(at, (need, route.access, route.comments));
            }
        }
        for (pattern, methods) in patterns {
            table.routes.extend(TableRoute::group(&pattern, methods));
        }
        table
            .routes
            .sort_by_key(|route| (!route.is_public(), route.pattern.clone()));
        table.leave_out_rejected();
        table
    }

    fn leave_out_rejected(&mut self) {
        loop {
            let compiled = self.routes.iter().map(TableRoute::compile).collect();
            let (_, problems) = RouteTable::new(compiled);
            let problems: BTreeMap<usize, String> = problems
                .into_iter()
                .map(|(index, problem)| (index, problem.to_string()))
                .collect();
            if problems.is_empty() {
                return;
            }
            for (index, route) in std::mem::take(&mut self.routes).into_iter().enumerate() {
                match problems.get(&index) {
                    Some(problem) => self.left_out.push((route, problem.clone())),
                    None => self.routes.push(route),
                }
            }
        }
    }
}

impl TableRoute {
    fn of(operation: &Operation, names: &Names, written: &Names) -> Self {
        let template = &operation.template;
        let need = operation.need(names);
        let access = match need {
            Need::Public => RouteAccess::Public,
            Need::SignIn => RouteAccess::SignIn,
            Need::Authenticated => RouteAccess::Authenticated,
            Need::Owner(at) => {
                RouteAccess::Owner(written.at(template, at).unwrap_or_default().to_owned())
            }
        };
        let renamed = written.renamed(template).into_iter();
        let mut comments: Vec<String> = renamed
            .map(|(own, name)| format!("`{{{name}}}` is `{{{own}}}` in the document."))
            .collect();
        let more = match (need, operation.security) {
            (Need::Owner(_), Security::Public) => {
                Some("The document says `security: []`. If every client may read this, write access = \"public\".".to_owned())
            }
            (Need::Public | Need::SignIn, Security::Required) => {
                Some("The document requires credentials, so the API must verify them itself.".to_owned())
            }
            (Need::Authenticated, Security::Optional) => {
                Some("The document says that the token is optional. Without it, write access = \"public\".".to_owned())
            }
            (Need::Authenticated, _) => template.possible_user().and_then(|at| {
                let name = written.at(template, at)?;
                Some(format!(
                    "If `{{{name}}}` is the user, write access = {{ owner = \"{name}\" }}."
                ))
            }),
            _ => None,
        };
        comments.extend(more);
        Self {
            pattern: template.pattern(written),
            methods: vec![operation.method.clone()],
            access,
            comments,
        }
    }

    /// Routes of one pattern, one for each access.
    fn group(pattern: &str, mut methods: PatternMethods) -> Vec<Self> {
        let [get, head] = [Method::GET, Method::HEAD].map(|method| {
            METHODS
                .iter()
                .position(|known| *known == method)
                .unwrap_or_default()
        });
        if let Some(of_head) = methods.remove(&head) {
            // A route with GET has HEAD too.
            let of_get = methods.remove(&get);
            let at = if of_get.is_some() { get } else { head };
            let strictest = of_get
                .into_iter()
                .chain([of_head])
                .max_by_key(|(need, ..)| *need);
            methods.extend(strictest.map(|strictest| (at, strictest)));
        }
        let mut routes: BTreeMap<RouteAccess, Self> = BTreeMap::new();
        for (at, (_, access, comments)) in methods {
            let route = routes.entry(access.clone()).or_insert_with(|| Self {
                pattern: pattern.to_owned(),
                methods: Vec::new(),
                access,
                comments: Vec::new(),
            });
            route.methods.extend(METHODS.get(at).cloned());
            for comment in comments {
                if !route.comments.contains(&comment) {
                    route.comments.push(comment);
                }
            }
        }
        routes.into_values().collect()
    }

    /// Route as the gate has it, without its rate limit.
    pub(super) fn compile(&self) -> Route {
        let rule = match &self.access {
            RouteAccess::Public | RouteAccess::SignIn => Rule::Public,
            RouteAccess::Authenticated => Rule::Authenticated,
            RouteAccess::Owner(parameter) => Rule::Owner {
                parameter: parameter.clone(),
                mismatch: Mismatch::default(),
            },
        };
        let mut methods = self.methods.clone();
        if methods.contains(&Method::GET) {
            methods.push(Method::HEAD);
        }
        Route {
            methods,
            access: Access::new(rule.clone()),
            ..Route::new(&self.pattern, rule)
        }
    }

    fn is_public(&self) -> bool {
        match self.access {
            RouteAccess::Public | RouteAccess::SignIn => true,
            RouteAccess::Authenticated | RouteAccess::Owner(_) => false,
        }
    }

    /// Keys of the access rule, one a line.
    pub(super) fn access(&self) -> String {
        match &self.access {
            RouteAccess::Public => "access = \"public\"\n".to_owned(),
            RouteAccess::SignIn => "access = \"public\"\n\
                 rate_limit = { requests = 20, per = \"1m\", by = \"client-address\" }\n"
                .to_owned(),
            RouteAccess::Authenticated => "access = \"authenticated\"\n".to_owned(),
            RouteAccess::Owner(name) => format!("access = {{ owner = \"{name}\" }}\n"),
        }
    }
}

impl fmt::Display for TableRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for comment in &self.comments {
            writeln!(f, "# {comment}")?;
        }
        let methods: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
        write!(
            f,
            "[[routes]]\npath = \"{}\"\nmethods = [\"{}\"]\n{}",
            self.pattern,
            methods.join("\", \""),
            self.access()
        )
    }
}
