//! Tests of an upstream with changing DNS results.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{spawn_local, yield_now};

use http::HeaderValue;

use crate::config::Reuse;
use crate::proxy::request_body::RequestBody;
use crate::proxy::request_head::RequestHead;

use super::*;

/// Result of a test lookup.
#[derive(Clone, Copy)]
enum Dns {
    /// 127.0.0.x with the requested port.
    Address(u8),
    Unknown,
    /// Never completes.
    Pending,
}

thread_local! {
    static DNS: Cell<Dns> = const { Cell::new(Dns::Unknown) };
    static LOOKUPS: Cell<usize> = const { Cell::new(0) };
}

fn lookup(
    host: String,
    port: u16,
) -> std::pin::Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>> {
    Box::pin(async move {
        assert_eq!(host, "tasks.test");
        LOOKUPS.set(LOOKUPS.get() + 1);
        match DNS.get() {
            Dns::Address(last) => Ok(vec![SocketAddr::from(([127, 0, 0, last], port))]),
            Dns::Unknown => Err(io::Error::other("no such name")),
            Dns::Pending => std::future::pending().await,
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
        reuse: Reuse::default(),
        keep_alive: Duration::from_secs(50),
        dns_refresh: refresh,
        retries: crate::config::Retries::default(),
        ejection: crate::config::Ejection::default(),
        health_check: None,
        queue: None,
    };
    Upstream::with_lookup(SharedUpstream::new(policy, Protocol::Http1), lookup)
}

/// Responds to every request with a fixed body of three bytes.
fn serve(listener: TcpListener, body: &'static str) {
    spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            spawn_local(async move {
                let mut request = [0; 1024];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{body}");
                    stream.write_all(response.as_bytes()).await.unwrap();
                }
            });
        }
    });
}

async fn endpoints(upstream: &Upstream) -> Result<EndpointList, UpstreamError> {
    match upstream.endpoints.known() {
        Some(list) => Ok(list),
        None => upstream.resolved_endpoints().await,
    }
}

async fn get_body(upstream: &Upstream) -> Result<String, UpstreamError> {
    let mut request = UpstreamRequest {
        head: RequestHead::get("/", &HeaderValue::from_static("tasks.test"), &[]),
        body: RequestBody::empty(),
        informational: None,
        max_read: MAX_READ,
    };
    let (response, pending) = upstream
        .send(&mut request, None, &RefCell::new(None))
        .await?;
    let mut body = UpstreamBody::new(response.into_body(), pending, None);
    let data = (&mut body).collect().await.unwrap().to_bytes();
    body.release();
    Ok(String::from_utf8(data.to_vec()).unwrap())
}

#[test]
fn follows_dns_changes_in_the_background() {
    run(async {
        let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = one.local_addr().unwrap().port();
        let two = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        serve(one, "one");
        serve(two, "two");
        let upstream = upstream(port, Duration::from_nanos(1));
        DNS.set(Dns::Address(1));
        assert_eq!(get_body(&upstream).await.unwrap(), "one");
        let first = endpoints(&upstream).await.unwrap();
        DNS.set(Dns::Address(2));
        let mut bodies = Vec::new();
        while bodies.last().is_none_or(|body| body != "two") {
            bodies.push(get_body(&upstream).await.unwrap());
        }
        // No request waits for the lookup, and the connection to the old address is closed.
        assert_eq!(bodies.first().map(String::as_str), Some("one"));
        assert!(first.iter().all(|endpoint| endpoint.is_retired()));
        // A failing or pending lookup keeps the endpoint.
        for failing in [Dns::Unknown, Dns::Pending] {
            DNS.set(failing);
            for _ in 0..10 {
                assert_eq!(get_body(&upstream).await.unwrap(), "two");
            }
        }
    });
}

#[test]
fn keeps_the_endpoint_of_an_unchanged_address() {
    run(async {
        let upstream = upstream(80, Duration::from_nanos(1));
        DNS.set(Dns::Address(1));
        let first = endpoints(&upstream).await.unwrap();
        let before = LOOKUPS.get();
        while LOOKUPS.get() < before + 5 {
            let list = endpoints(&upstream).await.unwrap();
            assert!(Rc::ptr_eq(&first[0], &list[0]));
            yield_now().await;
        }
        assert!(!first[0].is_retired());
    });
}

#[test]
fn retries_failed_lookups_and_caches_successful_ones() {
    run(async {
        let upstream = upstream(80, Duration::from_hours(1));
        for lookups in 1..4 {
            assert!(matches!(
                endpoints(&upstream).await,
                Err(UpstreamError::Connect { .. })
            ));
            assert_eq!(LOOKUPS.get(), lookups);
        }
        DNS.set(Dns::Address(1));
        for _ in 0..10 {
            assert_eq!(endpoints(&upstream).await.unwrap().len(), 1);
        }
        assert_eq!(LOOKUPS.get(), 4);
    });
}

#[test]
fn the_connect_timeout_covers_the_first_lookup() {
    run(async {
        DNS.set(Dns::Pending);
        let upstream = upstream(80, Duration::from_hours(1));
        let error = get_body(&upstream).await.unwrap_err();
        assert_eq!(error.to_string(), "connect to tasks.test:80 within 1s");
    });
}
