//! Test harness: an issuer, an upstream, the sidecar between them, and a client.
//!
//! All use real loopback sockets and read and write raw bytes, so that no library normalizes a malformed message. No
//! test sleeps: each waits for an event, and fails after [`TIMEOUT`].

pub(crate) mod authority;
pub(crate) mod client;
pub(crate) mod frames;
pub(crate) mod http2;
pub(crate) mod hyper_client;
pub(crate) mod issuer;
pub(crate) mod sidecar;
pub(crate) mod upstream;
pub(crate) mod wire;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

pub(crate) use authority::{Authority, Connector};
pub(crate) use client::{Client, Request, Response, get, post, preflight, request};
pub(crate) use http2::Http2Upstream;
pub(crate) use issuer::{Issuer, Key};
pub(crate) use sidecar::Sidecar;
pub(crate) use upstream::{Arrived, Exchange, Next, Upstream};

/// Far longer than any step takes: only a broken gate reaches it.
pub(crate) const TIMEOUT: Duration = Duration::from_mins(1);

/// Initial clock of every sidecar.
pub(crate) const NOW: i64 = 1_800_000_000;

/// Target of the owner route in [`ROUTES`], for `alice`.
pub(crate) const TASKS: &str = "/api/alice/tasks";

/// One route of each kind of access.
pub(crate) const ROUTES: &str = r#"
[[routes]]
path = "/api/{user_id}/tasks/{*rest}"
access = { owner = "user_id" }

[[routes]]
path = "/me/{*rest}"
access = "authenticated"

[[routes]]
path = "/open/{*rest}"
access = "public"
"#;

/// Starts an upstream, an issuer and a sidecar with this configuration.
pub(crate) fn start(config: &str) -> (Sidecar, Upstream, Issuer) {
    start_with(config, Upstream::start())
}

/// Like [`start`], with the given upstream.
pub(crate) fn start_with(config: &str, upstream: Upstream) -> (Sidecar, Upstream, Issuer) {
    let issuer = Issuer::start();
    let sidecar = Sidecar::start(config, &upstream, &issuer);
    (sidecar, upstream, issuer)
}

/// Starts a sidecar with these keys of `[upstreams.tasks]`, including `url`.
pub(crate) fn start_before(tasks: &str, rest: &str) -> (Sidecar, Issuer) {
    let issuer = Issuer::start();
    let config = format!("[upstreams.tasks]\n{tasks}\n{rest}");
    let sidecar = Sidecar::start(&config, &Upstream::unreachable(), &issuer);
    (sidecar, issuer)
}

/// One-shot event between threads.
#[derive(Clone, Default)]
pub(crate) struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        let waited = self.0.1.wait_timeout_while(open, TIMEOUT, |open| !*open);
        assert!(!waited.unwrap().1.timed_out(), "the latch was not opened");
    }
}

/// Polls until the condition holds, for changes without an event to wait for.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < TIMEOUT, "timed out: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Replaces a file atomically.
pub(crate) fn replace(file: &Path, content: impl AsRef<[u8]>) {
    let new = file.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, file).unwrap();
}
