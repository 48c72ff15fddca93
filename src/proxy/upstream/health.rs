//! Health checks: requests of the gate to every endpoint of an upstream.

use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderValue, StatusCode};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::proxy::request_body::RequestBody;
use crate::proxy::request_head::RequestHead;

use super::address::EndpointAddress;
use super::connect::{self, Opened};
use super::connection::Connection;
use super::fault::SendError;
use super::http1::Http1;
use super::http2::Http2Stream;
use super::policy::HealthPolicy;
use super::request::{MAX_READ, UpstreamRequest};
use super::resolve;
use super::shared::SharedUpstream;

/// `User-Agent` of health checks.
const CLAIMGATE: HeaderValue = HeaderValue::from_static("claimgate");

/// Interval of checks until an endpoint is healthy for the first time.
const STARTUP_INTERVAL: Duration = Duration::from_secs(1);

/// Checks at [`STARTUP_INTERVAL`], at most.
const MAX_STARTUP_CHECKS: u32 = 120;

/// Check results of one endpoint.
#[derive(Debug)]
struct EndpointHealth {
    address: Arc<EndpointAddress>,
    is_healthy: bool,
    /// Consecutive results that contradict `is_healthy`.
    contradictions: u32,
}

/// Checks every endpoint at the configured interval, and at first once per second: the gate often starts before its
/// upstream. Runs until it is aborted.
pub async fn watch(upstream: SharedUpstream, check: HealthPolicy) {
    let (upstream, check) = (Rc::new(upstream), Rc::new(check));
    let mut endpoints: Vec<EndpointHealth> = Vec::new();
    let mut startup_checks = 0..MAX_STARTUP_CHECKS;
    loop {
        let began = Instant::now();
        endpoints = resolve_endpoints(&upstream, endpoints).await;
        let checks: Vec<_> = endpoints
            .iter()
            .map(|endpoint| {
                let (upstream, check) = (Rc::clone(&upstream), Rc::clone(&check));
                let address = Arc::clone(&endpoint.address);
                spawn_local(async move {
                    match send_check(&upstream, &check, &address).await? {
                        status if is_healthy(status) => Ok(()),
                        status => Err(format!("status {status}")),
                    }
                })
            })
            .collect();
        for (endpoint, checking) in endpoints.iter_mut().zip(checks) {
            let result = checking
                .await
                .unwrap_or_else(|_| Err("the check panicked".to_owned()));
            endpoint.update(&upstream.policy.name, &check, result);
        }
        publish(&upstream, &endpoints);
        if endpoints.iter().any(|endpoint| endpoint.is_healthy) {
            startup_checks = 0..0;
        }
        let pause = match startup_checks.next() {
            Some(_) => check.interval.min(STARTUP_INTERVAL),
            None => check.interval,
        };
        sleep_until(began + pause).await;
    }
}

/// Checks the endpoints once. Returns the status of the first healthy one, otherwise of the last that responded.
pub async fn probe(upstream: &SharedUpstream, check: &HealthPolicy) -> Option<StatusCode> {
    let mut last = None;
    for endpoint in resolve_endpoints(upstream, Vec::new()).await {
        if let Ok(status) = send_check(upstream, check, &endpoint.address).await {
            last = Some(status);
            if is_healthy(status) {
                break;
            }
        }
    }
    last
}

/// Resolves the endpoints and keeps the results of known ones.
async fn resolve_endpoints(
    upstream: &SharedUpstream,
    mut known: Vec<EndpointHealth>,
) -> Vec<EndpointHealth> {
    let mut endpoints = Vec::new();
    for target in &upstream.policy.targets {
        let Ok(addresses) = resolve::addresses(target, resolve::system).await else {
            let same = known.extract_if(.., |endpoint| endpoint.address.target == *target);
            endpoints.extend(same);
            continue;
        };
        for address in addresses {
            let same = known
                .extract_if(.., |endpoint| endpoint.address == address)
                .next();
            endpoints.push(same.unwrap_or(EndpointHealth {
                address,
                is_healthy: false,
                contradictions: 0,
            }));
        }
    }
    endpoints
}

impl EndpointHealth {
    fn update(&mut self, name: &str, check: &HealthPolicy, result: Result<(), String>) {
        if result.is_ok() == self.is_healthy {
            self.contradictions = 0;
            return;
        }
        self.contradictions += 1;
        let threshold = if self.is_healthy {
            check.unhealthy
        } else {
            check.healthy
        };
        if self.contradictions < threshold {
            return;
        }
        self.contradictions = 0;
        self.is_healthy = result.is_ok();
        let address = &self.address;
        match result {
            Ok(()) => info!("endpoint {address} of the upstream `{name}` is healthy"),
            Err(cause) => {
                warn!("endpoint {address} of the upstream `{name}` is unhealthy: {cause}");
            }
        }
    }
}

fn publish(upstream: &SharedUpstream, endpoints: &[EndpointHealth]) {
    let unhealthy: Vec<_> = endpoints
        .iter()
        .filter(|endpoint| !endpoint.is_healthy)
        .map(|endpoint| Arc::clone(&endpoint.address))
        .collect();
    let healthy = endpoints.len() - unhealthy.len();
    let state = &upstream.state;
    state.metrics.healthy(healthy);
    state.health.set(unhealthy, healthy > 0);
}

/// Returns true if a status means that the endpoint is healthy: 2xx or 3xx.
pub fn is_healthy(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

/// Sends one check over a new connection. Returns the cause of a failure as text.
async fn send_check(
    upstream: &SharedUpstream,
    check: &HealthPolicy,
    address: &EndpointAddress,
) -> Result<StatusCode, String> {
    let exchange = async {
        let opened = connect::open(address, &upstream.protocol, false).await;
        let connection = match opened.map_err(|error| error.to_string())? {
            Opened::Http1(stream) => {
                let connection = Http1::new(stream, Rc::default());
                Connection::Http1(Box::new(connection))
            }
            Opened::Http2(connection) => Connection::Http2(Http2Stream::new(&Rc::new(connection))),
        };
        let host = HeaderValue::try_from(address.target.authority());
        let host = host.map_err(|error| error.to_string())?;
        let mut request = UpstreamRequest {
            head: RequestHead::get(check.path.as_str(), &host, &[(USER_AGENT, CLAIMGATE)]),
            body: RequestBody::empty(),
            informational: None,
            max_read: MAX_READ,
        };
        match connection.send(&mut request).await {
            Ok(response) => Ok(response.status()),
            Err(SendError::NotSent) => Err("connection closed".to_owned()),
            Err(
                SendError::NotProcessed { error, .. } | SendError::MaybeProcessed { error, .. },
            ) => Err(match error.source() {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            }),
        }
    };
    let result = timeout(check.timeout, exchange).await;
    result.unwrap_or_else(|_| Err(format!("no response within {:?}", check.timeout)))
}
