//! Certificates that are renewed while the gate runs: their files are looked at every few seconds.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::observe::metrics::{Expiries, Metrics};
use crate::proxy::inbound::acceptor::ListenerConfig;
use crate::tls::server::{Reloaded, Reloader};

/// How often. To look, and not to be told, finds every way in which a file can change: a link that is swapped, as
/// Kubernetes does it, a file that is renamed to its place, or one that is written over.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Every file with certificates of a listener, and with revocation lists, and until when they are good.
pub(super) fn expiries(listeners: &[ListenerConfig]) -> [Expiries; 2] {
    let all = || {
        listeners
            .iter()
            .filter_map(|listener| listener.tls.as_ref())
    };
    let certificates = all().flat_map(|tls| tls.expiries());
    let lists = all().filter_map(|tls| tls.lists_expiry());
    [
        certificates
            .map(|(file, expiry)| (file.to_owned(), expiry))
            .collect(),
        lists
            .map(|(file, expiry)| (file.to_owned(), expiry))
            .collect(),
    ]
}

/// What looks at the files of each listener.
pub(super) fn reloaders(listeners: &[ListenerConfig]) -> Vec<Reloader> {
    let all = listeners.iter().filter_map(|listener| listener.tls.clone());
    all.map(Reloader::new).collect()
}

/// Takes over what has changed, for every connection that comes from then on.
pub(super) async fn watch(mut reloaders: Vec<Reloader>, metrics: Arc<Metrics>) {
    let mut polls = interval(POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !reloaders.is_empty() {
        polls.tick().await;
        for Reloaded { file, result } in reloaders.iter_mut().flat_map(Reloader::look) {
            metrics.file_changed(&file, &result);
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
