//! `[log] level`: the lines of each level.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::upstream::{Request, Upstream};
use super::{Directory, TIMEOUT, eight_lines};

/// Client connection preface of HTTP/2 with an empty SETTINGS frame (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// Lines of a gate after a permitted, a denied and a misspelled request and an HTTP/2 preface, as JSON. No line contains a token.
fn lines_at(level: &str) -> Vec<Value> {
    let upstream = Upstream::start();
    let config = eight_lines(upstream.address).replace("\"debug\"", &format!("\"{level}\""));
    let directory = Directory::with(&config);
    let gate = directory.serve(&["run"]);
    let token = directory.token("alice", &[]);
    for (path, status) in [
        ("/api/alice/tasks", 200),
        ("/api/bob/tasks", 403),
        ("/api/alice/taks", 404),
    ] {
        let request = Request::new("GET", path).bearer(&token);
        assert_eq!(request.response(gate.address).status, status, "{path}");
    }
    exchange_http2_settings(gate.address);
    let ended = gate.stop();
    for part in token.split('.') {
        assert!(!ended.stderr.contains(part), "{}", ended.stderr);
    }
    let lines = ended.stderr.lines();
    let mut lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // Lines of two workers may be written in either order.
    lines.sort_by_key(|line| line["timestamp"].to_string());
    lines
}

/// Opens an HTTP/2 connection and waits for the gate's SETTINGS frame, which the h2 library logs at level debug.
fn exchange_http2_settings(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(HTTP2_PREFACE).unwrap();
    stream.read_exact(&mut [0; 9]).unwrap();
}

/// Lines of the gate's own debug level, without their timestamps and request IDs.
fn debug_lines(lines: &[Value]) -> Vec<Value> {
    let debug = lines.iter().filter(|line| line["level"] == "DEBUG");
    let mut debug: Vec<Value> = debug.cloned().collect();
    for line in &mut debug {
        let fields = line.as_object_mut().unwrap();
        fields.remove("timestamp");
        assert!(fields.remove("request_id").is_some(), "{fields:?}");
    }
    debug
}

#[test]
fn logs_the_stages_of_a_request_at_level_debug() {
    let matched = serde_json::json!({
        "level": "DEBUG",
        "target": "claimgate::decision",
        "message": "route matched",
        "route": "/api/{user_id}/tasks/{*rest}",
    });
    let verified = serde_json::json!({
        "level": "DEBUG",
        "target": "claimgate::decision",
        "message": "token verified",
        "subject": "alice",
        "issuer": "better-auth",
    });
    let permitted = serde_json::json!({
        "level": "DEBUG",
        "target": "claimgate::decision",
        "message": "request permitted",
    });
    let refused = serde_json::json!({
        "level": "DEBUG",
        "target": "claimgate::decision",
        "message": "request rejected",
        "stage": "authorization",
        "reason": "subject_mismatch",
    });
    let missing = serde_json::json!({
        "level": "DEBUG",
        "target": "claimgate::decision",
        "message": "request rejected",
        "stage": "route",
        "reason": "no_route",
        "near_routes": "/api/{user_id}/tasks/{*rest}",
    });
    let expected = [
        &matched, &verified, &permitted, &matched, &verified, &refused, &missing,
    ];
    let lines = debug_lines(&lines_at("debug"));
    assert_eq!(lines.iter().collect::<Vec<_>>(), expected);
}

/// A PING acknowledgement without a PING (RFC 9113 section 6.7), about which h2 warns.
const PING_ACK: &[u8] = b"\x00\x00\x08\x06\x01\x00\x00\x00\x00notasked";

#[test]
fn a_flood_of_ping_acknowledgements_writes_one_line() {
    let upstream = Upstream::start();
    let directory = Directory::with(&eight_lines(upstream.address));
    let gate = directory.serve(&["run"]);
    let mut stream = TcpStream::connect(gate.address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(HTTP2_PREFACE).unwrap();
    stream.write_all(&PING_ACK.repeat(20_000)).unwrap();
    // The response to this PING comes after the flood.
    stream
        .write_all(b"\x00\x00\x08\x06\x00\x00\x00\x00\x00thelast!")
        .unwrap();
    let mut received = Vec::new();
    while !received.windows(8).any(|bytes| bytes == b"thelast!") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        received.push(byte[0]);
    }
    let ended = gate.stop();
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert!(lines.len() < 20, "{} lines", lines.len());
    let warned = lines
        .iter()
        .filter(|line| line.contains("a library warned"));
    assert_eq!(warned.count(), 1, "{lines:#?}");
    assert!(!ended.stderr.contains("PING"), "{lines:#?}");
}

#[test]
fn logs_no_stage_of_a_request_at_level_info() {
    let lines = lines_at("info");
    assert_eq!(debug_lines(&lines), Vec::<Value>::new());
    let completed = lines
        .iter()
        .filter(|line| line["target"] == "claimgate::access");
    assert_eq!(completed.count(), 3, "{lines:#?}");
}
