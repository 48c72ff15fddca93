//! What HTTP means is the same whichever version each side speaks: answers without a body, trailers, and what is said
//! before the answer.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use tokio_stream::iter;

use crate::harness::hyper_client::{AnyBody, Either, Seen, VERSIONS, run, serve, tasks, text};
use crate::harness::issuer::Window;
use crate::harness::{
    Issuer, Key, Latch, Next, ROUTES, Sidecar, Upstream, get, post, request, start, start_before,
    start_with,
};

/// A server that has one answer of each kind.
async fn answer(request: Request<Incoming>) -> Response<AnyBody> {
    let (head, body) = request.into_parts();
    let sent = body.collect().await.unwrap().to_bytes();
    let response = Response::builder().header("etag", "\"1\"");
    let none = text("");
    let answer = match head.uri.path() {
        "/open/none" => response.status(StatusCode::NO_CONTENT).body(none),
        "/open/known" => response.status(StatusCode::NOT_MODIFIED).body(none),
        "/open/trailers" => response
            .header("trailer", "x-sum, x-user-id")
            .body(trailing()),
        // hyper would send the body of a HEAD over HTTP/2.
        _ if head.method == "HEAD" => response.header("content-length", "16").body(none),
        _ => response.body(text(format!("{} and {} bytes", head.method, sent.len()))),
    };
    answer.unwrap()
}

/// A body with trailers, of which one is not the upstream's to write.
fn trailing() -> AnyBody {
    let mut trailers = HeaderMap::new();
    for (name, value) in [
        ("x-sum", "4"),
        ("x-user-id", "mallory"),
        ("x-forwarded-for", "1.1.1.1"),
    ] {
        trailers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"body"))),
        Ok(Frame::trailers(trailers)),
    ];
    StreamBody::new(iter(frames)).boxed_unsync()
}

fn ask(sidecar: &Sidecar, version: Version, method: &str, path: &str, body: &'static str) -> Seen {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("te", "trailers");
    let request = request.body(text(body)).unwrap();
    run(async {
        let mut client = Either::connect(sidecar.address, version).await;
        client
            .ask(request)
            .await
            .unwrap_or_else(|error| panic!("{version:?} {method} {path}: {error}"))
    })
}

#[test]
fn an_answer_means_the_same_in_every_pair_of_versions() {
    let address = serve(answer);
    let cases = [
        ("GET", "/open/page", "", 200, Some("15"), "GET and 0 bytes"),
        ("HEAD", "/open/page", "", 200, Some("16"), ""),
        (
            "POST",
            "/open/page",
            "milk",
            200,
            Some("16"),
            "POST and 4 bytes",
        ),
        ("DELETE", "/open/none", "", 204, None, ""),
        ("POST", "/open/none", "milk", 204, None, ""),
        ("GET", "/open/known", "", 304, None, ""),
        ("HEAD", "/open/known", "", 304, None, ""),
    ];
    for behind in VERSIONS {
        let (sidecar, _issuer) = start_before(&tasks(behind, address), ROUTES);
        for before in VERSIONS {
            for (method, path, body, status, length, answer) in cases {
                let seen = ask(&sidecar, before, method, path, body);
                let place = format!("{before:?} to {behind:?}: {method} {path}: {seen:?}");
                assert_eq!(seen.status.as_u16(), status, "{place}");
                assert_eq!(seen.body, answer, "{place}");
                assert_eq!(seen.headers["etag"], "\"1\"", "{place}");
                let found = seen.headers.get("content-length");
                assert_eq!(
                    found.map(|found| found.to_str().unwrap()),
                    length,
                    "{place}"
                );
                assert!(!seen.headers.contains_key("transfer-encoding"), "{place}");
            }
        }
    }
}

#[test]
fn a_body_where_there_must_be_none_is_not_taken_for_the_next_answer() {
    // As no server should: over HTTP/2 hyper does as it is told.
    let address = serve(|request| async move {
        let smuggled = text("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nmallory");
        let status = match request.uri().path() {
            "/open/none" => 204,
            "/open/known" => 304,
            "/open/reset" => 205,
            "/open/head" => 200,
            _ => return Response::new(text("page")),
        };
        Response::builder().status(status).body(smuggled).unwrap()
    });
    let (sidecar, _issuer) = start_before(&tasks(Version::HTTP_2, address), ROUTES);
    for (method, path) in [
        ("GET", "/open/none"),
        ("GET", "/open/known"),
        ("GET", "/open/reset"),
        ("HEAD", "/open/head"),
    ] {
        let mut client = sidecar.connect();
        client.send(request(method, path).bytes());
        client.send(get("/open/page").bytes());
        let first = client.read(method == "HEAD").unwrap();
        assert!(first.status < 400, "{method} {path}: {first:?}");
        let next = client.answer();
        assert_eq!(
            (next.status, next.text().as_str()),
            (200, "page"),
            "{method} {path}"
        );

        run(async {
            let mut client = Either::connect(sidecar.address, Version::HTTP_2).await;
            let asked = |method: &str, path| {
                let request = Request::builder().method(method).uri(path);
                request.body(text("")).unwrap()
            };
            // The stream may break off, but no other.
            let _answered = client.ask(asked(method, path)).await;
            let next = client.ask(asked("GET", "/open/page")).await.unwrap();
            assert_eq!(next.body, "page", "{method} {path}");
        });
    }
}

#[test]
fn trailers_of_a_request_never_arrive() {
    // Over HTTP/2 on both sides, they could be metadata of a call as well as the head.
    let address = serve(|request| async move {
        let (head, body) = request.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned();
        let user = head.headers["x-user-id"].to_str().unwrap();
        Response::new(text(format!("{user} {trailers:?}")))
    });
    for behind in VERSIONS {
        let (sidecar, issuer) = start_before(&tasks(behind, address), ROUTES);
        for before in VERSIONS {
            let request = Request::post("/me/trailers")
                .header("authorization", format!("Bearer {}", issuer.token("alice")))
                .header("trailer", "x-sum, x-user-id")
                .body(trailing())
                .unwrap();
            let seen = run(async {
                let mut client = Either::connect(sidecar.address, before).await;
                client.ask(request).await.unwrap()
            });
            assert_eq!(seen.body, "alice None", "{before:?} to {behind:?}");
        }
    }
}

#[test]
fn trailers_pass_but_for_those_that_are_the_gates_to_write() {
    let address = serve(answer);
    let (sidecar, _issuer) = start_before(&tasks(Version::HTTP_2, address), ROUTES);
    for before in VERSIONS {
        let seen = ask(&sidecar, before, "GET", "/open/trailers", "");
        assert_eq!((seen.status.as_u16(), &seen.body[..]), (200, &b"body"[..]));
        let trailers: Vec<_> = seen.trailers.iter().collect();
        let sum = HeaderName::from_static("x-sum");
        assert_eq!(
            trailers,
            [(&sum, &HeaderValue::from_static("4"))],
            "{before:?}"
        );
    }
    // Over HTTP/1.1 to the upstream they come in the last chunk.
    let upstream = Upstream::answering(|dialogue| {
        dialogue.write(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
             4\r\nbody\r\n0\r\nx-sum: 4\r\nX-User-Id: mallory\r\n\r\n",
        );
        Next::Stay
    });
    let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
    let seen = ask(&sidecar, Version::HTTP_2, "GET", "/open/trailers", "");
    assert_eq!(seen.trailers.len(), 1, "{:?}", seen.trailers);
    assert_eq!(seen.trailers["x-sum"], "4");
}

#[test]
fn a_client_that_takes_no_trailers_gets_a_whole_answer_without_them() {
    let (sidecar, _issuer) = start_before(&tasks(Version::HTTP_2, serve(answer)), ROUTES);
    let mut client = sidecar.connect();
    for _ in 0..2 {
        let answer = client.call(&get("/open/trailers"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "body"));
    }
}

#[test]
fn a_body_is_asked_for_only_once_its_request_is_let_through() {
    let (sidecar, upstream, issuer) = start(&format!("[listen]\nmax_body_bytes = 10\n{ROUTES}"));
    let announced = |length: usize| {
        let request = post("/api/alice/tasks", b"").line("Expect: 100-continue");
        let text = String::from_utf8(request.bytes()).unwrap();
        // The body is still at the client.
        text.replace("Content-Length: 0", &format!("Content-Length: {length}"))
    };
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n\r\n");
    let with_token = |length, token: &str| {
        announced(length).replace("\r\n\r\n", &format!("\r\n{}", bearer(token)))
    };
    for (request, status, reason) in [
        (announced(4), 401, "token_missing"),
        (with_token(4, "nonsense"), 401, "token_malformed"),
        (with_token(4, &issuer.token("bob")), 403, "subject_mismatch"),
        (
            with_token(11, &issuer.token("alice")),
            413,
            "body_too_large",
        ),
    ] {
        // Its first and only answer: no 100 came before.
        let mut client = sidecar.connect();
        client.send(request).answer().refused(status, reason);
        assert_eq!(client.until_closed(), b"", "{reason}");
    }
    upstream.untouched();

    let mut client = sidecar.connect();
    client.send(with_token(4, &issuer.token("alice")));
    let head = client.wire.read_head().unwrap().unwrap();
    assert_eq!(head.line(), "HTTP/1.1 100 Continue");
    let answer = client.send("milk").answer();
    assert_eq!(answer.status, 200);
    let arrived = upstream.only();
    assert_eq!(arrived.body, b"milk");
    assert_eq!(arrived.head.values("expect"), Vec::<String>::new());
}

#[test]
fn a_body_is_not_asked_for_while_nobody_knows_the_key() {
    let fetched = Latch::default();
    let key = Key::ed25519("one");
    let window = Window::Held(fetched.clone(), Box::new(Window::Keys(vec![key.clone()])));
    let issuer = Issuer::publishing(window);
    let upstream = Upstream::start();
    let sidecar = Sidecar::start_fetching(ROUTES, &upstream, &issuer);
    let token = key.sign(&crate::harness::issuer::claims("alice"));
    let head = "POST /api/alice/tasks HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n";
    let mut client = sidecar.connect();
    client.send(format!("{head}Authorization: Bearer {token}\r\n\r\n"));
    // By now the head has been read for as long as another request takes.
    assert_eq!(sidecar.call(&get("/open/other")).status, 200);
    assert_eq!(client.wire.early(), b"");
    fetched.open();
    let head = client.wire.read_head().unwrap().unwrap();
    assert_eq!(head.line(), "HTTP/1.1 100 Continue");
    assert_eq!(client.send("milk").answer().status, 200);
}

#[test]
fn early_hints_of_the_upstream_do_not_take_the_place_of_its_answer() {
    let upstream = || {
        Upstream::answering(|dialogue| {
            dialogue.body();
            dialogue.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
            dialogue.write("HTTP/1.1 102 Processing\r\n\r\n");
            dialogue.answer("200 OK", "", "page")
        })
    };
    for before in VERSIONS {
        let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream());
        for _ in 0..2 {
            let seen = ask(&sidecar, before, "GET", "/open/page", "");
            assert_eq!((seen.status.as_u16(), &seen.body[..]), (200, &b"page"[..]));
            assert!(!seen.headers.contains_key("link"), "{:?}", seen.headers);
        }
    }
}
