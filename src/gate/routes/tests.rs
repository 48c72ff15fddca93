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
        route("/x/{*rest}", &METHODS, Rule::Public),
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
        (
            "/a//b",
            "matches no request: The path has an empty segment at character 4",
        ),
        (
            "/a/../b",
            "matches no request: The path has a dot segment at character 4",
        ),
        (
            "/a/{x}/.",
            "matches no request: The path has a dot segment at character 8",
        ),
        (
            "/Zo\u{eb}",
            "matches no request: Character 4 of the path, `\\u{eb}`, must be percent-encoded: `%C3%AB`.",
        ),
        ("/a?b=c", "matches no request: Character 3"),
        (
            "/a/{x}%2Dy",
            "matches no request: Character 7 of the path, `%2D`",
        ),
        (
            "/a/{{x}}",
            "has the route syntax of another framework, `{{x}}`; write `{x}`",
        ),
        (
            "/a/:id",
            "has the route syntax of another framework, `:id`; write `{id}`, or `%3Aid` for the text itself",
        ),
        (
            "/a/{$}",
            "has the route syntax of another framework, `{$}`; remove it: a pattern matches the whole path",
        ),
        (
            "GET /a",
            "must start with `/`; list the method in `methods`",
        ),
        (
            "https://api.example/a",
            "must start with `/`; write the path without scheme and host",
        ),
        ("^/a", "must start with `/`; it is a path pattern"),
        ("/a/{x}{y}", "has two parameters in one segment"),
        ("/a/{*rest}/b", "has a wildcard `{*…}` before its end"),
        ("/a/b{*rest}", "has text beside a wildcard"),
        ("/a/{x", "has a parameter without a name"),
        ("/a/x}", "has a parameter without a name"),
        ("/a/{}", "has a parameter without a name"),
        ("/a/{*}", "has a parameter without a name"),
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

/// Table with literals beside parameters, for spellings of the literals.
fn with_literals() -> RouteTable {
    table(vec![
        route("/v1/tasks:purge", &METHODS, Rule::Authenticated),
        route("/v1/{name}", &METHODS, Rule::Public),
        route("/%C3%B6l/{x}", &METHODS, Rule::Authenticated),
        route("/{first}/{x}", &METHODS, Rule::Public),
        route("/api/admin/users", &METHODS, Rule::Authenticated),
        route("/api/{section}/{*rest}", &METHODS, Rule::Public),
        route("/orders/1", &METHODS, Rule::Authenticated),
    ])
}

#[test]
fn finds_a_literal_in_every_equivalent_spelling() {
    let table = with_literals();
    // RFC 3986 section 6.2.2.1: the hexadecimal digits of an escape have no case.
    for path in ["/%C3%B6l/a", "/%c3%b6l/a", "/%C3%b6l/a", "/%c3%B6l/a"] {
        assert_eq!(found(&table, path), "/%C3%B6l/{x}", "{path}");
    }
    let table = self::table(vec![
        route("/v1/tasks%3apurge", &METHODS, Rule::Authenticated),
        route("/%7Bx%7D/{x}", &METHODS, Rule::Authenticated),
    ]);
    assert_eq!(found(&table, "/v1/tasks:purge"), "/v1/tasks%3apurge");
    assert_eq!(found(&table, "/%7bx%7D/a"), "/%7Bx%7D/{x}");
    assert_eq!(found(&table, "/a/b"), "no_route");
}

#[test]
fn rejects_other_spellings_of_a_literal() {
    let table = with_literals();
    for path in [
        // Flask, Django, Starlette and Go decode before they match; Express and axum decode after.
        "/v1/tasks%3Apurge",
        "/v1/tasks%3apurge",
        // Express ignores case and a trailing slash by default.
        "/v1/TASKS:purge",
        "/V1/tasks:purge",
        "/api/admin/users/",
        "/api/ADMIN/users",
        "/api/admin/Users",
        // A servlet container drops path parameters.
        "/api/admin;x/users",
        "/api/admin;/users",
        "/api/admin%3Bx=1/users",
        "/api/admin/users;x",
        "/%C3%B6l;x/a",
        // `Ö` is the upper case of `ö`, `ſ` is a small `s`.
        "/%C3%96l/a",
        "/api/admin/u%C5%BFers",
        // Integer parameters of Flask, Django and Starlette; Flask's read every decimal digit of Unicode.
        "/orders/01",
        "/orders/1.0",
        "/orders/%D9%A1",
    ] {
        assert_eq!(found(&table, path), "path_not_canonical", "{path}");
    }
    for (path, expected) in [
        ("/v1/tasks:purge", "/v1/tasks:purge"),
        ("/v1/Tasks", "/v1/{name}"),
        ("/v1/tasks%3Apurges", "/v1/{name}"),
        ("/api/administrators/Users", "/api/{section}/{*rest}"),
        ("/api/a;x/users", "/api/{section}/{*rest}"),
        ("/api/admin/users/1", "/api/{section}/{*rest}"),
        ("/orders/10", "/{first}/{x}"),
        ("/orders/01x", "/{first}/{x}"),
    ] {
        assert_eq!(found(&table, path), expected, "{path}");
    }
}

#[test]
fn names_the_route_of_another_spelling_and_where_it_differs() {
    let table = with_literals();
    for (path, position, other) in [
        ("/api/admin;x/users", 11, "/api/admin/users"),
        ("/api/aDmin/users", 7, "/api/admin/users"),
        ("/api/admin/users/", 17, "/api/admin/users"),
        ("/v1/tasks:Purge", 11, "/v1/tasks:purge"),
    ] {
        let path = CanonicalPath::parse(path).unwrap();
        let Err(Refusal::PathNotCanonical(fault)) = table.find(&Method::GET, path) else {
            panic!("{path:?}");
        };
        assert_eq!(fault.position, position, "{path:?}");
        assert_eq!(fault.other_route(), Some(other), "{path:?}");
    }
}

#[test]
fn accepts_every_spelling_where_the_access_is_the_same() {
    let table = table(vec![
        route("/files/readme", &METHODS, Rule::Authenticated),
        route("/files/{name}", &METHODS, Rule::Authenticated),
        route("/open/{*rest}", &METHODS, Rule::Public),
        route("/api/{user_id}/tasks", &METHODS, owner()),
        route("/api/{user_id}/tasks/{*rest}", &METHODS, owner()),
    ]);
    for (path, expected) in [
        ("/files/README", "/files/{name}"),
        ("/api/Alice/tasks/", "/api/{user_id}/tasks/{*rest}"),
        ("/open/Page/", "/open/{*rest}"),
    ] {
        assert_eq!(found(&table, path), expected, "{path}");
    }
}

#[test]
fn a_spelling_of_a_route_with_other_methods_is_no_conflict() {
    let table = table(vec![
        route("/docs", &[Method::GET], Rule::Public),
        route("/docs/{*rest}", &METHODS, Rule::Authenticated),
    ]);
    let find = |method: &Method, path| {
        let found = table.find(method, CanonicalPath::parse(path).unwrap());
        found.map_or_else(
            |refusal| refusal.reason().to_owned(),
            |found| found.route.pattern.to_string(),
        )
    };
    assert_eq!(find(&Method::GET, "/docs"), "/docs");
    assert_eq!(find(&Method::GET, "/docs/"), "path_not_canonical");
    assert_eq!(find(&Method::POST, "/docs/"), "/docs/{*rest}");
    assert_eq!(find(&Method::POST, "/docs"), "method_not_allowed");
    assert_eq!(find(&Method::GET, "/Docs"), "no_route");
}

#[test]
fn rejects_an_owner_rule_whose_owner_is_in_another_segment() {
    let table = table(vec![
        route("/x/{id}/{user_id}", &METHODS, owner()),
        route("/{user_id}/y/{id}", &METHODS, owner()),
    ]);
    assert_eq!(found(&table, "/x/a/b"), "/x/{id}/{user_id}");
    // To an API that ignores case, the second segment may be the literal.
    assert_eq!(found(&table, "/X/y/b"), "path_not_canonical");
}

#[test]
fn rejects_routes_whose_spellings_contradict_each_other() {
    for (one, other) in [
        ("/tasks", "/Tasks"),
        ("/tasks", "/tasks/"),
        ("/a/{x}", "/A/{y}"),
        ("/a;v=1", "/a;v=2"),
        ("/a/1", "/a/01"),
        ("/%C3%B6", "/%C3%96"),
        ("/a/{*rest}", "/A/{x}"),
    ] {
        let routes = |second: Rule| {
            vec![
                route(one, &METHODS, Rule::Public),
                route(other, &METHODS, second),
            ]
        };
        let (_, problems) = RouteTable::new(routes(Rule::Authenticated));
        let [(1, problem)] = problems.as_slice() else {
            panic!("{one} {other}: {problems:?}");
        };
        let expected = RouteProblem::Spelling {
            pattern: other.to_owned(),
            with: one.to_owned(),
        };
        assert_eq!(*problem, expected, "{one} {other}");
        let (_, problems) = RouteTable::new(routes(Rule::Public));
        assert_eq!(problems, [], "{one} {other}");
    }
    // Different methods are different resources.
    table(vec![
        route("/tasks", &[Method::GET], Rule::Public),
        route("/tasks/", &[Method::POST], Rule::Authenticated),
    ]);
}

#[test]
fn rejects_two_spellings_of_one_route() {
    for (one, other) in [
        ("/v1/tasks:purge", "/v1/tasks%3Apurge"),
        ("/%c3%b6", "/%C3%B6"),
    ] {
        let (_, problems) = RouteTable::new(vec![
            route(one, &METHODS, Rule::Public),
            route(other, &METHODS, Rule::Public),
        ]);
        let [(1, RouteProblem::Duplicate { pattern, .. })] = problems.as_slice() else {
            panic!("{one} {other}: {problems:?}");
        };
        assert_eq!(pattern, other);
    }
}

/// Readings of a path by APIs: two paths with an equal reading may be one to an API.
mod readings {
    use proptest::prelude::*;

    use super::route as route_of;
    use super::*;

    /// A segment in several spellings.
    type Spellings = &'static [&'static str];

    const SEGMENTS: [Spellings; 8] = [
        &["a", "A", "a;", "a;x", "A%3Bx"],
        &["b", "B", "b;c"],
        &["b:c", "b%3Ac", "b%3ac", "B:C"],
        &["%C3%B6", "%c3%b6", "%C3%96"],
        &["7", "07", "7.0", "%D9%A7"],
        &["x-a", "X-A", "x-A"],
        &["a.Y", "A.y", "a.Y;"],
        &["z", "Z", "z%3B"],
    ];

    /// Segments of patterns beside the spellings.
    const PARAMETERS: [&str; 7] = ["{x}", "{x}", "{y}", "x-{x}", "{x}.Y", "{*rest}", "{*rest}"];

    fn decoded(path: &str) -> String {
        percent_encoding::percent_decode_str(path)
            .decode_utf8()
            .unwrap()
            .into_owned()
    }

    /// Starlette, Django, Go: the decoded path.
    fn starlette(path: &str) -> String {
        decoded(path)
    }

    /// Werkzeug with `strict_slashes=False` and integer parameters.
    fn flask(path: &str) -> String {
        let decoded = decoded(path).replace('\u{667}', "7");
        let segments = decoded
            .split('/')
            .map(|segment| match segment.parse::<u64>() {
                Ok(number) => number.to_string(),
                Err(_) => segment.to_owned(),
            });
        let segments: Vec<String> = segments.collect();
        segments.join("/").trim_end_matches('/').to_owned()
    }

    /// path-to-regexp without `sensitive` and `strict`.
    fn express(path: &str) -> String {
        path.trim_end_matches('/').to_ascii_lowercase()
    }

    /// Jakarta Servlet 6.0 section 3.5.2: path parameters are removed, then the path is decoded.
    fn servlet(path: &str) -> String {
        let segments = path.split('/');
        let segments: Vec<&str> = segments.map(|it| it.split(';').next().unwrap()).collect();
        decoded(&segments.join("/"))
    }

    fn rule(number: usize) -> Rule {
        match number {
            0 => Rule::Public,
            1 => Rule::Authenticated,
            _ => Rule::Owner {
                parameter: "x".into(),
                mismatch: crate::gate::refusal::Mismatch::Forbidden,
            },
        }
    }

    fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = &'static str> + Clone {
        proptest::sample::select(texts)
    }

    /// A route that is likely to match some spellings of a path.
    fn route(path: &[Spellings]) -> impl Strategy<Value = Route> + use<> {
        let segments: Vec<_> = path
            .iter()
            .map(|spellings| prop_oneof![one_of(spellings), one_of(&PARAMETERS)])
            .collect();
        let last =
            prop_oneof![4 => Just(""), 1 => Just("/"), 1 => Just("/{*rest}"), 1 => Just("/{y}")];
        (segments, last, 0_usize..3, 0_usize..4).prop_map(|(segments, last, rule, methods)| {
            // Nothing follows a wildcard.
            let wildcard = segments
                .iter()
                .position(|segment| segment.starts_with("{*"));
            let pattern = match wildcard {
                Some(at) => format!("/{}", segments[..=at].join("/")),
                None => format!("/{}{last}", segments.join("/")),
            };
            let methods = [Method::POST, Method::GET].into_iter().skip(methods / 3);
            let methods: Vec<Method> = methods.collect();
            route_of(&pattern, &methods, self::rule(rule))
        })
    }

    /// One of the spellings of a path.
    fn spelling(path: &[Spellings]) -> impl Strategy<Value = String> + use<> {
        let segments: Vec<_> = path.iter().map(|spellings| one_of(spellings)).collect();
        (segments, prop_oneof![3 => Just(""), 1 => Just("/")])
            .prop_map(|(segments, slash)| format!("/{}{slash}", segments.join("/")))
    }

    /// Routes, and two spellings of one path.
    fn case() -> impl Strategy<Value = (Vec<Route>, String, String)> {
        let path = proptest::collection::vec(proptest::sample::select(&SEGMENTS[..]), 1..4);
        path.prop_flat_map(|path| {
            let routes = proptest::collection::vec(route(&path), 2..8);
            (routes, spelling(&path), spelling(&path))
        })
    }

    /// Access of a path; `None` if the gate rejects it.
    fn decision(table: &RouteTable, path: &str) -> Option<String> {
        let path = CanonicalPath::parse(path).ok()?;
        let found = table.find(&Method::GET, path).ok()?;
        Some(format!("{:?}", found.route.access.rule))
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 3_000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn two_spellings_of_one_path_get_one_decision((routes, one, other) in case()) {
            // A route that the table rejects with the routes before it is left out.
            let mut valid: Vec<Route> = Vec::new();
            for route in &routes {
                let with = valid.iter().chain([route]).map(copy).collect();
                if RouteTable::new(with).1.is_empty() {
                    valid.push(copy(route));
                }
            }
            let (table, _) = RouteTable::new(valid);
            for reading in [starlette, flask, express, servlet] {
                if reading(&one) == reading(&other)
                    && let (Some(first), Some(second)) = (decision(&table, &one), decision(&table, &other))
                {
                    prop_assert_eq!(first, second, "{} and {}", one, other);
                }
            }
        }
    }

    fn copy(route: &Route) -> Route {
        route_of(&route.pattern, &route.methods, route.access.rule.clone())
    }
}
