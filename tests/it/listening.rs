//! Listeners: where requests come in.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use claimgate::config::Address;

use crate::harness::wire::Wire;
use crate::harness::{Client, ROUTES, Sidecar, get, start};

/// Where a gate listens over TCP, in the order of its configuration.
fn tcp(sidecar: &Sidecar) -> Vec<SocketAddr> {
    let addresses = sidecar.running().addresses().iter();
    let tcp = addresses.filter_map(|address| match address {
        Address::Tcp(address) => Some(*address),
        Address::Unix(_) => None,
    });
    tcp.collect()
}

#[test]
fn requests_come_in_at_every_listener() {
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
    let addresses = tcp(&sidecar);
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
    assert!(!path.exists(), "the socket is left");
}

#[test]
fn a_busy_listener_does_not_keep_another_waiting() {
    let config = format!("[[listeners]]\naddress = \"127.0.0.1:0\"\n{ROUTES}");
    let (sidecar, _upstream, _issuer) = start(&config);
    let addresses = tcp(&sidecar);
    let busy: Vec<_> = (0..200)
        .map(|_| TcpStream::connect(addresses[0]).unwrap())
        .collect();
    let mut other = Client::connect(addresses[1]);
    assert_eq!(other.call(&get("/open/page")).status, 200);
    drop(busy);
}

#[test]
fn the_limit_of_connections_holds_for_all_listeners_together() {
    let config = format!(
        "[listen]\nmax_connections = 2\n[[listeners]]\naddress = \"127.0.0.1:0\"\n{ROUTES}"
    );
    let (sidecar, _upstream, _issuer) = start(&config);
    let addresses = tcp(&sidecar);
    let mut clients: Vec<Client> = addresses.iter().copied().map(Client::connect).collect();
    for client in &mut clients {
        assert_eq!(client.call(&get("/open/page")).status, 200);
    }
    for address in addresses {
        Client::connect(address)
            .call(&get("/open/page"))
            .refused(503, "overloaded");
    }
}
