//! Sockets passed by the parent process (systemd socket activation).

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::harness::wire::Wire;
use crate::harness::{Client, get};

use super::program::Program;
use super::{Directory, EIGHT_LINES, SECRET};

/// Starts the gate with the sockets as descriptors 3 and 4, announced in the environment as systemd does.
fn start(directory: &Directory, first: &TcpListener, second: &UnixListener) -> Program {
    let script = "exec 3<&0 4<&1 0</dev/null 1>&2; LISTEN_PID=$$ LISTEN_FDS=2 exec \"$@\"";
    let executable = env!("CARGO_BIN_EXE_claimgate");
    Program::start_with(
        "sh",
        &["-c", script, "sh", executable],
        &[("BETTER_AUTH_SECRET", SECRET)],
        directory.0.path(),
        [
            OwnedFd::from(first.try_clone().unwrap()).into(),
            OwnedFd::from(second.try_clone().unwrap()).into(),
        ],
    )
}

fn config(second: &str) -> String {
    format!(
        "[listen]\naddress = \"systemd:0\"\nworkers = 2\n[[listeners]]\naddress = \"{second}\"\n\
         [admin]\naddress = \"127.0.0.1:0\"\n{EIGHT_LINES}"
    )
}

#[test]
fn serves_on_passed_sockets() {
    let directory = Directory::with(&config("systemd:1"));
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = directory.path("gate.sock");
    let unix = UnixListener::bind(&path).unwrap();
    // Connections wait while no gate is running, before the first start and during a restart.
    let address = tcp.local_addr().unwrap();
    for _ in 0..2 {
        let mut early = Client::connect(address);
        early.send(get("/nowhere").bytes());
        let mut program = start(&directory, &tcp, &unix);
        let line = program.wait_for_line("\"serving\"");
        assert!(line.contains("systemd:0 systemd:1"), "{line}");
        assert_eq!(early.response().status, 404);
        for _ in 0..5 {
            let over_tcp = Wire::tcp(TcpStream::connect(address).unwrap());
            let over_unix = Wire::unix(UnixStream::connect(&path).unwrap());
            for wire in [over_tcp, over_unix] {
                assert_eq!(Client { wire }.call(&get("/nowhere")).status, 404);
            }
        }
        drop(early);
        program.signal("TERM");
        assert_eq!(program.wait().code, Some(0));
        assert!(
            path.exists(),
            "the gate removed a socket that it did not create"
        );
    }
}

#[test]
fn leaves_new_connections_to_the_next_gate_while_stopping() {
    // Connections wait in the backlog, without a response.
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = Directory::with(&format!(
        "[listen]\naddress = \"systemd:0\"\nworkers = 1\n\
         [[listeners]]\naddress = \"systemd:1\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [upstreams.tasks]\nurl = \"http://{}\"\n[[routes]]\npath = \"/open\"\naccess = \"public\"\n",
        upstream.local_addr().unwrap()
    ));
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(directory.path("gate.sock")).unwrap();
    let mut first = start(&directory, &tcp, &unix);
    first.wait_for_line("\"serving\"");
    let connect = || Client::connect(tcp.local_addr().unwrap());
    let mut idle = connect();
    assert_eq!(idle.call(&get("/nowhere")).status, 404);
    let mut in_flight = connect();
    in_flight.send(get("/open").bytes());
    let _accepted = upstream.accept().unwrap();
    first.signal("TERM");
    // The idle connection closes after the gate has received the signal.
    idle.until_closed();
    let mut late: Vec<Client> = (0..20).map(|_| connect()).collect();
    for client in &mut late {
        client.send(get("/nowhere").bytes());
    }
    drop(in_flight);
    assert_eq!(first.wait().code, Some(0));
    let mut second = start(&directory, &tcp, &unix);
    second.wait_for_line("\"serving\"");
    for client in &mut late {
        assert_eq!(client.response().status, 404);
    }
}

#[test]
fn names_a_socket_that_was_not_passed() {
    let directory = Directory::with(&config("systemd:2"));
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(directory.path("gate.sock")).unwrap();
    let ended = start(&directory, &tcp, &unix).wait();
    assert_ne!(ended.code, Some(0));
    assert!(
        ended.stderr.contains(
            "listen on systemd:2, `address` of listeners[0]: no socket with this index was passed"
        ),
        "{}",
        ended.stderr
    );
    let ended = directory.call(&[]);
    assert!(
        ended.stderr.contains(
            "listen on systemd:0, `address` of [listen]: no socket with this index was passed"
        ),
        "{}",
        ended.stderr
    );
}
