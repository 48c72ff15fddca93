//! What the log says of what is wrong around the gate.

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

/// How often the log of a gate has said that it cannot tell clients apart, after some requests with this header.
fn warned(config: &str, path: &str, (name, value): (&str, &str)) -> usize {
    let upstream = Upstream::start();
    let lines = eight_lines(upstream.address) + LIMITED;
    let lines = lines.replace("workers = 2", &format!("workers = 2\n{config}"));
    let directory = Directory::with(&lines);
    let gate = directory.serve(&["run"]);
    for _ in 0..5 {
        let request = Request::new("GET", path).header(name, value);
        request.answer(gate.address);
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
fn a_proxy_that_nobody_trusts_before_a_limit_by_address_is_said_once() {
    let by_proxy = ("X-Forwarded-For", "192.0.2.7");
    let in_one_field = ("Forwarded", "for=192.0.2.7");
    for forwarded in [by_proxy, in_one_field] {
        assert_eq!(warned("", "/limited", forwarded), 1);
    }
    for (config, path, header) in [
        ("", "/limited", ("X-Other", "192.0.2.7")),
        ("", "/api/alice/tasks", by_proxy),
        // Whoever comes from elsewhere may have written that itself.
        ("trusted_proxies = [\"192.0.2.0/24\"]", "/limited", by_proxy),
        ("trusted_proxies = [\"127.0.0.1\"]", "/limited", by_proxy),
    ] {
        assert_eq!(warned(config, path, header), 0, "{config} {path}");
    }
}

#[test]
fn a_certificate_that_cannot_be_read_is_the_cause_of_a_line() {
    let upstream = Upstream::start();
    let authority = Authority::new();
    let ca = authority.file("ca.crt");
    let tls = authority.listen(&format!("client_ca = \"{}\"", ca.display()));
    let directory = Directory::with(&(eight_lines(upstream.address) + &tls));
    let mut gate = directory.serve(&["run"]);
    let odd = authority.issue("odd", |params| {
        let names = vec![0x30, 3, 0x82, 1, 0xff];
        let names = CustomExtension::from_oid_content(&[2, 5, 29, 17], names);
        params.custom_extensions = vec![names];
    });
    let connector = authority.connector().showing(&odd);
    let _refused = connector.connect(gate.address);
    let line = gate.program.wait_for_line("rejected a request head");
    for said in ["tls_handshake", "the client certificate cannot be read"] {
        assert!(line.contains(said), "{line}");
    }
}
