//! Clients that read slowly: served above the minimum rate, cut below it.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::harness::frames::{DATA, Frame, Frames, HEADERS, INITIAL_WINDOW_SIZE, RST_STREAM};
use crate::harness::wire::Wire;
use crate::harness::{Client, Next, ROUTES, Sidecar, Upstream, get, start_with};

/// Time between two reads.
const PAUSE: Duration = Duration::from_millis(50);

fn listening(lines: &str) -> String {
    format!("[listen]\n{lines}\n{ROUTES}")
}

/// Upstream with a response larger than every buffer.
fn large() -> Upstream {
    Upstream::responding(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        exchange.write(vec![b'x'; 100_000_000]);
        Next::Close
    })
}

/// Client whose kernel holds few received bytes.
fn connect(sidecar: &Sidecar) -> Client {
    let stream = TcpStream::connect(sidecar.address).unwrap();
    SockRef::from(&stream).set_recv_buffer_size(8192).unwrap();
    Client {
        wire: Wire::tcp(stream),
    }
}

fn is_open(sidecar: &Sidecar) -> bool {
    sidecar.metric("claimgate_connections_open") == Some(1.0)
}

/// Reads `bytes` after each pause, for `time` or to the end of the connection.
fn read_steadily(client: &mut Client, bytes: usize, time: Duration) -> Duration {
    let began = Instant::now();
    while began.elapsed() < time && client.wire.read_exact(bytes).is_ok() {
        thread::park_timeout(PAUSE);
    }
    began.elapsed()
}

/// 100 KB/s: by default the kernel of the gate holds megabytes, and reports progress only when a third of that is free.
#[test]
fn serves_a_slow_but_steady_reader() {
    let (sidecar, _upstream, _issuer) = start_with(&listening("body_timeout = \"2s\""), large());
    let mut client = connect(&sidecar);
    client.send(get("/open/large").bytes());
    let time = Duration::from_secs(6);
    assert!(read_steadily(&mut client, 5000, time) >= time, "closed");
    // A cut client would still read what its own kernel holds.
    assert!(is_open(&sidecar), "cut");
}

#[test]
fn cuts_a_reader_below_the_minimum_rate() {
    let (sidecar, upstream, _issuer) = start_with(&listening("body_timeout = \"1s\""), large());
    let mut client = connect(&sidecar);
    client.send(get("/open/large").bytes());
    // 200 bytes per second.
    thread::spawn(move || read_steadily(&mut client, 10, Duration::from_mins(1)));
    upstream.wait_for_closed(1);
}

/// Each chunk of the upstream is progress of its own.
#[test]
fn cuts_an_http2_stream_below_the_minimum_rate() {
    let upstream = Upstream::responding(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = format!("64\r\n{}\r\n", "x".repeat(100)).repeat(1000);
        while exchange.wire.write(chunk.as_bytes()).is_ok() {}
        Next::Close
    });
    let (sidecar, upstream, _issuer) = start_with(&listening("body_timeout = \"2s\""), upstream);
    let mut client = Frames::connect_with(sidecar.address, &[(INITIAL_WINDOW_SIZE, 100)]);
    client.send(&Frame::get(1, "/open/large"));
    client.next(HEADERS);
    let began = Instant::now();
    loop {
        let frame = client.until(|frame| [DATA, RST_STREAM].contains(&frame.kind));
        if frame.kind == RST_STREAM {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "never cut");
        // 400 bytes per second.
        thread::park_timeout(PAUSE);
        client.open_window(1, 20);
    }
    upstream.wait_for_closed(1);
}
