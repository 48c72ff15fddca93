//! Responses of an upstream: one reading, whatever the pieces they arrive in, and the one of hyper's client.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Body;
use http_body_util::Empty;
use hyper::client::conn::http1::Builder;
use hyper::ext::on_informational;
use hyper::rt::{Read, ReadBufCursor, Write};

use claimgate::proxy::upstream::MAX_RESPONSE_FIELDS;
use claimgate::proxy::upstream::http1::body_decoder::{BodyDecoder, Decoded};
use claimgate::proxy::upstream::http1::response_head::{HeadParser, RequestKind, ResponseFault};

/// Size limit of a response head, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Parts of a response that a client reads.
#[derive(Debug, Default)]
pub struct Reading {
    pub informational: Vec<(StatusCode, HeaderMap)>,
    pub head: Option<(StatusCode, HeaderMap)>,
    pub content: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// Bytes after the response.
    pub rest: Vec<u8>,
    pub end: End,
}

/// End of a reading.
#[derive(Debug, Default, PartialEq)]
pub enum End {
    Complete,
    /// The input ends before the response.
    #[default]
    Incomplete,
    Fault(ResponseFault),
}

/// Compares the reading of the input as a whole, in pieces, and by hyper. The first byte is the request, the second the
/// sizes of the pieces, and the rest the response.
pub fn check(data: &[u8]) {
    if let [request, pieces, response @ ..] = data {
        compare(kind(*request), u64::from(*pieces), response);
    }
}

fn kind(byte: u8) -> RequestKind {
    RequestKind {
        is_head: byte & 1 != 0,
        is_upgrade: byte & 2 != 0,
    }
}

/// Compares three readings of a response; panics if they differ. Returns that of the whole response, and whether hyper
/// accepts it.
pub fn compare(kind: RequestKind, pieces: u64, response: &[u8]) -> (Reading, bool) {
    let show = || response.escape_ascii().to_string();
    let whole = read(kind, [response].into_iter());
    assert!(
        whole.content.len() + whole.rest.len() <= response.len(),
        "more than the input: {}",
        show()
    );
    let parts = read(kind, split(pieces, response));
    assert_eq!(
        is_complete(&whole),
        is_complete(&parts),
        "complete or not, by its pieces: {}\n{whole:?}\n{parts:?}",
        show()
    );
    assert_eq!(whole.informational, parts.informational, "{}", show());
    assert_eq!(whole.head, parts.head, "{}", show());
    assert_eq!(whole.content, parts.content, "{}", show());
    assert_eq!(whole.trailers, parts.trailers, "{}", show());
    if is_complete(&whole) {
        assert_eq!(whole.rest, parts.rest, "{}", show());
    }

    let hyper = read_with_hyper(kind, response);
    let heads = whole.informational.len();
    assert_eq!(
        Some(&whole.informational[..]),
        hyper.informational.get(..heads),
        "informational heads: {}",
        show()
    );
    if whole.head.is_some() {
        assert_eq!(whole.head, hyper.head, "head: {}", show());
    }
    let common = whole.content.len().min(hyper.content.len());
    assert_eq!(
        whole.content[..common],
        hyper.content[..common],
        "content: {}",
        show()
    );
    if is_complete(&whole) {
        assert!(is_complete(&hyper), "hyper rejects it: {}", show());
        assert_eq!(heads, hyper.informational.len(), "{}", show());
        assert_eq!(whole.content, hyper.content, "content: {}", show());
        assert_eq!(whole.trailers, hyper.trailers, "trailers: {}", show());
    }
    let is_accepted = is_complete(&hyper);
    (whole, is_accepted)
}

fn is_complete(reading: &Reading) -> bool {
    reading.end == End::Complete
}

/// Pieces of pseudorandom sizes, from one byte to 128.
fn split(seed: u64, mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut state = seed;
    std::iter::from_fn(move || {
        // A linear congruential generator (Knuth, MMIX).
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let largest = 1 << (state >> 61);
        let size = 1 + (state >> 33) % largest;
        let (piece, rest) = bytes.split_at(bytes.len().min(usize::try_from(size).ok()?));
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Reads a response with the parser of the gate.
fn read<'a>(kind: RequestKind, pieces: impl Iterator<Item = &'a [u8]>) -> Reading {
    let mut reading = Reading::default();
    let (mut parser, mut body) = (HeadParser::default(), None);
    let mut buffer = BytesMut::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        if let Err(fault) = read_piece(kind, &mut parser, &mut body, &mut buffer, &mut reading) {
            reading.end = End::Fault(fault);
            return reading;
        }
    }
    if let Some(mut body) = body
        && body.end_of_input().is_ok()
    {
        reading.end = End::Complete;
        reading.rest = buffer.to_vec();
    }
    reading
}

fn read_piece(
    kind: RequestKind,
    parser: &mut HeadParser,
    body: &mut Option<BodyDecoder>,
    buffer: &mut BytesMut,
    reading: &mut Reading,
) -> Result<(), ResponseFault> {
    while body.is_none() {
        let Some(head) = parser.parse(buffer, kind)? else {
            return Ok(());
        };
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            reading.informational.push((head.status, head.headers));
            continue;
        }
        reading.head = Some((head.status, head.headers));
        *body = Some(BodyDecoder::new(head.length));
    }
    while let Some(body) = body {
        match body.decode(buffer)? {
            Decoded::Data(data) => {
                assert!(!data.is_empty(), "empty content");
                reading.content.extend_from_slice(&data);
            }
            Decoded::Trailers(fields) => {
                assert!(body.is_complete(), "incomplete after its trailers");
                reading.trailers = Some(fields);
            }
            Decoded::Complete => {
                assert!(body.is_complete(), "incomplete after its end");
                break;
            }
            Decoded::NeedsMore => {
                assert!(!body.is_complete(), "needs more after its end");
                break;
            }
        }
    }
    Ok(())
}

/// Reads a response with hyper's client, with the limits of the gate.
fn read_with_hyper(kind: RequestKind, response: &[u8]) -> Reading {
    let mut reading = Reading::default();
    let mut cx = Context::from_waker(Waker::noop());
    let input = Input {
        bytes: response.to_vec(),
        read: 0,
        is_requested: false,
    };
    let mut builder = Builder::new();
    builder
        .max_buf_size(MAX_HEAD)
        .max_header_size(MAX_HEAD)
        .max_headers(MAX_RESPONSE_FIELDS);
    let handshake = pin!(builder.handshake(input));
    let Poll::Ready(Ok((mut sender, connection))) = handshake.poll(&mut cx) else {
        panic!("the handshake waits");
    };
    let mut connection = pin!(connection);
    let mut is_closed = false;
    let mut drive = |cx: &mut Context<'_>| {
        is_closed = is_closed || connection.as_mut().poll(cx).is_ready();
    };

    let informational = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&informational);
    let mut request = Request::new(Empty::<Bytes>::new());
    if kind.is_head {
        *request.method_mut() = Method::HEAD;
    }
    on_informational(&mut request, move |head| {
        let head = (head.status(), head.headers().clone());
        seen.lock().expect("not poisoned").push(head);
    });
    let mut sent = pin!(sender.send_request(request));
    // Every turn reads, delivers or ends something; none waits for more than the next one.
    let turns = 64 + 2 * response.len();
    let mut received = None;
    for _ in 0..turns {
        drive(&mut cx);
        if let Poll::Ready(result) = sent.as_mut().poll(&mut cx) {
            received = Some(result);
            break;
        }
    }
    let received = received.expect("hyper responds or fails");
    reading
        .informational
        .append(&mut informational.lock().expect("not poisoned"));
    let Ok(response) = received else {
        return reading;
    };
    let (head, body) = response.into_parts();
    reading.head = Some((head.status, head.headers));
    let mut body = pin!(body);
    for _ in 0..turns {
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Pending => drive(&mut cx),
            Poll::Ready(None) => {
                reading.end = End::Complete;
                return reading;
            }
            Poll::Ready(Some(Err(_))) => return reading,
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => reading.content.extend_from_slice(&data),
                Err(frame) => reading.trailers = frame.into_trailers().ok(),
            },
        }
    }
    panic!("hyper neither ends nor fails");
}

/// Stream with a response to the first request, and then the end.
struct Input {
    bytes: Vec<u8>,
    read: usize,
    is_requested: bool,
}

impl Read for Input {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_requested {
            return Poll::Pending;
        }
        let unread = &self.bytes[self.read..];
        let size = unread.len().min(buffer.remaining());
        buffer.put_slice(&unread[..size]);
        self.read += size;
        Poll::Ready(Ok(()))
    }
}

impl Write for Input {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_requested |= !bytes.is_empty();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
