use http::Method;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use serde_json::{Map, Value, json};

use crate::gate::access::Rule;
use crate::gate::refusal::Mismatch;
use crate::gate::routes::{Route, RouteTable};

use super::*;

fn operations(document: &Value) -> Vec<Operation> {
    let document = Document::parse(&document.to_string()).unwrap();
    document.operations().unwrap()
}

/// Document with these operations: path, methods, and the fields of each operation.
fn document(paths: &[(&str, &str, Value)]) -> Value {
    let mut all = Map::new();
    for (path, methods, operation) in paths {
        let item = all.entry(*path).or_insert_with(|| json!({}));
        for method in methods.split(' ') {
            item[method] = operation.clone();
        }
    }
    json!({"openapi": "3.1.0", "info": {"title": "x", "version": "1"}, "paths": all})
}

fn toml(document: &Value) -> String {
    let table = Table::of(&operations(document));
    let routes: Vec<String> = table.routes.iter().map(ToString::to_string).collect();
    routes.join("\n")
}

/// Error of a text, as a clause.
fn error(text: &str) -> String {
    let operations = Document::parse(text).and_then(|document| document.operations());
    operations.unwrap_err().to_string()
}

/// Route table from patterns, methods and rules.
fn routes(routes: &[(&str, &[Method], Rule)]) -> RouteTable {
    let routes = routes.iter().map(|(pattern, methods, rule)| {
        let route = Route::new(pattern, rule.clone());
        let methods = if methods.is_empty() {
            route.methods.clone()
        } else {
            methods.to_vec()
        };
        Route { methods, ..route }
    });
    let (table, problems) = RouteTable::new(routes.collect());
    assert_eq!(problems, []);
    table
}

fn owner(parameter: &str) -> Rule {
    Rule::Owner {
        parameter: parameter.to_owned(),
        mismatch: Mismatch::default(),
    }
}

#[test]
fn writes_a_route_for_each_path_and_access() {
    let document = document(&[
        ("/health", "get", json!({})),
        ("/api/auth/sign-in/email", "post", json!({})),
        (
            "/api/auth/session",
            "get",
            json!({"security": [{"token": []}]}),
        ),
        ("/api/{user_id}/tasks", "get post", json!({})),
        ("/plans", "get", json!({"security": []})),
        ("/plans", "post", json!({})),
        ("/feed", "get", json!({"security": [{}, {"token": []}]})),
    ]);
    assert_eq!(
        toml(&document),
        r#"# The document requires credentials, so the API must verify them itself.
[[routes]]
path = "/api/auth/session"
methods = ["GET"]
access = "public"

[[routes]]
path = "/api/auth/sign-in/email"
methods = ["POST"]
access = "public"
rate_limit = { requests = 20, per = "1m", by = "client-address" }

[[routes]]
path = "/health"
methods = ["GET"]
access = "public"

[[routes]]
path = "/plans"
methods = ["GET"]
access = "public"

[[routes]]
path = "/api/{user_id}/tasks"
methods = ["GET", "POST"]
access = { owner = "user_id" }

# The document says that the token is optional. Without it, write access = "public".
[[routes]]
path = "/feed"
methods = ["GET"]
access = "authenticated"

[[routes]]
path = "/plans"
methods = ["POST"]
access = "authenticated"
"#
    );
}

#[test]
fn finds_the_owner_in_every_spelling_of_its_name() {
    for name in ["user_id", "userId", "userid", "user-id", "USER_ID", "uid"] {
        let path = format!("/users/{{{name}}}/tasks");
        let expected = format!("access = {{ owner = \"{name}\" }}");
        assert!(
            toml(&document(&[(&path, "get", json!({}))])).contains(&expected),
            "{name}"
        );
    }
    for name in ["id", "user", "username", "userids", "guid"] {
        let path = format!("/users/{{{name}}}/tasks");
        let routes = toml(&document(&[(&path, "get", json!({}))]));
        assert!(routes.contains("access = \"authenticated\""), "{name}");
        assert!(
            routes.contains(&format!("# If `{{{name}}}` is the user")),
            "{name}"
        );
    }
}

#[test]
fn requires_a_token_unless_the_document_itself_makes_an_operation_public() {
    let global = |security: Value, operation: Value| {
        let mut document = document(&[("/things", "get", operation)]);
        document["security"] = security;
        toml(&document)
    };
    for (security, operation, access) in [
        (json!([]), json!({}), "authenticated"),
        (json!([{"token": []}]), json!({}), "authenticated"),
        (json!([{"token": []}]), json!({"security": []}), "public"),
        (json!([{"token": []}]), json!({"security": [{}]}), "public"),
        (json!([]), json!({"security": true}), "authenticated"),
        (json!([]), json!({"security": null}), "authenticated"),
    ] {
        let routes = global(security.clone(), operation.clone());
        let expected = format!("access = \"{access}\"");
        assert!(
            routes.contains(&expected),
            "{security} {operation}: {routes}"
        );
    }
}

#[test]
fn makes_a_health_path_public_only_for_reading_and_without_stated_security() {
    for (path, methods, operation, access) in [
        ("/healthz", "get head", json!({}), "public"),
        ("/api/v1/health", "get", json!({}), "public"),
        ("/healthz", "post", json!({}), "authenticated"),
        (
            "/healthz",
            "get",
            json!({"security": [{"token": []}]}),
            "authenticated",
        ),
        ("/{tenant}/health", "get", json!({}), "authenticated"),
        ("/health/records", "get", json!({}), "authenticated"),
        ("/streams/live", "get", json!({}), "authenticated"),
        ("/health/live", "get", json!({}), "public"),
        ("/actuator/health", "get", json!({}), "public"),
    ] {
        let routes = toml(&document(&[(path, methods, operation)]));
        let expected = format!("access = \"{access}\"");
        assert!(routes.contains(&expected), "{path} {methods}: {routes}");
    }
}

#[test]
fn keeps_the_owner_of_a_path_that_the_document_makes_public() {
    let document = document(&[("/users/{user_id}", "get", json!({"security": []}))]);
    let routes = toml(&document);
    assert!(
        routes.contains("access = { owner = \"user_id\" }"),
        "{routes}"
    );
    assert!(
        routes.contains("# The document says `security: []`."),
        "{routes}"
    );
}

#[test]
fn gives_one_name_to_parameters_at_one_place() {
    let document = document(&[
        ("/users/{id}", "get", json!({"security": [{}]})),
        ("/users/{user_id}/tasks", "get", json!({})),
        ("/users/{user_id}", "get delete", json!({})),
        ("/files/{name}", "get", json!({})),
        ("/files/{file}/parts/{name}", "get", json!({})),
    ]);
    let table = Table::of(&operations(&document));
    assert!(table.left_out.is_empty(), "{table:?}");
    let patterns: Vec<&str> = table.routes.iter().map(|route| &*route.pattern).collect();
    assert_eq!(
        patterns,
        [
            "/files/{file}",
            "/files/{file}/parts/{name}",
            "/users/{user_id}",
            "/users/{user_id}/tasks",
        ]
    );
    let routes = toml(&document);
    assert!(
        routes.contains("# `{file}` is `{name}` in the document.\n"),
        "{routes}"
    );
    // The stricter of two operations that are one to the gate.
    assert!(!routes.contains("\naccess = \"public\""), "{routes}");
}

#[test]
fn translates_templates_into_patterns() {
    for (path, pattern) in [
        ("/", "/"),
        ("/tasks/", "/tasks/"),
        ("/files/{name}.json", "/files/{name}.json"),
        ("/v{version}/x", "/v{version}/x"),
        ("/tasks/{id:int}", "/tasks/{id}"),
        ("/tasks/{task id}", "/tasks/{task_id}"),
        ("/files/{path:path}", "/files/{*path}"),
        ("/files/{+path}", "/files/{*path}"),
        ("/files/{path...}", "/files/{*path}"),
        ("/a/{id}/b/{id}", "/a/{id}/b/{id_2}"),
        ("/:batch/a:run", "/%3Abatch/a:run"),
        ("/$metadata/a*", "/%24metadata/a%2A"),
        ("/Zoë b", "/Zo%C3%AB%20b"),
        ("/a?action=x#y", "/a"),
    ] {
        let table = Table::of(&operations(&document(&[(path, "get", json!({}))])));
        assert!(table.left_out.is_empty(), "{path}: {table:?}");
        assert_eq!(table.routes[0].pattern, pattern, "{path}");
    }
}

#[test]
fn leaves_out_what_no_route_can_serve_and_says_why() {
    for (path, method, problem) in [
        ("/files/{a}-{b}", "get", "two parameters in one segment"),
        ("/files/{a", "get", "without a name or a closing brace"),
        ("/a//b", "get", "matches no request"),
        ("/users/{user_id}.json", "get", "has no segment `{user_id}`"),
        ("/tasks", "trace", "the gate serves no TRACE requests"),
        ("/tasks", "query", "the gate serves no QUERY requests"),
    ] {
        let document = document(&[(path, method, json!({})), ("/other", "get", json!({}))]);
        let table = Table::of(&operations(&document));
        assert_eq!(table.routes.len(), 1, "{path}: {table:?}");
        let (_, found) = &table.left_out[0];
        assert!(found.contains(problem), "{path}: {found}");
    }
    // One spelling of a path cannot be public, and the other not.
    let document = document(&[
        ("/tasks", "get", json!({})),
        ("/tasks/", "get", json!({"security": []})),
    ]);
    let table = Table::of(&operations(&document));
    assert_eq!(
        (table.routes.len(), table.left_out.len()),
        (1, 1),
        "{table:?}"
    );
}

#[test]
fn starts_paths_with_the_path_of_the_first_server() {
    let with = |servers: Value| {
        let mut document = document(&[("/tasks", "get", json!({}))]);
        document["servers"] = servers;
        document
    };
    for (servers, pattern) in [
        (json!([]), "/tasks"),
        (json!([{"url": "/"}]), "/tasks"),
        (
            json!([{"url": "/api/v1/"}, {"url": "/other"}]),
            "/api/v1/tasks",
        ),
        (json!([{"url": "https://api.example/v2"}]), "/v2/tasks"),
        (json!([{"url": "https://api.example"}]), "/tasks"),
        (json!([{"url": "//api.example/v2"}]), "/v2/tasks"),
        (json!([{"url": "./v3"}]), "/v3/tasks"),
        (
            json!([{"url": "https://{host}/{base}", "variables": {"host": {"default": "a.example"}, "base": {"default": "v4"}}}]),
            "/v4/tasks",
        ),
    ] {
        let table = Table::of(&operations(&with(servers.clone())));
        assert_eq!(table.routes[0].pattern, pattern, "{servers}");
    }
    let error = error(&with(json!([{"url": "/{base}"}])).to_string());
    assert_eq!(error, "the server variable `base` has no default");

    let mut own = document(&[("/tasks", "get", json!({"servers": [{"url": "/own"}]}))]);
    own["servers"] = json!([{"url": "/api"}]);
    assert_eq!(Table::of(&operations(&own)).routes[0].pattern, "/own/tasks");
}

#[test]
fn reads_swagger_2_and_yaml() {
    let text = "swagger: 2.0\nbasePath: /v1\npaths:\n  /tasks:\n    get: {security: []}\n";
    let operations = Document::parse(text).unwrap().operations().unwrap();
    let table = Table::of(&operations);
    assert_eq!(table.routes[0].pattern, "/v1/tasks");
    assert!(table.routes[0].to_string().contains("public"));
}

#[test]
fn follows_references_in_the_document_only() {
    let mut document = document(&[("/a", "get", json!({}))]);
    document["paths"]["/b"] = json!({"$ref": "#/paths/~1a"});
    document["paths"]["/c"] = json!({"$ref": "#/components/pathItems/c%20d"});
    document["components"] = json!({"pathItems": {"c d": {"post": {}}}});
    assert_eq!(operations(&document).len(), 3);
    for (target, fault) in [
        (
            "other.json#/paths/~1a",
            "`paths./d` refers to `other.json#/paths/~1a`, which is not in the document",
        ),
        ("#/paths/~1missing", "which is not in the document"),
        ("#/paths/~1d", "the references of `paths./d` have no end"),
        ("#/openapi", "`paths./d` must be an object"),
        ("#", "which is not in the document"),
    ] {
        document["paths"]["/d"] = json!({"$ref": target});
        let error = error(&document.to_string());
        assert!(error.contains(fault), "{target}: {error}");
    }
}

#[test]
fn names_the_fault_of_a_document() {
    for (text, fault) in [
        ("", "not an OpenAPI document"),
        ("<html></html>", "not an OpenAPI document"),
        ("{}", "not an OpenAPI document"),
        ("[]", "not an OpenAPI document"),
        ("{\"openapi\": ", "not valid JSON"),
        ("openapi: [\n", "not valid YAML"),
        ("openapi: 4.0.0\n", "its version is 4.0.0"),
        ("swagger: '1.2'\n", "its version is 1.2"),
        ("openapi: true\n", "its version is true"),
        ("openapi: 3.1.0\n", "it has no operation"),
        ("openapi: 3.1.0\npaths: {}\n", "it has no operation"),
        (
            "openapi: 3.1.0\npaths: {x-note: 1, /a: {summary: b}}\n",
            "it has no operation",
        ),
        ("openapi: 3.1.0\npaths: true\n", "`paths` must be an object"),
        (
            "openapi: 3.1.0\npaths: {/a: true}\n",
            "`paths./a` must be an object",
        ),
        (
            "openapi: 3.1.0\npaths: {/a: {get: true}}\n",
            "`paths./a.GET` must be an object",
        ),
        (
            "openapi: 3.1.0\npaths: {a: {get: {}}}\n",
            "the path `a` must start with `/`",
        ),
    ] {
        let error = error(text);
        assert!(error.contains(fault), "{text}: {error}");
    }
    let long = format!(
        "openapi: 3.1.0\npaths: {{/{}: {{get: {{}}}}}}\n",
        "a".repeat(1024)
    );
    assert!(error(&long).ends_with("is longer than 1024 bytes"));
    let all: Map<String, Value> = (0..1001).map(|n| (format!("m{n}"), json!({}))).collect();
    let mut many = document(&[("/a", "get", json!({}))]);
    many["paths"]["/a"]["additionalOperations"] = Value::from(all);
    for n in 0..10 {
        many["paths"][format!("/{n}")] = json!({"$ref": "#/paths/~1a"});
    }
    assert_eq!(
        error(&many.to_string()),
        "it has more than 10000 operations"
    );
    let large = " ".repeat(MAX_DOCUMENT_BYTES + 1);
    assert_eq!(error(&large), "it is larger than 16 MiB");
}

#[test]
fn finds_nothing_in_the_table_of_the_same_document() {
    let document = document(&[
        ("/health", "get", json!({})),
        ("/api/auth/sign-in/email", "post", json!({})),
        (
            "/api/auth/session",
            "get",
            json!({"security": [{"token": []}]}),
        ),
        ("/api/{user_id}/tasks/{id}", "get head delete", json!({})),
        ("/users/{id}", "get", json!({})),
        ("/users/{userId}/profile", "get", json!({"security": []})),
        ("/plans", "get", json!({"security": []})),
        ("/plans", "post", json!({})),
        ("/feed", "get", json!({"security": [{}, {"token": []}]})),
        ("/files/{path:path}", "get put", json!({})),
    ]);
    let operations = operations(&document);
    let table = Table::of(&operations);
    assert!(table.left_out.is_empty(), "{table:?}");
    let compiled = table.routes.iter().map(TableRoute::compile).collect();
    let (table, problems) = RouteTable::new(compiled);
    assert_eq!(problems, []);
    let audit = Audit::of(&operations, &table);
    assert_eq!(audit.findings, []);
    assert_eq!(audit.unused, Vec::<String>::new());
}

#[test]
fn names_each_operation_that_the_routes_leave_open_with_its_fix() {
    let document = document(&[
        ("/api/{user_id}/tasks", "get post", json!({})),
        ("/api/{user_id}/notes", "get", json!({})),
        ("/api/{userId}/files/{user}", "get", json!({})),
        ("/reports", "get post", json!({})),
        ("/plans", "get", json!({"security": [{"token": []}]})),
        ("/prices", "get", json!({})),
        ("/offers", "get", json!({"security": []})),
        ("/missing/{id}", "get put", json!({})),
        ("/health", "get", json!({})),
    ]);
    let table = routes(&[
        ("/api/{id}/tasks", &[], Rule::Authenticated),
        ("/api/{id}/notes", &[], Rule::Public),
        ("/api/{id}/files/{name}", &[], owner("name")),
        ("/reports", &[Method::GET], Rule::Authenticated),
        ("/plans", &[], Rule::Public),
        ("/{*rest}", &[], Rule::Public),
        ("/missing/{*rest}", &[Method::DELETE], Rule::Public),
        ("/unused", &[], Rule::Authenticated),
    ]);
    let audit = Audit::of(&operations(&document), &table);
    let found: Vec<_> = audit
        .findings
        .iter()
        .map(|finding| {
            let methods: Vec<_> = finding.methods.iter().map(Method::as_str).collect();
            let route = finding.route.as_deref().unwrap_or("-");
            format!(
                "{} {} {} {route}",
                finding.kind.name(),
                methods.join(","),
                finding.path
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            "no-owner GET /api/{userId}/files/{user} /api/{id}/files/{name}",
            "public GET /api/{user_id}/notes /api/{id}/notes",
            "no-owner GET,POST /api/{user_id}/tasks /api/{id}/tasks",
            "no-route GET,PUT /missing/{id} -",
            "public GET /plans /plans",
            "public GET /prices /{*rest}",
            "no-route POST /reports -",
        ]
    );
    let fixes: Vec<_> = audit
        .findings
        .iter()
        .map(|finding| (finding.fix.as_str(), finding.lines.as_str()))
        .collect();
    let owner = "access = { owner = \"id\" }\n";
    assert_eq!(
        fixes[0],
        ("in the route `/api/{id}/files/{name}`, write", owner)
    );
    assert_eq!(fixes[1], ("in the route `/api/{id}/notes`, write", owner));
    assert_eq!(fixes[2], ("in the route `/api/{id}/tasks`, write", owner));
    assert_eq!(
        fixes[4],
        (
            "in the route `/plans`, write",
            "access = \"authenticated\"\n"
        )
    );
    let added = "[[routes]]\npath = \"/prices\"\nmethods = [\"GET\"]\naccess = \"authenticated\"\n";
    assert_eq!(fixes[5], ("add", added));
    let added =
        "[[routes]]\npath = \"/reports\"\nmethods = [\"POST\"]\naccess = \"authenticated\"\n";
    assert_eq!(fixes[6], ("add", added));
    assert_eq!(audit.unused, ["/missing/{*rest}", "/unused"]);
    assert_eq!(
        audit.findings[2].message,
        "has the user `{user_id}` in its path, but the route `/api/{id}/tasks` serves every user with a valid token"
    );
}

#[test]
fn names_an_operation_with_a_path_that_no_route_can_have() {
    let document = document(&[("/a//b", "get", json!({})), ("/t", "trace", json!({}))]);
    let audit = Audit::of(
        &operations(&document),
        &routes(&[("/x", &[], Rule::Public)]),
    );
    assert_eq!(audit.findings.len(), 1, "{audit:?}");
    let finding = &audit.findings[0];
    assert!(
        finding.fix.starts_with("no route can have this path"),
        "{finding:?}"
    );
    assert_eq!(finding.lines, "");
}

#[test]
fn accepts_an_owner_of_a_broader_route() {
    let document = document(&[("/api/{user_id}/tasks/{id}", "get", json!({}))]);
    let table = routes(&[("/api/{user}/{*rest}", &[], owner("user"))]);
    assert_eq!(Audit::of(&operations(&document), &table).findings, []);
}

/// Values that look like parts of a document.
fn values() -> impl Strategy<Value = Value> {
    let texts = vec![
        "/",
        "/a/{user_id}",
        "#/paths/~1",
        "3.1.0",
        "{",
        "}",
        "*",
        "é\u{0}\n\"",
        "get",
        "/{a}{b}/%zz",
    ];
    let leaves = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        proptest::sample::select(texts).prop_map(Value::from),
        "[/{}a-c*:%.#?]{0,12}".prop_map(Value::from),
    ];
    let keys = prop_oneof![
        proptest::sample::select(vec![
            "get",
            "post",
            "security",
            "servers",
            "url",
            "$ref",
            "paths",
            "variables",
            "default",
            "additionalOperations",
        ])
        .prop_map(str::to_owned),
        "/[/{}a-c*:%.#?é]{0,12}",
    ];
    leaves.prop_recursive(4, 64, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((keys.clone(), inner), 0..5)
                .prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn never_panics_and_writes_only_routes_that_the_gate_accepts(
        paths in proptest::collection::btree_map("/[/{}a-c*:%.#?é]{0,12}", values(), 0..8),
        servers in values(),
        security in values(),
    ) {
        let document = json!({"openapi": "3.1.0", "paths": paths, "servers": servers, "security": security});
        check(&document.to_string());
    }

    #[test]
    fn never_panics_on_operations(
        paths in proptest::collection::btree_map("/([a-c{}:*.é -]{0,5}/?){0,4}", values(), 1..8),
    ) {
        let paths: Map<String, Value> = paths
            .into_iter()
            .map(|(path, security)| (path, json!({"get": {"security": security}, "post": {}})))
            .collect();
        let document = json!({"openapi": "3.0.3", "paths": paths});
        check(&document.to_string());
    }

    #[test]
    fn never_panics_on_text(text in "\\PC{0,64}") {
        let _ = Document::parse(&text).and_then(|document| document.operations());
        let _ = Document::parse(&format!("openapi: 3.1.0\npaths:\n  {text}")).and_then(|document| document.operations());
    }
}

fn check(text: &str) {
    let Ok(operations) = Document::parse(text).and_then(|document| document.operations()) else {
        return;
    };
    let table = Table::of(&operations);
    let left_out = table.left_out.len();
    let written: Vec<String> = table.routes.iter().map(ToString::to_string).collect();
    let read: toml::Table = toml::from_str(&written.join("\n")).unwrap();
    let count = read
        .get("routes")
        .map_or(0, |routes| routes.as_array().unwrap().len());
    assert_eq!(count, table.routes.len());
    let compiled = table.routes.iter().map(TableRoute::compile).collect();
    let (table, problems) = RouteTable::new(compiled);
    assert_eq!(problems, []);
    let audit = Audit::of(&operations, &table);
    // A document may percent-encode what the gate rejects with an encoding.
    if left_out == 0 && !text.contains('%') {
        assert!(audit.findings.is_empty(), "{audit:?}");
        assert!(audit.unused.is_empty(), "{audit:?}");
    }
}
