//! File descriptors: a gate with few of them stays alive, reloads and fetches keys, whatever its clients hold open.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::program::Program;
use super::upstream::{Request, Upstream};
use super::{Directory, Gate, SECRET, eight_lines};

/// Starts the gate with at most `descriptors` open files.
fn serve(directory: &Directory, descriptors: usize) -> Gate {
    let script = format!(
        "ulimit -n {descriptors}; exec {} run",
        env!("CARGO_BIN_EXE_claimgate")
    );
    let environment = [("BETTER_AUTH_SECRET", SECRET)];
    Gate::of(Program::start(
        "sh",
        &["-c", &script],
        &environment,
        directory.0.path(),
    ))
}

/// Opens connections that send nothing. The gate closes those that are too many.
fn silent(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok();
    (0..count).filter_map(connect).collect()
}

/// Waits until the gate serves a request. While it accepts the silent clients, it may close a connection whose request it
/// has not read for the next one in its queue, or respond 503. The queue also holds clients that have given up.
fn wait_until_served(gate: &Gate, request: &Request) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let mut text = String::new();
        let read = request.send(gate.address).read_to_string(&mut text);
        if text.starts_with("HTTP/1.1 200 ") {
            return;
        }
        assert!(Instant::now() < deadline, "{read:?}: {text}");
    }
}

#[test]
fn silent_clients_do_not_take_the_descriptors_of_probes_reloads_and_key_fetches() {
    for (descriptors, clients) in [(1024, 1500), (64, 200)] {
        let upstream = Upstream::start();
        let config = eight_lines(upstream.address);
        let directory = Directory::with(&config);
        let mut gate = serve(&directory, descriptors);
        let limited =
            "the limit of file descriptors is too low for `max_connections = 10000`: at most ";
        assert!(
            gate.program.stderr.contains(limited),
            "{}",
            gate.program.stderr
        );
        let silent_clients = silent(gate.address, clients);
        let silent_probes = silent(gate.admin, clients);

        let probe = |path: &str| Request::new("GET", path).response(gate.admin).status;
        assert_eq!(
            [probe("/livez"), probe("/readyz"), probe("/metrics")],
            [200; 3]
        );
        // A client that sends a request is served.
        let request = Request::new("GET", "/api/alice/tasks");
        wait_until_served(&gate, &request.bearer(&directory.token("alice", &[])));

        let issuer = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/jwks", issuer.local_addr().unwrap());
        let new = format!(
            "[issuers.new]\nissuer = \"https://new.example\"\nkeys = {{ jwks_url = \"{url}\" }}\n"
        );
        fs::write(directory.path("config.toml"), config + &new).unwrap();
        gate.program.wait_for_line("configuration reloaded\"");
        // Waits for the connection of the key fetch.
        issuer.accept().unwrap();
        assert!(
            !gate.program.stderr.contains("failed to accept"),
            "{}",
            gate.program.stderr
        );
        drop((silent_clients, silent_probes));
        gate.program.signal("TERM");
        assert_eq!(gate.program.wait().code, Some(0));
    }
}
