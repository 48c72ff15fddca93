//! Startup: ports in use.

use std::collections::BTreeSet;
use std::thread;

use claimgate::app::AppError;
use claimgate::clock::Clock;

use crate::harness::sidecar::compile;
use crate::harness::{Issuer, ROUTES, Upstream, get, start};

#[test]
fn a_second_gate_cannot_share_the_port_of_the_first() {
    let config = format!("[listen]\nworkers = 2\n{ROUTES}");
    let (first, upstream, issuer) = start(&config);
    let mut app = compile(&config, &upstream, &issuer);
    app.listeners[0].address = first.running().address().clone();
    let AppError::Listen(failed) = app.start(Clock::System).unwrap_err() else {
        panic!("unexpected error");
    };
    assert!(failed.is_taken(), "{failed}");
    assert_eq!(failed.address, *first.running().address());
    for _ in 0..20 {
        assert_eq!(first.call(&get("/open/page")).status, 200);
    }
}

#[test]
fn gates_starting_concurrently_get_distinct_ports() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let config = format!("[listen]\nworkers = 2\n{ROUTES}");
    let starting = || {
        compile(&config, &upstream, &issuer)
            .start(Clock::System)
            .unwrap()
    };
    let gates: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..30).map(|_| scope.spawn(starting)).collect();
        let gates = threads.into_iter().map(|thread| thread.join().unwrap());
        gates.collect()
    });
    let ports: BTreeSet<String> = gates
        .iter()
        .map(|gate| gate.address().to_string())
        .collect();
    assert_eq!(ports.len(), gates.len());
    for gate in gates {
        gate.stop();
        assert_eq!(gate.wait(), 0);
    }
}
