//! Happy Eyeballs (RFC 8305): staggered connection attempts to the addresses of one host. The first success wins, so a
//! dead address costs a short delay instead of the whole timeout of the caller.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::sleep;

/// Time between the starts of two attempts: the Connection Attempt Delay recommended by RFC 8305 section 5.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Opens a TCP connection to the first address that accepts it.
pub(crate) async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let delay = || sleep(ATTEMPT_DELAY);
    race(interleaved(addresses), TcpStream::connect, delay).await
}

/// Runs attempts until one succeeds. The next one starts after a failure, or after a delay; slower attempts go on beside
/// it. Returns the last error if all fail.
async fn race<T, A: Future<Output = io::Result<T>>, D: Future<Output = ()>>(
    addresses: Vec<SocketAddr>,
    attempt: impl Fn(SocketAddr) -> A,
    delay: impl Fn() -> D,
) -> io::Result<T> {
    let mut addresses = addresses.into_iter();
    let mut running = Vec::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no addresses found");
    loop {
        match addresses.next() {
            Some(address) => running.push(Box::pin(attempt(address))),
            None if running.is_empty() => return Err(last),
            None => {}
        }
        let has_more = addresses.len() > 0;
        tokio::select! {
            biased;
            ended = first_ended(&mut running) => match ended {
                Ok(connected) => return Ok(connected),
                Err(error) => last = error,
            },
            () = delay(), if has_more => {}
        }
    }
}

/// Waits for the end of one attempt and removes it.
async fn first_ended<F: Future>(running: &mut Vec<Pin<Box<F>>>) -> F::Output {
    poll_fn(|context| {
        for (index, attempt) in running.iter_mut().enumerate() {
            if let Poll::Ready(ended) = attempt.as_mut().poll(context) {
                drop(running.remove(index));
                return Poll::Ready(ended);
            }
        }
        Poll::Pending
    })
    .await
}

/// Alternates the address families, starting with the family that the resolver prefers (RFC 8305 section 4).
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let prefers_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) = addresses
        .iter()
        .copied()
        .partition(|address| address.is_ipv6() == prefers_v6);
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut ordered = Vec::with_capacity(addresses.len());
    loop {
        let before = ordered.len();
        ordered.extend(preferred.next().into_iter().chain(other.next()));
        if ordered.len() == before {
            return ordered;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::net::{Ipv4Addr, TcpListener};

    use socket2::{Domain, Socket, Type};
    use tokio::time::{Instant, timeout};

    use super::*;

    fn parsed(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn alternates_families_and_keeps_the_order_of_the_resolver() {
        // RFC 8305 section 4: the first address decides which family comes first.
        let v6_first = parsed(&["[fd00::1]:1", "[fd00::2]:1", "10.0.0.1:1", "10.0.0.2:1"]);
        let expected = parsed(&["[fd00::1]:1", "10.0.0.1:1", "[fd00::2]:1", "10.0.0.2:1"]);
        assert_eq!(interleaved(&v6_first), expected);
        let v4_first = parsed(&["10.0.0.9:1", "10.0.0.1:1", "[fd00::1]:1"]);
        let expected = parsed(&["10.0.0.9:1", "[fd00::1]:1", "10.0.0.1:1"]);
        assert_eq!(interleaved(&v4_first), expected);
        assert_eq!(interleaved(&[]), []);
    }

    /// Outcome of an attempt in a test.
    #[derive(Clone, Copy)]
    enum Host {
        Silent,
        Refuses,
        /// Accepts once this many delays have passed.
        Accepts(usize),
    }

    use Host::{Accepts, Refuses, Silent};

    /// Races hosts with a clock that counts delays. Returns the winner and the start of each attempt.
    async fn race_between(hosts: &[Host]) -> (io::Result<usize>, Vec<usize>) {
        let (clock, starts) = (Cell::new(0), RefCell::new(Vec::new()));
        let addresses = (0..hosts.len()).map(|index| {
            let port = u16::try_from(index).unwrap();
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        });
        let attempt = |address: SocketAddr| {
            starts.borrow_mut().push(clock.get());
            let (index, clock) = (usize::from(address.port()), &clock);
            let host = hosts[index];
            poll_fn(move |_| match host {
                Refuses => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
                Accepts(time) if time <= clock.get() => Poll::Ready(Ok(index)),
                Accepts(_) | Silent => Poll::Pending,
            })
        };
        let delay = async || clock.set(clock.get() + 1);
        let raced = timeout(ATTEMPT_DELAY, race(addresses.collect(), attempt, delay));
        let silent = || io::ErrorKind::TimedOut.into();
        let winner = raced.await.unwrap_or_else(|_| Err(silent()));
        (winner, starts.take())
    }

    #[tokio::test]
    async fn starts_the_next_attempt_after_a_delay_or_a_failure() {
        for (hosts, winner, starts) in [
            (&[Accepts(0), Accepts(0)][..], 0, &[0][..]),
            (&[Silent, Accepts(0)], 1, &[0, 1]),
            (&[Silent, Silent, Accepts(0)], 2, &[0, 1, 2]),
            // A refusal needs no delay.
            (&[Refuses, Accepts(0)], 1, &[0, 0]),
            (&[Silent, Refuses, Accepts(0)], 2, &[0, 1, 1]),
            // A slow attempt goes on beside the next ones.
            (&[Accepts(2), Silent, Silent, Silent], 0, &[0, 1, 2]),
        ] {
            let (found, began) = race_between(hosts).await;
            assert_eq!((found.unwrap(), began.as_slice()), (winner, starts));
        }
    }

    #[tokio::test]
    async fn fails_when_every_attempt_has_failed() {
        let (found, starts) = race_between(&[Refuses, Refuses]).await;
        assert_eq!(found.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(starts, [0, 0]);
        let (found, _) = race_between(&[]).await;
        assert_eq!(found.unwrap_err().kind(), io::ErrorKind::NotFound);
        // An attempt without a result leaves the end to the timeout of the caller.
        let (found, _) = race_between(&[Refuses, Silent]).await;
        assert_eq!(found.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    /// Listener with a full backlog: Linux drops further SYN segments, as a firewall does.
    fn black_hole() -> (SocketAddr, Vec<Socket>) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut sockets = vec![listener];
        for _ in 0..4 {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            let _in_progress = client.connect(&address.into());
            sockets.push(client);
        }
        (address, sockets)
    }

    #[tokio::test]
    async fn a_dead_address_delays_the_connection_by_one_attempt() {
        let (dead, _sockets) = black_hole();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let alive = listener.local_addr().unwrap();
        let silent = timeout(2 * ATTEMPT_DELAY, TcpStream::connect(dead)).await;
        assert!(silent.is_err(), "the address accepts connections");
        let began = Instant::now();
        let stream = connect(&[dead, alive]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
        assert!(began.elapsed() >= ATTEMPT_DELAY);
    }
}
