//! Listening sockets: one per worker and address, opened here or passed to the process.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::config::Address;

/// Length of the accept queue.
const BACKLOG: i32 = 4096;

/// Unsent bytes that the kernel accepts for a client, beside those in transit. By default it accepts megabytes, and
/// reports progress only when a third of them is sent: a slow reader would seem to stand still.
const UNSENT_BYTES: u32 = 32 * 1024;

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
        if matches!(self, Self::Tcp(_)) {
            set_options_of_connections(&socket)?;
        }
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
        set_options_of_connections(&socket)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = std::net::TcpListener::from(socket);
        // With port 0, the system assigns a free port to the first socket; the others share it.
        address = socket.local_addr()?;
        sockets.push(ListenSocket::Tcp(socket));
    }
    Ok((address, sockets))
}

/// Sets the options of every connection on its listening socket, from which Linux copies them: two system calls less for
/// each connection.
fn set_options_of_connections(listener: &Socket) -> io::Result<()> {
    listener.set_tcp_nodelay(true)?;
    listener.set_tcp_notsent_lowat(UNSENT_BYTES)
}

fn unix(path: &Path, count: usize) -> io::Result<Vec<ListenSocket>> {
    remove_stale_socket(path)?;
    ListenSocket::Unix(UnixListener::bind(path)?).copies(count)
}

/// Removes the socket file of a process that crashed. Fails for any other file, and for a socket that is in use.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        let text = "the file exists and is not a socket; remove it, or choose another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full accept queue would block.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => {
            let text = "another process listens on this socket";
            Err(io::Error::new(io::ErrorKind::AddrInUse, text))
        }
    }
}

/// Socket file that this process created.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The file of a socket that was just bound; `None` for any other address.
    pub(super) fn of(address: &Address) -> Option<Self> {
        let Address::Unix(path) = address else {
            return None;
        };
        let found = std::fs::symlink_metadata(path).ok()?;
        Some(Self {
            path: path.clone(),
            device: found.dev(),
            inode: found.ino(),
        })
    }

    /// Removes the file, unless another process has replaced it.
    pub(super) fn remove(&self) {
        let found = std::fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode)) {
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn replaces_a_stale_socket_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gate.sock");
        let listen = || unix(&path, 1).map_err(|error| error.to_string());
        drop(UnixListener::bind(&path).unwrap());
        let first = listen().unwrap();
        assert_eq!(
            listen().unwrap_err(),
            "another process listens on this socket"
        );
        drop(first);
        fs::remove_file(&path).unwrap();

        let refused = "the file exists and is not a socket; remove it, or choose another path";
        fs::write(&path, "precious").unwrap();
        assert_eq!(listen().unwrap_err(), refused);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(listen().unwrap_err(), refused);
        fs::remove_dir(&path).unwrap();

        // A symbolic link would delete or shadow a file elsewhere.
        let target = directory.path().join("target");
        for make_target in [false, true] {
            if make_target {
                drop(UnixListener::bind(&target).unwrap());
            }
            symlink(&target, &path).unwrap();
            assert_eq!(listen().unwrap_err(), refused, "{make_target}");
            fs::remove_file(&path).unwrap();
        }
        // The socket of another protocol.
        let datagrams = UnixDatagram::bind(&path).unwrap();
        assert!(listen().is_err());
        drop(datagrams);
        assert!(path.exists());
    }

    #[test]
    fn accepted_connections_inherit_the_options_of_their_listener() {
        // One socket each, so that it accepts the connection.
        let opened = tcp(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap().1;
        let passed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let passed = ListenSocket::Tcp(passed).copies(1).unwrap();
        for socket in opened.into_iter().chain(passed) {
            let ListenSocket::Tcp(listener) = socket else {
                panic!("not a TCP socket");
            };
            let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            listener.set_nonblocking(false).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let accepted = SockRef::from(&accepted);
            assert!(accepted.tcp_nodelay().unwrap());
            assert_eq!(accepted.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
        }
    }

    #[test]
    fn a_full_accept_queue_does_not_block_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gate.sock");
        let full = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        full.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        full.listen(0).unwrap();
        let client = || {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            client
                .connect(&SockAddr::unix(&path).unwrap())
                .map(|()| client)
        };
        let mut queued = Vec::new();
        while let Ok(client) = client() {
            queued.push(client);
            assert!(queued.len() < 100);
        }
        let error = unix(&path, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn keeps_the_socket_of_another_process_at_exit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gate.sock");
        let own = UnixListener::bind(&path).unwrap();
        let file = SocketFile::of(&Address::Unix(path.clone())).unwrap();
        // The other socket exists before this one is removed, so that it has another inode.
        let new = directory.path().join("new.sock");
        let other = UnixListener::bind(&new).unwrap();
        fs::rename(&new, &path).unwrap();
        file.remove();
        assert!(path.exists());
        SocketFile::of(&Address::Unix(path.clone()))
            .unwrap()
            .remove();
        assert!(!path.exists());
        drop((own, other));
    }
}
