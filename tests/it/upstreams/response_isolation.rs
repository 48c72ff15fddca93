//! Concurrent requests of many users over pooled connections: no response reaches another user.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::harness::http2::echo;
use crate::harness::{
    Exchange, Http2Upstream, Issuer, Next, ROUTES, Request, Sidecar, Upstream, get, post,
    start_before,
};

/// Number of clients, and of requests per client.
const CLIENTS: usize = 8;
const REQUESTS: usize = 625;

/// Responds like the HTTP/2 harness, with failures by request path.
fn response(exchange: &mut Exchange) -> Next {
    let target = exchange.target();
    if target.ends_with("/garbage") {
        exchange.write("HTTP/1.1 garbage\r\n\r\n");
        return Next::Close;
    }
    let Some(body) = exchange.body() else {
        return Next::Close;
    };
    let line = exchange.head.line();
    let method = line.split(' ').next().unwrap();
    let user = exchange.head.value("x-user-id").unwrap();
    let text = format!(
        "{method} {target} {user} {}",
        String::from_utf8(body).unwrap()
    );
    if target.ends_with("/half") {
        exchange.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{text}"
        ));
        return Next::Reset;
    }
    if target.ends_with("/last") {
        exchange.respond("200 OK", "", &text);
        return Next::Close;
    }
    exchange.respond("200 OK", "", &text)
}

/// One request of a user, its expected response, and its kind.
fn one(user: &str, number: usize, token: &str) -> (Request, String, &'static str) {
    let end = match number % 16 {
        3 => "half",
        7 => "garbage",
        11 => "last",
        _ => "complete",
    };
    let target = format!("/api/{user}/tasks/{number}/{end}");
    if number.is_multiple_of(3) {
        let body = format!("milk of {user} ").repeat(number % 50);
        let text = format!("POST {target} {user} {body}");
        (post(&target, body.as_bytes()).bearer(token), text, end)
    } else {
        (
            get(&target).bearer(token),
            format!("GET {target} {user} "),
            end,
        )
    }
}

/// Sends all requests, abandons some, and returns the number of complete responses.
fn run(sidecar: &Sidecar, issuer: &Issuer, may_fail: bool) -> usize {
    let completed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let completed = &completed;
            scope.spawn(move || {
                let user = format!("user-{client}");
                let token = issuer.token(&user);
                let mut connection = sidecar.connect();
                for number in 0..REQUESTS {
                    let (request, expected, end) = one(&user, number, &token);
                    connection.send(request.bytes());
                    if number % 13 == 5 {
                        connection = sidecar.connect();
                        continue;
                    }
                    match connection.read(false) {
                        Ok(response) if response.status == 200 => {
                            assert_eq!(response.text(), expected);
                            completed.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(response) => {
                            // The upstream may close the connection while a POST is sent.
                            let is_failure = end == "garbage" || number.is_multiple_of(3);
                            assert!(may_fail && is_failure, "{expected}: {}", response.text());
                            response.refused(502, "upstream_invalid_response");
                        }
                        Err(_) => {
                            assert!(may_fail && end == "half", "{expected}");
                            connection = sidecar.connect();
                        }
                    }
                }
            });
        }
    });
    completed.into_inner()
}

#[test]
fn no_http1_response_reaches_another_user() {
    let upstream = Upstream::responding(response);
    let (sidecar, issuer) = start_before(&format!("url = \"{}\"", upstream.url()), ROUTES);
    let completed = run(&sidecar, &issuer, true);
    assert!(completed > CLIENTS * REQUESTS * 3 / 4, "{completed}");
}

#[test]
fn no_http2_response_reaches_another_user() {
    let upstream = Http2Upstream::responding(5, |request| Box::pin(echo(request)));
    let (sidecar, issuer) = start_before(&format!("url = \"{}\"", upstream.url()), ROUTES);
    let completed = run(&sidecar, &issuer, false);
    assert!(completed > CLIENTS * REQUESTS * 9 / 10, "{completed}");
}
