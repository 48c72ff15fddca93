//! Listeners: addresses, connection limits and HTTPS redirects.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use crate::harness::frames::{Frame, Frames, HEADERS};
use crate::harness::wire::Wire;
use crate::harness::{Client, Latch, ROUTES, Sidecar, Upstream, get, post, start, start_with};

#[test]
fn serves_requests_on_every_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gate.sock");
    let config = format!(
        "[listen]\nworkers = 2\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\n\
         [[listeners]]\naddress = \"unix:{}\"\n\
         [[listeners]]\naddress = \"[::1]:0\"\n{ROUTES}",
        path.display()
    );
    let (sidecar, upstream, issuer) = start(&config);
    let request = get("/api/alice/tasks").bearer(&issuer.token("alice"));
    let addresses = sidecar.addresses();
    assert_eq!(addresses.len(), 3);
    assert_eq!(addresses[0], sidecar.address);
    for _ in 0..10 {
        let mut clients: Vec<Client> = addresses.iter().copied().map(Client::connect).collect();
        clients.push(Client {
            wire: Wire::unix(UnixStream::connect(&path).unwrap()),
        });
        for client in &mut clients {
            assert_eq!(client.call(&request).status, 200);
        }
    }
    assert_eq!(upstream.arrived().len(), 40);
    let forwarded = upstream.arrived();
    let over_ip6 = forwarded
        .iter()
        .filter(|arrived| arrived.head.value("x-forwarded-for").as_deref() == Some("::1"));
    assert_eq!(over_ip6.count(), 10);
    sidecar.stop();
    assert_eq!(sidecar.wait(), 0);
    assert!(!path.exists(), "the socket file was not removed");
}

#[test]
fn a_busy_listener_does_not_starve_another() {
    let config = format!("[[listeners]]\naddress = \"127.0.0.1:0\"\n{ROUTES}");
    let (sidecar, _upstream, _issuer) = start(&config);
    let addresses = sidecar.addresses();
    let busy: Vec<_> = (0..200)
        .map(|_| TcpStream::connect(addresses[0]).unwrap())
        .collect();
    let mut other = Client::connect(addresses[1]);
    assert_eq!(other.call(&get("/open/page")).status, 200);
    drop(busy);
}

#[test]
fn the_connection_limit_covers_all_listeners() {
    let config = format!(
        "[listen]\nmax_connections = 2\n[[listeners]]\naddress = \"127.0.0.1:0\"\n{ROUTES}"
    );
    let latch = Latch::default();
    let (sidecar, upstream, _issuer) = start_with(&config, Upstream::held(&latch));
    let addresses = sidecar.addresses();
    let mut clients: Vec<Client> = addresses.iter().copied().map(Client::connect).collect();
    for client in &mut clients {
        client.send(get("/open/page").bytes());
    }
    upstream.wait_for(2);
    for address in addresses {
        Client::connect(address)
            .call(&get("/open/page"))
            .refused(503, "overloaded");
    }
    latch.open();
}

/// Gate with a second listener that redirects to HTTPS on this port.
fn redirecting(port: u16) -> (Sidecar, Upstream, crate::harness::Issuer) {
    start(&format!(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\nredirect_to_https = {port}\n{ROUTES}"
    ))
}

#[test]
fn a_plaintext_listener_redirects_every_request_to_https() {
    for (port, suffix) in [(443, ""), (8443, ":8443")] {
        let (sidecar, upstream, issuer) = redirecting(port);
        let mut client = Client::connect(sidecar.addresses()[1]);
        let token = issuer.token("alice");
        for (request, host, target) in [
            (get("/open/page"), "gate.test", "/open/page"),
            (get("/nowhere?a=b&c=%2F"), "gate.test", "/nowhere?a=b&c=%2F"),
            (
                get("/api/bob/tasks").bearer(&token),
                "gate.test",
                "/api/bob/tasks",
            ),
            (
                get("/api/bob/tasks").bearer("no token"),
                "gate.test",
                "/api/bob/tasks",
            ),
            (get("/").host(Some("Gate.test:8080")), "Gate.test", "/"),
            (get("/").host(Some("[::1]:80")), "[::1]", "/"),
            (get("http://gate.test/x?y"), "gate.test", "/x?y"),
        ] {
            let response = client.call(&request);
            response.refused(308, "https_required");
            let location = format!("https://{host}{suffix}{target}");
            assert_eq!(response.header("location"), Some(location));
        }
        let response = client.call(&post("/open/page", b"body"));
        response.refused(308, "https_required");
        upstream.assert_untouched();
        let counted = "claimgate_requests_total{route=\"\",method=\"POST\",status=\"308\",reason=\"https_required\"}";
        assert_eq!(sidecar.metric(counted), Some(1.0));
        // The other listener still serves.
        assert_eq!(sidecar.call(&get("/open/page")).status, 200);
    }
}

#[test]
fn does_not_redirect_ambiguous_requests() {
    let (sidecar, _upstream, _issuer) = redirecting(443);
    let address = sidecar.addresses()[1];
    for (request, status, reason) in [
        (get("/api/../x"), 400, "path_not_canonical"),
        (get("//evil.test/x"), 400, "path_not_canonical"),
        (get("/").host(None), 400, "request_malformed"),
        (get("/").host(Some("gate.test/x")), 400, "request_malformed"),
        (
            get("/").host(Some("evil@gate.test")),
            400,
            "request_malformed",
        ),
        (get("http://other.test/"), 400, "request_malformed"),
        (
            crate::harness::request("TRACE", "/"),
            405,
            "method_not_allowed",
        ),
    ] {
        let response = Client::connect(address).call(&request);
        response.refused(status, reason);
        assert_eq!(response.header("location"), None);
    }
}

#[test]
fn redirects_http2_clients_too() {
    let (sidecar, _upstream, _issuer) = redirecting(443);
    let mut client = Frames::connect(sidecar.addresses()[1]);
    client.send(&Frame::get(1, "/open/page"));
    client.next(HEADERS);
    let body = String::from_utf8(client.body(1)).unwrap();
    assert!(body.contains("https_required"), "{body}");
}
