//! Draining and graceful shutdown, with requests in flight.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::upstream::{Request, Response, Upstream};
use super::{Directory, Gate, eight_lines};

#[test]
fn a_draining_gate_is_not_ready_and_still_serves() {
    let upstream = Upstream::start();
    let directory = Directory::with(&eight_lines(upstream.address));
    let gate = directory.serve(&["run"]);
    let probe = |path: &str| {
        let response = Request::new("GET", path).response(gate.admin);
        (response.status, response.body)
    };
    let ready = (200, "ready\n".to_owned());
    assert_eq!(probe("/readyz"), ready);

    // `drain` finds the gate by its configuration or by `--admin`.
    let found = ADMIN_ALONE.replace("ADMIN", &gate.admin.to_string());
    fs::write(directory.path("found.toml"), found).unwrap();
    let ended = directory.call(&["drain", "--config", "found.toml"]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "draining\n"),
        "{ended:?}"
    );
    assert_eq!(probe("/readyz"), (503, "not ready: draining\n".to_owned()));
    assert_eq!(probe("/livez").0, 200);
    let began = Instant::now();
    let admin = gate.admin.to_string();
    let again = directory.call(&["drain", "--admin", &admin, "--wait", "300ms"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(
        began.elapsed() >= Duration::from_millis(300),
        "`--wait` was ignored"
    );

    let token = directory.token("alice", &[]);
    let response = Request::new("GET", "/api/alice/tasks")
        .bearer(&token)
        .response(gate.address);
    assert_eq!(response.status, 200, "{response:?}");

    let admin = gate.admin;
    assert_eq!(gate.stop().code, Some(0));
    let ended = directory.call(&["drain", "--admin", &admin.to_string()]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .starts_with("failed to reach the admin listener of the gate at "),
        "{ended:?}"
    );
}

#[test]
fn drain_and_why_work_with_a_broken_configuration() {
    let upstream = Upstream::start();
    let broken = [
        ("config.toml: cannot be read", None),
        ("", Some("[upstreams.tasks]\nurl = 5\n")),
        ("", Some("[[routes]]\npath = \"/a\n")),
        ("", Some("<<<<<<< HEAD\n")),
    ];
    for (number, (warning, text)) in broken.into_iter().enumerate() {
        let directory = Directory::with(&eight_lines(upstream.address));
        let mut gate = directory.serve(&["run"]);
        let refused = Request::new("GET", "/api/alice/tasks").response(gate.address);
        let request_id = refused
            .fields
            .iter()
            .find_map(|field| field.strip_prefix("x-request-id: "));
        let request_id = request_id.unwrap().to_owned();
        let admin = format!("[admin]\naddress = \"{}\"\n", gate.admin);
        match text {
            // A broken mount: no address can be found, so the hook passes it.
            None => fs::remove_file(directory.path("config.toml")).unwrap(),
            Some(text) => fs::write(directory.path("config.toml"), admin + text).unwrap(),
        }
        gate.program.wait_for_line("configuration reload failed");
        let address = gate.admin.to_string();
        let call = |arguments: &[&str]| {
            let passed = ["--admin", &address];
            let more = if text.is_none() { &passed[..] } else { &[] };
            directory.call(&[arguments, more].concat())
        };
        let why = call(&["why", &request_id]);
        assert_eq!(why.code, Some(0), "{number}: {why:?}");
        assert!(why.stdout.contains("token_missing"), "{number}: {why:?}");
        let drained = call(&["drain"]);
        assert_eq!(drained.code, Some(0), "{number}: {drained:?}");
        assert_eq!(drained.stdout, "draining\n", "{number}");
        assert_eq!(drained.stderr, "", "{number}");
        let response = Request::new("GET", "/readyz").response(gate.admin);
        assert_eq!(response.status, 503, "{number}");
        if text.is_none() {
            // Without `--admin`, the warning names the file and the flag, whatever listens on the default address.
            let guessed = directory.call(&["drain", "--config", "config.toml"]);
            assert!(guessed.stderr.contains(warning), "{guessed:?}");
            assert!(guessed.stderr.contains("--admin"), "{guessed:?}");
        }
        gate.stop();
    }
}

#[test]
fn drain_waits_before_it_fails() {
    let directory = Directory::with("");
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = free.local_addr().unwrap().to_string();
    drop(free);
    let began = Instant::now();
    let ended = directory.call(&["drain", "--admin", &admin, "--wait", "300ms"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        began.elapsed() >= Duration::from_millis(300),
        "`--wait` was ignored"
    );
}

/// The part of a configuration that `drain` reads.
const ADMIN_ALONE: &str = "[admin]\naddress = \"ADMIN\"\n";

#[test]
fn finishes_a_request_in_flight_after_sigterm() {
    let upstream = Upstream::start();
    let directory = Directory::with(&eight_lines(upstream.address));
    let (mut gate, mut stream) = holding(&directory, &upstream);
    gate.program.signal("TERM");
    gate.program.wait_for_line("shutting down");
    upstream.release();
    let response = Response::read(&mut stream);
    assert_eq!(response.status, 200, "{response:?}");
    assert!(response.body.starts_with("GET /api/alice/tasks/held "));
    let ended = gate.program.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("\"stopped\""), "{ended:?}");
}

#[test]
fn idle_connections_do_not_delay_the_shutdown() {
    let upstream = Upstream::start();
    let config = eight_lines(upstream.address) + "\n[drain]\ngrace = \"1d\"\n";
    let directory = Directory::with(&config);
    let gate = directory.serve(&["run"]);
    let token = directory.token("alice", &[]);
    let silent = TcpStream::connect(gate.address).unwrap();
    let kept = Request::new("GET", "/api/alice/tasks")
        .bearer(&token)
        .header("Connection", "keep-alive");
    let mut kept = BufReader::new(kept.send(gate.address));
    let mut line = String::new();
    kept.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
    upstream.next_head();

    // The grace period of a day does not pass: no request is in flight.
    assert_eq!(gate.stop().code, Some(0));
    drop(silent);
    let rest = kept.read_to_end(&mut Vec::new());
    assert!(rest.is_ok(), "the connection was reset: {rest:?}");
}

#[test]
fn closes_connections_at_the_end_of_the_grace_period() {
    let upstream = Upstream::start();
    let config = eight_lines(upstream.address) + "\n[drain]\ngrace = \"1ms\"\n";
    let directory = Directory::with(&config);
    let gate = directory.serve(&["run"]);
    let token = directory.token("alice", &[]);
    let held = Request::new("GET", "/api/alice/tasks/held").bearer(&token);
    let mut stream = held.send(gate.address);
    upstream.next_head();
    let ended = gate.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("\"closed\":1"), "{ended:?}");
    let mut response = String::new();
    // End of file or a reset, but no response.
    let _ = stream.read_to_string(&mut response);
    assert_eq!(response, "");
}

#[test]
fn starts_again_on_a_unix_socket_after_a_crash() {
    let upstream = Upstream::start();
    let socket = "[listen]\naddress = \"unix:SOCKET\"";
    let config = eight_lines(upstream.address);
    let directory = Directory::with("");
    let path = directory.path("gate.sock");
    let socket = socket.replace("SOCKET", path.to_str().unwrap());
    let config = config.replacen("[listen]\naddress = \"127.0.0.1:0\"", &socket, 1);
    fs::write(directory.path("config.toml"), config).unwrap();
    for signal in ["KILL", "TERM"] {
        let mut gate = directory.claimgate(&["run"]);
        gate.wait_for_line("\"serving\"");
        let mut stream = UnixStream::connect(&path).unwrap();
        stream
            .write_all(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
        gate.signal(signal);
        let ended = gate.wait();
        assert_eq!(ended.code, (signal == "TERM").then_some(0), "{ended:?}");
        assert_eq!(path.exists(), signal == "KILL", "{signal}");
    }
}

/// Starts a gate with a request in flight that the upstream holds.
fn holding(directory: &Directory, upstream: &Upstream) -> (Gate, TcpStream) {
    let gate = directory.serve(&["run"]);
    let token = directory.token("alice", &[]);
    let held = Request::new("GET", "/api/alice/tasks/held").bearer(&token);
    let stream = held.send(gate.address);
    upstream.next_head();
    (gate, stream)
}

#[test]
fn counts_two_signals_at_once_as_one() {
    let upstream = Upstream::start();
    let directory = Directory::with(&eight_lines(upstream.address));
    let (mut gate, mut stream) = holding(&directory, &upstream);
    // Two different signals, because the kernel merges equal pending ones.
    gate.program.signals(&["TERM", "INT"]);
    gate.program.wait_for_line("shutting down");
    upstream.release();
    assert_eq!(Response::read(&mut stream).status, 200);
    assert_eq!(gate.program.wait().code, Some(0));
}

#[test]
fn a_second_signal_exits_immediately() {
    let upstream = Upstream::start();
    let directory = Directory::with(&eight_lines(upstream.address));
    let (mut gate, _stream) = holding(&directory, &upstream);
    gate.program.signal("TERM");
    gate.program.wait_for_line("shutting down");
    // The upstream still holds the request: only a signal can end the gate.
    let insisting = gate.program.signal_until_it_ends("TERM");
    let ended = gate.program.wait();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    insisting.join().unwrap();
}
