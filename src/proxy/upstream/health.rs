//! Asking every endpoint of an upstream how it is, whether there are requests or not.

use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::proxy::body::RequestBody;

use super::address::EndpointAddress;
use super::connect;
use super::policy::HealthPolicy;
use super::resolve;
use super::send::SendError;
use super::shared::SharedUpstream;

/// How the gate names itself.
const CLAIMGATE: HeaderValue = HeaderValue::from_static("claimgate");

/// What is known about one endpoint.
#[derive(Debug)]
struct EndpointHealth {
    address: Arc<EndpointAddress>,
    is_healthy: bool,
    /// How many answers in a row have said otherwise.
    otherwise: u32,
}

/// Checks an upstream for as long as the process lives.
pub async fn watch(upstream: SharedUpstream, check: HealthPolicy) {
    let (upstream, check) = (Rc::new(upstream), Rc::new(check));
    let mut patients: Vec<EndpointHealth> = Vec::new();
    let mut rounds = interval(check.interval);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        patients = find(&upstream, patients).await;
        let checking: Vec<_> = patients
            .iter()
            .map(|patient| {
                let (upstream, check) = (Rc::clone(&upstream), Rc::clone(&check));
                let address = Arc::clone(&patient.address);
                spawn_local(async move {
                    match ask(&upstream, &check, &address).await? {
                        status if is_well(status) => Ok(()),
                        status => Err(format!("it answered {status}")),
                    }
                })
            })
            .collect();
        for (patient, checking) in patients.iter_mut().zip(checking) {
            let found = checking
                .await
                .unwrap_or_else(|_| Err("the check has failed".to_owned()));
            patient.judge(&upstream.policy.name, &check, found);
        }
        publish(&upstream, &patients);
    }
}

/// Asks now: the status of the first endpoint that is well, or else of the last that has answered.
pub async fn ask_now(upstream: &SharedUpstream, check: &HealthPolicy) -> Option<StatusCode> {
    let mut last = None;
    for patient in find(upstream, Vec::new()).await {
        if let Ok(status) = ask(upstream, check, &patient.address).await {
            last = Some(status);
            if is_well(status) {
                break;
            }
        }
    }
    last
}

/// The endpoints as they are now, with what is known about them.
async fn find(upstream: &SharedUpstream, mut known: Vec<EndpointHealth>) -> Vec<EndpointHealth> {
    let mut patients = Vec::new();
    for target in &upstream.policy.targets {
        let Ok(addresses) = resolve::addresses(target, resolve::system).await else {
            let same = known.extract_if(.., |patient| patient.address.target == *target);
            patients.extend(same);
            continue;
        };
        for address in addresses {
            let patient = known
                .extract_if(.., |patient| patient.address == address)
                .next();
            patients.push(patient.unwrap_or(EndpointHealth {
                address,
                is_healthy: false,
                otherwise: 0,
            }));
        }
    }
    patients
}

impl EndpointHealth {
    fn judge(&mut self, name: &str, check: &HealthPolicy, found: Result<(), String>) {
        if found.is_ok() == self.is_healthy {
            self.otherwise = 0;
            return;
        }
        self.otherwise += 1;
        let enough = if self.is_healthy {
            check.unhealthy
        } else {
            check.healthy
        };
        if self.otherwise < enough {
            return;
        }
        self.otherwise = 0;
        self.is_healthy = found.is_ok();
        let address = &self.address;
        match found {
            Ok(()) => info!("{address} of the upstream `{name}` is healthy"),
            Err(cause) => warn!("{address} of the upstream `{name}` is not healthy: {cause}"),
        }
    }
}

fn publish(upstream: &SharedUpstream, patients: &[EndpointHealth]) {
    let unhealthy: Vec<_> = patients
        .iter()
        .filter(|patient| !patient.is_healthy)
        .map(|patient| Arc::clone(&patient.address))
        .collect();
    let healthy = patients.len() - unhealthy.len();
    let state = &upstream.state;
    state.metrics.healthy(healthy);
    state.health.set(unhealthy, healthy > 0);
}

/// Whether an answer with this status is a good one.
pub fn is_well(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

/// Asks one endpoint, over a connection of its own. Says what is wrong if there is no answer.
async fn ask(
    upstream: &SharedUpstream,
    check: &HealthPolicy,
    address: &EndpointAddress,
) -> Result<StatusCode, String> {
    let asking = async {
        let opened = connect::open(address, &upstream.protocol, false).await;
        let mut connection = opened.map_err(|error| error.to_string())?.into_connection();
        let mut request = Box::new(Request::new(RequestBody::empty()));
        *request.uri_mut() = check.path.clone().into();
        let host = HeaderValue::try_from(address.target.authority());
        let host = host.map_err(|error| error.to_string())?;
        request.headers_mut().insert(HOST, host);
        request.headers_mut().insert(USER_AGENT, CLAIMGATE);
        let answer = connection
            .send(request)
            .await
            .map_err(|failure| match failure {
                SendError::NotSent(_) => "it closed the connection".to_owned(),
                SendError::NotProcessed { error, .. } | SendError::MaybeProcessed { error, .. } => {
                    match error.source() {
                        Some(source) => format!("{error}: {source}"),
                        None => error.to_string(),
                    }
                }
            })?;
        Ok(answer.status())
    };
    let asked = timeout(check.timeout, asking).await;
    asked.unwrap_or_else(|_| Err(format!("it did not answer within {:?}", check.timeout)))
}
