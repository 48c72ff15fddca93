//! Listening, and stopping without breaking a request in flight.

use std::future::Future;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::serve::{Listener, ListenerExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::settings::Address;

/// How long requests in flight may take after the signal to stop.
const GRACE: Duration = Duration::from_secs(20);

/// Why serving could not begin, or did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("cannot listen on {address}")]
    Listen { address: Address, source: io::Error },
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    #[error("cannot serve")]
    Serve(#[source] io::Error),
    #[error("requests were still in flight {GRACE:?} after the signal to stop")]
    Grace,
}

/// Serves `router` on `address` until SIGTERM or SIGINT, then finishes what is in flight.
pub(crate) async fn run(router: Router, address: Address) -> Result<(), ServeError> {
    let stop = stop_signal().map_err(ServeError::Signals)?;
    let cannot_listen = |source| ServeError::Listen {
        address: address.clone(),
        source,
    };
    match &address {
        Address::Tcp(wanted) => {
            let listener = TcpListener::bind(wanted).await.map_err(cannot_listen)?;
            let bound = listener.local_addr().map_err(cannot_listen)?;
            if !bound.ip().is_loopback() {
                tracing::warn!(
                    "{bound} can be reached by others than a gate beside this service, \
                     and whoever reaches it is believed about X-User-Id"
                );
            }
            tracing::info!("listening on {bound}");
            let listener = listener.tap_io(|stream| {
                // Without it small answers wait for the acknowledgement of the one before.
                if let Err(cause) = stream.set_nodelay(true) {
                    tracing::debug!(%cause, "a connection keeps its delay");
                }
            });
            serve(listener, router, stop).await
        }
        Address::Unix(path) => {
            remove_abandoned_socket(path).await;
            let listener = UnixListener::bind(path).map_err(cannot_listen)?;
            tracing::info!("listening on {address}");
            let served = serve(listener, router, stop).await;
            if let Err(cause) = std::fs::remove_file(path) {
                tracing::warn!(%cause, "the socket {} stays behind", path.display());
            }
            served
        }
    }
}

async fn serve<L: Listener>(
    listener: L,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError>
where
    L::Addr: std::fmt::Debug,
{
    let (stopping, mut stopped) = watch::channel(false);
    let stop = async move {
        stop.await;
        tracing::info!("stopping: finishing the requests in flight");
        stopping.send_replace(true);
    };
    let grace_is_over = async move {
        // The sender is only dropped once it has sent: the wait cannot fail before the signal.
        let _ = stopped.wait_for(|stopping| *stopping).await;
        sleep(GRACE).await;
    };
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(stop) => {
            served.map_err(ServeError::Serve)
        }
        () = grace_is_over => Err(ServeError::Grace),
    }
}

/// Waits for SIGTERM or SIGINT; both are caught from the moment of this call.
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Removes the socket that a killed process left at `path`. One that answers is in use and stays.
async fn remove_abandoned_socket(path: &Path) {
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket || UnixStream::connect(path).await.is_ok() {
        return;
    }
    if let Err(cause) = std::fs::remove_file(path) {
        tracing::warn!(%cause, "the socket {} cannot be removed", path.display());
    }
}
