"""HAProxy in front of the gate, as a TCP proxy: the PROXY protocol gives the gate the client address."""

import os
import shutil

import httpx
import pytest

from gate import CONFIGURATION, ROUTES, SECRET, sign_token
from programs import RESPONSE_SECONDS, Gate, Program, free_port

HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")

pytestmark = pytest.mark.skipif(not HAPROXY, reason="haproxy is missing")

# A loopback address other than the one HAProxy connects from.
CLIENT = "127.0.0.9"

FRONT = """
defaults
    mode tcp
    timeout connect 30s
    timeout client 30s
    timeout server 30s

frontend clients
    bind 127.0.0.1:{port}
    default_backend gates

backend gates
    # Frequent checks, and no ejection of a gate that is slow on a busy machine.
    server gate {gate} {send} check inter 100ms fall 10000
"""


@pytest.fixture(params=["send-proxy", "send-proxy-v2"])
def front(request, tmp_path, upstream):
    """A gate, and the URL of the HAProxy in front of it."""
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    listen = '[listen]\nproxy_protocol = true\ntrusted_proxies = ["127.0.0.1"]'
    gate = Gate(tmp_path, CONFIGURATION.format(url=upstream).replace("[listen]", listen) + ROUTES)
    port = free_port()
    address = gate.url.removeprefix("http://")
    (tmp_path / "haproxy.cfg").write_text(FRONT.format(port=port, gate=address, send=request.param))
    haproxy = Program(tmp_path, [HAPROXY, "-db", "-f", "haproxy.cfg"], {})
    try:
        yield gate, f"http://127.0.0.1:{port}"
    finally:
        haproxy.stop()
        gate.stop()


@pytest.mark.parametrize("http2", [False, True])
def test_takes_the_client_address_from_the_proxy_protocol(front, http2):
    gate, url = front
    transport = httpx.HTTPTransport(local_address=CLIENT, retries=8, http1=not http2, http2=http2)
    headers = {"Authorization": f"Bearer {sign_token()}", "X-Forwarded-For": "198.51.100.1"}
    with httpx.Client(base_url=url, transport=transport, timeout=RESPONSE_SECONDS, trust_env=False) as client:
        for _ in range(3):
            response = client.get("/api/alice/headers", headers=headers)
            assert response.status_code == 200, response.text
            assert response.json()["x-forwarded-for"] == CLIENT
    gate.program.wait_for(f'"client":"{CLIENT}"')


def test_rejects_a_connection_without_a_proxy_protocol_header(front):
    gate, _ = front
    with pytest.raises(httpx.TransportError):
        gate.request("GET", "/health")
    gate.program.wait_for('"reason":"proxy_protocol_malformed"')
    assert gate.metric('claimgate_request_heads_rejected_total{reason="proxy_protocol_malformed"}') >= 1
