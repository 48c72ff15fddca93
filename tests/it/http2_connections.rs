//! Connections over HTTP/2: what may be held open, how they end, and what one of them may cost.

use crate::harness::frames::{Frame, Frames, GOAWAY, PING, PREFACE};
use crate::harness::{ROUTES, get, start};

#[test]
fn a_client_may_speak_http2_by_prior_knowledge() {
    let (sidecar, _upstream, _issuer) = start(ROUTES);
    let mut client = Frames::connect(sidecar.address);
    client.send(&Frame::get(1, "/nowhere"));
    client.send(&Frame::get(3, "/a/../b"));
    assert!([400, 404].contains(&client.status(1)));
    assert_eq!(client.status(3), 400);
}

#[test]
fn the_preface_may_come_in_any_pieces() {
    let (sidecar, _upstream, _issuer) = start(ROUTES);
    for at in 1..PREFACE.len() {
        let mut client = sidecar.connect();
        client.send(&PREFACE[..at]);
        // Another client is answered in between: the first piece has been read alone.
        assert_eq!(sidecar.call(&get("/open/page")).status, 200);
        client.send(&PREFACE[at..]);
        let mut frames = Frames { wire: client.wire };
        frames.send(&Frame::settings(&[]));
        frames.send(&Frame::get(1, "/a/../b"));
        assert_eq!(frames.status(1), 400, "{at}");
    }
}

#[test]
fn what_begins_like_the_preface_is_a_request() {
    let (sidecar, _upstream, _issuer) = start(ROUTES);
    for method in ["P", "PR", "PRI", "POST", "PUT", "PATCH"] {
        let mut client = sidecar.connect();
        let (first, rest) = method.split_at(1);
        client.send(first);
        assert_eq!(sidecar.call(&get("/open/page")).status, 200);
        client.send(format!(
            "{rest} /nowhere HTTP/1.1\r\nHost: gate.test\r\n\r\n"
        ));
        assert_eq!(client.answer().status, 404, "{method}");
    }
}

#[test]
fn a_client_is_sent_away_when_the_gate_stops() {
    let (sidecar, _upstream, _issuer) = start(&format!("[drain]\ngrace = \"15s\"\n{ROUTES}"));
    let mut client = Frames::connect(sidecar.address);
    client.send(&Frame::get(1, "/a/../b"));
    assert_eq!(client.status(1), 400);
    sidecar.stop();
    assert_eq!(client.next(GOAWAY).code(), 0);
    for frame in client.rest() {
        let is_farewell = frame.kind == GOAWAY && frame.code() == 0;
        assert!(is_farewell || frame.kind == PING, "{frame:?}");
    }
    assert_eq!(sidecar.wait(), 0);
}
