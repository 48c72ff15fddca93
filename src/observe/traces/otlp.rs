//! OTLP encoding of spans (<https://opentelemetry.io/docs/specs/otlp/>), with the semantic conventions for HTTP
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>).

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use tokio::time::Instant;

use crate::gate::inbound::Scheme;
use crate::observe::log::CLIENT_CLOSED_REQUEST;

use super::SampledExchange;
use super::context::Context;

/// Name of the instrumentation scope.
const SCOPE: &str = env!("CARGO_PKG_NAME");

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Value of `http.request.method` for an unknown method, by the conventions.
const OTHER: &str = "_OTHER";

/// Time of the encoding, by the monotonic clock and by the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) since_epoch: Duration,
}

impl Moment {
    /// Unix time in nanoseconds of the time `ago` before `moment`.
    fn nanos(self, moment: Instant, ago: Duration) -> u64 {
        let before = self.now.saturating_duration_since(moment) + ago;
        let since = self.since_epoch.saturating_sub(before);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Encodes an `ExportTraceServiceRequest` with the spans of these exchanges.
pub(super) fn encode(exchanges: &[SampledExchange], service_name: &str, moment: Moment) -> Vec<u8> {
    let spans = exchanges.iter().flat_map(|exchange| {
        [
            Some(server_span(exchange, moment)),
            client_span(exchange, moment),
        ]
    });
    let service = attributes([
        ("service.name", text(service_name)),
        ("service.version", text(VERSION)),
    ]);
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: service,
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: SCOPE.to_owned(),
                    version: VERSION.to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans: spans.flatten().collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec()
}

/// Parses the number of rejected spans and the error message out of a response.
pub(super) fn rejected(response: &[u8]) -> (usize, String) {
    let response = ExportTraceServiceResponse::decode(response).unwrap_or_default();
    let partial = response.partial_success.unwrap_or_default();
    let spans = usize::try_from(partial.rejected_spans).unwrap_or(0);
    (spans, partial.error_message)
}

/// Server span of the exchange.
fn server_span(exchange: &SampledExchange, moment: Moment) -> Span {
    let SampledExchange {
        trace,
        ended,
        method,
        path,
        route,
        status,
        reason,
        subject,
        issuer,
        client,
        request_id,
        elapsed,
        gate: _,
        upstream: _,
        request_bytes,
        response_bytes,
        complete,
    } = exchange;
    let route = route.as_ref().map(|route| route.pattern.as_ref());
    let is_closed_by_client = *reason == Some(CLIENT_CLOSED_REQUEST);
    let is_error = status.is_server_error();
    let scheme = match trace.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let version = if trace.is_http2 { "2" } else { "1.1" };
    let error = is_error.then(|| reason.map_or_else(|| status.as_str().to_owned(), str::to_owned));
    Span {
        parent_span_id: trace
            .parent
            .map_or_else(Vec::new, |parent| parent.get().to_be_bytes().to_vec()),
        kind: SpanKind::Server.into(),
        name: match route {
            Some(route) => format!("{} {route}", span_method(method)),
            None => span_method(method).to_owned(),
        },
        start_time_unix_nano: moment.nanos(*ended, *elapsed),
        end_time_unix_nano: moment.nanos(*ended, Duration::ZERO),
        attributes: attributes([
            ("http.request.method", method_name(method)),
            ("url.path", text(path)),
            ("url.scheme", text(scheme)),
            ("network.protocol.version", text(version)),
            ("http.route", route.and_then(text)),
            (
                "http.response.status_code",
                number(status.as_u16()).filter(|_| !is_closed_by_client),
            ),
            ("error.type", error.as_deref().and_then(text)),
            (
                "client.address",
                client.and_then(|client| text(&client.to_string())),
            ),
            ("http.request.body.size", number(*request_bytes)),
            ("http.response.body.size", number(*response_bytes)),
            (
                "enduser.id",
                subject.as_ref().and_then(|subject| text(subject.as_str())),
            ),
            ("claimgate.issuer", issuer.as_deref().and_then(text)),
            ("claimgate.reason", reason.and_then(text)),
            ("claimgate.request_id", text(request_id)),
            ("claimgate.complete", Some(Value::BoolValue(*complete))),
        ]),
        status: failure(is_error, *reason),
        ..span(trace.span)
    }
}

/// Client span of the upstream request, up to the response head. Returns `None` if no request was sent.
fn client_span(exchange: &SampledExchange, moment: Moment) -> Option<Span> {
    let SampledExchange {
        trace,
        ended,
        method,
        status,
        reason,
        elapsed,
        gate,
        ..
    } = exchange;
    let (upstream, duration) = exchange.upstream_span()?;
    let sent = elapsed.saturating_sub(*gate);
    let (host, port) = upstream.server.clone().unzip();
    let has_response = upstream.server.is_some();
    let is_error = !has_response || status.is_client_error() || status.is_server_error();
    let error = match reason {
        Some(reason) if !has_response => Some(*reason),
        _ if is_error => Some(status.as_str()),
        _ => None,
    };
    Some(Span {
        parent_span_id: trace.span.span.get().to_be_bytes().to_vec(),
        kind: SpanKind::Client.into(),
        name: span_method(method).to_owned(),
        start_time_unix_nano: moment.nanos(*ended, sent),
        end_time_unix_nano: moment.nanos(*ended, sent.saturating_sub(duration)),
        attributes: attributes([
            ("http.request.method", method_name(method)),
            ("server.address", host.as_deref().and_then(text)),
            ("server.port", port.flatten().and_then(number)),
            (
                "http.response.status_code",
                number(status.as_u16()).filter(|_| has_response),
            ),
            ("error.type", error.and_then(text)),
            ("claimgate.upstream", text(&upstream.name)),
        ]),
        status: failure(is_error, *reason),
        ..span(upstream.span)
    })
}

/// Method in a span name.
fn span_method(method: &str) -> &str {
    if method == "other" { "HTTP" } else { method }
}

/// Common fields of a span.
fn span(context: Context) -> Span {
    Span {
        trace_id: context.trace.get().to_be_bytes().to_vec(),
        span_id: context.span.get().to_be_bytes().to_vec(),
        flags: context.flags(),
        ..Span::default()
    }
}

fn failure(is_error: bool, reason: Option<&str>) -> Option<Status> {
    is_error.then(|| Status {
        message: reason.unwrap_or_default().to_owned(),
        code: StatusCode::Error.into(),
    })
}

fn method_name(method: &str) -> Option<Value> {
    text(if method == "other" { OTHER } else { method })
}

/// Attributes that have a value.
fn attributes<const N: usize>(all: [(&str, Option<Value>); N]) -> Vec<KeyValue> {
    let present = all
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    let written = present.map(|(key, value)| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    });
    written.collect()
}

#[expect(clippy::unnecessary_wraps, reason = "an attribute may be absent")]
fn text(text: &str) -> Option<Value> {
    Some(Value::StringValue(text.to_owned()))
}

fn number(number: impl TryInto<i64>) -> Option<Value> {
    number.try_into().ok().map(Value::IntValue)
}
