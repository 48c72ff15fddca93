//! Sending spans to the collector, from the control thread: a request never waits for it.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::client::{self, CallError};
use crate::clock::Clock;
use crate::observe::log::printable;

use super::otlp::{self, Moment};
use super::queue::{SpanOutcome, Spans};
use super::{Finished, Tracing};

/// How often a batch is sent before it is given up.
const TRIES: u32 = 5;

/// How long to wait before the second try; before each one after it twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest that a collector is believed when it asks for patience.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    /// There was no answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The collector cannot take it now.
    #[error("status: {status}")]
    Busy {
        /// What it answered.
        status: StatusCode,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The collector does not want it.
    #[error("status: {0}")]
    Refused(StatusCode),
    /// The collector does not want all of it.
    #[error("{rejected} are not wanted: {why}")]
    Partly {
        /// How many spans.
        rejected: usize,
        /// Why not, in the collector's words.
        why: String,
    },
}

/// Sends what the workers leave, until no more will come. The settings are those in force at each try.
pub async fn run(spans: Arc<Spans>, clock: Clock, settings: impl Fn() -> Option<Arc<Tracing>>) {
    let mut exporter = Exporter {
        spans,
        clock,
        settings,
        is_failing: false,
    };
    loop {
        exporter.spans.due().await;
        loop {
            let batch = exporter.spans.take();
            if batch.is_empty() {
                break;
            }
            exporter.deliver(&batch).await;
        }
    }
}

struct Exporter<S> {
    spans: Arc<Spans>,
    clock: Clock,
    settings: S,
    /// Whether the log has said that spans are not taken.
    is_failing: bool,
}

impl<S: Fn() -> Option<Arc<Tracing>>> Exporter<S> {
    /// Sends a batch, and once more if that may help, as long as the configuration has a collector.
    async fn deliver(&mut self, batch: &[Finished]) {
        let spans = batch.iter().map(Finished::spans).sum();
        let mut pause = Duration::ZERO;
        for tried in 0..TRIES {
            self.spans.rest(pause).await;
            let Some(tracing) = (self.settings)() else {
                break;
            };
            let error = match self.send(&tracing, batch).await {
                Ok(()) => {
                    self.spans.count(SpanOutcome::Exported, spans);
                    if std::mem::take(&mut self.is_failing) {
                        info!(url = %tracing.url, "spans are taken again");
                    }
                    return;
                }
                Err(error) => error,
            };
            if !std::mem::replace(&mut self.is_failing, true) {
                let error = error.to_string();
                warn!(url = %tracing.url, "failed to send spans: {}", printable(&error));
            }
            let asked = match error {
                ExportError::Refused(_) => {
                    self.spans.count(SpanOutcome::Rejected, spans);
                    return;
                }
                ExportError::Partly { rejected, .. } => {
                    let rejected = rejected.min(spans);
                    self.spans.count(SpanOutcome::Rejected, rejected);
                    self.spans.count(SpanOutcome::Exported, spans - rejected);
                    return;
                }
                ExportError::Busy { retry_after, .. } => retry_after.unwrap_or_default(),
                ExportError::Call(_) => Duration::ZERO,
            };
            if self.spans.is_closing() {
                break;
            }
            pause = (FIRST_PAUSE * 2_u32.pow(tried)).max(asked.min(LONGEST_PAUSE));
        }
        self.spans.count(SpanOutcome::Unreachable, spans);
    }

    async fn send(&self, tracing: &Tracing, batch: &[Finished]) -> Result<(), ExportError> {
        let moment = Moment {
            now: Instant::now(),
            since_epoch: self.clock.since_epoch(),
        };
        let encoded = otlp::encode(batch, &tracing.service_name, moment);
        let mut request = Request::new(Full::from(encoded));
        *request.method_mut() = Method::POST;
        request.headers_mut().insert(CONTENT_TYPE, PROTOBUF);
        let answer = client::call(request, &tracing.url, &tracing.tls).await?;
        match answer.status() {
            status if status.is_success() => match otlp::rejected(answer.body()) {
                (0, _) => Ok(()),
                (rejected, why) => Err(ExportError::Partly { rejected, why }),
            },
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => Err(ExportError::Busy {
                status,
                retry_after: client::retry_after(answer.headers()),
            }),
            status => Err(ExportError::Refused(status)),
        }
    }
}
