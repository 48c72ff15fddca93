//! Request heads as they are written to an upstream: one head, read back as it was judged.

use http::HeaderValue;

use claimgate::gate::cache::TokenCache;
use claimgate::gate::permit::Caller;
use claimgate::proxy::request_head::RequestLength;

use super::gate::parse;
use super::header_names::check_forwarded;
use super::policy::{POLICY, decide, peer};

/// Most fields of a written head.
const MAX_FIELDS: usize = 160;

/// Reads the input as a request head of HTTP/1.1, judges it, and parses the text that would be sent.
pub fn check(data: &[u8]) {
    let Some(head) = parse(data) else {
        return;
    };
    let Ok(permit) = decide(&head, &mut TokenCache::default()) else {
        return;
    };
    let inbound = POLICY.headers.inbound(&peer(), head);
    let id = HeaderValue::from_static("id");
    let forwarding = POLICY.forwarding(permit.route());
    let headers = &POLICY.headers;
    let written = headers.to_upstream(&inbound, &permit, forwarding, &peer(), &id, None);
    let text = written.text();

    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut read = httparse::Request::new(&mut fields);
    let parsed = read.parse(text).expect("a head that parses");
    assert_eq!(parsed, httparse::Status::Complete(text.len()), "one head");
    assert_eq!(read.version, Some(1));
    assert_eq!(read.method, Some(inbound.head.method.as_str()));
    assert_eq!(read.path, Some(permit.target().as_str()));
    // A parser that takes a bare CR or LF as the end of a line reads the same lines.
    let ends = text.iter().filter(|byte| matches!(byte, b'\r' | b'\n'));
    assert_eq!(ends.count(), 2 * (read.headers.len() + 2), "line breaks");
    assert!(!text.contains(&0));

    let values = |name: &str| -> Vec<&[u8]> {
        let all = read.headers.iter().filter(|field| field.name == name);
        all.map(|field| field.value).collect()
    };
    let user: Vec<&[u8]> = match permit.caller() {
        Caller::Known(caller) => vec![caller.subject.as_str().as_bytes()],
        Caller::Anonymous => Vec::new(),
    };
    assert_eq!(values("x-user-id"), user);
    assert_eq!(values("host").len(), 1);
    let framing = (
        values("content-length").len(),
        values("transfer-encoding").len(),
    );
    let expected = match written.length() {
        RequestLength::None => (0, 0),
        RequestLength::Exact(_) => (1, 0),
        RequestLength::Chunked => (0, 1),
    };
    assert_eq!(framing, expected);

    let parts = written.to_parts();
    assert_eq!(parts.headers.len(), read.headers.len());
    for (name, value) in &parts.headers {
        let value = value.as_bytes().trim_ascii();
        assert!(values(name.as_str()).contains(&value), "{name}");
    }
    check_forwarded(&parts, &permit);
}
