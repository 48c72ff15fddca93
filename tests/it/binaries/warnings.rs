//! Warnings in the log about the environment of the gate.

use rcgen::CustomExtension;

use super::upstream::{Request, Upstream};
use super::{Directory, eight_lines};
use crate::harness::Authority;

const LIMITED: &str = r#"
[[routes]]
path = "/limited"
access = "public"
rate_limit = { requests = 100, per = "1m", by = "client-address" }
"#;

/// Number of warnings about an untrusted proxy, after some requests with this header.
fn count_warnings(config: &str, path: &str, (name, value): (&str, &str)) -> usize {
    let upstream = Upstream::start();
    let lines = eight_lines(upstream.address) + LIMITED;
    let lines = lines.replace("workers = 2", &format!("workers = 2\n{config}"));
    let directory = Directory::with(&lines);
    let gate = directory.serve(&["run"]);
    for _ in 0..5 {
        let request = Request::new("GET", path).header(name, value);
        request.response(gate.address);
    }
    let ended = gate.stop();
    let lines = ended.stderr.lines();
    let lines: Vec<&str> = lines
        .filter(|line| line.contains("through a proxy"))
        .collect();
    let all = lines
        .iter()
        .all(|line| line.contains("\"level\":\"WARN\"") && line.contains("\"peer\":\"127.0.0.1\""));
    assert!(all, "{lines:#?}");
    lines.len()
}

#[test]
fn warns_once_about_an_untrusted_proxy_before_a_limit_by_address() {
    let by_proxy = ("X-Forwarded-For", "192.0.2.7");
    let in_one_field = ("Forwarded", "for=192.0.2.7");
    for forwarded in [by_proxy, in_one_field] {
        assert_eq!(count_warnings("", "/limited", forwarded), 1);
    }
    for (config, path, header) in [
        ("", "/limited", ("X-Other", "192.0.2.7")),
        ("", "/api/alice/tasks", by_proxy),
        // A client that is no trusted proxy can send the header itself.
        ("trusted_proxies = [\"192.0.2.0/24\"]", "/limited", by_proxy),
        ("trusted_proxies = [\"127.0.0.1\"]", "/limited", by_proxy),
    ] {
        assert_eq!(count_warnings(config, path, header), 0, "{config} {path}");
    }
}

#[test]
fn logs_an_unreadable_client_certificate() {
    let upstream = Upstream::start();
    let authority = Authority::new();
    let ca = authority.file("ca.crt");
    let tls = authority.listen(&format!("client_ca = \"{}\"", ca.display()));
    let directory = Directory::with(&(eight_lines(upstream.address) + &tls));
    let mut gate = directory.serve(&["run"]);
    let malformed = authority.issue("malformed", |params| {
        let names = vec![0x30, 3, 0x82, 1, 0xff];
        let names = CustomExtension::from_oid_content(&[2, 5, 29, 17], names);
        params.custom_extensions = vec![names];
    });
    let connector = authority.connector().presenting(&malformed);
    let _refused = connector.connect(gate.address);
    let line = gate.program.wait_for_line("rejected a request head");
    for expected in ["tls_handshake", "the client certificate cannot be read"] {
        assert!(line.contains(expected), "{line}");
    }
}
