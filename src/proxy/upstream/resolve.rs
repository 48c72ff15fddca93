//! DNS lookup of endpoint addresses.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use super::address::{EndpointAddress, Target};

/// Resolves a host name and port to socket addresses.
pub(super) type Lookup =
    fn(String, u16) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>>;

/// System resolver.
pub(super) fn system(
    host: String,
    port: u16,
) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>> {
    Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
}

/// Endpoint addresses of a target.
pub(super) async fn addresses(
    target: &Target,
    lookup: Lookup,
) -> io::Result<Vec<Arc<EndpointAddress>>> {
    let Some((host, port)) = target.name() else {
        return Ok(vec![Arc::new(EndpointAddress::of(target))]);
    };
    let mut addresses = lookup(host.to_owned(), port).await?;
    if target.is_local() {
        // DNS must not send requests for `localhost` to another machine.
        addresses.retain(|address| address.ip().to_canonical().is_loopback());
    }
    if addresses.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no addresses found",
        ));
    }
    let address = |addresses| {
        Arc::new(EndpointAddress {
            target: target.clone(),
            addresses,
        })
    };
    Ok(group_by_server(addresses)
        .into_iter()
        .map(address)
        .collect())
}

/// Groups addresses by server: one IPv4 and one IPv6 address form one dual-stack endpoint. So `localhost` is a single
/// endpoint, reachable over whichever family it listens on.
fn group_by_server(mut addresses: Vec<SocketAddr>) -> Vec<Vec<SocketAddr>> {
    addresses.sort_unstable();
    addresses.dedup();
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv4);
    let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
    let mut servers = Vec::new();
    loop {
        let server: Vec<_> = v4.next().into_iter().chain(v6.next()).collect();
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
    fn groups_one_address_of_each_family_into_one_server() {
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
            assert_eq!(group_by_server(parsed(found)), expected, "{found:?}");
        }
    }

    #[tokio::test]
    async fn localhost_resolves_to_loopback_addresses_only() {
        let lookup: Lookup =
            |_, _| Box::pin(async { Ok(parsed(&["203.0.113.1:80", "127.0.0.1:80", "[::1]:80"])) });
        let local = Target::Tcp("localhost".to_owned(), 80);
        let found = addresses(&local, lookup).await.unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|address| address.addresses.clone())
            .collect();
        assert_eq!(found, [parsed(&["127.0.0.1:80", "[::1]:80"])]);
        let non_loopback: Lookup = |_, _| Box::pin(async { Ok(parsed(&["203.0.113.1:80"])) });
        assert!(addresses(&local, non_loopback).await.is_err());
        let remote = Target::Tcp("tasks.example".to_owned(), 80);
        assert_eq!(addresses(&remote, non_loopback).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn ip_addresses_need_no_lookup() {
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
