//! HTTP semantics in every pair of versions: responses without a body, trailers, `Expect: 100-continue` and early hints.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use tokio_stream::iter;

use crate::harness::hyper_client::{
    AnyBody, CompleteResponse, HyperClient, VERSIONS, run, serve, tasks, text,
};
use crate::harness::issuer::JwksResponse;
use crate::harness::{
    Issuer, Key, Latch, Next, ROUTES, Sidecar, Upstream, get, post, request, start, start_before,
    start_with,
};

/// Responds with one response of each kind.
async fn response(request: Request<Incoming>) -> Response<AnyBody> {
    let (head, body) = request.into_parts();
    let sent = body.collect().await.unwrap().to_bytes();
    let response = Response::builder().header("etag", "\"1\"");
    let none = text("");
    let response = match head.uri.path() {
        "/open/none" => response.status(StatusCode::NO_CONTENT).body(none),
        "/open/known" => response.status(StatusCode::NOT_MODIFIED).body(none),
        "/open/trailers" => response
            .header("trailer", "x-sum, x-user-id")
            .body(trailing()),
        // hyper would send the body of a HEAD over HTTP/2.
        _ if head.method == "HEAD" => response.header("content-length", "16").body(none),
        _ => response.body(text(format!("{} and {} bytes", head.method, sent.len()))),
    };
    response.unwrap()
}

/// Body with trailers, some of them managed by the gate.
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

fn call(
    sidecar: &Sidecar,
    version: Version,
    method: &str,
    path: &str,
    body: &'static str,
) -> CompleteResponse {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("te", "trailers");
    let request = request.body(text(body)).unwrap();
    run(async {
        let mut client = HyperClient::connect(sidecar.address, version).await;
        client
            .call(request)
            .await
            .unwrap_or_else(|error| panic!("{version:?} {method} {path}: {error}"))
    })
}

#[test]
fn a_response_is_the_same_in_every_pair_of_versions() {
    let address = serve(response);
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
    for to_upstream in VERSIONS {
        let (sidecar, _issuer) = start_before(&tasks(to_upstream, address), ROUTES);
        for from_client in VERSIONS {
            for (method, path, body, status, length, expected) in cases {
                let response = call(&sidecar, from_client, method, path, body);
                let case =
                    format!("{from_client:?} to {to_upstream:?}: {method} {path}: {response:?}");
                assert_eq!(response.status.as_u16(), status, "{case}");
                assert_eq!(response.body, expected, "{case}");
                assert_eq!(response.headers["etag"], "\"1\"", "{case}");
                let found = response.headers.get("content-length");
                assert_eq!(found.map(|found| found.to_str().unwrap()), length, "{case}");
                assert!(
                    !response.headers.contains_key("transfer-encoding"),
                    "{case}"
                );
            }
        }
    }
}

#[test]
fn a_body_of_a_bodiless_response_is_not_parsed_as_the_next_response() {
    // Invalid, but hyper sends it over HTTP/2.
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
        let next = client.response();
        assert_eq!(
            (next.status, next.text().as_str()),
            (200, "page"),
            "{method} {path}"
        );

        run(async {
            let mut client = HyperClient::connect(sidecar.address, Version::HTTP_2).await;
            let request = |method: &str, path| {
                let request = Request::builder().method(method).uri(path);
                request.body(text("")).unwrap()
            };
            // This stream may be reset, but no other.
            let _may_fail = client.call(request(method, path)).await;
            let next = client.call(request("GET", "/open/page")).await.unwrap();
            assert_eq!(next.body, "page", "{method} {path}");
        });
    }
}

#[test]
fn removes_the_trailers_of_a_request() {
    // Over HTTP/2, gRPC treats trailers as metadata like the head.
    let address = serve(|request| async move {
        let (head, body) = request.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned();
        let user = head.headers["x-user-id"].to_str().unwrap();
        Response::new(text(format!("{user} {trailers:?}")))
    });
    for to_upstream in VERSIONS {
        let (sidecar, issuer) = start_before(&tasks(to_upstream, address), ROUTES);
        for from_client in VERSIONS {
            let request = Request::post("/me/trailers")
                .header("authorization", format!("Bearer {}", issuer.token("alice")))
                .header("trailer", "x-sum, x-user-id")
                .body(trailing())
                .unwrap();
            let response = run(async {
                let mut client = HyperClient::connect(sidecar.address, from_client).await;
                client.call(request).await.unwrap()
            });
            assert_eq!(
                response.body, "alice None",
                "{from_client:?} to {to_upstream:?}"
            );
        }
    }
}

#[test]
fn forwards_response_trailers_except_managed_ones() {
    let address = serve(response);
    let (sidecar, _issuer) = start_before(&tasks(Version::HTTP_2, address), ROUTES);
    for from_client in VERSIONS {
        let response = call(&sidecar, from_client, "GET", "/open/trailers", "");
        assert_eq!(
            (response.status.as_u16(), &response.body[..]),
            (200, &b"body"[..])
        );
        let trailers: Vec<_> = response.trailers.iter().collect();
        let sum = HeaderName::from_static("x-sum");
        assert_eq!(
            trailers,
            [(&sum, &HeaderValue::from_static("4"))],
            "{from_client:?}"
        );
    }
    // An HTTP/1.1 upstream sends them after the last chunk.
    let upstream = Upstream::responding(|exchange| {
        exchange.write(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
             4\r\nbody\r\n0\r\nx-sum: 4\r\nX-User-Id: mallory\r\n\r\n",
        );
        Next::KeepAlive
    });
    let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
    let response = call(&sidecar, Version::HTTP_2, "GET", "/open/trailers", "");
    assert_eq!(response.trailers.len(), 1, "{:?}", response.trailers);
    assert_eq!(response.trailers["x-sum"], "4");
}

#[test]
fn sends_a_complete_response_without_trailers_to_a_client_without_te() {
    let (sidecar, _issuer) = start_before(&tasks(Version::HTTP_2, serve(response)), ROUTES);
    let mut client = sidecar.connect();
    for _ in 0..2 {
        let response = client.call(&get("/open/trailers"));
        assert_eq!((response.status, response.text().as_str()), (200, "body"));
    }
}

#[test]
fn sends_100_continue_only_for_a_permitted_request() {
    let (sidecar, upstream, issuer) = start(&format!("[listen]\nmax_body_bytes = 10\n{ROUTES}"));
    let announced = |length: usize| {
        let request = post("/api/alice/tasks", b"").line("Expect: 100-continue");
        let text = String::from_utf8(request.bytes()).unwrap();
        // The client holds the body back.
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
        // The first response is the final one; no 100 precedes it.
        let mut client = sidecar.connect();
        client.send(request).response().refused(status, reason);
        assert_eq!(client.until_closed(), b"", "{reason}");
    }
    upstream.assert_untouched();

    let mut client = sidecar.connect();
    client.send(with_token(4, &issuer.token("alice")));
    let head = client.wire.read_head().unwrap().unwrap();
    assert_eq!(head.line(), "HTTP/1.1 100 Continue");
    let response = client.send("milk").response();
    assert_eq!(response.status, 200);
    let arrived = upstream.only();
    assert_eq!(arrived.body, b"milk");
    assert_eq!(arrived.head.values("expect"), Vec::<String>::new());
}

#[test]
fn sends_no_100_continue_while_the_key_is_fetched() {
    let fetched = Latch::default();
    let key = Key::ed25519("one");
    let window = JwksResponse::Delayed(
        fetched.clone(),
        Box::new(JwksResponse::Keys(vec![key.clone()])),
    );
    let issuer = Issuer::publishing(window);
    let upstream = Upstream::start();
    let sidecar = Sidecar::start_fetching(ROUTES, &upstream, &issuer);
    let token = key.sign(&crate::harness::issuer::claims("alice"));
    let head = "POST /api/alice/tasks HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n";
    let mut client = sidecar.connect();
    client.send(format!("{head}Authorization: Bearer {token}\r\n\r\n"));
    // Another request completes in the meantime.
    assert_eq!(sidecar.call(&get("/open/other")).status, 200);
    assert_eq!(client.wire.buffered(), b"");
    fetched.open();
    let head = client.wire.read_head().unwrap().unwrap();
    assert_eq!(head.line(), "HTTP/1.1 100 Continue");
    assert_eq!(client.send("milk").response().status, 200);
}

#[test]
fn informational_responses_do_not_replace_the_final_response() {
    let upstream = || {
        Upstream::responding(|exchange| {
            exchange.body();
            exchange.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
            exchange.write("HTTP/1.1 102 Processing\r\n\r\n");
            exchange.respond("200 OK", "", "page")
        })
    };
    for from_client in VERSIONS {
        let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream());
        for _ in 0..2 {
            let response = call(&sidecar, from_client, "GET", "/open/page", "");
            assert_eq!(
                (response.status.as_u16(), &response.body[..]),
                (200, &b"page"[..])
            );
            assert!(
                !response.headers.contains_key("link"),
                "{:?}",
                response.headers
            );
        }
    }
}
