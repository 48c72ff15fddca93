//! gRPC between a tonic client and server: every kind of call, errors, refusals and token expiry.

mod service;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio_stream::iter;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::harness::frames::{DATA, END_HEADERS, Frame, Frames, HEADERS, PING, head};
use crate::harness::hyper_client::{run, tasks};
use crate::harness::{Issuer, Latch, NOW, Next, Sidecar, Upstream, start_before, start_with};
use service::{MESSAGE, Note};

const SERVICE: &str = "/claimgate.test.Notes";
const ROUTES: &str = r#"
[[routes]]
path = "/claimgate.test.Notes/{method}"
access = "authenticated"
grpc = true

[[routes]]
path = "/users/{user_id}/{method}"
access = { owner = "user_id" }

[[routes]]
path = "/scoped/{method}"
access = "authenticated"
require = [{ claim = "scope", has = "notes" }]
"#;

fn start(config: &str) -> (Sidecar, Issuer) {
    start_at(service::start(), config)
}

fn start_at(upstream: SocketAddr, config: &str) -> (Sidecar, Issuer) {
    start_before(&tasks(Version::HTTP_2, upstream), config)
}

/// Client; clones share one connection.
#[derive(Clone)]
struct Client {
    grpc: Grpc<Channel>,
    token: Option<Arc<str>>,
}

impl Client {
    async fn connect(sidecar: &Sidecar) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", sidecar.address)).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self {
            grpc: Grpc::new(channel),
            token: None,
        }
    }

    fn bearer(&self, token: &str) -> Self {
        Self {
            grpc: self.grpc.clone(),
            token: Some(token.into()),
        }
    }

    /// Builds a request with the token and with forged identity metadata.
    async fn request<T>(&mut self, message: T) -> Request<T> {
        self.grpc.ready().await.unwrap();
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        for name in ["x-user-id", "x_user_id", "x.user.id"] {
            metadata.append(name, "mallory".parse().unwrap());
        }
        metadata.insert("x-note", "as it was".parse().unwrap());
        metadata.insert_bin(
            "x-note-bin",
            tonic::metadata::MetadataValue::from_bytes(b"\0\xff"),
        );
        if let Some(token) = &self.token {
            let value = format!("Bearer {token}").parse().unwrap();
            metadata.insert("authorization", value);
        }
        request
    }

    async fn unary(&mut self, path: &str, note: Note) -> Result<Response<Note>, Status> {
        let request = self.request(note).await;
        let path = PathAndQuery::try_from(path).unwrap();
        self.grpc.unary(request, path, ProstCodec::default()).await
    }

    async fn write(&mut self, text: &str) -> Result<Response<Note>, Status> {
        self.unary(&format!("{SERVICE}/Write"), Note::new(text))
            .await
    }

    async fn read(&mut self, service: &str, text: &str) -> Result<Streaming<Note>, Status> {
        let request = self.request(Note::new(text)).await;
        let path = PathAndQuery::try_from(format!("{service}/Read")).unwrap();
        let codec = ProstCodec::default();
        let response = self.grpc.server_streaming(request, path, codec).await;
        response.map(Response::into_inner)
    }

    async fn collect(&mut self, notes: Vec<Note>) -> Result<Note, Status> {
        let request = self.request(iter(notes)).await;
        let path = PathAndQuery::try_from(format!("{SERVICE}/Collect")).unwrap();
        let codec = ProstCodec::default();
        let response = self.grpc.client_streaming(request, path, codec).await;
        response.map(Response::into_inner)
    }

    async fn talk(&mut self, service: &str) -> Result<Talk, Status> {
        let (sender, receiver) = unbounded_channel();
        let notes = UnboundedReceiverStream::new(receiver);
        let request = self.request(notes).await;
        let path = PathAndQuery::try_from(format!("{service}/Talk")).unwrap();
        let codec = ProstCodec::default();
        let response = self.grpc.streaming(request, path, codec).await?;
        let responses = response.into_inner();
        Ok(Talk { sender, responses })
    }
}

/// Bidirectional streaming call.
struct Talk {
    sender: UnboundedSender<Note>,
    responses: Streaming<Note>,
}

impl Talk {
    async fn say(&mut self, text: &str) -> Result<Note, Status> {
        self.sender.send(Note::new(text)).unwrap();
        let response = self.responses.message().await?;
        Ok(response.expect("a response"))
    }
}

#[test]
fn forwards_every_kind_of_call_with_its_user() {
    let (sidecar, issuer) = start(ROUTES);
    run(async {
        let mut client = Client::connect(&sidecar)
            .await
            .bearer(&issuer.token("alice"));

        let written = client.write("one").await.unwrap();
        assert_eq!(written.metadata().get("x-written").unwrap(), "in the head");
        let note = written.into_inner();
        assert_eq!((note.text.as_str(), note.user.as_str()), ("one", "alice"));
        for name in ["te", "x-note", "x-note-bin", "x-request-id"] {
            let has = note.metadata.iter().any(|found| found == name);
            assert!(has, "no {name} in {:?}", note.metadata);
        }
        for name in ["authorization", "x_user_id", "x.user.id", "connection"] {
            let has = note.metadata.iter().any(|found| found == name);
            assert!(!has, "{name} in {:?}", note.metadata);
        }

        let mut notes = client.read(SERVICE, "3 end").await.unwrap();
        for _ in 0..3 {
            assert_eq!(notes.message().await.unwrap().unwrap().user, "alice");
        }
        assert_eq!(notes.message().await.unwrap(), None);
        assert!(notes.trailers().await.unwrap().is_some());

        let all = client
            .collect(["a", "b", "c"].map(Note::new).to_vec())
            .await
            .unwrap();
        assert_eq!((all.text.as_str(), all.user.as_str()), ("abc", "alice"));

        let mut talk = client.talk(SERVICE).await.unwrap();
        for text in ["hello", "again"] {
            let note = talk.say(text).await.unwrap();
            assert_eq!((note.text.as_str(), note.user.as_str()), (text, "alice"));
        }
        drop(talk.sender);
        assert_eq!(talk.responses.message().await.unwrap(), None);
    });
}

#[test]
fn forwards_an_error_of_the_service_unchanged() {
    let (sidecar, issuer) = start(ROUTES);
    run(async {
        let mut client = Client::connect(&sidecar)
            .await
            .bearer(&issuer.token("alice"));
        let immediate = client.write("fail").await.unwrap_err();
        // After two messages the error is in the trailers, not in the head.
        let mut notes = client.read(SERVICE, "2 fail").await.unwrap();
        notes.message().await.unwrap().unwrap();
        notes.message().await.unwrap().unwrap();
        let late = notes.message().await.unwrap_err();
        for error in [immediate, late] {
            assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
            assert_eq!(error.message(), MESSAGE);
            assert_eq!(error.metadata().get("x-why").unwrap(), "in the end");
        }
    });
}

/// Asserts a gRPC status with the text of the gate, not one derived from the HTTP status.
#[track_caller]
fn refused(status: &Status, code: Code, detail: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(detail), "{status:?}");
}

#[test]
fn a_refusal_is_a_grpc_status() {
    let (sidecar, issuer) = start(ROUTES);
    run(async {
        let anonymous = Client::connect(&sidecar).await;
        let alice = anonymous.bearer(&issuer.token("alice"));
        let expired = issuer.sign(&json!({ "sub": "alice", "exp": NOW - 60 }));
        let expired = anonymous.bearer(&expired);

        let missing = anonymous.clone().write("x").await.unwrap_err();
        refused(&missing, Code::Unauthenticated, "token");
        let expired = expired.clone().write("x").await.unwrap_err();
        refused(&expired, Code::Unauthenticated, "expired");
        let note = Note::new("x");
        let other = alice.clone().unary("/users/bob/Write", note.clone()).await;
        refused(&other.unwrap_err(), Code::PermissionDenied, "");
        let scope = alice.clone().unary("/scoped/Write", note.clone()).await;
        refused(&scope.unwrap_err(), Code::PermissionDenied, "");
        let unknown = alice.clone().unary("/other.Service/Write", note).await;
        refused(&unknown.unwrap_err(), Code::Unimplemented, "");

        // A streaming call is refused likewise, and the connection stays usable.
        let stream = anonymous.clone().read(SERVICE, "1 end").await.unwrap_err();
        refused(&stream, Code::Unauthenticated, "token");
        let talk = anonymous.clone().talk(SERVICE).await.err().unwrap();
        refused(&talk, Code::Unauthenticated, "token");
        assert_eq!(
            alice.clone().write("x").await.unwrap().into_inner().user,
            "alice"
        );
    });
}

#[test]
fn an_unreachable_service_is_unavailable() {
    let unreachable = Upstream::unreachable();
    let address = unreachable
        .url()
        .strip_prefix("http://")
        .unwrap()
        .parse()
        .unwrap();
    let (sidecar, issuer) = start_at(address, ROUTES);
    run(async {
        let mut client = Client::connect(&sidecar)
            .await
            .bearer(&issuer.token("alice"));
        let status = client.write("x").await.unwrap_err();
        refused(&status, Code::Unavailable, "");
    });
}

#[test]
fn a_large_message_passes_in_both_directions() {
    let (sidecar, issuer) = start(ROUTES);
    run(async {
        let mut client = Client::connect(&sidecar)
            .await
            .bearer(&issuer.token("alice"));
        let load: Vec<u8> = (0..1024 * 1024_u32)
            .map(|at| at.to_le_bytes()[at as usize % 3])
            .collect();
        let note = Note {
            load,
            ..Note::default()
        };
        let path = format!("{SERVICE}/Write");
        let response = client
            .unary(&path, note.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(
            response.load == note.load,
            "{} bytes came back",
            response.load.len()
        );
        // Three messages exceed every flow-control window.
        let all = client.collect(vec![note.clone(); 3]).await.unwrap();
        assert!(
            all.load == note.load.repeat(3),
            "{} bytes came back",
            all.load.len()
        );
    });
}

#[test]
fn no_call_reaches_another_user() {
    let (sidecar, issuer) = start(ROUTES);
    let tokens: Vec<(String, String)> = (0..8)
        .map(|number| format!("user-{number}"))
        .map(|user| (issuer.token(&user), user))
        .collect();
    run(async {
        // Two connections, each with concurrent calls of all users.
        let connections = [
            Client::connect(&sidecar).await,
            Client::connect(&sidecar).await,
        ];
        let mut calls = JoinSet::new();
        for number in 1..=1000 {
            let (token, user) = &tokens[number % tokens.len()];
            let mut client = connections[number % 2].bearer(token);
            let user = user.clone();
            calls.spawn(async move {
                let text = number.to_string();
                let (note, expected) = if number % 3 == 0 {
                    let mut notes = client
                        .read(SERVICE, &format!("{text} forever"))
                        .await
                        .unwrap();
                    let note = notes.message().await;
                    // Dropping the stream abandons the call.
                    (note.unwrap(), format!("{text} forever"))
                } else {
                    (Some(client.write(&text).await.unwrap().into_inner()), text)
                };
                if let Some(note) = note {
                    assert_eq!((note.user, note.text), (user, expected));
                }
            });
        }
        let mut done = 0;
        while let Some(call) = calls.join_next().await {
            call.unwrap();
            done += 1;
        }
        assert_eq!(done, 1000);
    });
}

#[test]
fn a_call_ends_at_token_expiry_unless_the_route_keeps_it() {
    // The same service under another path.
    let kept = r#"
[[routes]]
path = "/kept/{method}"
access = "authenticated"
grpc = true
at_expiry = "keep"
replace_prefix = { from = "/kept", to = "/claimgate.test.Notes" }

[issuers.test]
keys = { secret_env = "TEST_SECRET" }
leeway = "0s"
"#;
    let (sidecar, issuer) = start(&format!("{ROUTES}{kept}"));
    let token = issuer.sign(&json!({ "sub": "alice", "exp": NOW + 10 }));
    run(async {
        let mut client = Client::connect(&sidecar).await.bearer(&token);
        let mut kept = client.talk("/kept").await.unwrap();
        let mut talk = client.talk(SERVICE).await.unwrap();
        let mut notes = client.read(SERVICE, "1 forever").await.unwrap();
        assert_eq!(kept.say("before").await.unwrap().text, "before");
        assert_eq!(talk.say("before").await.unwrap().text, "before");
        assert_eq!(notes.message().await.unwrap().unwrap().user, "alice");

        let ended = notes.message().await.unwrap_err();
        refused(&ended, Code::Unauthenticated, "expired");
        let ended = talk.responses.message().await.unwrap_err();
        refused(&ended, Code::Unauthenticated, "expired");
        assert_eq!(kept.say("after").await.unwrap().text, "after");
        // The clock of the gate is fixed: so far only open calls have ended.
        sidecar.set_time(NOW + 10);
        let late = client.write("x").await.unwrap_err();
        refused(&late, Code::Unauthenticated, "expired");
    });
}

/// Sends half of an upload with this media type over HTTP/1.1. Returns whether the body timeout ends it.
fn times_out_over_http1(sidecar: &Sidecar, path: &str, kind: &str) -> bool {
    let mut client = sidecar.connect();
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: gate.test\r\nContent-Type: {kind}\r\nContent-Length: 10\r\n\r\nhalf"
    ));
    let response = client.response();
    // A refusal of a gRPC call: RFC status 408 as DEADLINE_EXCEEDED.
    response.status == 408 || response.header("grpc-status").as_deref() == Some("4")
}

/// Sends half of an upload with this media type over HTTP/2. Returns whether the body timeout ends it.
fn times_out_over_http2(sidecar: &Sidecar, path: &str, kind: &str) -> bool {
    let mut client = Frames::connect(sidecar.address);
    let fields = [(":method", "POST"), (":path", path), ("content-type", kind)];
    client.send(&Frame::new(HEADERS, END_HEADERS, 1, &head(&fields)));
    client.send(&Frame::new(DATA, 0, 1, b"half"));
    // A GET whose upload is complete tells that five body timeouts have passed.
    let until = std::time::Instant::now() + BODY_TIMEOUT * 5;
    while std::time::Instant::now() < until {
        std::thread::park_timeout(BODY_TIMEOUT / 10);
    }
    client.send(&Frame::new(PING, 0, 0, b"12345678"));
    let next = client.until(|frame| [HEADERS, PING].contains(&frame.kind));
    next.kind == HEADERS
}

/// Body timeout of the tests for silent uploads.
const BODY_TIMEOUT: Duration = Duration::from_millis(200);

/// Uploads may pause only as gRPC over HTTP/2 on a route that is declared as gRPC: every other silent upload would hold
/// a connection to the upstream for ever. Media type: PROTOCOL-HTTP2.md of gRPC, "Content-Type", and RFC 9110 section
/// 8.3.1.
#[test]
fn only_a_declared_grpc_call_over_http2_may_pause_its_upload() {
    let routes = r#"
[listen]
body_timeout = "200ms"

[[routes]]
path = "/declared"
access = "public"
grpc = true

[[routes]]
path = "/plain"
access = "public"
"#;
    let latch = Latch::default();
    let upstream = Upstream::held(&latch);
    let (sidecar, _upstream, _issuer) = start_with(routes, upstream);
    for kind in [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc+json; charset=utf-8",
        "Application/GRPC",
    ] {
        assert!(!times_out_over_http2(&sidecar, "/declared", kind), "{kind}");
        assert!(times_out_over_http2(&sidecar, "/plain", kind), "{kind}");
    }
    for kind in [
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpcx",
        "application/grpc, text/plain",
        "application/json",
    ] {
        assert!(times_out_over_http2(&sidecar, "/declared", kind), "{kind}");
    }
    for path in ["/declared", "/plain"] {
        for kind in ["application/grpc", "application/grpc+proto"] {
            assert!(times_out_over_http1(&sidecar, path, kind), "{path} {kind}");
        }
    }
    latch.open();
}

/// A declared call holds its connection to the upstream for `idle_timeout` at most while nothing moves.
#[test]
fn a_declared_grpc_call_ends_when_neither_side_sends() {
    let routes = r#"
[upstreams.tasks]
idle_timeout = "300ms"
response_timeout = "100ms"

[[routes]]
path = "/declared"
access = "public"
grpc = true
"#;
    let upstream = Upstream::responding(|exchange| {
        exchange.wire.until_closed();
        Next::Close
    });
    let (sidecar, upstream, _issuer) = start_with(routes, upstream);
    let mut client = Frames::connect(sidecar.address);
    let fields = [
        (":method", "POST"),
        (":path", "/declared"),
        ("content-type", "application/grpc"),
    ];
    client.send(&Frame::new(HEADERS, END_HEADERS, 1, &head(&fields)));
    client.send(&Frame::new(DATA, 0, 1, b"half"));
    client.next(HEADERS);
    upstream.wait_for_closed(1);
}
