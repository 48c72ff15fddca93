"""Traces through three programs: a client and an API with OpenTelemetry for Python, and the gate between them."""

import contextlib
import gzip
import http.server
import json
import pathlib
import ssl
import sys
import threading
import time

import pytest
from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind

from authority import Authority
from gate import ROUTES, running_gate, sign_token
from programs import Program, free_port

UVICORN = pathlib.Path(sys.executable).with_name("uvicorn")
APP = pathlib.Path(__file__).parent / "fastapi"
TIMEOUT = 60

TRACING = """
[tracing]
url = "{url}"
"""


class Collector:
    """An OTLP/HTTP collector that keeps each span with the name of its service."""

    def __init__(self, identity: pathlib.Path | None = None):
        """`identity` is a directory with collector.crt and collector.key. It turns on TLS."""
        self.spans = []
        self.changed = threading.Condition()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if identity:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(identity / "collector.crt", identity / "collector.key")
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'https://localhost' if identity else 'http://127.0.0.1'}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, request: ExportTraceServiceRequest):
        for resource in request.resource_spans:
            service = next(one.value.string_value for one in resource.resource.attributes if one.key == "service.name")
            with self.changed:
                self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]
                self.changed.notify_all()

    def wait_for(self, service: str, kind: int) -> Span:
        """The only span of this service and kind."""
        def found():
            return [span for name, span in self.spans if (name, span.kind) == (service, kind)]

        with self.changed:
            assert self.changed.wait_for(found, TIMEOUT), self.spans
            [span] = found()
            return span

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.stop()


@contextlib.contextmanager
def traced_api(directory: pathlib.Path, collector: Collector):
    port = free_port()
    command = [UVICORN, "traced:app", "--app-dir", APP, "--host", "127.0.0.1", "--port", port]
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "notes",
                   "OTEL_EXPORTER_OTLP_TIMEOUT": str(TIMEOUT)}
    api = Program(directory, command, environment)
    try:
        api.wait_for("Uvicorn running")
        yield f"http://127.0.0.1:{port}"
    finally:
        api.stop()


def attributes(span: Span) -> dict:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_continues_the_trace_of_the_client_to_the_api(tmp_path, collector):
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{collector.url}/v1/traces", timeout=TIMEOUT)))
    tracer = provider.get_tracer("test")
    with (traced_api(tmp_path, collector) as url,
          running_gate(tmp_path, url, TRACING.format(url=collector.url) + ROUTES) as gate):
        with tracer.start_as_current_span("buy", kind=SpanKind.CLIENT):
            headers = {"Authorization": f"Bearer {sign_token()}", "X-Request-Id": "one"}
            propagate.inject(headers)
            response = gate.client.get("/api/alice/notes?q=hidden", headers=headers)
            assert response.status_code == 200, response.text
        shop = collector.wait_for("shop", Span.SPAN_KIND_CLIENT)
        server = collector.wait_for("claimgate", Span.SPAN_KIND_SERVER)
        client = collector.wait_for("claimgate", Span.SPAN_KIND_CLIENT)
        notes = collector.wait_for("notes", Span.SPAN_KIND_SERVER)
        line = json.loads(gate.program.wait_for(r'.*"request_id":"one".*')[0])

    assert [shop.span_id, server.span_id, client.span_id] == [
        server.parent_span_id, client.parent_span_id, notes.parent_span_id]
    assert {span.trace_id for span in (server, client, notes)} == {shop.trace_id}
    assert line["trace_id"] == shop.trace_id.hex()
    assert server.name == "GET /api/{user_id}/{*rest}"
    values = attributes(server)
    assert (values["enduser.id"], values["url.path"], values["http.response.status_code"]) == (
        "alice", "/api/alice/notes", 200)
    # All programs read the same clock.
    order = [(span.start_time_unix_nano, span.end_time_unix_nano) for span in (shop, server, client)]
    assert order[0][0] <= order[1][0] <= order[2][0] <= order[2][1] <= order[1][1], order
    # The times are Unix times.
    assert abs(time.time_ns() - shop.start_time_unix_nano) < 600e9
    assert b"hidden" not in b"".join(span.SerializeToString() for span in (server, client))


def test_records_the_reason_of_a_rejection_and_the_error_of_the_upstream(tmp_path, collector):
    with running_gate(tmp_path, "http://127.0.0.1:1", TRACING.format(url=collector.url) + ROUTES) as gate:
        assert gate.request("GET", "/api/bob/notes", sign_token("alice")).status_code == 403
        server = collector.wait_for("claimgate", Span.SPAN_KIND_SERVER)
        assert attributes(server)["claimgate.reason"] == "subject_mismatch"
        assert server.status.code == Status.STATUS_CODE_UNSET
        assert gate.request("GET", "/api/alice/notes", sign_token("alice")).status_code == 502
        client = collector.wait_for("claimgate", Span.SPAN_KIND_CLIENT)
        assert client.status.code == Status.STATUS_CODE_ERROR
        assert attributes(client)["error.type"] == "upstream_unreachable"


def test_exports_the_last_spans_on_graceful_shutdown(tmp_path, collector):
    with running_gate(tmp_path, "http://127.0.0.1:1", TRACING.format(url=collector.url) + ROUTES) as gate:
        assert gate.request("GET", "/api/alice/notes").status_code == 401
    collector.wait_for("claimgate", Span.SPAN_KIND_SERVER)


def test_exports_spans_over_tls_to_a_trusted_collector_only(tmp_path):
    (tmp_path / "ca").mkdir()
    authority = Authority(tmp_path / "ca")
    authority.issue("collector", "localhost")
    collector = Collector(authority.directory)
    tracing = TRACING.format(url=collector.url)
    try:
        with running_gate(tmp_path, "http://127.0.0.1:1", f'{tracing}ca_file = "ca/ca.crt"\n{ROUTES}') as gate:
            assert gate.request("GET", "/api/alice/notes").status_code == 401
            collector.wait_for("claimgate", Span.SPAN_KIND_SERVER)
        with running_gate(tmp_path, "http://127.0.0.1:1", tracing + ROUTES) as gate:
            assert gate.request("GET", "/api/alice/notes").status_code == 401
            gate.program.wait_for('"message":"failed to send spans: TLS: ')
    finally:
        collector.stop()


def test_logs_an_unreachable_collector_once_and_still_serves_requests(tmp_path):
    away = f"http://127.0.0.1:{free_port()}"
    with running_gate(tmp_path, "http://127.0.0.1:1", TRACING.format(url=away) + ROUTES) as gate:
        for _ in range(50):
            assert gate.request("GET", "/api/alice/notes").status_code == 401
        gate.program.wait_for('"message":"failed to send spans: connect: ')
    assert gate.program.output().count("failed to send spans") == 1
