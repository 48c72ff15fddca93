//! An upstream that keeps what arrives, byte for byte, and answers as it is told.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::PATIENCE;
use super::wire::{Head, Wire};

/// A server on this machine.
pub(crate) struct Upstream {
    place: Place,
    kept: Arc<Kept>,
}

enum Place {
    Tcp(SocketAddr),
    Unix(TempDir),
    /// A port that is taken, and where nobody listens.
    Nowhere(Socket),
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    /// Over which connection, counted from 1.
    pub(crate) connection: usize,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Head,
    /// Whether its body came to its end.
    pub(crate) whole: bool,
}

#[derive(Default)]
struct Kept {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    connections: usize,
    closed: usize,
    arrived: Vec<Arrived>,
}

/// One request that waits for its answer.
pub(crate) struct Dialogue {
    pub(crate) wire: Wire,
    pub(crate) head: Head,
    kept: Arc<Kept>,
    place: usize,
}

/// What happens to the connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another request is awaited.
    Stay,
    /// It is closed without a word.
    Close,
    /// It is reset.
    Reset,
}

type Answering = dyn Fn(&mut Dialogue) -> Next + Send + Sync;

impl Upstream {
    /// One that answers every request with 200 and its target.
    pub(crate) fn start() -> Self {
        Self::answering(Dialogue::echo)
    }

    /// One that does this with every request.
    pub(crate) fn answering(
        answer: impl Fn(&mut Dialogue) -> Next + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let kept = Arc::<Kept>::default();
        let upstream = Self {
            place: Place::Tcp(listener.local_addr().unwrap()),
            kept: Arc::clone(&kept),
        };
        let answer: Arc<Answering> = Arc::new(answer);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                serve(Wire::tcp(stream), &kept, &answer);
            }
        });
        upstream
    }

    /// As [`Upstream::start`], on a Unix socket.
    pub(crate) fn on_unix_socket() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let kept = Arc::<Kept>::default();
        let upstream = Self {
            place: Place::Unix(directory),
            kept: Arc::clone(&kept),
        };
        let answer: Arc<Answering> = Arc::new(Dialogue::echo);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                serve(Wire::unix(stream), &kept, &answer);
            }
        });
        upstream
    }

    /// An address where nobody listens.
    pub(crate) fn nowhere() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).unwrap();
        Self {
            place: Place::Nowhere(socket),
            kept: Arc::default(),
        }
    }

    pub(crate) fn url(&self) -> String {
        match &self.place {
            Place::Tcp(address) => format!("http://{address}"),
            Place::Nowhere(socket) => {
                let address = socket.local_addr().unwrap().as_socket().unwrap();
                format!("http://{address}")
            }
            Place::Unix(directory) => {
                format!("unix:{}", directory.path().join("socket").display())
            }
        }
    }

    /// Everything that has arrived.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.kept.state.lock().unwrap().arrived.clone()
    }

    /// The only request that has arrived.
    #[track_caller]
    pub(crate) fn only(&self) -> Arrived {
        let mut arrived = self.arrived();
        assert_eq!(arrived.len(), 1, "{arrived:#?}");
        arrived.remove(0)
    }

    /// Asserts that nobody has even connected.
    #[track_caller]
    pub(crate) fn untouched(&self) {
        let state = self.kept.state.lock().unwrap();
        assert_eq!(state.connections, 0, "{:#?}", state.arrived);
    }

    /// Waits until so many requests have arrived.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Arrived> {
        self.wait("requests", |state| state.arrived.len() >= count);
        self.arrived()
    }

    /// Waits until so many connections have ended.
    pub(crate) fn wait_for_closed(&self, count: usize) {
        self.wait("ends of connections", |state| state.closed >= count);
    }

    fn wait(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        let state = self.kept.state.lock().unwrap();
        let changed = &self.kept.changed;
        let (state, waited) = changed
            .wait_timeout_while(state, PATIENCE, |state| !is_so(state))
            .unwrap();
        assert!(!waited.timed_out(), "too few {what}: {:#?}", state.arrived);
    }
}

fn serve(mut wire: Wire, kept: &Arc<Kept>, answer: &Arc<Answering>) {
    let (kept, answer) = (Arc::clone(kept), Arc::clone(answer));
    let connection = kept.change(|state| {
        state.connections += 1;
        state.connections
    });
    thread::spawn(move || {
        while let Ok(Some(head)) = wire.read_head() {
            let place = kept.change(|state| {
                state.arrived.push(Arrived {
                    connection,
                    head: head.clone(),
                    body: Vec::new(),
                    trailers: Head::default(),
                    whole: false,
                });
                state.arrived.len() - 1
            });
            let mut dialogue = Dialogue {
                wire,
                head,
                kept: Arc::clone(&kept),
                place,
            };
            let next = answer(&mut dialogue);
            wire = dialogue.wire;
            match next {
                Next::Stay => {}
                Next::Close => break,
                Next::Reset => {
                    wire.reset();
                    break;
                }
            }
        }
        drop(wire);
        kept.change(|state| state.closed += 1);
    });
}

impl Kept {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
        changed
    }
}

impl Dialogue {
    /// Reads the body of the request; `None` if it breaks off.
    pub(crate) fn body(&mut self) -> Option<Vec<u8>> {
        let (body, trailers) = self.wire.read_body(&self.head).ok()?;
        self.kept.change(|state| {
            let arrived = &mut state.arrived[self.place];
            arrived.body.clone_from(&body);
            arrived.trailers = trailers;
            arrived.whole = true;
        });
        Some(body)
    }

    pub(crate) fn target(&self) -> String {
        self.head.line().split(' ').nth(1).unwrap().to_owned()
    }

    /// Writes bytes as they are.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _gone = self.wire.write(bytes.as_ref());
    }

    /// Answers with a length.
    pub(crate) fn answer(&mut self, status: &str, lines: &str, body: &str) -> Next {
        let length = body.len();
        self.write(format!(
            "HTTP/1.1 {status}\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
        ));
        Next::Stay
    }

    /// Reads the request to its end and answers with its target.
    pub(crate) fn echo(&mut self) -> Next {
        if self.body().is_none() {
            return Next::Close;
        }
        let body = if self.head.line().starts_with("HEAD ") {
            String::new()
        } else {
            self.target()
        };
        self.answer("200 OK", "", &body)
    }
}
