//! The gate in this process, with its own clock.

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
use super::{Client, Issuer, NOW, Request, Response, TIMEOUT, Upstream, get};

/// Running sidecar. Dropping it starts the shutdown.
pub(crate) struct Sidecar {
    running: Option<Running>,
    clock: Arc<AtomicI64>,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
}

impl Sidecar {
    /// Starts a sidecar. Missing keys of the sockets, the upstream and the issuer get defaults; see [`compile`].
    pub(crate) fn start(config: &str, upstream: &Upstream, issuer: &Issuer) -> Self {
        Self::of(compile(config, upstream, issuer))
    }

    /// Starts a sidecar with hot reload of this file.
    pub(crate) fn watching(file: &Path) -> Self {
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

    /// Like [`Sidecar::start`], with keys fetched from the issuer.
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

    /// TCP addresses of the listeners, in the order of the configuration.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.running().addresses().iter();
        let tcp = addresses.filter_map(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) | Address::Passed(_) => None,
        });
        tcp.collect()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends one request over a new connection.
    pub(crate) fn call(&self, request: &Request) -> Response {
        self.connect().call(request)
    }

    /// Sends bytes over a new connection and reads one response.
    pub(crate) fn raw(&self, bytes: impl AsRef<[u8]>) -> Response {
        self.connect().send(bytes).response()
    }

    /// Sends one request to the admin listener.
    pub(crate) fn admin(&self, request: &Request) -> Response {
        Client::connect(self.admin).call(request)
    }

    /// Value of one series in the metrics, `None` if absent.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let text = self.admin(&get("/metrics")).text();
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.parse().unwrap())
    }

    pub(crate) fn stop(&self) {
        self.running().stop();
    }

    /// Waits for the end of the shutdown. Returns the number of connections it closed.
    pub(crate) fn wait(mut self) -> usize {
        let running = self.running.take().unwrap();
        let (sender, stopped) = channel();
        thread::spawn(move || sender.send(running.wait()));
        stopped
            .recv_timeout(TIMEOUT)
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

/// Compiles a configuration, with `{issuer}` replaced by the URL of the issuer and with defaults for missing keys.
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
    // A busy machine is slow to stop and to connect.
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
