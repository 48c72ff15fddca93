//! Listening sockets: one for each worker on the same address.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use socket2::{Domain, Socket, Type};

use crate::config::Address;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A listening socket that is not yet part of an event loop.
#[derive(Debug)]
pub(super) enum Bound {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

/// Binds `count` sockets. Gives the address they have in the end, which differs for port 0.
pub(super) fn listen(address: &Address, count: usize) -> io::Result<(Address, Vec<Bound>)> {
    match address {
        Address::Tcp(address) => {
            let (address, sockets) = tcp(*address, count)?;
            Ok((Address::Tcp(address), sockets))
        }
        Address::Unix(path) => Ok((address.clone(), unix(path, count)?)),
    }
}

fn tcp(mut address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<Bound>)> {
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
        sockets.push(Bound::Tcp(socket));
    }
    Ok((address, sockets))
}

fn unix(path: &Path, count: usize) -> io::Result<Vec<Bound>> {
    // A socket that nobody listens on is left from a process that ended without a stop.
    if path.exists()
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    let socket = UnixListener::bind(path)?;
    socket.set_nonblocking(true)?;
    let copies = (1..count).map(|_| socket.try_clone().map(Bound::Unix));
    let mut sockets = copies.collect::<io::Result<Vec<_>>>()?;
    sockets.push(Bound::Unix(socket));
    Ok(sockets)
}
