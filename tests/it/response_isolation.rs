//! Concurrent requests of several users over both versions, some abandoned: no response reaches another user.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::JoinSet;

use crate::harness::hyper_client::{AnyBody, HyperClient, VERSIONS, run, serve, tasks, text};
use crate::harness::{ROUTES, start_before};

/// Number of requests per version of the upstream.
const REQUESTS: usize = 5_000;
/// Number of sequences of requests, each over a connection or as streams of one.
const LANES: usize = 25;
const USERS: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

/// Responds with the user, the path and the body, for some paths larger than one frame.
async fn echo(request: Request<Incoming>) -> Response<AnyBody> {
    let (head, body) = request.into_parts();
    // A truncated body comes from an abandoned request.
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    let body = String::from_utf8(body.unwrap_or_default().to_vec()).unwrap();
    let user = head.headers["x-user-id"].to_str().unwrap();
    let body = expected_body(user, head.uri.path(), &body);
    Response::new(text(body))
}

fn expected_body(user: &str, path: &str, body: &str) -> String {
    format!("{user} {path} {body}\n").repeat(if path.ends_with('7') { 500 } else { 1 })
}

/// Outcome of a request.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Completed,
    /// Abandoned before the response.
    AbandonedBefore,
    /// Abandoned during the response.
    AbandonedDuring,
}

async fn one(client: &mut HyperClient, number: usize, tokens: &[String]) -> End {
    let user = number % USERS.len();
    let path = format!("/api/{}/tasks/{number}", USERS[user]);
    let (method, body) = if number.is_multiple_of(3) {
        (
            Method::POST,
            format!("milk for {}", USERS[user]).repeat(1 + number % 200),
        )
    } else {
        (Method::GET, String::new())
    };
    let request = Request::builder()
        .method(method)
        .uri(&path)
        .header("authorization", format!("Bearer {}", tokens[user]))
        .body(text(body.clone()))
        .unwrap();
    match number % 20 {
        3 => {
            tokio::select! {
                biased;
                _responded = client.send(request) => {}
                // The request, or a part of it, is sent by then.
                () = tokio::task::yield_now() => {}
            }
            End::AbandonedBefore
        }
        7 => {
            drop(client.send(request).await.unwrap());
            End::AbandonedDuring
        }
        _ => {
            let response = client.call(request).await.unwrap();
            assert_eq!(response.status, 200, "{response:?}");
            let expected = expected_body(USERS[user], &path, &body);
            assert!(
                response.body == expected,
                "{} and not {expected}",
                String::from_utf8_lossy(&response.body)
            );
            End::Completed
        }
    }
}

/// Sends the requests of one lane in sequence. Returns the number of complete responses.
async fn lane(
    gate: SocketAddr,
    mut client: HyperClient,
    lane: usize,
    tokens: Arc<[String]>,
) -> usize {
    let mut completed = 0;
    for number in (0..REQUESTS).filter(|number| number % LANES == lane) {
        // Consecutive requests of a lane are of different kinds.
        let end = one(&mut client, number / LANES * 7 + lane, &tokens).await;
        completed += usize::from(end == End::Completed);
        if end != End::Completed && client.share_connection().is_none() {
            client = HyperClient::connect(gate, Version::HTTP_11).await;
        }
    }
    completed
}

#[test]
fn every_response_reaches_its_own_user_over_every_pair_of_versions() {
    let address = serve(echo);
    for upstream_version in VERSIONS {
        let config = format!("[listen]\nworkers = 2\n{ROUTES}");
        let (sidecar, issuer) = start_before(&tasks(upstream_version, address), &config);
        let gate = sidecar.address;
        let tokens: Arc<[String]> = USERS.map(|user| issuer.token(user)).into();
        let completed = run(async {
            // Half of the lanes have their own connection, the others share two.
            let shared = [
                HyperClient::connect(gate, Version::HTTP_2).await,
                HyperClient::connect(gate, Version::HTTP_2).await,
            ];
            let mut lanes = JoinSet::new();
            for number in 0..LANES {
                let client = match shared.get(number % 4) {
                    Some(shared) => shared.share_connection().unwrap(),
                    None => HyperClient::connect(gate, Version::HTTP_11).await,
                };
                lanes.spawn(lane(gate, client, number, Arc::clone(&tokens)));
            }
            lanes.join_all().await.into_iter().sum::<usize>()
        });
        // Two kinds of twenty abandon the request.
        assert_eq!(
            completed,
            REQUESTS / 10 * 9,
            "to an upstream of {upstream_version:?}"
        );
    }
}
