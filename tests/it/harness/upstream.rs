//! Upstream that records requests byte for byte and responds as a closure decides.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::wire::{Head, Wire};
use super::{Latch, TIMEOUT};

/// HTTP/1.1 server on loopback.
pub(crate) struct Upstream {
    address: Address,
    recorder: Arc<Recorder>,
}

enum Address {
    Tcp(SocketAddr),
    Unix(TempDir),
    /// Bound port without a listener.
    Unreachable(Socket),
}

/// Request as received.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    /// Number of the connection, from 1.
    pub(crate) connection: usize,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Head,
    /// Whether the body is complete.
    pub(crate) complete: bool,
}

#[derive(Default)]
struct Recorder {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    connections: usize,
    closed: usize,
    arrived: Vec<Arrived>,
}

/// Request and its pending respond.
pub(crate) struct Exchange {
    pub(crate) wire: Wire,
    pub(crate) head: Head,
    recorder: Arc<Recorder>,
    index: usize,
}

/// Fate of the connection after a respond.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    KeepAlive,
    Close,
    Reset,
}

type Responder = dyn Fn(&mut Exchange) -> Next + Send + Sync;

impl Upstream {
    /// Starts an upstream that responds to every request with 200 and the request target.
    pub(crate) fn start() -> Self {
        Self::responding(Exchange::echo)
    }

    /// Starts an upstream that calls `respond` for every request.
    pub(crate) fn responding(
        respond: impl Fn(&mut Exchange) -> Next + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let recorder = Arc::<Recorder>::default();
        let upstream = Self {
            address: Address::Tcp(listener.local_addr().unwrap()),
            recorder: Arc::clone(&recorder),
        };
        let respond: Arc<Responder> = Arc::new(respond);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                serve(Wire::tcp(stream), &recorder, &respond);
            }
        });
        upstream
    }

    /// Like [`Upstream::start`], with every response held until the latch opens.
    pub(crate) fn held(latch: &Latch) -> Self {
        let latch = latch.clone();
        Self::responding(move |exchange| {
            latch.wait();
            exchange.echo()
        })
    }

    /// Like [`Upstream::start`], on a Unix socket.
    pub(crate) fn on_unix_socket() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let recorder = Arc::<Recorder>::default();
        let upstream = Self {
            address: Address::Unix(directory),
            recorder: Arc::clone(&recorder),
        };
        let respond: Arc<Responder> = Arc::new(Exchange::echo);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                serve(Wire::unix(stream), &recorder, &respond);
            }
        });
        upstream
    }

    /// Reserves an address without a listener.
    pub(crate) fn unreachable() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).unwrap();
        Self {
            address: Address::Unreachable(socket),
            recorder: Arc::default(),
        }
    }

    pub(crate) fn url(&self) -> String {
        match &self.address {
            Address::Tcp(address) => format!("http://{address}"),
            Address::Unreachable(socket) => {
                let address = socket.local_addr().unwrap().as_socket().unwrap();
                format!("http://{address}")
            }
            Address::Unix(directory) => {
                format!("unix:{}", directory.path().join("socket").display())
            }
        }
    }

    /// Requests received so far.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.recorder.state.lock().unwrap().arrived.clone()
    }

    /// The only request received.
    #[track_caller]
    pub(crate) fn only(&self) -> Arrived {
        let mut arrived = self.arrived();
        assert_eq!(arrived.len(), 1, "{arrived:#?}");
        arrived.remove(0)
    }

    /// Asserts that no connection was opened.
    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        let state = self.recorder.state.lock().unwrap();
        assert_eq!(state.connections, 0, "{:#?}", state.arrived);
    }

    /// Waits for this number of requests.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Arrived> {
        self.wait("requests", |state| state.arrived.len() >= count);
        self.arrived()
    }

    /// Waits until this number of connections are closed.
    pub(crate) fn wait_for_closed(&self, count: usize) {
        self.wait("closed connections", |state| state.closed >= count);
    }

    fn wait(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        let state = self.recorder.state.lock().unwrap();
        let changed = &self.recorder.changed;
        let (state, waited) = changed
            .wait_timeout_while(state, TIMEOUT, |state| !is_so(state))
            .unwrap();
        assert!(!waited.timed_out(), "too few {what}: {:#?}", state.arrived);
    }
}

fn serve(mut wire: Wire, recorder: &Arc<Recorder>, respond: &Arc<Responder>) {
    let (recorder, respond) = (Arc::clone(recorder), Arc::clone(respond));
    let connection = recorder.change(|state| {
        state.connections += 1;
        state.connections
    });
    thread::spawn(move || {
        while let Ok(Some(head)) = wire.read_head() {
            let index = recorder.change(|state| {
                state.arrived.push(Arrived {
                    connection,
                    head: head.clone(),
                    body: Vec::new(),
                    trailers: Head::default(),
                    complete: false,
                });
                state.arrived.len() - 1
            });
            let mut exchange = Exchange {
                wire,
                head,
                recorder: Arc::clone(&recorder),
                index,
            };
            let next = respond(&mut exchange);
            wire = exchange.wire;
            match next {
                Next::KeepAlive => {}
                Next::Close => break,
                Next::Reset => {
                    wire.reset();
                    break;
                }
            }
        }
        drop(wire);
        recorder.change(|state| state.closed += 1);
    });
}

impl Recorder {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
        changed
    }
}

impl Exchange {
    /// Reads the request body; `None` if it is truncated.
    pub(crate) fn body(&mut self) -> Option<Vec<u8>> {
        let (body, trailers) = self.wire.read_body(&self.head).ok()?;
        self.recorder.change(|state| {
            let arrived = &mut state.arrived[self.index];
            arrived.body.clone_from(&body);
            arrived.trailers = trailers;
            arrived.complete = true;
        });
        Some(body)
    }

    pub(crate) fn target(&self) -> String {
        self.head.line().split(' ').nth(1).unwrap().to_owned()
    }

    /// Writes bytes unchanged.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _gone = self.wire.write(bytes.as_ref());
    }

    /// Responds with `Content-Length`.
    pub(crate) fn respond(&mut self, status: &str, lines: &str, body: &str) -> Next {
        let length = body.len();
        self.write(format!(
            "HTTP/1.1 {status}\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
        ));
        Next::KeepAlive
    }

    /// Reads the complete request and responds with its target.
    pub(crate) fn echo(&mut self) -> Next {
        if self.body().is_none() {
            return Next::Close;
        }
        let body = if self.head.line().starts_with("HEAD ") {
            String::new()
        } else {
            self.target()
        };
        self.respond("200 OK", "", &body)
    }
}
