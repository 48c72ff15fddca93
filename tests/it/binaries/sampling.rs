//! `[log] sample`: responses without a log line.

use super::upstream::{Request, Upstream};
use super::{Directory, eight_lines};

#[test]
fn logs_every_rejected_request_with_sample_0() {
    let upstream = Upstream::start();
    let config = eight_lines(upstream.address).replace("[log]\n", "[log]\nsample = 0.0\n");
    let directory = Directory::with(&config);
    let gate = directory.serve(&["run"]);
    let token = directory.token("alice", &[]);
    let ask = |path: &str| {
        let request = Request::new("GET", path).bearer(&token);
        request.response(gate.address).status
    };
    for _ in 0..20 {
        assert_eq!(ask("/api/alice/tasks"), 200);
    }
    assert_eq!(ask("/api/bob/tasks"), 403);
    assert_eq!(ask("/nowhere"), 404);
    let ended = gate.stop();
    let lines = ended.stderr.lines();
    let mut lines: Vec<&str> = lines
        .filter(|line| line.contains("claimgate::access"))
        .collect();
    // By timestamp, their first field: lines of two workers may be written in either order.
    lines.sort_unstable();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].contains("subject_mismatch") && lines[1].contains("no_route"));
}

#[test]
fn logs_about_the_configured_share_of_requests() {
    let upstream = Upstream::start();
    let config = eight_lines(upstream.address).replace("[log]\n", "[log]\nsample = 0.5\n");
    let directory = Directory::with(&config);
    let gate = directory.serve(&["run"]);
    let token = directory.token("alice", &[]);
    for _ in 0..200 {
        let request = Request::new("GET", "/api/alice/tasks").bearer(&token);
        assert_eq!(request.response(gate.address).status, 200);
    }
    let ended = gate.stop();
    let lines = ended.stderr.lines();
    let written = lines
        .filter(|line| line.contains("claimgate::access"))
        .count();
    // Six standard deviations on either side.
    assert!((58..=142).contains(&written), "{written} of 200");
}
