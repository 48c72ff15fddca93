//! Open connections by client address, to keep one client from taking all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Number of open connections by client. Over IPv6, a client is a network of 64 bits: the usual size of one subscriber.
#[derive(Debug, Default)]
pub struct ClientConnections(Mutex<HashMap<u128, usize>>);

/// Counts one connection of a client until it is dropped.
#[derive(Debug)]
pub struct ClientSlot {
    clients: Arc<ClientConnections>,
    client: u128,
}

impl ClientConnections {
    /// Counts a connection. Also returns the number of open connections of the client, this one included.
    pub(in crate::proxy) fn enter(self: &Arc<Self>, address: IpAddr) -> (ClientSlot, usize) {
        let client = client(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        *count += 1;
        let slot = ClientSlot {
            clients: Arc::clone(self),
            client,
        };
        (slot, *count)
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        let mut counts = self
            .clients
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

fn client(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address) >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_open_connections_of_each_client() {
        let clients = Arc::<ClientConnections>::default();
        let enter = |address: &str| clients.enter(address.parse().unwrap());
        let one = enter("192.0.2.1");
        assert_eq!(one.1, 1);
        let two = enter("::ffff:192.0.2.1");
        assert_eq!(two.1, 2);
        assert_eq!(enter("192.0.2.2").1, 1);
        let three = enter("2001:db8::1");
        assert_eq!((three.1, enter("2001:db8::2:0:0:1").1), (1, 2));
        assert_eq!(enter("2001:db8:0:1::1").1, 1);
        drop(one);
        assert_eq!(enter("192.0.2.1").1, 2);
        drop((two, three));
        assert!(clients.0.lock().unwrap().is_empty());
    }
}
