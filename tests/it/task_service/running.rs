//! Starting with good and bad settings, listening, and stopping.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Instant;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::service::{Answer, Service, start_refused};
use super::{PATIENCE, SECRET, health_is_good};

#[test]
fn sigterm_finishes_the_request_in_flight_and_exits_0() {
    a_stop_finishes_the_request_in_flight("TERM");
}

#[test]
fn sigint_finishes_the_request_in_flight_and_exits_0() {
    a_stop_finishes_the_request_in_flight("INT");
}

fn a_stop_finishes_the_request_in_flight(signal: &str) {
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
    // Sent once the handler reads the body: from here on the request is in flight.
    let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut found = vec![0; go_on.len()];
    stream.read_exact(&mut found).unwrap();
    assert_eq!(found, go_on);

    service.signal(signal);
    service.wait_for_line("stopping");
    let start = Instant::now();
    while TcpStream::connect(service.tcp_address()).is_ok() {
        assert!(start.elapsed() < PATIENCE, "still accepting");
        thread::yield_now();
    }

    stream.write_all(body).unwrap();
    let answer = Answer::read(&mut *stream);
    assert_eq!(answer.status, 201, "{answer:?}");
    let (status, directory) = service.wait();
    assert_eq!(status.code(), Some(0), "{status}");

    let again = Service::start_in(directory, &[]);
    let list = again
        .call("GET", "/api/alice/tasks")
        .user("alice")
        .answered(200);
    assert_eq!(list[0]["title"], "last", "the database was closed in order");
}

#[test]
fn a_unix_socket_is_listened_on_and_removed_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("tasks.sock");
    // Left behind by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let address = format!("unix:{}", socket.display());

    let service = Service::start(&[("TASK_SERVICE_ADDRESS", &address)]);
    service.make_task("alice", "by socket");
    let (_, log) = start_refused(&[("TASK_SERVICE_ADDRESS", &address)]);
    assert!(
        log.contains(&format!("cannot listen on {address}")),
        "{log}"
    );
    health_is_good(&service);

    let (status, _) = service.stop();
    assert_eq!(status.code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_port_alone_is_a_port_of_loopback() {
    let service = Service::start(&[("PORT", "0")]);
    assert!(service.tcp_address().ip().is_loopback());
    health_is_good(&service);
}

#[test]
fn an_address_beyond_loopback_is_warned_about() {
    let service = Service::start(&[("TASK_SERVICE_ADDRESS", "0.0.0.0:0")]);
    assert!(service.log.contains("X-User-Id"), "{}", service.log);
}

#[test]
fn a_secret_that_is_short_missing_or_doubled_refuses_the_start() {
    let (code, log) = start_refused(&[("BETTER_AUTH_SECRET", "31 bytes are one byte too few..")]);
    assert_eq!(code, Some(1));
    let message =
        "BETTER_AUTH_SECRET cannot be used: the secret has 31 bytes, at least 32 are needed";
    assert!(log.contains(message), "{log}");
    assert!(!log.contains("too few"), "the secret is never shown: {log}");

    let (_, log) = start_refused(&[("BETTER_AUTH_SECRET", "")]);
    assert!(log.contains("the secret has 0 bytes"), "{log}");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    let file = path.to_str().unwrap();
    std::fs::write(&path, "31 bytes are one byte too few..\n").unwrap();
    let (_, log) = start_refused(&[("BETTER_AUTH_SECRET_FILE", file)]);
    let message = "BETTER_AUTH_SECRET_FILE cannot be used: the secret has 31 bytes";
    assert!(log.contains(message), "{log}");

    let (_, log) = start_refused(&[("BETTER_AUTH_SECRET_FILE", "/does/not/exist")]);
    assert!(
        log.contains("/does/not/exist of BETTER_AUTH_SECRET_FILE cannot be read"),
        "{log}"
    );

    let (_, log) = start_refused(&[
        ("BETTER_AUTH_SECRET", SECRET),
        ("BETTER_AUTH_SECRET_FILE", file),
    ]);
    assert!(
        log.contains("both BETTER_AUTH_SECRET and BETTER_AUTH_SECRET_FILE are set"),
        "{log}"
    );
}

#[test]
fn a_secret_of_a_file_is_read_without_its_newline() {
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
            .answered(201);

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
fn a_database_that_cannot_be_reached_refuses_the_start_and_shows_no_password() {
    let cases = [
        (
            "postgres://me:hunter2@127.0.0.1:1/tasks",
            "the postgres database of DATABASE_URL cannot be reached",
        ),
        (
            "postgres://me:hunter2@[::zz/tasks",
            "DATABASE_URL is not a valid postgres URL",
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
            "the sqlite database of DATABASE_URL cannot be reached",
        ),
    ];
    for (url, message) in cases {
        let (code, log) = start_refused(&[("DATABASE_URL", url)]);
        assert_eq!(code, Some(1), "{url}: {log}");
        assert!(log.contains(message), "{url}: {log}");
        assert!(!log.contains("hunter2"), "{url}: {log}");
    }
}

#[test]
fn help_names_every_variable_and_shows_no_secret() {
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
