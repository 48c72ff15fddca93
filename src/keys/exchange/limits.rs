//! Limits of the exchanges that one client causes: guessed credentials must not become a flood at the issuer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Rejected credentials of one client in a burst.
const BURST: u32 = 20;

/// Time in which one more rejected credential is accepted.
const REFILL: Duration = Duration::from_millis(500);

/// Most clients remembered.
const MAX_CLIENTS: usize = 8192;

/// Longest accepted delay of the issuer.
const MAX_DELAY: Duration = Duration::from_mins(1);

/// Limits by client address. Clients without an address share one.
#[derive(Debug, Default)]
pub(super) struct ClientLimits {
    clients: HashMap<Option<IpAddr>, Client>,
}

#[derive(Debug, Clone, Copy)]
struct Client {
    /// Rejections, less those that were refilled since.
    rejected: u32,
    since: Instant,
    /// End of the delay that the issuer requested.
    limited_until: Option<Instant>,
}

impl ClientLimits {
    /// Time until an exchange for this client may be attempted, and the cause.
    pub(super) fn pause(
        &mut self,
        client: Option<IpAddr>,
        now: Instant,
    ) -> Option<(Duration, &'static str)> {
        let client = self.clients.get_mut(&network(client))?;
        client.refill(now);
        if let Some(until) = client.limited_until.filter(|until| *until > now) {
            return Some((
                until - now,
                "the issuer limits the rate of this client's exchanges",
            ));
        }
        let is_over = client.rejected >= BURST;
        is_over.then(|| {
            let until = client.since + REFILL;
            let pause = until.saturating_duration_since(now);
            (pause, "the client sent too many invalid credentials")
        })
    }

    pub(super) fn note_rejected(&mut self, client: Option<IpAddr>, now: Instant) {
        let client = self.entry(client, now);
        client.refill(now);
        if client.rejected == 0 {
            client.since = now;
        }
        client.rejected = client.rejected.saturating_add(1);
    }

    pub(super) fn note_limited(&mut self, client: Option<IpAddr>, until: Instant) {
        let now = Instant::now();
        self.entry(client, now).limited_until = Some(until.min(now + MAX_DELAY));
    }

    fn entry(&mut self, client: Option<IpAddr>, now: Instant) -> &mut Client {
        if self.clients.len() >= MAX_CLIENTS {
            self.clients.retain(|_, client| {
                client.refill(now);
                client.rejected > 0 || client.limited_until.is_some_and(|until| until > now)
            });
            if self.clients.len() >= MAX_CLIENTS {
                self.clients.clear();
            }
        }
        self.clients.entry(network(client)).or_insert(Client {
            rejected: 0,
            since: now,
            limited_until: None,
        })
    }
}

impl Client {
    fn refill(&mut self, now: Instant) {
        while self.rejected > 0 && now >= self.since + REFILL {
            self.rejected -= 1;
            self.since += REFILL;
        }
    }
}

/// IPv6 clients choose among the addresses of a /64.
fn network(client: Option<IpAddr>) -> Option<IpAddr> {
    match client? {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            Some(IpAddr::V6(network.into()))
        }
        address @ IpAddr::V4(_) => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    #[test]
    fn pauses_a_client_with_too_many_invalid_credentials() {
        let (mut limits, now) = (ClientLimits::default(), Instant::now());
        for _ in 0..BURST {
            assert!(limits.pause(CLIENT, now).is_none());
            limits.note_rejected(CLIENT, now);
        }
        assert!(limits.pause(CLIENT, now).is_some());
        assert!(limits.pause(None, now).is_none());
        assert!(limits.pause(CLIENT, now + REFILL).is_none());
        limits.note_rejected(CLIENT, now + REFILL);
        assert!(limits.pause(CLIENT, now + REFILL).is_some());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let address = |text: &str| Some(text.parse().unwrap());
        assert_eq!(
            network(address("2001:db8::1")),
            network(address("2001:db8::2:3"))
        );
        assert_ne!(
            network(address("2001:db8::1")),
            network(address("2001:db8:0:1::1"))
        );
    }

    #[test]
    fn waits_as_long_as_the_issuer_asks_up_to_a_maximum() {
        let (mut limits, now) = (ClientLimits::default(), Instant::now());
        limits.note_limited(CLIENT, now + Duration::from_secs(10));
        let (pause, _) = limits.pause(CLIENT, now).unwrap();
        assert_eq!(pause.as_secs(), 10);
        assert!(
            limits
                .pause(CLIENT, now + Duration::from_secs(10))
                .is_none()
        );
        limits.note_limited(CLIENT, now + Duration::from_hours(10));
        let (pause, _) = limits.pause(CLIENT, now).unwrap();
        assert!(pause <= MAX_DELAY + Duration::from_secs(1), "{pause:?}");
    }

    #[test]
    fn stays_bounded() {
        let (mut limits, now) = (ClientLimits::default(), Instant::now());
        for number in 0..20_000_u32 {
            limits.note_rejected(Some(IpAddr::V4(number.into())), now);
            assert!(limits.clients.len() <= MAX_CLIENTS);
        }
    }
}
