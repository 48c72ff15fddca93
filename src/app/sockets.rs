//! Listening sockets: one per worker and address, opened here or passed to the process.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use listenfd::ListenFd;
use socket2::{Domain, SockRef, Socket, Type};

use crate::config::Address;

/// Length of the accept queue.
const BACKLOG: i32 = 4096;

/// Listening socket, not yet registered with an event loop.
#[derive(Debug)]
pub(super) enum ListenSocket {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

/// Opens sockets, or takes those passed to the process (`LISTEN_FDS`, systemd socket activation).
pub(super) struct SocketOpener {
    passed: ListenFd,
}

impl SocketOpener {
    pub(super) fn new() -> Self {
        Self {
            passed: ListenFd::from_env(),
        }
    }

    /// Opens `count` sockets. Also returns the bound address, which differs for port 0.
    pub(super) fn listen(
        &mut self,
        address: &Address,
        count: usize,
    ) -> io::Result<(Address, Vec<ListenSocket>)> {
        match address {
            Address::Tcp(address) => {
                let (address, sockets) = tcp(*address, count)?;
                Ok((Address::Tcp(address), sockets))
            }
            Address::Unix(path) => Ok((address.clone(), unix(path, count)?)),
            Address::Passed(index) => Ok((address.clone(), self.passed(*index, count)?)),
        }
    }

    fn passed(&mut self, index: usize, count: usize) -> io::Result<Vec<ListenSocket>> {
        let missing =
            || io::Error::other("no socket with this index was passed to the process (LISTEN_FDS)");
        let socket = match self.passed.take_unix_listener(index) {
            Ok(socket) => ListenSocket::Unix(socket.ok_or_else(missing)?),
            // Not a Unix socket.
            Err(_) => ListenSocket::Tcp(self.passed.take_tcp_listener(index)?.ok_or_else(missing)?),
        };
        socket.copies(count)
    }
}

impl ListenSocket {
    /// Duplicates the socket `count` times and makes it non-blocking.
    fn copies(self, count: usize) -> io::Result<Vec<Self>> {
        let socket = match &self {
            Self::Tcp(socket) => SockRef::from(socket),
            Self::Unix(socket) => SockRef::from(socket),
        };
        if !socket.is_listener()? {
            return Err(io::Error::other("the passed socket is not listening"));
        }
        socket.set_nonblocking(true)?;
        let copies = (1..count).map(|_| match &self {
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
        });
        let mut copies = copies.collect::<io::Result<Vec<_>>>()?;
        copies.push(self);
        Ok(copies)
    }
}

fn tcp(mut address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<ListenSocket>)> {
    if address.port() != 0 {
        // Probes the port without SO_REUSEPORT, with which a second gate could share the port and take half of the
        // requests.
        drop(std::net::TcpListener::bind(address)?);
    }
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = std::net::TcpListener::from(socket);
        // With port 0, the system assigns a free port to the first socket; the others share it.
        address = socket.local_addr()?;
        sockets.push(ListenSocket::Tcp(socket));
    }
    Ok((address, sockets))
}

fn unix(path: &Path, count: usize) -> io::Result<Vec<ListenSocket>> {
    // A socket file without a listener was left by a process that crashed.
    if path.exists()
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    ListenSocket::Unix(UnixListener::bind(path)?).copies(count)
}
