//! The routes that `claimgate init` writes for the task service, and the hand-written ones.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;

use claimgate::app::App;
use claimgate::clock::Clock;
use claimgate::config::ConfigDocument;
use claimgate::gate::cache::TokenCache;
use claimgate::proxy::headers::Peer;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use super::SECRET;
use super::service::Service;

const HAND_WRITTEN: &str = include_str!("../../../deploy/kubernetes/example/claimgate.toml");

/// Every operation of the document, with `alice` as the owner.
const OPERATIONS: [(&str, &str); 10] = [
    ("GET", "/api/alice/tasks"),
    ("POST", "/api/alice/tasks"),
    ("GET", "/api/alice/tasks/7"),
    ("PUT", "/api/alice/tasks/7"),
    ("DELETE", "/api/alice/tasks/7"),
    ("PATCH", "/api/alice/tasks/7/complete"),
    ("POST", "/api/auth/signup"),
    ("POST", "/api/auth/signin"),
    ("POST", "/api/auth/signout"),
    ("GET", "/api/auth/verify"),
];

/// Paths that no table has.
const OTHERS: [(&str, &str); 5] = [
    ("GET", "/"),
    ("GET", "/openapi.json"),
    ("GET", "/api/alice"),
    ("GET", "/api/alice/notes"),
    ("GET", "/api/alice/../bob/tasks"),
];

#[test]
fn init_decides_about_every_operation_as_the_hand_written_routes() {
    let service = Service::start(&[("DATABASE_URL", "sqlite::memory:")]);
    let openapi = format!("http://{}/openapi.json", service.tcp_address());
    let init = Command::new(env!("CARGO_BIN_EXE_claimgate"))
        .args([
            "init",
            "--secret-env",
            "BETTER_AUTH_SECRET",
            "--file",
            "-",
            "--openapi",
            &openapi,
        ])
        .env_clear()
        .output()
        .unwrap();
    assert!(init.status.success(), "{init:?}");
    assert!(init.stderr.is_empty(), "{init:?}");
    let written = compile(&String::from_utf8(init.stdout).unwrap());
    let secret = "{ secret_file = \"/etc/claimgate-secret/better-auth-secret\" }";
    assert!(HAND_WRITTEN.contains(secret));
    let hand_written =
        compile(&HAND_WRITTEN.replace(secret, "{ secret_env = \"BETTER_AUTH_SECRET\" }"));

    let mut decisions = Vec::new();
    for (method, path) in OPERATIONS.into_iter().chain(OTHERS) {
        for subject in [None, Some("alice"), Some("bob")] {
            let by_init = decide(&written, method, path, subject);
            let by_hand = decide(&hand_written, method, path, subject);
            assert_eq!(by_init, by_hand, "{method} {path} {subject:?}");
            decisions.push(by_init);
        }
    }
    decisions.sort_unstable();
    decisions.dedup();
    assert_eq!(decisions, [200, 400, 401, 403, 404]);
}

fn compile(text: &str) -> App {
    let mut document = ConfigDocument::parse(Path::new("claimgate.toml"), text).unwrap();
    document.set_variable("BETTER_AUTH_SECRET", SECRET);
    App::compile(document).unwrap()
}

/// Status of a refusal, or 200 for a permit.
fn decide(app: &App, method: &str, path: &str, subject: Option<&str>) -> u16 {
    let mut request = Request::builder().method(method).uri(path);
    request = request.header(HOST, "localhost");
    let now = Clock::System.now();
    if let Some(subject) = subject {
        let claims = json!({"sub": subject, "exp": now.0 + 60});
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        request = request.header(AUTHORIZATION, value);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    let peer = Peer::at(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let inbound = app.policy.headers.inbound(&peer, head);
    match app
        .policy
        .gate
        .decide(&inbound, now, &mut TokenCache::default())
    {
        Ok(_) => 200,
        Err(stop) => stop.refused().unwrap().refusal.status().as_u16(),
    }
}
