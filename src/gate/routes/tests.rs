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
fn the_rest_of_a_path_may_be_nothing() {
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
fn a_route_of_its_own_comes_before_the_rest_of_another() {
    let table = table(vec![
        route("/x/{*rest}", &METHODS, Rule::Authenticated),
        route("/x", &METHODS, Rule::Public),
    ]);
    assert_eq!(found(&table, "/x"), "/x");
    assert_eq!(found(&table, "/x/"), "/x/{*rest}");
}

#[test]
fn names_that_look_like_a_template_have_no_special_meaning() {
    let table = table(vec![route("/api/{user_id}/tasks", &METHODS, owner())]);
    let path = CanonicalPath::parse("/api/:user_id/tasks").unwrap();
    let owner = table.find(&Method::GET, path).unwrap().owner.unwrap();
    assert!(owner.names(":user_id") && !owner.names("alice"));
}

#[test]
fn another_method_is_told_which_there_are() {
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
fn a_conflict_names_the_other_route() {
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
            "1: conflicts with the route `/api/{user_id}/tasks`: some requests would belong to both",
            "2: is there already: two routes have the path `/api/{user_id}/tasks` and the method GET",
            "3: its owner is `{user_id}`, but its path `/notes/{id}` has no such segment",
        ]
    );
}

#[test]
fn a_path_that_no_request_can_have_is_refused() {
    for (pattern, expected) in [
        ("api", "must start with `/`"),
        ("", "must start with `/`"),
        ("/a//b", "matches no request"),
        ("/a/../b", "matches no request"),
        ("/a/{x}/.", "matches no request"),
        ("/Zoë", "matches no request"),
        ("/a?b=c", "matches no request"),
        ("/a/{{x}}", "matches no request"),
        ("/{x}/a/{x}", "has two segments `{x}`"),
    ] {
        let (_, problems) = RouteTable::new(vec![route(pattern, &METHODS, Rule::Public)]);
        let [(0, problem)] = problems.as_slice() else {
            panic!("{pattern}: {problems:?}");
        };
        assert!(
            problem.to_string().starts_with(expected),
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
fn a_parameter_in_the_owners_segment_is_refused() {
    let table = table(vec![route("/api/{user_id}/tasks", &METHODS, owner())]);
    assert_eq!(found(&table, "/api/alice;x/tasks"), "path_not_canonical");
}
