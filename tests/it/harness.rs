//! The four nouns of the tests: an issuer, an upstream, the sidecar between them, and a client.
//!
//! All of them speak over real sockets of this machine and read and write the bytes themselves, so that nothing tidies
//! up what a test wants to be untidy. Nothing sleeps: whoever waits, waits for something, and gives up after
//! [`PATIENCE`].

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
pub(crate) use client::{Answer, Client, Request, get, post, request};
pub(crate) use http2::Http2Upstream;
pub(crate) use issuer::{Issuer, Key};
pub(crate) use sidecar::Sidecar;
pub(crate) use upstream::{Arrived, Dialogue, Next, Upstream};

/// Far beyond what anything here takes: reached only when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The time of day in every sidecar, until its test sets another.
pub(crate) const NOW: i64 = 1_800_000_000;

/// A route of each kind.
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

/// The three nouns that most tests begin with.
pub(crate) fn start(config: &str) -> (Sidecar, Upstream, Issuer) {
    start_with(config, Upstream::start())
}

/// As [`start`], with an upstream that is told what to do.
pub(crate) fn start_with(config: &str, upstream: Upstream) -> (Sidecar, Upstream, Issuer) {
    let issuer = Issuer::start();
    let sidecar = Sidecar::start(config, &upstream, &issuer);
    (sidecar, upstream, issuer)
}

/// A sidecar in front of the upstream `tasks` as it is configured here, its URL included.
pub(crate) fn start_before(tasks: &str, rest: &str) -> (Sidecar, Issuer) {
    let issuer = Issuer::start();
    let config = format!("[upstreams.tasks]\n{tasks}\n{rest}");
    let sidecar = Sidecar::start(&config, &Upstream::nowhere(), &issuer);
    (sidecar, issuer)
}

/// Something that others wait for.
#[derive(Clone, Default)]
pub(crate) struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    pub(crate) fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        let waited = self.0.1.wait_timeout_while(open, PATIENCE, |open| !*open);
        assert!(!waited.unwrap().1.timed_out(), "nobody opened the latch");
    }
}

/// Asks again and again until the answer is yes: for what nobody announces.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Another file comes to its place, and there is no moment in which it is half there.
pub(crate) fn replace(file: &Path, content: impl AsRef<[u8]>) {
    let new = file.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, file).unwrap();
}
