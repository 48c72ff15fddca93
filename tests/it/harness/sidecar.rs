//! The gate itself, in this process, with a clock of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use claimgate::app::{App, Running};
use claimgate::clock::Clock;
use claimgate::config::{Address, ConfigDocument};

use super::issuer::SECRET;
use super::{Answer, Client, Issuer, NOW, PATIENCE, Request, Upstream, get};

/// A running sidecar. It stops when it is dropped.
pub(crate) struct Sidecar {
    running: Option<Running>,
    clock: Arc<AtomicI64>,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
}

impl Sidecar {
    /// Starts one. What the text does not say of the sockets, the upstream and the issuer is added.
    pub(crate) fn start(config: &str, upstream: &Upstream, issuer: &Issuer) -> Self {
        Self::of(compile(config, upstream, issuer))
    }

    /// Starts one with a file, whose changes it follows.
    pub(crate) fn following(file: &Path) -> Self {
        Self::of(App::load(file).unwrap_or_else(|problems| panic!("{problems}")))
    }

    fn of(app: App) -> Self {
        let clock = Arc::new(AtomicI64::new(NOW));
        let running = app.start(Clock::Set(Arc::clone(&clock))).unwrap();
        let Address::Tcp(address) = *running.address() else {
            panic!("the tests connect over TCP");
        };
        Self {
            clock,
            address,
            admin: running.admin_address(),
            running: Some(running),
        }
    }

    /// As [`Sidecar::start`], with keys that are fetched from the issuer.
    pub(crate) fn start_fetching(config: &str, upstream: &Upstream, issuer: &Issuer) -> Self {
        let keys = "[issuers.test]\nkeys = { jwks_url = \"{issuer}\" }\n";
        Self::start(&format!("{keys}{config}"), upstream, issuer)
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn set_time(&self, now: i64) {
        self.clock.store(now, Ordering::Relaxed);
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends one request over a connection of its own.
    pub(crate) fn call(&self, request: &Request) -> Answer {
        self.connect().call(request)
    }

    /// Sends bytes over a connection of their own, and reads one answer.
    pub(crate) fn raw(&self, bytes: impl AsRef<[u8]>) -> Answer {
        self.connect().send(bytes).answer()
    }

    /// Asks the admin listener.
    pub(crate) fn admin(&self, request: &Request) -> Answer {
        Client::connect(self.admin).call(request)
    }

    /// The value of one series of the metrics, as it is written there.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let text = self.admin(&get("/metrics")).text();
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.parse().unwrap())
    }

    pub(crate) fn stop(&self) {
        self.running().stop();
    }

    /// Waits until it has stopped: how many connections were cut.
    pub(crate) fn wait(mut self) -> usize {
        let running = self.running.take().unwrap();
        let (sender, stopped) = channel();
        thread::spawn(move || sender.send(running.wait()));
        stopped
            .recv_timeout(PATIENCE)
            .expect("the gate did not stop")
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.stop();
        }
    }
}

/// Compiles a configuration for this upstream and this issuer, whose URL is written `{issuer}`.
pub(crate) fn compile(config: &str, upstream: &Upstream, issuer: &Issuer) -> App {
    let mut text = config.replace("{issuer}", &issuer.url());
    let mut add = |section: &str, lines: &str, unless: &str| {
        let header = format!("[{section}]\n");
        if text.contains(unless) {
        } else if text.contains(&header) {
            text = text.replace(&header, &format!("{header}{lines}\n"));
        } else {
            text.extend(["\n", &header, lines, "\n"]);
        }
    };
    add("listen", "workers = 1", "workers = ");
    add("listen", "address = \"127.0.0.1:0\"", "no listen address");
    add("admin", "address = \"127.0.0.1:0\"", "no admin address");
    // A machine with much else to do is slow to stop and slow to connect.
    add("drain", "grace = \"20s\"", "grace = ");
    add(
        "upstreams.tasks",
        &format!("url = \"{}\"", upstream.url()),
        "\nurl = ",
    );
    add(
        "upstreams.tasks",
        "connect_timeout = \"20s\"",
        "connect_timeout = ",
    );
    add(
        "issuers.test",
        "keys = { secret_env = \"TEST_SECRET\" }",
        "keys = ",
    );
    let mut document = ConfigDocument::parse(Path::new("test.toml"), &text)
        .unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    document.set_variable("TEST_SECRET", SECRET);
    App::compile(document).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}
