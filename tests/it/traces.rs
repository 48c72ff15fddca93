//! Traces: context propagation to the upstream, and export to a collector.

use std::sync::atomic::{AtomicUsize, Ordering};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;

use crate::harness::{
    Exchange, Issuer, Latch, NOW, Next, ROUTES, Request, Sidecar, Upstream, eventually, get,
    request, start, start_with,
};

/// Example of W3C Trace Context section 3.2.3.
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const NOT_SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn tracing(collector: &Upstream, more: &str) -> String {
    let url = collector.url();
    format!("tracing = {{ url = \"{url}\", service_name = \"edge\"{more} }}\n{ROUTES}")
}

fn within(request: Request, parent: &str) -> Request {
    request.line(&format!("traceparent: {parent}"))
}

/// Waits until this number of spans is exported, because a shutdown waits only briefly, then returns all spans.
fn spans(sidecar: Sidecar, collector: &Upstream, count: u32) -> Vec<Span> {
    until_counted(&sidecar, "exported", count.into());
    last_spans(sidecar, collector)
}

/// Stops the gate and returns every exported span.
fn last_spans(sidecar: Sidecar, collector: &Upstream) -> Vec<Span> {
    sidecar.stop();
    sidecar.wait();
    let mut spans = Vec::new();
    for arrived in collector.arrived() {
        assert_eq!(arrived.head.line(), "POST /v1/traces HTTP/1.1");
        let kind = arrived.head.value("content-type").unwrap();
        assert_eq!(kind, "application/x-protobuf");
        let request = ExportTraceServiceRequest::decode(arrived.body.as_slice()).unwrap();
        for resource in request.resource_spans {
            let service = resource.resource.unwrap().attributes;
            let service = service.iter().find(|one| one.key == "service.name");
            let service = service.unwrap().value.clone().unwrap().value;
            assert_eq!(service, Some(Value::StringValue("edge".to_owned())));
            let scopes = resource.scope_spans.into_iter();
            spans.extend(scopes.flat_map(|scope| scope.spans));
        }
    }
    spans
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|one| one.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        Value::DoubleValue(_)
        | Value::ArrayValue(_)
        | Value::KvlistValue(_)
        | Value::BytesValue(_)
        | Value::StringValueStrindex(_) => panic!("{key} of {span:#?}"),
    })
}

/// Formats an ID as in `traceparent`.
fn hex(bytes: &[u8]) -> String {
    let number = bytes
        .iter()
        .fold(0, |all, byte| all << 8 | u128::from(*byte));
    format!("{number:0width$x}", width = 2 * bytes.len())
}

fn of(spans: &[Span], kind: SpanKind) -> Vec<Span> {
    let spans = spans.iter().filter(|span| span.kind == i32::from(kind));
    spans.cloned().collect()
}

#[track_caller]
fn assert_attributes(span: &Span, attributes: &[(&str, &str)]) {
    for (key, value) in attributes {
        assert_eq!(
            attribute(span, key).as_deref(),
            Some(*value),
            "{key} of {span:#?}"
        );
    }
}

#[test]
fn exports_a_server_span_and_a_client_span_per_exchange() {
    let collector = Upstream::start();
    let (sidecar, upstream, issuer) = start(&tracing(&collector, ""));
    let call = within(get("/api/alice/tasks/7?q=hidden"), PARENT)
        .line("tracestate: rojo=1, congo=2")
        .line("X-Request-Id: one")
        .bearer(&issuer.token("alice"));
    assert_eq!(sidecar.call(&call).status, 200);

    let forwarded = upstream.only().head;
    assert_eq!(forwarded.value("tracestate").unwrap(), "rojo=1, congo=2");
    let traceparent = forwarded.value("traceparent").unwrap();
    let parts: Vec<&str> = traceparent.split('-').collect();
    let spans = spans(sidecar, &collector, 2);
    assert_eq!(spans.len(), 2, "{spans:#?}");
    let server = &of(&spans, SpanKind::Server)[0];
    let client = &of(&spans, SpanKind::Client)[0];

    assert_eq!(hex(&server.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(hex(&server.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(server.name, "GET /api/{user_id}/tasks/{*rest}");
    assert_attributes(
        server,
        &[
            ("http.request.method", "GET"),
            ("http.route", "/api/{user_id}/tasks/{*rest}"),
            ("url.path", "/api/alice/tasks/7"),
            ("url.scheme", "http"),
            ("network.protocol.version", "1.1"),
            ("http.response.status_code", "200"),
            ("client.address", "127.0.0.1"),
            ("enduser.id", "alice"),
            ("claimgate.issuer", "test"),
            ("claimgate.request_id", "one"),
            ("claimgate.complete", "true"),
        ],
    );
    assert_eq!(attribute(server, "claimgate.reason"), None);
    assert_eq!(server.status, None);

    assert_eq!(
        parts,
        ["00", &hex(&client.trace_id), &hex(&client.span_id), "01"]
    );
    assert_eq!(client.trace_id, server.trace_id);
    assert_eq!(client.parent_span_id, server.span_id);
    let url = upstream.url();
    let port = url.rsplit(':').next().unwrap();
    assert_attributes(
        client,
        &[
            ("claimgate.upstream", "tasks"),
            ("server.address", "127.0.0.1"),
            ("server.port", port),
            ("http.response.status_code", "200"),
        ],
    );
    let second = 1_000_000_000;
    let now = u64::try_from(NOW).unwrap() * second;
    assert!(server.start_time_unix_nano <= client.start_time_unix_nano);
    assert!(client.start_time_unix_nano <= client.end_time_unix_nano);
    assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
    assert!(server.end_time_unix_nano <= now);
    assert!(server.start_time_unix_nano > now - 60 * second);
}

#[test]
fn exports_no_token_query_or_cookie() {
    let collector = Upstream::start();
    let (sidecar, _upstream, issuer) = start(&tracing(&collector, ""));
    let token = issuer.token("alice");
    let forged = format!("{}x", &token[..token.len() - 8]);
    for token in [&token, &forged] {
        let call = get("/api/alice/tasks/7?q=hidden").bearer(token);
        sidecar.call(&call.line("Cookie: session=hidden"));
    }
    until_counted(&sidecar, "exported", 3.0);
    sidecar.stop();
    sidecar.wait();
    let arrived = collector.arrived();
    assert!(!arrived.is_empty());
    let signature = token.rsplit('.').next().unwrap();
    for arrived in arrived {
        let text = String::from_utf8_lossy(&arrived.body).into_owned();
        assert!(text.contains("/api/alice/tasks/7"), "{text}");
        for secret in ["hidden", "eyJ", &signature[..16]] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[test]
fn a_refusal_has_a_server_span_with_its_reason_only() {
    let collector = Upstream::start();
    let (sidecar, upstream, issuer) = start(&tracing(&collector, ""));
    sidecar.call(&get("/api/alice/tasks/7").bearer(&issuer.token("bob")));
    sidecar.call(&get("/nowhere"));
    sidecar.call(&request("BREW", "/open/pot"));
    upstream.assert_untouched();
    let spans = spans(sidecar, &collector, 3);
    let found: Vec<_> = spans
        .iter()
        .map(|span| {
            let of = |key| attribute(span, key).unwrap_or_default();
            (
                span.name.clone(),
                of("claimgate.reason"),
                of("http.request.method"),
            )
        })
        .collect();
    let expected = [
        (
            "GET /api/{user_id}/tasks/{*rest}",
            "subject_mismatch",
            "GET",
        ),
        ("GET", "no_route", "GET"),
        ("HTTP", "method_not_allowed", "_OTHER"),
    ];
    let expected = expected
        .map(|(name, reason, method)| (name.to_owned(), reason.to_owned(), method.to_owned()));
    assert_eq!(found, expected);
    assert_attributes(
        &spans[0],
        &[("http.response.status_code", "403"), ("enduser.id", "bob")],
    );
    assert!(
        spans.iter().all(|span| span.status.is_none()),
        "a refusal is not an error of the gate"
    );
    assert!(spans.iter().all(|span| span.parent_span_id.is_empty()));
}

#[test]
fn an_unreachable_upstream_is_an_error_in_both_spans() {
    let collector = Upstream::start();
    let upstream = Upstream::unreachable();
    let issuer = Issuer::start();
    let sidecar = Sidecar::start(&tracing(&collector, ""), &upstream, &issuer);
    assert_eq!(sidecar.call(&get("/open/x")).status, 502);
    let spans = spans(sidecar, &collector, 2);
    assert_eq!(spans.len(), 2, "{spans:#?}");
    for span in &spans {
        assert_attributes(span, &[("error.type", "upstream_unreachable")]);
        let status = span.status.clone().unwrap();
        assert_eq!(status.code, i32::from(StatusCode::Error));
        assert_eq!(status.message, "upstream_unreachable");
    }
    let client = &of(&spans, SpanKind::Client)[0];
    assert_eq!(attribute(client, "http.response.status_code"), None);
}

#[test]
fn a_disconnected_client_ends_both_spans() {
    let collector = Upstream::start();
    let held = Latch::default();
    let (sidecar, upstream, _issuer) = start_with(
        &tracing(&collector, ""),
        Upstream::responding({
            let held = held.clone();
            move |_: &mut Exchange| {
                held.wait();
                Next::Close
            }
        }),
    );
    let mut client = sidecar.connect();
    client.send(get("/open/x").bytes());
    let forwarded = upstream.wait_for(1).remove(0).head;
    drop(client);
    let spans = spans(sidecar, &collector, 2);
    held.open();
    let client = &of(&spans, SpanKind::Client)[0];
    assert_eq!(
        forwarded.value("traceparent").unwrap()[36..52],
        hex(&client.span_id)
    );
    assert_attributes(client, &[("error.type", "client_closed_request")]);
    let server = &of(&spans, SpanKind::Server)[0];
    assert_attributes(server, &[("claimgate.reason", "client_closed_request")]);
    assert_eq!(attribute(server, "http.response.status_code"), None);
}

#[test]
fn continues_only_a_valid_trace_context() {
    let collector = Upstream::start();
    let (sidecar, upstream, _issuer) = start(&tracing(&collector, ""));
    let doubled = format!("{PARENT}\r\ntraceparent: {PARENT}");
    let upper = PARENT.to_ascii_uppercase();
    for invalid in ["", "x", &upper, &doubled, &PARENT[..54]] {
        let call = within(get("/open/x"), invalid).line("tracestate: rojo=1");
        assert_eq!(sidecar.call(&call).status, 200);
    }
    let unreadable = within(get("/open/x"), PARENT).line("tracestate: rojo");
    assert_eq!(sidecar.call(&unreadable).status, 200);
    let arrived = upstream.arrived();
    for arrived in &arrived {
        assert_eq!(arrived.head.values("traceparent").len(), 1, "{arrived:#?}");
        assert!(arrived.head.values("tracestate").is_empty(), "{arrived:#?}");
    }
    let trace = |at: usize| arrived[at].head.value("traceparent").unwrap()[3..35].to_owned();
    assert_eq!(trace(5), PARENT[3..35]);
    let roots: std::collections::BTreeSet<_> = (0..5).map(trace).collect();
    assert_eq!(roots.len(), 5);
    assert!(!roots.contains(&PARENT[3..35]));
    let spans = of(&spans(sidecar, &collector, 12), SpanKind::Server);
    let roots = spans.iter().filter(|span| span.parent_span_id.is_empty());
    assert_eq!(roots.count(), 5);
}

#[test]
fn forwards_an_unsampled_trace_context_without_export() {
    let collector = Upstream::start();
    let (sidecar, upstream, _issuer) = start(&tracing(&collector, ", sample = 0.0"));
    let call = within(get("/open/x"), NOT_SAMPLED).line("tracestate: rojo=1");
    assert_eq!(sidecar.call(&call).status, 200);
    assert_eq!(sidecar.call(&get("/open/x")).status, 200);
    let sampled = within(get("/open/x"), PARENT);
    assert_eq!(sidecar.call(&sampled).status, 200);
    let arrived = upstream.arrived();
    let parents = arrived
        .iter()
        .map(|one| one.head.value("traceparent").unwrap());
    let parents: Vec<String> = parents.collect();
    assert_eq!(parents[0], NOT_SAMPLED);
    assert_eq!(arrived[0].head.value("tracestate").unwrap(), "rojo=1");
    // The next request starts an unsampled trace with the random flag (02).
    assert!(
        parents[1].starts_with("00-") && parents[1].ends_with("-02"),
        "{parents:?}"
    );
    assert!(parents[2].ends_with("-01"), "{parents:?}");
    assert_eq!(
        spans(sidecar, &collector, 2).len(),
        2,
        "only spans of the sampled request"
    );
}

#[test]
fn restart_starts_a_new_trace_for_every_request() {
    let collector = Upstream::start();
    let (sidecar, upstream, _issuer) = start(&tracing(&collector, ", restart = true"));
    let call = within(get("/open/x"), NOT_SAMPLED).line("tracestate: rojo=1");
    assert_eq!(sidecar.call(&call).status, 200);
    let forwarded = upstream.only().head;
    let traceparent = forwarded.value("traceparent").unwrap();
    assert_ne!(traceparent[3..35], NOT_SAMPLED[3..35]);
    assert!(traceparent.ends_with("-03"), "{traceparent}");
    assert_eq!(forwarded.value("tracestate"), None);
    let spans = spans(sidecar, &collector, 2);
    assert_eq!(spans.len(), 2);
    assert!(of(&spans, SpanKind::Server)[0].parent_span_id.is_empty());
}

#[test]
fn without_tracing_forwards_trace_headers_unchanged() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    for value in [PARENT, "nonsense"] {
        let call = within(get("/open/x"), value).line("tracestate: No=Sense=");
        assert_eq!(sidecar.call(&call).status, 200);
    }
    let arrived = upstream.arrived();
    for (arrived, value) in arrived.iter().zip([PARENT, "nonsense"]) {
        assert_eq!(arrived.head.values("traceparent"), [value]);
        assert_eq!(arrived.head.values("tracestate"), ["No=Sense="]);
    }
}

fn counted(sidecar: &Sidecar, outcome: &str) -> f64 {
    let series = format!("claimgate_spans_total{{outcome=\"{outcome}\"}}");
    sidecar.metric(&series).unwrap()
}

/// Waits until this number of spans has this outcome.
fn until_counted(sidecar: &Sidecar, outcome: &str, spans: f64) {
    eventually(outcome, || counted(sidecar, outcome) >= spans);
    assert!((counted(sidecar, outcome) - spans).abs() < 0.5);
}

#[test]
fn a_silent_collector_delays_no_request() {
    let released = Latch::default();
    let collector = Upstream::held(&released);
    let (sidecar, upstream, _issuer) = start(&tracing(&collector, ""));
    let mut client = sidecar.connect();
    assert_eq!(client.call(&get("/open/first")).status, 200);
    collector.wait_for(1);
    for _ in 0..200 {
        assert_eq!(client.call(&get("/open/x")).status, 200);
    }
    assert_eq!(upstream.arrived().len(), 201);
    released.open();
    until_counted(&sidecar, "exported", 402.0);
}

#[test]
fn retries_an_export_after_a_503() {
    let collector = Upstream::responding({
        let attempts = AtomicUsize::new(0);
        move |exchange: &mut Exchange| {
            exchange.body();
            match attempts.fetch_add(1, Ordering::Relaxed) {
                0 => exchange.respond("503 Service Unavailable", "Retry-After: 1\r\n", ""),
                _ => exchange.respond("200 OK", "", ""),
            }
        }
    });
    let (sidecar, _upstream, _issuer) = start(&tracing(&collector, ""));
    sidecar.call(&get("/open/x"));
    until_counted(&sidecar, "exported", 2.0);
    let arrived = collector.arrived();
    assert_eq!(arrived.len(), 2);
    let spans = |at: usize| {
        let mut request = ExportTraceServiceRequest::decode(arrived[at].body.as_slice()).unwrap();
        let mut resource = request.resource_spans.remove(0);
        resource.scope_spans.remove(0).spans.len()
    };
    assert_eq!((spans(0), spans(1)), (2, 2));
}

#[test]
fn counts_rejected_spans_and_does_not_retry_them() {
    let collector =
        Upstream::responding(|exchange: &mut Exchange| exchange.respond("400 Bad Request", "", ""));
    let (sidecar, _upstream, _issuer) = start(&tracing(&collector, ""));
    sidecar.call(&get("/open/x"));
    until_counted(&sidecar, "rejected", 2.0);
    assert_eq!(collector.arrived().len(), 1);

    let collector = Upstream::responding(|exchange: &mut Exchange| {
        let response = ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans: 1,
                error_message: "no".to_owned(),
            }),
        };
        let body = String::from_utf8(response.encode_to_vec()).unwrap();
        exchange.respond("200 OK", "", &body)
    });
    let (sidecar, _upstream, _issuer) = start(&tracing(&collector, ""));
    sidecar.call(&get("/open/x"));
    until_counted(&sidecar, "exported", 1.0);
    until_counted(&sidecar, "rejected", 1.0);
}

#[test]
fn an_unreachable_collector_does_not_delay_the_shutdown() {
    let (upstream, collector) = (Upstream::start(), Upstream::unreachable());
    let issuer = Issuer::start();
    let sidecar = Sidecar::start(&tracing(&collector, ""), &upstream, &issuer);
    assert_eq!(sidecar.call(&get("/open/x")).status, 200);
    sidecar.stop();
    assert_eq!(sidecar.wait(), 0);
}

#[test]
fn exports_the_spans_of_a_stream_at_its_end() {
    let collector = Upstream::start();
    let response = |exchange: &mut Exchange| {
        exchange.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        Next::Close
    };
    let (sidecar, _upstream, _issuer) =
        start_with(&tracing(&collector, ""), Upstream::responding(response));
    let call = get("/open/x").websocket();
    let mut client = sidecar.connect();
    assert_eq!(client.call(&call).status, 101);
    client.until_closed();
    let spans = last_spans(sidecar, &collector);
    assert_eq!(spans.len(), 2);
    for span in &spans {
        assert_attributes(span, &[("http.response.status_code", "101")]);
    }
}
