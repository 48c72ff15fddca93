//! What the name of an upstream stands for.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use super::address::{EndpointAddress, Target};

/// What looks a name up.
pub(super) type Lookup =
    fn(String, u16) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>>;

/// The resolver of the system.
pub(super) fn system(
    host: String,
    port: u16,
) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>> {
    Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
}

/// The servers behind a target.
pub(super) async fn addresses(
    target: &Target,
    lookup: Lookup,
) -> io::Result<Vec<Arc<EndpointAddress>>> {
    let Some((host, port)) = target.name() else {
        return Ok(vec![Arc::new(EndpointAddress::of(target))]);
    };
    let mut addresses = lookup(host.to_owned(), port).await?;
    if target.is_local() {
        // Whoever says what names stand for must not send requests away from this machine.
        addresses.retain(|address| address.ip().to_canonical().is_loopback());
    }
    if addresses.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ));
    }
    let address = |addresses| {
        Arc::new(EndpointAddress {
            target: target.clone(),
            addresses,
        })
    };
    Ok(servers(addresses).into_iter().map(address).collect())
}

/// Which addresses are those of one server: a server of both families has one of each. So a name for two addresses of
/// two families, such as `localhost`, is one endpoint, and if it does not listen on one of them it does on the other.
fn servers(mut addresses: Vec<SocketAddr>) -> Vec<Vec<SocketAddr>> {
    addresses.sort_unstable();
    addresses.dedup();
    let (four, six): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv4);
    let (mut four, mut six) = (four.into_iter(), six.into_iter());
    let mut servers = Vec::new();
    loop {
        let server: Vec<_> = four.next().into_iter().chain(six.next()).collect();
        if server.is_empty() {
            return servers;
        }
        servers.push(server);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_server_may_have_an_address_of_each_family() {
        let cases: [(&[&str], &[&[&str]]); 4] = [
            (
                &["[::1]:80", "127.0.0.1:80"],
                &[&["127.0.0.1:80", "[::1]:80"]],
            ),
            (
                &["10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80"],
                &[&["10.0.0.1:80"], &["10.0.0.2:80"]],
            ),
            (
                &["10.0.0.1:80", "[fd00::1]:80", "10.0.0.2:80"],
                &[&["10.0.0.1:80", "[fd00::1]:80"], &["10.0.0.2:80"]],
            ),
            (&[], &[]),
        ];
        for (found, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|server| parsed(server)).collect();
            assert_eq!(servers(parsed(found)), expected, "{found:?}");
        }
    }

    #[tokio::test]
    async fn localhost_is_this_machine_whatever_the_resolver_says() {
        let lookup: Lookup =
            |_, _| Box::pin(async { Ok(parsed(&["203.0.113.1:80", "127.0.0.1:80", "[::1]:80"])) });
        let local = Target::Tcp("localhost".to_owned(), 80);
        let found = addresses(&local, lookup).await.unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|address| address.addresses.clone())
            .collect();
        assert_eq!(found, [parsed(&["127.0.0.1:80", "[::1]:80"])]);
        let away: Lookup = |_, _| Box::pin(async { Ok(parsed(&["203.0.113.1:80"])) });
        assert!(addresses(&local, away).await.is_err());
        let remote = Target::Tcp("tasks.example".to_owned(), 80);
        assert_eq!(addresses(&remote, away).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn an_address_is_not_looked_up() {
        let never: Lookup = |_, _| Box::pin(async { Err(io::ErrorKind::Other.into()) });
        for (host, address) in [("127.0.0.1", "127.0.0.1:80"), ("[::1]", "[::1]:80")] {
            let found = addresses(&Target::Tcp(host.to_owned(), 80), never)
                .await
                .unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].addresses, parsed(&[address]));
        }
    }
}
