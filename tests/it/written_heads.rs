//! Request heads as the gate writes them, read back by other parsers.
//!
//! The generator is seeded, so a failure repeats. `CLAIMGATE_WRITTEN_HEADS=1000000` sets the number of heads; with
//! `CLAIMGATE_WRITTEN_HEADS_FILE`, the heads and their meaning are written to two files for the parsers of tests/e2e.

use std::convert::Infallible;
use std::env;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::{Arc, LazyLock, Mutex};

use fastrand::Rng;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use claimgate::clock::UnixTime;
use claimgate::gate::cache::TokenCache;
use claimgate::gate::permit::Caller;
use claimgate::proxy::headers::Peer;
use claimgate::proxy::request_head::{RequestHead, RequestLength};
use claimgate::proxy::shared::Policy;

use crate::harness::issuer::{SECRET, claims};
use crate::harness::sidecar::compile;
use crate::harness::{Issuer, Key, NOW, Upstream};

/// Heads of a normal run.
const HEADS: usize = 20_000;

const ROUTES: &str = r#"
[[routes]]
path = "/api/{user_id}/{*rest}"
access = { owner = "user_id" }
tokens = [
    { header = "Authorization" },
    { header = "X-Token" },
    { cookie = "session" },
    { query = "access_token" },
    { websocket = "bearer" },
]

[[routes]]
path = "/plain/{user_id}/{*rest}"
access = { owner = "user_id" }
replace_prefix = { from = "/plain", to = "/v1" }
request_headers = { set = { X-Tenant = "acme" }, remove = ["X-Debug"] }

[[routes]]
path = "/open/{*rest}"
access = "public"
"#;

static POLICIES: LazyLock<[Policy; 3]> = LazyLock::new(|| {
    [
        "[identity]\ncredential = \"strip\"\n",
        "[identity]\ncredential = \"forward\"\n",
        "[listen]\ntrusted_proxies = [\"192.0.2.0/24\"]\n",
    ]
    .map(|rest| {
        let config = format!("{rest}{ROUTES}");
        compile(&config, &Upstream::unreachable(), &Issuer::start()).policy
    })
});

static TOKEN: LazyLock<String> =
    LazyLock::new(|| Key::secret(SECRET.as_bytes()).sign(&claims("alice")));

/// Field names without a meaning for the gate: their values arrive unchanged and in order.
const ORDINARY: [&str; 8] = [
    "accept",
    "content-type",
    "x-plain",
    "x-other",
    "origin-trial",
    "!#$%&'*+.^_`|~",
    "if-none-match",
    "x-0",
];

/// Names that the gate removes, replaces or reads.
const SPECIAL: [&str; 28] = [
    "x-user-id",
    "X_User_Id",
    "HTTP_X_USER_ID",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "forwarded",
    "x-real-ip",
    "remote-user",
    "te",
    "trailer",
    "expect",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "http2-settings",
    "content_length",
    "Transfer.Encoding",
    "http_host",
    "via",
    "x-request-id",
    "x-http-method-override",
    "x_token",
    "x-tenant",
    "x_tenant",
    "x-debug",
    "traceparent",
];

/// A head that the gate permitted, with its meaning.
struct Written {
    received: Parts,
    policy: &'static Policy,
    target: String,
    caller: Caller,
    head: RequestHead,
    /// Body in the framing of the head.
    body: Vec<u8>,
    content: usize,
}

fn pick<'a>(random: &mut Rng, from: &[&'a str]) -> &'a str {
    from[random.usize(..from.len())]
}

/// Spelling with random letters in upper case.
fn recased(random: &mut Rng, name: &str) -> String {
    let letters = name.chars();
    let letters = letters.map(|it| {
        if random.u8(..4) == 0 {
            it.to_ascii_uppercase()
        } else {
            it
        }
    });
    letters.collect()
}

/// Any value that a server accepts: visible ASCII, inner blanks and obs-text (RFC 9110 section 5.5).
fn value(random: &mut Rng) -> Vec<u8> {
    let known = [
        "trailers",
        "close",
        "1",
        "https",
        "203.0.113.9, 192.0.2.1",
        "for=203.0.113.9;proto=https",
        "/app",
    ];
    if random.bool() {
        return pick(random, &known).as_bytes().to_vec();
    }
    let mut value: Vec<u8> = (0..random.usize(..24))
        .map(|_| match random.u8(..8) {
            0 => b' ',
            1 => b'\t',
            2 => random.u8(0x80..),
            _ => random.u8(0x21..0x7f),
        })
        .collect();
    while value.first().is_some_and(u8::is_ascii_whitespace) {
        value.remove(0);
    }
    while value.last().is_some_and(u8::is_ascii_whitespace) {
        value.pop();
    }
    value
}

/// A request head as hyper hands it over, and its number of body bytes.
fn received(random: &mut Rng) -> (Parts, usize) {
    let route = pick(random, &["/api/alice", "/plain/alice", "/open/x"]);
    let rest = pick(random, &["/a", "/a/b", "/%20/~", "/tasks/1"]);
    let query = pick(
        random,
        &["", "?", "?a=1&b", "?x=%2e&access_token", "?a=1;b=/../"],
    );
    let source = random.u8(..6);
    let mut target = format!("{route}{rest}{query}");
    if source == 3 && route == "/api/alice" {
        target = format!("{route}{rest}?a=%20&access_token={}&b", *TOKEN);
    }
    let opens_websocket = random.u8(..6) == 0 || source == 4;
    let method = if opens_websocket {
        "GET"
    } else {
        pick(
            random,
            &[
                "GET", "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "PROPFIND",
            ],
        )
    };
    let mut request = Request::builder().method(method).uri(target);
    let mut add = |name: &str, value: &[u8]| {
        let name: HeaderName = name.parse().unwrap();
        let value = HeaderValue::from_bytes(value).unwrap();
        request.headers_mut().unwrap().append(name, value);
    };
    let host = pick(
        random,
        &["api.example", "API.example:8443", "[::1]:80", "127.0.0.1"],
    );
    add("host", host.as_bytes());
    let token = TOKEN.as_str();
    match source {
        0 | 1 => add("authorization", format!("Bearer {token}").as_bytes()),
        2 => add("cookie", format!("a=1; session={token};b=2").as_bytes()),
        4 => add(
            "sec-websocket-protocol",
            format!("chat, bearer, {token}").as_bytes(),
        ),
        5 => add("x-token", token.as_bytes()),
        _ => {}
    }
    if opens_websocket {
        add("connection", b"keep-alive, Upgrade");
        add("upgrade", b"WebSocket");
        add("sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==");
        add("sec-websocket-version", b"13");
    }
    for _ in 0..random.usize(..10) {
        let names: &[&str] = if random.u8(..3) == 0 {
            &SPECIAL
        } else {
            &ORDINARY
        };
        let name = pick(random, names);
        let name = recased(random, name);
        add(&name, &value(random));
    }
    match random.u8(..4) {
        0 => add("connection", b"close, X-Plain"),
        1 => add("connection", b"keep-alive"),
        _ => {}
    }
    let content = if opens_websocket {
        0
    } else {
        random.usize(..40)
    };
    match random.u8(..3) {
        0 if content > 0 => add("transfer-encoding", b"Chunked"),
        1 => add(
            "content-length",
            format!("{:0>1$}", content, random.usize(1..4)).as_bytes(),
        ),
        _ => return (request.body(()).unwrap().into_parts().0, 0),
    }
    (request.body(()).unwrap().into_parts().0, content)
}

/// Next head that the gate permits.
fn written(random: &mut Rng, cache: &mut TokenCache) -> Option<Written> {
    let policy = &POLICIES[random.usize(..POLICIES.len())];
    let (head, content) = received(random);
    let peer = Peer::at(Some([192, 0, 2, 7].into()));
    let inbound = policy.headers.inbound(&peer, head);
    let permit = policy.gate.decide(&inbound, UnixTime(NOW), cache).ok()?;
    let id = HeaderValue::from_static("id");
    let forwarding = policy.forwarding(permit.route());
    let head = policy
        .headers
        .to_upstream(&inbound, &permit, forwarding, &peer, &id, None);
    let data = vec![b'x'; content];
    let body = match head.length() {
        RequestLength::None => Vec::new(),
        RequestLength::Exact(_) => data,
        RequestLength::Chunked => [
            format!("{content:x}\r\n").as_bytes(),
            &data,
            b"\r\n0\r\n\r\n",
        ]
        .concat(),
    };
    Some(Written {
        received: inbound.head,
        policy,
        target: policy
            .headers
            .target(&permit, forwarding)
            .as_str()
            .to_owned(),
        caller: permit.caller().clone(),
        head,
        body,
        content,
    })
}

/// Requests that hyper's server reads from these bytes, with the size of each body.
async fn read(bytes: &[u8]) -> Vec<(Parts, usize)> {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            seen.lock().unwrap().push((head, body.len()));
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let send = async {
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap();
    };
    // The client closes its side at once.
    let mut builder = http1::Builder::new();
    let serve = builder
        .half_close(true)
        .serve_connection(TokioIo::new(server), service);
    let (result, ()) = tokio::join!(serve, send);
    result.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)));
    let mut seen = seen.lock().unwrap();
    std::mem::take(&mut *seen)
}

/// Values of all fields with this name.
fn values<'a>(head: &'a Parts, name: &str) -> Vec<&'a [u8]> {
    let values = head.headers.get_all(name).iter();
    values.map(HeaderValue::as_bytes).collect()
}

/// Checks what a server read against the judged head.
fn check(written: &Written, read: &Parts, content: usize) {
    let shown = String::from_utf8_lossy(written.head.text()).into_owned();
    assert_eq!(read.method, written.received.method, "{shown}");
    assert_eq!(read.uri.to_string(), written.target, "{shown}");
    assert_eq!(content, written.content, "{shown}");
    let meant = written.head.to_parts();
    assert_eq!(read.headers, meant.headers, "{shown}");
    let user: &[&[u8]] = match &written.caller {
        Caller::Known(_) => &[b"alice"],
        Caller::Anonymous => &[],
    };
    assert_eq!(values(read, "x-user-id"), user, "{shown}");
    for single in [
        "host",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-request-id",
    ] {
        assert_eq!(values(read, single).len(), 1, "{single}: {shown}");
    }
    assert_eq!(
        values(read, "host"),
        values(&written.received, "host"),
        "{shown}"
    );
    let named: Vec<&[u8]> = values(&written.received, "connection");
    let is_named = named.iter().any(|value| value.ends_with(b"X-Plain"));
    for name in ORDINARY {
        let sent = values(&written.received, name);
        let sent = if is_named && name == "x-plain" {
            Vec::new()
        } else {
            sent
        };
        assert_eq!(values(read, name), sent, "{name}: {shown}");
    }
    let managed = &written.policy.headers.managed;
    for (name, value) in &read.headers {
        let folded = name.as_str();
        let is_own =
            matches!(folded, "x-user-id" | "forwarded") || folded.starts_with("x-forwarded-");
        assert!(is_own || !managed.covers(folded), "{name}: {shown}");
        let is_lost = ["expect", "trailer", "keep-alive", "proxy-connection"].contains(&folded);
        assert!(!is_lost && value != "Bearer", "{name}: {shown}");
    }
    assert_eq!(
        read.headers.contains_key("upgrade"),
        written.head.is_upgrade(),
        "{shown}"
    );
    let framing = (
        values(read, "content-length").len(),
        values(read, "transfer-encoding").len(),
    );
    let expected = match written.head.length() {
        RequestLength::None => (0, 0),
        RequestLength::Exact(_) => (1, 0),
        RequestLength::Chunked => (0, 1),
    };
    assert_eq!(framing, expected, "{shown}");
}

/// Files for the parsers of tests/e2e: the pipelined requests, and one JSON object a request.
struct Dump {
    stream: BufWriter<File>,
    meaning: BufWriter<File>,
}

impl Dump {
    fn create(path: &str) -> Self {
        let create = |path: &str| BufWriter::new(File::create(path).unwrap());
        Self {
            stream: create(path),
            meaning: create(&format!("{path}.jsonl")),
        }
    }

    fn write(&mut self, written: &Written) {
        let meant = written.head.to_parts();
        let latin1 = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
        let mut fields: Vec<_> = meant
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), latin1(value.as_bytes())))
            .collect();
        fields.sort();
        let meaning = json!({
            "method": written.received.method.as_str(),
            "target": written.target,
            "fields": fields,
            "content": written.content,
            "bytes": written.head.text().len() + written.body.len(),
        });
        self.stream.write_all(written.head.text()).unwrap();
        self.stream.write_all(&written.body).unwrap();
        writeln!(self.meaning, "{meaning}").unwrap();
    }
}

#[test]
fn hyper_reads_each_written_head_as_it_was_judged() {
    let heads = env::var_os("CLAIMGATE_WRITTEN_HEADS");
    let heads = heads.map_or(HEADS, |it| it.to_str().unwrap().parse().unwrap());
    let mut dump = env::var_os("CLAIMGATE_WRITTEN_HEADS_FILE")
        .map(|path| Dump::create(path.to_str().unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut random = Rng::with_seed(11);
    let mut cache = TokenCache::default();
    let (mut permitted, mut judged) = (0, 0);
    while permitted < heads {
        judged += 1;
        assert!(
            judged < 20 * heads,
            "the gate permits too few heads: {permitted} of {judged}"
        );
        let Some(written) = written(&mut random, &mut cache) else {
            continue;
        };
        permitted += 1;
        // A second request shows where the first one ends.
        let next = b"GET /next HTTP/1.1\r\nhost: next\r\n\r\n";
        let bytes = [written.head.text(), &written.body, next].concat();
        let seen = runtime.block_on(read(&bytes));
        let [(head, content), (after, 0)] = seen.as_slice() else {
            panic!("{}: {seen:?}", String::from_utf8_lossy(written.head.text()));
        };
        assert_eq!(after.uri, "/next");
        check(&written, head, *content);
        if let Some(dump) = &mut dump {
            dump.write(&written);
        }
    }
}
