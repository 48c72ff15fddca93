//! Header names: no spelling of a name that only the gate may write passes it.

use http::{HeaderName, HeaderValue, Request};

use claimgate::gate::cache::TokenCache;
use claimgate::gate::permit::{Caller, Permit};

use super::policy::{POLICY, decide, peer, token_of};

/// Names that the gate writes, or that would change the method after it was judged.
const RESERVED: [&str; 8] = [
    "x-user-id",
    "x-user-email",
    "subject-name",
    "x-real-ip",
    "x-original-url",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

/// Sends each line of the input as a header name, on a public route and on one with a token.
pub fn check(data: &[u8]) {
    let names = data.split(|byte| *byte == b'\n').take(32);
    let names: Vec<HeaderName> = names
        .filter_map(|line| HeaderName::from_bytes(line).ok())
        .collect();
    for target in ["/open/x", "/me/x"] {
        let mut request = Request::get(target).body(()).expect("a request");
        let headers = request.headers_mut();
        for name in &names {
            headers.append(name, HeaderValue::from_static("mallory"));
        }
        headers.insert("host", HeaderValue::from_static("gate.test"));
        let token = format!("Bearer {}", token_of("alice"));
        if target == "/me/x" {
            headers.insert("authorization", token.parse().expect("a header value"));
        }
        let head = request.into_parts().0;
        if let Ok(permit) = decide(&head, &mut TokenCache::default()) {
            let sent = forwarded(head, &permit);
            check_forwarded(&sent, &permit);
        }
    }
}

/// Head as it is sent to the upstream.
pub(crate) fn forwarded(head: http::request::Parts, permit: &Permit) -> http::request::Parts {
    let inbound = POLICY.headers.inbound(&peer(), head);
    let id = HeaderValue::from_static("id");
    let forwarding = POLICY.forwarding(permit.route());
    let headers = &POLICY.headers;
    let head = headers.to_upstream(&inbound, permit, forwarding, &peer(), &id, None);
    head.to_parts()
}

/// Checks the identity in a forwarded head: exactly one of each identity header with a token, none without.
pub(crate) fn check_forwarded(sent: &http::request::Parts, permit: &Permit) {
    let received = |wanted: &str| -> Vec<&[u8]> {
        let all = sent
            .headers
            .iter()
            .filter(|(name, _)| folded(name.as_str()) == wanted);
        all.map(|(_, value)| value.as_bytes()).collect()
    };
    for reserved in RESERVED {
        let values = received(reserved);
        let expected: Vec<&[u8]> = match (permit.caller(), reserved) {
            (Caller::Known(caller), "x-user-id" | "subject-name") => {
                vec![caller.subject.as_str().as_bytes()]
            }
            (Caller::Known(_), "x-user-email") => vec![b"one@mail.test"],
            _ => Vec::new(),
        };
        // The gate writes the client address.
        if reserved != "x-real-ip" || values != [b"192.0.2.7"] {
            assert_eq!(values, expected, "{reserved}: {:?}", sent.headers);
        }
    }
    for (name, value) in &sent.headers {
        let folded = folded(name.as_str());
        if folded.starts_with("x-forwarded-") || folded == "forwarded" {
            assert_eq!(
                name.as_str(),
                folded,
                "another spelling of a forwarding header"
            );
            assert_ne!(value.as_bytes(), b"mallory", "{name} is the client's");
        }
    }
}

/// Name as CGI, WSGI and Rack read it (RFC 3875 section 4.1.18): without case, with one separator.
fn folded(name: &str) -> String {
    let dashed = name
        .to_ascii_lowercase()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    dashed.strip_prefix("http-").unwrap_or(&dashed).to_owned()
}
