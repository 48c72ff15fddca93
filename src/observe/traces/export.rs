//! Export of spans to the collector, on the control thread: no request waits for it.

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
use super::{SampledExchange, Tracing};

/// Tries before a batch is dropped.
const TRIES: u32 = 5;

/// Delay before the second try. Each further delay is twice as long.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// Longest `Retry-After` of a collector that is respected.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// Failure to export a batch.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    /// No response.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Retryable status.
    #[error("status: {status}")]
    Busy {
        status: StatusCode,
        /// `Retry-After` of the response.
        retry_after: Option<Duration>,
    },
    /// Status that a retry does not change.
    #[error("status: {0}")]
    Rejected(StatusCode),
    /// Partial success (`ExportTracePartialSuccess`).
    #[error("the collector rejected {rejected} of them: {message}")]
    Partial {
        /// Number of rejected spans.
        rejected: usize,
        /// Error message of the collector.
        message: String,
    },
}

/// Exports the queue of the workers. Every try uses the settings in force.
pub async fn run(spans: Arc<Spans>, clock: Clock, settings: impl Fn() -> Option<Arc<Tracing>>) {
    let mut exporter = Exporter {
        spans,
        clock,
        settings,
        is_failing: false,
    };
    loop {
        exporter.spans.batch_ready().await;
        loop {
            let batch = exporter.spans.take();
            if batch.is_empty() {
                break;
            }
            exporter.export(&batch).await;
        }
    }
}

struct Exporter<S> {
    spans: Arc<Spans>,
    clock: Clock,
    settings: S,
    /// True if the last failure was logged and no batch was exported since.
    is_failing: bool,
}

impl<S: Fn() -> Option<Arc<Tracing>>> Exporter<S> {
    /// Sends a batch, with retries, as long as the configuration has a collector.
    async fn export(&mut self, batch: &[SampledExchange]) {
        let spans = batch.iter().map(SampledExchange::span_count).sum();
        let mut delay = Duration::ZERO;
        for attempt in 0..TRIES {
            self.spans.sleep(delay).await;
            let Some(tracing) = (self.settings)() else {
                break;
            };
            let error = match self.send(&tracing, batch).await {
                Ok(()) => {
                    self.spans.count(SpanOutcome::Exported, spans);
                    if std::mem::take(&mut self.is_failing) {
                        info!(url = %tracing.url, "span export resumed");
                    }
                    return;
                }
                Err(error) => error,
            };
            if !std::mem::replace(&mut self.is_failing, true) {
                let error = error.to_string();
                warn!(url = %tracing.url, "failed to send spans: {}", printable(&error));
            }
            let retry_after = match error {
                ExportError::Rejected(_) => {
                    self.spans.count(SpanOutcome::Rejected, spans);
                    return;
                }
                ExportError::Partial { rejected, .. } => {
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
            delay = (FIRST_DELAY * 2_u32.pow(attempt)).max(retry_after.min(MAX_RETRY_AFTER));
        }
        self.spans.count(SpanOutcome::Unreachable, spans);
    }

    async fn send(&self, tracing: &Tracing, batch: &[SampledExchange]) -> Result<(), ExportError> {
        let moment = Moment {
            now: Instant::now(),
            since_epoch: self.clock.since_epoch(),
        };
        let encoded = otlp::encode(batch, &tracing.service_name, moment);
        let mut request = Request::new(Full::from(encoded));
        *request.method_mut() = Method::POST;
        request.headers_mut().insert(CONTENT_TYPE, PROTOBUF);
        let response = client::call(request, &tracing.url, &tracing.tls).await?;
        match response.status() {
            status if status.is_success() => match otlp::rejected(response.body()) {
                (0, _) => Ok(()),
                (rejected, message) => Err(ExportError::Partial { rejected, message }),
            },
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => Err(ExportError::Busy {
                status,
                retry_after: client::retry_after(response.headers()),
            }),
            status => Err(ExportError::Rejected(status)),
        }
    }
}
