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
pub(super) fn expiries(entries: &[ListenerConfig]) -> [Expiries; 2] {
    let all = || entries.iter().filter_map(|entry| entry.tls.as_ref());
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

/// What looks at the files of each listener.
pub(super) fn reloaders(entries: &[ListenerConfig]) -> Vec<Reloader> {
    let all = entries.iter().filter_map(|entry| entry.tls.clone());
    all.map(Reloader::new).collect()
}

/// Takes over what has changed, for every connection that comes from then on.
pub(super) async fn keep(mut reloaders: Vec<Reloader>, metrics: Arc<Metrics>) {
    let mut glances = interval(POLL_INTERVAL);
    glances.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !reloaders.is_empty() {
        glances.tick().await;
        for Reloaded { file, result } in reloaders.iter_mut().flat_map(Reloader::reload_changed) {
            metrics.file_changed(&file, &result);
            let file = file.display();
            match result {
                Ok(_) => info!(%file, "certificates have changed, and are in force"),
                Err(error) => warn!(
                    %file,
                    "certificates have changed and cannot be used, those before stay in force: {error}"
                ),
            }
        }
    }
}
