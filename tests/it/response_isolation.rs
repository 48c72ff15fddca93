//! Many requests of several users at once, over both versions and with clients that give up: nobody gets what is another's.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::JoinSet;

use crate::harness::hyper_client::{AnyBody, Either, VERSIONS, run, serve, tasks, text};
use crate::harness::{ROUTES, start_before};

/// To each kind of upstream.
const REQUESTS: usize = 5_000;
/// Requests that follow each other, over a connection or as the streams of one.
const LANES: usize = 25;
const USERS: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

/// Answers with the user, the path and the body, and so often that it does not fit into one frame.
async fn echo(request: Request<Incoming>) -> Response<AnyBody> {
    let (head, body) = request.into_parts();
    // A body that breaks off is one of a client that has given up.
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    let body = String::from_utf8(body.unwrap_or_default().to_vec()).unwrap();
    let user = head.headers["x-user-id"].to_str().unwrap();
    let named = named(user, head.uri.path(), &body);
    Response::new(text(named))
}

fn named(user: &str, path: &str, body: &str) -> String {
    format!("{user} {path} {body}\n").repeat(if path.ends_with('7') { 500 } else { 1 })
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Answered,
    /// Given up before its answer.
    Unheard,
    /// Given up in its answer.
    Unread,
}

async fn one(client: &mut Either, number: usize, tokens: &[String]) -> End {
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
                _answered = client.send(request) => {}
                // The request has gone by then, or a part of it.
                () = tokio::task::yield_now() => {}
            }
            End::Unheard
        }
        7 => {
            drop(client.send(request).await.unwrap());
            End::Unread
        }
        _ => {
            let seen = client.ask(request).await.unwrap();
            assert_eq!(seen.status, 200, "{seen:?}");
            let wanted = named(USERS[user], &path, &body);
            assert!(
                seen.body == wanted,
                "{} and not {wanted}",
                String::from_utf8_lossy(&seen.body)
            );
            End::Answered
        }
    }
}

/// Sends its share of the requests, one after the other: how many were answered.
async fn lane(gate: SocketAddr, mut client: Either, lane: usize, tokens: Arc<[String]>) -> usize {
    let mut answered = 0;
    for number in (0..REQUESTS).filter(|number| number % LANES == lane) {
        // So that each of its requests is of another kind.
        let end = one(&mut client, number / LANES * 7 + lane, &tokens).await;
        answered += usize::from(end == End::Answered);
        if end != End::Answered && client.sharing().is_none() {
            client = Either::connect(gate, Version::HTTP_11).await;
        }
    }
    answered
}

#[test]
fn each_of_ten_thousand_answers_names_the_user_who_asked() {
    let address = serve(echo);
    for behind in VERSIONS {
        let config = format!("[listen]\nworkers = 2\n{ROUTES}");
        let (sidecar, issuer) = start_before(&tasks(behind, address), &config);
        let gate = sidecar.address;
        let tokens: Arc<[String]> = USERS.map(|user| issuer.token(user)).into();
        let answered = run(async {
            // Half of the lanes have a connection of their own, the others share two.
            let shared = [
                Either::connect(gate, Version::HTTP_2).await,
                Either::connect(gate, Version::HTTP_2).await,
            ];
            let mut lanes = JoinSet::new();
            for number in 0..LANES {
                let client = match shared.get(number % 4) {
                    Some(shared) => shared.sharing().unwrap(),
                    None => Either::connect(gate, Version::HTTP_11).await,
                };
                lanes.spawn(lane(gate, client, number, Arc::clone(&tokens)));
            }
            lanes.join_all().await.into_iter().sum::<usize>()
        });
        // One in ten was given up.
        assert_eq!(answered, REQUESTS / 10 * 9, "to an upstream of {behind:?}");
    }
}
