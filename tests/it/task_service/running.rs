//! Start with valid and invalid settings, listeners, and graceful shutdown.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Instant;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::service::{Response, Service, start_rejected};
use super::{SECRET, TIMEOUT, health_is_ok};

#[test]
fn finishes_the_request_in_flight_after_sigterm() {
    finishes_the_request_in_flight_after("TERM");
}

#[test]
fn finishes_the_request_in_flight_after_sigint() {
    finishes_the_request_in_flight_after("INT");
}

fn finishes_the_request_in_flight_after(signal: &str) {
    let mut service = Service::start(&[]);
    let body = br#"{"title": "last"}"#;
    let mut stream = service.connect();
    write!(
        stream,
        "POST /api/alice/tasks HTTP/1.1\r\nHost: localhost\r\nX-User-Id: alice\r\n\
         Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    // Sent when the handler reads the body: the request is in flight from here on.
    let expected = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut found = vec![0; expected.len()];
    stream.read_exact(&mut found).unwrap();
    assert_eq!(found, expected);

    service.signal(signal);
    service.wait_for_line("shutting down");
    let start = Instant::now();
    while TcpStream::connect(service.tcp_address()).is_ok() {
        assert!(start.elapsed() < TIMEOUT, "still accepting");
        thread::yield_now();
    }

    stream.write_all(body).unwrap();
    let response = Response::read(&mut *stream);
    assert_eq!(response.status, 201, "{response:?}");
    let (status, directory) = service.wait();
    assert_eq!(status.code(), Some(0), "{status}");

    let again = Service::start_in(directory, &[]);
    let list = again
        .call("GET", "/api/alice/tasks")
        .user("alice")
        .returned(200);
    assert_eq!(
        list[0]["title"], "last",
        "the database was not closed properly"
    );
}

#[test]
fn listens_on_a_unix_socket_and_removes_it_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("tasks.sock");
    // Socket of a killed process.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let address = format!("unix:{}", socket.display());

    let service = Service::start(&[("TASK_SERVICE_ADDRESS", &address)]);
    service.make_task("alice", "by socket");
    let (_, log) = start_rejected(&[("TASK_SERVICE_ADDRESS", &address)]);
    assert!(
        log.contains(&format!("failed to listen on {address}")),
        "{log}"
    );
    health_is_ok(&service);

    let (status, _) = service.stop();
    assert_eq!(status.code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn binds_loopback_with_a_port_alone() {
    let service = Service::start(&[("PORT", "0")]);
    assert!(service.tcp_address().ip().is_loopback());
    health_is_ok(&service);
}

#[test]
fn warns_about_an_address_beyond_loopback() {
    let service = Service::start(&[("TASK_SERVICE_ADDRESS", "0.0.0.0:0")]);
    assert!(service.log.contains("X-User-Id"), "{}", service.log);
}

#[test]
fn rejects_a_short_missing_or_duplicate_secret() {
    let (code, log) = start_rejected(&[("BETTER_AUTH_SECRET", "31 bytes are one byte too few..")]);
    assert_eq!(code, Some(1));
    let message = "BETTER_AUTH_SECRET is invalid: the secret must have at least 32 bytes, got 31";
    assert!(log.contains(message), "{log}");
    assert!(
        !log.contains("too few"),
        "the log contains the secret: {log}"
    );

    let (_, log) = start_rejected(&[("BETTER_AUTH_SECRET", "")]);
    assert!(log.contains("at least 32 bytes, got 0"), "{log}");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    let file = path.to_str().unwrap();
    std::fs::write(&path, "31 bytes are one byte too few..\n").unwrap();
    let (_, log) = start_rejected(&[("BETTER_AUTH_SECRET_FILE", file)]);
    let message =
        "BETTER_AUTH_SECRET_FILE is invalid: the secret must have at least 32 bytes, got 31";
    assert!(log.contains(message), "{log}");

    let (_, log) = start_rejected(&[("BETTER_AUTH_SECRET_FILE", "/does/not/exist")]);
    assert!(
        log.contains("failed to read the file /does/not/exist of BETTER_AUTH_SECRET_FILE"),
        "{log}"
    );

    let (_, log) = start_rejected(&[
        ("BETTER_AUTH_SECRET", SECRET),
        ("BETTER_AUTH_SECRET_FILE", file),
    ]);
    assert!(
        log.contains("both BETTER_AUTH_SECRET and BETTER_AUTH_SECRET_FILE are set"),
        "{log}"
    );
}

#[test]
fn ignores_the_trailing_newline_of_a_secret_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    for ending in ["", "\n", "\r\n"] {
        std::fs::write(&path, format!("{SECRET}{ending}")).unwrap();
        let days = ("JWT_EXPIRATION_DAYS", "1");
        let file = ("BETTER_AUTH_SECRET_FILE", path.to_str().unwrap());
        let service = Service::start(&[file, days]);
        let bob = json!({ "email": "bob@example.com", "password": "correct horse" });
        let up = service
            .call("POST", "/api/auth/signup")
            .json(&bob)
            .returned(201);

        let key = jsonwebtoken::DecodingKey::from_secret(SECRET.as_bytes());
        let validation = jsonwebtoken::Validation::new(Algorithm::HS256);
        let token = up["token"].as_str().unwrap();
        let read = jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap();
        let claims = read.claims;
        let seconds = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        assert_eq!(seconds, 24 * 60 * 60);
    }
}

#[test]
fn rejects_an_unreachable_database_without_logging_its_password() {
    let cases = [
        (
            "postgres://me:hunter2@127.0.0.1:1/tasks",
            "failed to connect to the postgres database of DATABASE_URL",
        ),
        (
            "postgres://me:hunter2@[::zz/tasks",
            "DATABASE_URL must be a valid postgres URL",
        ),
        (
            "mysql://me:hunter2@127.0.0.1/tasks",
            "DATABASE_URL must start with sqlite:, postgres:// or postgresql://",
        ),
        (
            "hunter2",
            "DATABASE_URL must start with sqlite:, postgres:// or postgresql://",
        ),
        (
            "sqlite:/does/not/exist/hunter2",
            "failed to connect to the sqlite database of DATABASE_URL",
        ),
    ];
    for (url, message) in cases {
        let (code, log) = start_rejected(&[("DATABASE_URL", url)]);
        assert_eq!(code, Some(1), "{url}: {log}");
        assert!(log.contains(message), "{url}: {log}");
        assert!(!log.contains("hunter2"), "{url}: {log}");
    }
}

#[test]
fn help_lists_every_variable_and_no_secret() {
    let output = Command::new(env!("CARGO_BIN_EXE_task-service"))
        .arg("--help")
        .env("BETTER_AUTH_SECRET", "hunter2")
        .env("DATABASE_URL", "postgres://me:hunter2@localhost/x")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let variables = [
        "TASK_SERVICE_ADDRESS",
        "PORT",
        "DATABASE_URL",
        "BETTER_AUTH_SECRET",
        "BETTER_AUTH_SECRET_FILE",
        "JWT_EXPIRATION_DAYS",
        "BCRYPT_COST",
    ];
    for variable in variables {
        assert!(
            help.contains(&format!("[env: {variable}")),
            "{variable}: {help}"
        );
    }
    assert!(!help.contains("hunter2"), "{help}");
}
