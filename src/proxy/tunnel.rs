//! Upgraded connections: two streams joined, after the upstream has answered 101 and not before.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

/// How much went through a tunnel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tunnelled {
    /// From the client, in bytes.
    pub from_client: u64,
    /// To the client, in bytes.
    pub to_client: u64,
    /// Whether both sides ended it in order.
    pub whole: bool,
}

/// Joins both sides until one of them ends.
pub async fn join(client: OnUpgrade, upstream: OnUpgrade) -> Tunnelled {
    let (client, upstream) = tokio::join!(client, upstream);
    let (Ok(client), Ok(upstream)) = (client, upstream) else {
        return Tunnelled::default();
    };
    let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
    match copy_bidirectional(&mut client, &mut upstream).await {
        Ok((from_client, to_client)) => Tunnelled {
            from_client,
            to_client,
            whole: true,
        },
        Err(_) => Tunnelled::default(),
    }
}
