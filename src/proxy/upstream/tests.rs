//! What becomes of an upstream whose name stands for something else from one moment to the next.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{spawn_local, yield_now};

use super::*;

/// What the resolver of these tests answers.
#[derive(Clone, Copy)]
enum Dns {
    /// This address of this machine, and the port that was asked for.
    At(u8),
    /// No such name.
    Unknown,
    /// Nothing.
    Silent,
}

thread_local! {
    static DNS: Cell<Dns> = const { Cell::new(Dns::Unknown) };
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

fn lookup(
    host: String,
    port: u16,
) -> std::pin::Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>> {
    Box::pin(async move {
        assert_eq!(host, "tasks.test");
        ASKED.set(ASKED.get() + 1);
        match DNS.get() {
            Dns::At(last) => Ok(vec![SocketAddr::from(([127, 0, 0, last], port))]),
            Dns::Unknown => Err(io::Error::other("no such name")),
            Dns::Silent => std::future::pending().await,
        }
    })
}

fn run(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    runtime.unwrap().block_on(test);
}

fn upstream(port: u16, refresh: Duration) -> Upstream {
    let policy = UpstreamPolicy {
        name: "tasks".to_owned(),
        targets: vec![Target::Tcp("tasks.test".to_owned(), port)],
        balance: crate::config::Balance::default(),
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_secs(20),
        idle_timeout: Duration::ZERO,
        informational: false,
        keep_alive: Duration::from_secs(50),
        dns_refresh: refresh,
        retries: crate::config::Retries::default(),
        ejection: crate::config::Ejection::default(),
        health_check: None,
        queue: None,
    };
    Upstream::with_lookup(SharedUpstream::new(policy, Protocol::Http1), lookup)
}

/// Answers every request with a name.
fn serve(listener: TcpListener, name: &'static str) {
    spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            spawn_local(async move {
                let mut request = [0; 1024];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{name}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
}

async fn ask(upstream: &Upstream) -> Result<String, UpstreamError> {
    let mut request = Box::new(Request::new(RequestBody::empty()));
    *request.uri_mut() = "/".parse().unwrap();
    let upload = request.body().upload();
    let (response, connection, with) = upstream.send(request, &upload, &RefCell::new(None)).await?;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    with.0.check_in(connection);
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

#[test]
fn a_name_that_moves_is_followed_beside_the_requests() {
    run(async {
        let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = one.local_addr().unwrap().port();
        let two = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        serve(one, "one");
        serve(two, "two");
        let upstream = upstream(port, Duration::from_nanos(1));
        DNS.set(Dns::At(1));
        assert_eq!(ask(&upstream).await.unwrap(), "one");
        let first = upstream.all().await.unwrap();
        DNS.set(Dns::At(2));
        let mut answers = Vec::new();
        while answers.last().is_none_or(|answer| answer != "two") {
            answers.push(ask(&upstream).await.unwrap());
        }
        // Nobody waited for the look-up, and the connection to the old address is not kept.
        assert_eq!(answers.first().map(String::as_str), Some("one"));
        assert!(first.iter().all(|endpoint| endpoint.is_retired()));
        // A resolver that fails, or says nothing, changes nothing.
        for failing in [Dns::Unknown, Dns::Silent] {
            DNS.set(failing);
            for _ in 0..10 {
                assert_eq!(ask(&upstream).await.unwrap(), "two");
            }
        }
    });
}

#[test]
fn the_same_address_is_the_same_endpoint_with_its_connections() {
    run(async {
        let upstream = upstream(80, Duration::from_nanos(1));
        DNS.set(Dns::At(1));
        let first = upstream.all().await.unwrap();
        let before = ASKED.get();
        while ASKED.get() < before + 5 {
            let list = upstream.all().await.unwrap();
            assert!(Rc::ptr_eq(&first[0], &list[0]));
            yield_now().await;
        }
        assert!(!first[0].is_retired());
    });
}

#[test]
fn an_unknown_name_is_asked_for_again_and_a_known_one_only_when_it_is_due() {
    run(async {
        let upstream = upstream(80, Duration::from_hours(1));
        for asked in 1..4 {
            assert!(matches!(
                upstream.all().await,
                Err(UpstreamError::Connect { .. })
            ));
            assert_eq!(ASKED.get(), asked);
        }
        DNS.set(Dns::At(1));
        for _ in 0..10 {
            assert_eq!(upstream.all().await.unwrap().len(), 1);
        }
        assert_eq!(ASKED.get(), 4);
    });
}

#[test]
fn the_first_look_up_is_a_part_of_connecting() {
    run(async {
        DNS.set(Dns::Silent);
        let upstream = upstream(80, Duration::from_hours(1));
        let error = ask(&upstream).await.unwrap_err();
        assert_eq!(error.to_string(), "connect to tasks.test:80 within 1s");
    });
}
