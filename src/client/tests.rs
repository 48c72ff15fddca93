//! Responses of servers that end them in different ways.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream as Socket};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::*;

/// End of a TLS connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Close {
    Notify,
    /// FIN without a `close_notify` alert.
    Silent,
}

/// HTTPS server for one request, with the request that it received.
struct Server {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    received: Receiver<String>,
}

impl Server {
    fn start(response: &'static str, close: Close) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, received) = channel();
        thread::spawn(move || {
            let socket: Socket = listener.accept().unwrap().0;
            let connection = ServerConnection::new(Arc::new(server)).unwrap();
            let mut stream = StreamOwned::new(connection, socket);
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            sender.send(String::from_utf8(request).unwrap()).unwrap();
            stream.write_all(response.as_bytes()).unwrap();
            if close == Close::Notify {
                stream.conn.send_close_notify();
            }
            stream.flush().unwrap();
            stream.sock.shutdown(Shutdown::Write).unwrap();
            // Until the client closes.
            let _end = stream.sock.read_to_end(&mut Vec::new());
        });
        Self {
            address,
            tls: Arc::new(client),
            received,
        }
    }

    /// Sends a request, and returns the body or the error.
    async fn get(&self) -> Result<String, String> {
        let url = format!("https://{}/jwks", self.address).parse().unwrap();
        let response = call(Request::new(Full::default()), &url, &self.tls).await;
        let response = response.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(response.into_body().to_vec()).unwrap())
    }
}

async fn fetched(response: &'static str, close: Close) -> Result<String, String> {
    Server::start(response, close).get().await
}

const SIZED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nkeys";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nkeys\r\n0\r\n\r\n";
const CLOSED: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nkeys";

// RFC 9112 section 9.8: a message with a valid length is complete without the closure alert. One that ends with the
// connection is not.
#[tokio::test]
async fn accepts_a_complete_body_without_close_notify() {
    for response in [SIZED, CHUNKED] {
        // The end of the connection and the end of the body arrive together: every order must do.
        for _ in 0..10 {
            let found = fetched(response, Close::Silent).await;
            assert_eq!(found, Ok("keys".to_owned()), "{response}");
        }
        let found = fetched(response, Close::Notify).await;
        assert_eq!(found, Ok("keys".to_owned()), "{response}");
    }
    assert_eq!(fetched(CLOSED, Close::Notify).await, Ok("keys".to_owned()));
}

#[tokio::test]
async fn rejects_a_truncated_body() {
    let truncated =
        "body: truncated: the server closed the connection before the end of the body".to_owned();
    for (response, close) in [
        (CLOSED, Close::Silent),
        ("HTTP/1.0 200 OK\r\n\r\nkeys", Close::Silent),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nkeys",
            Close::Silent,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nkeys",
            Close::Notify,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nkeys\r\n",
            Close::Notify,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nkeys\r\n0\r\n",
            Close::Silent,
        ),
    ] {
        let found = fetched(response, close).await;
        assert_eq!(found, Err(truncated.clone()), "{response}");
    }
}

#[tokio::test]
async fn names_the_cause_of_a_missing_response() {
    for close in [Close::Notify, Close::Silent] {
        let found = fetched("", close).await.unwrap_err();
        assert!(found.starts_with("HTTP: "), "{found}");
    }
}

#[tokio::test]
async fn requests_the_identity_coding_and_names_another_one() {
    let server = Server::start(SIZED, Close::Notify);
    server.get().await.unwrap();
    let request = server.received.recv().unwrap().to_lowercase();
    assert!(
        request.contains("\r\naccept-encoding: identity\r\n"),
        "{request}"
    );
    for (response, expected) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Encoding: GZip\r\nContent-Length: 4\r\n\r\nkeys",
            Err("body: encoded as `gzip`, but the request accepts only `identity`".to_owned()),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Encoding: identity, br\r\nContent-Length: 4\r\n\r\nkeys",
            Err("body: encoded as `br`, but the request accepts only `identity`".to_owned()),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: deflate, chunked\r\n\r\n4\r\nkeys\r\n0\r\n\r\n",
            Err("body: encoded as `deflate`, but the request accepts only `identity`".to_owned()),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Encoding: Identity\r\nContent-Length: 4\r\n\r\nkeys",
            Ok("keys".to_owned()),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Encoding:\r\nContent-Length: 4\r\n\r\nkeys",
            Ok("keys".to_owned()),
        ),
    ] {
        assert_eq!(
            fetched(response, Close::Notify).await,
            expected,
            "{response}"
        );
    }
}
