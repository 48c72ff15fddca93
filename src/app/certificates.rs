//! Hot reload of listener certificates.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::observe::metrics::{Expiries, Metrics};
use crate::proxy::inbound::listener::ListenerConfig;
use crate::tls::server::{Reloaded, Reloader};

/// Interval of file polls. Polling, unlike file notifications, detects every kind of change: a swapped symbolic link,
/// as in Kubernetes, a renamed file, or one overwritten in place.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Expiry of each certificate file and of each revocation list file.
pub(super) fn expiries(listeners: &[ListenerConfig]) -> [Expiries; 2] {
    let all = || {
        listeners
            .iter()
            .filter_map(|listener| listener.tls.as_ref())
    };
    let certificates = all().flat_map(|tls| tls.expiries());
    let lists = all().filter_map(|tls| tls.crl_expiry());
    [
        certificates
            .map(|(file, expiry)| (file.to_owned(), expiry))
            .collect(),
        lists
            .map(|(file, expiry)| (file.to_owned(), expiry))
            .collect(),
    ]
}

/// One reloader per listener with TLS.
pub(super) fn reloaders(listeners: &[ListenerConfig]) -> Vec<Reloader> {
    let all = listeners.iter().filter_map(|listener| listener.tls.clone());
    all.map(Reloader::new).collect()
}

/// Polls the files and uses changed certificates for new connections.
pub(super) async fn watch(mut reloaders: Vec<Reloader>, metrics: Arc<Metrics>) {
    let mut polls = interval(POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !reloaders.is_empty() {
        polls.tick().await;
        for Reloaded { file, result } in reloaders.iter_mut().flat_map(Reloader::reload_changed) {
            metrics.tls_file_reloaded(&file, &result);
            let file = file.display();
            match result {
                Ok(_) => info!(%file, "certificates reloaded"),
                Err(error) => warn!(
                    %file,
                    "certificate reload failed, keeping the previous certificates: {error}"
                ),
            }
        }
    }
}
