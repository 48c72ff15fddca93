use super::*;

fn route(pattern: &str, methods: &[Method], rule: Rule) -> Route {
    Route {
        methods: methods.to_vec(),
        ..Route::new(pattern, rule)
    }
}

fn owner() -> Rule {
    Rule::Owner {
        parameter: "user_id".into(),
        mismatch: crate::gate::refusal::Mismatch::Forbidden,
    }
}

fn table(routes: Vec<Route>) -> RouteTable {
    let (table, problems) = RouteTable::new(routes);
    assert!(problems.is_empty(), "{problems:?}");
    table
}

fn found(table: &RouteTable, path: &str) -> String {
    let path = CanonicalPath::parse(path).unwrap();
    match table.find(&Method::GET, path) {
        Ok(found) => found.route.pattern.to_string(),
        Err(refusal) => refusal.reason().into(),
    }
}

#[test]
fn matches_an_empty_rest() {
    let table = table(vec![route(
        "/api/{user_id}/tasks/{*rest}",
        &METHODS,
        owner(),
    )]);
    for path in [
        "/api/a/tasks",
        "/api/a/tasks/",
        "/api/a/tasks/1",
        "/api/a/tasks/1/complete",
    ] {
        assert_eq!(
            found(&table, path),
            "/api/{user_id}/tasks/{*rest}",
            "{path}"
        );
    }
    for path in [
        "/",
        "/api",
        "/api/a",
        "/api/a/task",
        "/api/a/tasksx",
        "/API/a/tasks",
    ] {
        assert_eq!(found(&table, path), "no_route", "{path}");
    }
}

#[test]
fn prefers_an_exact_path_to_the_rest_of_another_route() {
    let table = table(vec![
        route("/x/{*rest}", &METHODS, Rule::Authenticated),
        route("/x", &METHODS, Rule::Public),
    ]);
    assert_eq!(found(&table, "/x"), "/x");
    assert_eq!(found(&table, "/x/"), "/x/{*rest}");
}

#[test]
fn treats_template_syntax_in_a_request_as_plain_text() {
    let table = table(vec![route("/api/{user_id}/tasks", &METHODS, owner())]);
    let path = CanonicalPath::parse("/api/:user_id/tasks").unwrap();
    let owner = table.find(&Method::GET, path).unwrap().owner.unwrap();
    assert!(owner.names(":user_id") && !owner.names("alice"));
}

#[test]
fn lists_the_allowed_methods_for_another_method() {
    let table = table(vec![
        route("/a", &[Method::GET, Method::HEAD], Rule::Public),
        route("/a", &[Method::POST], Rule::Authenticated),
    ]);
    let path = CanonicalPath::parse("/a").unwrap();
    let refusal = table.find(&Method::DELETE, path).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::MethodNotAllowed(HeaderValue::from_static("GET, HEAD, POST"))
    );
    assert_eq!(
        table.find(&Method::POST, path).unwrap().route.access.rule,
        Rule::Authenticated
    );
}

#[test]
fn names_the_conflicting_route() {
    let (_, problems) = RouteTable::new(vec![
        route("/api/{user_id}/tasks", &METHODS, owner()),
        route("/api/{id}/tasks", &METHODS, Rule::Public),
        route("/api/{user_id}/tasks", &[Method::GET], Rule::Public),
        route("/notes/{id}", &METHODS, owner()),
    ]);
    let texts: Vec<String> = problems
        .iter()
        .map(|(at, problem)| format!("{at}: {problem}"))
        .collect();
    assert_eq!(
        texts,
        [
            "1: `/api/{id}/tasks` conflicts with route `/api/{user_id}/tasks`: some requests match both; use the same \
             parameter names, or make the paths distinct",
            "2: another route has the path `/api/{user_id}/tasks` and the method GET; remove the method from \
             one of them",
            "3: `/notes/{id}` has no segment `{user_id}`, which `owner` names; add the segment or change `owner`",
        ]
    );
}

#[test]
fn rejects_a_path_that_matches_no_request() {
    for (pattern, expected) in [
        ("api", "must start with `/`"),
        ("/a//b", "matches no request"),
        ("/a/../b", "matches no request"),
        ("/a/{x}/.", "matches no request"),
        ("/Zoë", "matches no request"),
        ("/a?b=c", "matches no request"),
        ("/a/{{x}}", "matches no request"),
        ("/{x}/a/{x}", "has two parameters `{x}`"),
    ] {
        let (_, problems) = RouteTable::new(vec![route(pattern, &METHODS, Rule::Public)]);
        let [(0, problem)] = problems.as_slice() else {
            panic!("{pattern}: {problems:?}");
        };
        assert!(
            problem
                .to_string()
                .starts_with(&format!("`{pattern}` {expected}")),
            "{pattern}: {problem}"
        );
    }
    for pattern in [
        "/",
        "/{*rest}",
        "/Zo%C3%AB/{x}",
        "/img-{x}.png",
        "/a/{x}/b/{y}/",
    ] {
        let (_, problems) = RouteTable::new(vec![route(pattern, &METHODS, Rule::Public)]);
        assert_eq!(problems, [], "{pattern}");
    }
}

#[test]
fn rejects_a_parameter_in_the_owner_segment() {
    let table = table(vec![route("/api/{user_id}/tasks", &METHODS, owner())]);
    assert_eq!(found(&table, "/api/alice;x/tasks"), "path_not_canonical");
}
