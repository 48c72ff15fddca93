//! Listening sockets: one for each worker on the same address, opened here or by whoever started the process.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use listenfd::ListenFd;
use socket2::{Domain, SockRef, Socket, Type};

use crate::config::Address;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A listening socket that is not yet part of an event loop.
#[derive(Debug)]
pub(super) enum ListenSocket {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

/// What opens sockets, and has those that were open when the process was started (`LISTEN_FDS`, as systemd does it).
pub(super) struct SocketOpener {
    passed: ListenFd,
}

impl SocketOpener {
    pub(super) fn new() -> Self {
        Self {
            passed: ListenFd::from_env(),
        }
    }

    /// Opens `count` sockets. Gives the address they have in the end, which differs for port 0.
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
            // It is of another kind.
            Err(_) => ListenSocket::Tcp(self.passed.take_tcp_listener(index)?.ok_or_else(missing)?),
        };
        socket.copies(count)
    }
}

impl ListenSocket {
    /// The same socket so many times, ready for event loops.
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
        // SO_REUSEPORT would let a second gate share the port of a first and take half of its requests unnoticed:
        // without it, the port must be free.
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
        // For port 0, the first gets a port that nobody has, and the others the same.
        address = socket.local_addr()?;
        sockets.push(ListenSocket::Tcp(socket));
    }
    Ok((address, sockets))
}

fn unix(path: &Path, count: usize) -> io::Result<Vec<ListenSocket>> {
    // A socket that nobody listens on is left from a process that ended without a stop.
    if path.exists()
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    ListenSocket::Unix(UnixListener::bind(path)?).copies(count)
}
