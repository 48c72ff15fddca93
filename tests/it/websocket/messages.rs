//! WebSocket messages, control frames, closing handshakes and token expiry, with the same library on both sides.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use serde_json::json;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Error, HandshakeError, Message, WebSocket};
use tokio_tungstenite::tungstenite::{accept_hdr, client};

use crate::harness::{Issuer, NOW, ROUTES, Sidecar, TIMEOUT, Upstream};

type Socket = WebSocket<TcpStream>;

/// Echoes every message, responds to `who` with the user, and to `close` with a close frame.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            thread::spawn(move || serve_socket(stream));
        }
    });
    address
}

#[expect(
    clippy::result_large_err,
    reason = "the error type belongs to the library"
)]
fn serve_socket(stream: TcpStream) {
    let mut user = String::new();
    let note = |request: &server::Request, response: server::Response| {
        let named = request.headers().iter().filter(|(name, _)| {
            let name = name.as_str().replace('_', "-");
            name == "x-user-id" || name == "authorization"
        });
        let named: Vec<_> = named.map(|(_, value)| value.to_str().unwrap()).collect();
        user = named.join(", ");
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr(stream, note) else {
        return;
    };
    while let Ok(message) = socket.read() {
        let response = match message {
            Message::Text(text) if text.as_str() == "who" => Message::text(&user),
            Message::Text(text) if text.as_str() == "close" => {
                Message::Close(Some(closing(4001, "enough")))
            }
            Message::Text(_) | Message::Binary(_) => message,
            // Handled by the library.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => continue,
        };
        if socket.send(response).is_err() {
            return;
        }
    }
}

fn closing(code: u16, reason: &'static str) -> CloseFrame {
    CloseFrame {
        code: CloseCode::from(code),
        reason: reason.into(),
    }
}

fn start(config: &str) -> (Sidecar, Issuer) {
    let url = format!(
        "{config}\n[upstreams.tasks]\nurl = \"http://{}\"\n",
        serve()
    );
    let issuer = Issuer::start();
    let sidecar = Sidecar::start(&url, &Upstream::unreachable(), &issuer);
    (sidecar, issuer)
}

fn connect(sidecar: &Sidecar, path: &str, token: &str) -> Result<Socket, Box<Error>> {
    let stream = TcpStream::connect(sidecar.address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    let url = format!("ws://{}{path}", sidecar.address);
    let mut request = url.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    headers.insert("x-user-id", "mallory".parse().unwrap());
    match client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(error)) => Err(Box::new(error)),
        Err(HandshakeError::Interrupted(_)) => panic!("no response in time"),
    }
}

/// Sends a message and reads the next one.
fn ask(socket: &mut Socket, message: Message) -> Message {
    socket.send(message).unwrap();
    socket.read().unwrap()
}

#[test]
fn forwards_messages_of_every_kind() {
    let (sidecar, issuer) = start(ROUTES);
    let mut socket = connect(&sidecar, "/api/alice/tasks/live", &issuer.token("alice")).unwrap();
    assert_eq!(ask(&mut socket, "who".into()), Message::text("alice"));
    let large: Vec<u8> = (0..1024 * 1024_u32)
        .map(|at| at.to_le_bytes()[at as usize % 3])
        .collect();
    for message in [
        Message::text("žluťoučký 😀"),
        Message::text(""),
        Message::binary(vec![0, 255, 13, 10]),
        Message::binary(large),
        Message::text("x".repeat(1024 * 1024)),
    ] {
        assert!(
            ask(&mut socket, message.clone()) == message,
            "a message of {} bytes",
            message.len()
        );
    }
    let ping = Message::Ping(Bytes::from_static(b"are you there"));
    assert_eq!(
        ask(&mut socket, ping),
        Message::Pong(Bytes::from_static(b"are you there"))
    );
}

#[test]
fn forwards_close_frames_in_both_directions() {
    let (sidecar, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    let mut socket = connect(&sidecar, "/me/live", &token).unwrap();
    let enough = closing(4001, "enough");
    assert_eq!(
        ask(&mut socket, "close".into()),
        Message::Close(Some(enough))
    );
    assert!(matches!(socket.read(), Err(Error::ConnectionClosed)));

    let mut socket = connect(&sidecar, "/me/live", &token).unwrap();
    let bye = closing(4002, "bye");
    socket.close(Some(bye.clone())).unwrap();
    // RFC 6455 section 5.5.1: the other side echoes the code.
    assert_eq!(socket.read().unwrap(), Message::Close(Some(bye)));
    assert!(matches!(socket.read(), Err(Error::ConnectionClosed)));
}

#[test]
fn the_client_library_reports_the_status_of_a_refused_handshake() {
    let (sidecar, issuer) = start(ROUTES);
    for (token, status) in [(issuer.token("bob"), 403), ("nonsense".to_owned(), 401)] {
        let refused = connect(&sidecar, "/api/alice/tasks/live", &token);
        let Error::Http(response) = *refused.unwrap_err() else {
            panic!("no response with {status}");
        };
        assert_eq!(response.status(), status);
    }
}

#[test]
fn closes_the_socket_at_token_expiry_unless_the_route_keeps_it() {
    let (sidecar, issuer) = start(&format!(
        "{ROUTES}{}",
        r#"
[[routes]]
path = "/kept"
access = "authenticated"
at_expiry = "keep"

[issuers.test]
keys = { secret_env = "TEST_SECRET" }
leeway = "0s"
"#
    ));
    let token = issuer.sign(&json!({ "sub": "alice", "exp": NOW + 10 }));
    let mut kept = connect(&sidecar, "/kept", &token).unwrap();
    let mut socket = connect(&sidecar, "/me/live", &token).unwrap();
    let mut silent = connect(&sidecar, "/me/live", &token).unwrap();
    for socket in [&mut kept, &mut socket] {
        assert_eq!(ask(socket, "who".into()), Message::text("alice"));
    }
    for socket in [&mut socket, &mut silent] {
        let Message::Close(Some(frame)) = socket.read().unwrap() else {
            panic!("no close");
        };
        assert_eq!(frame.code, CloseCode::Policy);
        assert!(frame.reason.contains("expired"), "{}", frame.reason);
    }
    assert_eq!(ask(&mut kept, "who".into()), Message::text("alice"));
}
