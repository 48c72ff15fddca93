//! The whole gate: request head in, decision out, and the head that would be sent.

use http::request::Parts;
use http::{HeaderValue, Request, Uri};
use percent_encoding::percent_decode_str;

use claimgate::gate::access::Rule;
use claimgate::gate::cache::TokenCache;
use claimgate::gate::path::CanonicalPath;
use claimgate::gate::permit::Caller;
use claimgate::gate::stop::Stop;

use super::header_names::{check_forwarded, forwarded};
use super::policy::{decide, token_of};

/// Subjects with a valid token, each named `{subject}` in an input.
const SUBJECTS: [&str; 4] = ["alice", "bob", "a b", "Zoë"];

/// Literal paths with a stricter rule than the pattern with a parameter beside them.
const LITERALS: [&str; 2] = ["/v1/tasks:purge", "/v1/örtlich"];

/// Reads the input as a request head of HTTP/1.1 and judges it. In field values, `{alice}` is a valid token of alice.
pub fn check(data: &[u8]) {
    let Some(head) = parse(data) else {
        return;
    };
    let mut cache = TokenCache::default();
    let decision = decide(&head, &mut cache);
    let again = decide(&head, &mut cache);
    assert_eq!(
        format!("{decision:?}"),
        format!("{again:?}"),
        "the cache changes the decision"
    );
    match decision {
        Ok(permit) => {
            let sent = forwarded(head.clone(), &permit);
            assert_eq!(
                sent.method, head.method,
                "the method sent is not the method judged"
            );
            check_target(&head.uri, &sent.uri);
            check_forwarded(&sent, &permit);
            let path = head.uri.path();
            if let Caller::Known(caller) = permit.caller() {
                if matches!(permit.route().access.rule, Rule::Owner { .. }) {
                    let segment = path.split('/').nth(2).expect("an owner segment");
                    let owner = percent_decode_str(segment).decode_utf8().expect("UTF-8");
                    assert_eq!(
                        owner,
                        caller.subject.as_str(),
                        "forwarded to the data of another user"
                    );
                }
                assert!(
                    !sent.headers.contains_key("authorization"),
                    "the token is forwarded"
                );
            } else {
                assert_eq!(permit.route().access.rule, Rule::Public);
                // RFC 3986 section 6.2.2: an API may read these spellings as one path.
                let reading = reading(path);
                assert!(
                    !LITERALS.contains(&&*reading),
                    "{path} is public, {reading} is not"
                );
            }
        }
        Err(Stop::Refuse(refused)) => {
            let status = refused.refusal.status().as_u16();
            assert!((300..=599).contains(&status), "{status}");
            // The keys of this policy are always there.
            assert_ne!(status, 503, "{}", refused.refusal.reason());
        }
        Err(
            Stop::NeedsKeys(_) | Stop::NeedsExchange(_) | Stop::Preflight(_) | Stop::Metadata(_),
        ) => {
            panic!(
                "no issuer fetches keys or exchanges credentials, no route has CORS, and there is no [resource]"
            )
        }
    }
}

/// RFC 9112 section 3.2.1: an origin server gets the path and query, here byte for byte as received.
fn check_target(judged: &Uri, sent: &Uri) {
    assert_eq!(
        sent.path(),
        judged.path(),
        "the path sent is not the path judged"
    );
    assert_eq!(sent.query(), judged.query(), "the query changed");
    assert!(
        sent.authority().is_none() && sent.scheme().is_none(),
        "{sent}"
    );
    assert!(CanonicalPath::parse(sent.path()).is_ok(), "{sent}");
    let text = sent.to_string();
    assert!(
        text.starts_with('/') && !text.contains(['#', ' ', '\r', '\n']),
        "{text:?}"
    );
}

/// Path as an API with path parameters (`;`) and decoded segments reads it.
fn reading(path: &str) -> String {
    let segments = path.split('/').map(|segment| {
        let decoded = percent_decode_str(segment).decode_utf8_lossy().into_owned();
        decoded.split(';').next().unwrap_or_default().to_owned()
    });
    segments.collect::<Vec<_>>().join("/")
}

/// Parses a head as the HTTP/1.1 server does after splitting it into lines. `None` if the server rejects it.
pub(crate) fn parse(data: &[u8]) -> Option<Parts> {
    let mut lines = data
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let (method, target) = (words.next()?, words.next()?);
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .body(())
        .ok()?;
    for line in lines.take(100).take_while(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let value = String::from_utf8_lossy(value.get(1..)?).trim().to_owned();
        let value = SUBJECTS.iter().fold(value, |value, subject| {
            let name = format!("{{{subject}}}");
            if value.contains(&name) {
                value.replace(&name, &token_of(subject))
            } else {
                value
            }
        });
        let name = http::HeaderName::from_bytes(name).ok()?;
        request
            .headers_mut()
            .append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    Some(request.into_parts().0)
}
