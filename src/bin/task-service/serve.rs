//! Listener and graceful shutdown.

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

/// Grace period for requests in flight after the stop signal.
const GRACE: Duration = Duration::from_secs(20);

/// Failure to serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("failed to listen on {address}")]
    Listen { address: Address, source: io::Error },
    #[error("failed to register signal handlers")]
    Signals(#[source] io::Error),
    #[error("failed to serve")]
    Serve(#[source] io::Error),
    #[error("requests still in flight {GRACE:?} after the stop signal")]
    Grace,
}

/// Serves `router` on `address` until SIGTERM or SIGINT, then finishes the requests in flight.
pub(crate) async fn run(router: Router, address: Address) -> Result<(), ServeError> {
    let stop = stop_signal().map_err(ServeError::Signals)?;
    let listen_error = |source| ServeError::Listen {
        address: address.clone(),
        source,
    };
    match &address {
        Address::Tcp(wanted) => {
            let listener = TcpListener::bind(wanted).await.map_err(listen_error)?;
            let bound = listener.local_addr().map_err(listen_error)?;
            if !bound.ip().is_loopback() {
                tracing::warn!(
                    "{bound} is not loopback: every client that can reach it can set X-User-Id; \
                     listen on loopback or a Unix socket"
                );
            }
            tracing::info!("listening on {bound}");
            let listener = listener.tap_io(|stream| {
                // Nagle's algorithm delays a small response until the previous one is acknowledged.
                if let Err(cause) = stream.set_nodelay(true) {
                    tracing::debug!(%cause, "failed to set TCP_NODELAY");
                }
            });
            serve(listener, router, stop).await
        }
        Address::Unix(path) => {
            remove_abandoned_socket(path).await;
            let listener = UnixListener::bind(path).map_err(listen_error)?;
            tracing::info!("listening on {address}");
            let served = serve(listener, router, stop).await;
            if let Err(cause) = std::fs::remove_file(path) {
                tracing::warn!(%cause, "failed to remove the socket {}", path.display());
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
        tracing::info!("shutting down: finishing requests in flight");
        stopping.send_replace(true);
    };
    let grace_is_over = async move {
        // The sender is dropped only after sending, so the wait cannot fail before the signal.
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

/// Future of the first SIGTERM or SIGINT. Both handlers are registered by this call.
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

/// Removes the socket of a killed process at `path`, unless it accepts connections.
async fn remove_abandoned_socket(path: &Path) {
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket || UnixStream::connect(path).await.is_ok() {
        return;
    }
    if let Err(cause) = std::fs::remove_file(path) {
        tracing::warn!(%cause, "failed to remove the abandoned socket {}", path.display());
    }
}
