"""The proxies, each configured for the same job: verify the bearer token, compare `sub` with the path segment after
`/api/`, write `X-User-Id`, forward. nginx and Caddy forward without any authentication."""

import pathlib
import subprocess
import sysconfig
from dataclasses import dataclass

import programs
from templates import render
from tokens import Issuer
from upstream import Upstream


@dataclass(frozen=True)
class Setup:
    """What a workload needs of a proxy, beyond the job."""

    algorithm: str = "HS256"
    upstream: str = "tcp"  # or "unix", or "websocket"
    listen: str = "plain"  # or "tls", or "h2c"
    access_log: bool = False
    routes: int = 1
    workers: int = 1


@dataclass(frozen=True)
class Certificate:
    """Self-signed certificate of 127.0.0.1 with its ECDSA P-256 key."""

    chain: pathlib.Path
    key: pathlib.Path
    both: pathlib.Path

    @classmethod
    def create(cls, directory: pathlib.Path) -> "Certificate":
        created = cls(directory / "tls.crt", directory / "tls.key", directory / "tls.pem")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-keyout", created.key, "-out", created.chain], check=True, capture_output=True)
        created.both.write_text(created.chain.read_text() + created.key.read_text())
        return created


@dataclass(frozen=True)
class Environment:
    """What all proxies share in one run."""

    directory: pathlib.Path
    upstream: Upstream
    certificate: Certificate
    issuers: dict[str, Issuer]

    def issuer(self, algorithm: str) -> Issuer:
        if algorithm not in self.issuers:
            self.issuers[algorithm] = Issuer(algorithm, self.directory)
        return self.issuers[algorithm]

    def upstream_port(self, setup: Setup) -> int:
        return self.upstream.websocket_port if setup.upstream == "websocket" else self.upstream.port


def route_name(number: int) -> str:
    return f"things-{number:04}"


class Proxy:
    """A proxy that this machine has."""

    name = ""
    # Whether it does the whole job.
    verifies = True

    def __init__(self, executable: pathlib.Path):
        self.executable = executable

    def version(self) -> str:
        return programs.version([self.executable, "--version"])

    def supports(self, _setup: Setup) -> bool:
        return True

    def command(self, setup: Setup, environment: Environment, directory: pathlib.Path, port: int) -> list:
        """Writes the configuration into the directory, and returns the command that serves on the port."""
        raise NotImplementedError

    def check(self, command: list) -> list:
        """Command that checks the configuration of such a command instead of serving it."""
        raise NotImplementedError


class Claimgate(Proxy):
    def __init__(self, executable: pathlib.Path, label: str):
        super().__init__(executable)
        self.name = label

    def command(self, setup, environment, directory, port):
        issuer, certificate = environment.issuer(setup.algorithm), environment.certificate
        form = "secret_file" if setup.algorithm == "HS256" else "pem_file"
        paths = ["/api/{user_id}/{*rest}"]
        if setup.routes > 1:
            paths = [f"/api/{{user_id}}/{route_name(number)}/{{*rest}}" for number in range(setup.routes)]
        upstream = f"http://127.0.0.1:{environment.upstream_port(setup)}"
        (directory / "claimgate.toml").write_text(render("claimgate.toml", {
            "PORT": port, "ADMIN_PORT": programs.free_port(), "WORKERS": setup.workers,
            "LOG_LEVEL": "info" if setup.access_log else "error",
            "TLS": f'tls = {{ certificate = "{certificate.chain}", key = "{certificate.key}" }}'
                   if setup.listen == "tls" else "",
            "UPSTREAM": f"unix:{environment.upstream.socket}" if setup.upstream == "unix" else upstream,
            "KEYS": f'{{ {form} = "{issuer.key_file}" }}',
            "ROUTES": "".join(f'\n[[routes]]\npath = "{path}"\naccess = {{ owner = "user_id" }}\n' for path in paths),
        }))
        return [self.executable, "run", "--config", directory / "claimgate.toml"]

    def check(self, command):
        return ["check" if word == "run" else word for word in command]


class HaProxy(Proxy):
    name = "haproxy"

    def version(self):
        return programs.version([self.executable, "-v"])

    def supports(self, setup):
        return setup.algorithm != "EdDSA"

    def command(self, setup, environment, directory, port):
        issuer, upstream = environment.issuer(setup.algorithm), environment.upstream
        routes = "path_beg /api/"
        if setup.routes > 1:
            (directory / "routes").write_text("".join(f"{route_name(number)}\n" for number in range(setup.routes)))
            routes = f"path,field(4,/) -m str -f {directory / 'routes'}"
        (directory / "haproxy.cfg").write_text(render("haproxy.cfg", {
            "PORT": port, "WORKERS": setup.workers, "ROUTES": routes, "ALGORITHM": setup.algorithm,
            "BIND": {"plain": "", "h2c": "proto h2",
                     "tls": f"ssl crt {environment.certificate.both} alpn h2,http/1.1"}[setup.listen],
            "KEY": issuer.key_file.read_text() if setup.algorithm == "HS256" else issuer.key_file,
            "UPSTREAM": f"unix@{upstream.socket}" if setup.upstream == "unix"
                        else f"127.0.0.1:{environment.upstream_port(setup)}",
        }))
        return [self.executable, "-db", "-f", directory / "haproxy.cfg"]

    def check(self, command):
        return [*command, "-c"]


class Envoy(Proxy):
    name = "envoy"

    def version(self):
        return programs.version([self.executable, "--version"]).partition("version: ")[2]

    def command(self, setup, environment, directory, port):
        route = "route: {cluster: api, timeout: 60s}"
        routes = [f"- {{match: {{prefix: /}}, {route}}}"]
        if setup.routes > 1:
            template = (
                "- {{match: {{path_match_policy: {{name: template, typed_config: "
                '{{"@type": type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, '
                'path_template: "/api/*/{name}/**"}}}}}}, {route}}}'
            )
            routes = [template.format(name=route_name(number), route=route) for number in range(setup.routes)]
        upstream = environment.upstream
        (directory / "envoy.yaml").write_text(render("envoy.yaml", {
            "PORT": port, "CODEC": "HTTP2" if setup.listen == "h2c" else "AUTO",
            "ROUTES": "\n".join(routes), "JWKS": environment.issuer(setup.algorithm).jwks,
            "TLS": self._tls(environment.certificate) if setup.listen == "tls" else "",
            "UPSTREAM": f"{{pipe: {{path: {upstream.socket}}}}}" if setup.upstream == "unix" else
                        f"{{socket_address: {{address: 127.0.0.1, port_value: {environment.upstream_port(setup)}}}}}",
        }))
        return [self.executable, "-c", directory / "envoy.yaml", "--concurrency", setup.workers,
                "--disable-hot-restart", "--log-level", "error"]

    def check(self, command):
        return [*command, "--mode", "validate"]

    @staticmethod
    def _tls(certificate: Certificate) -> str:
        return f"""\
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
    common_tls_context:
      alpn_protocols: [h2, http/1.1]
      tls_certificates:
      - certificate_chain: {{filename: {certificate.chain}}}
        private_key: {{filename: {certificate.key}}}"""


class Nginx(Proxy):
    name = "nginx"
    verifies = False

    def version(self):
        return programs.version([self.executable, "-v"])

    def command(self, setup, environment, directory, port):
        certificate, upstream = environment.certificate, environment.upstream
        (directory / "nginx.conf").write_text(render("nginx.conf", {
            "PORT": port, "WORKERS": setup.workers,
            "LISTEN": {"plain": "", "h2c": "http2", "tls": "ssl http2"}[setup.listen],
            "TLS": f"ssl_certificate {certificate.chain};\nssl_certificate_key {certificate.key};"
                   if setup.listen == "tls" else "",
            "UPSTREAM": f"unix:{upstream.socket}" if setup.upstream == "unix"
                        else f"127.0.0.1:{environment.upstream_port(setup)}",
        }))
        return [self.executable, "-p", directory, "-c", directory / "nginx.conf"]

    def check(self, command):
        return [*command, "-t"]


class Caddy(Proxy):
    name = "caddy"
    verifies = False

    def version(self):
        return programs.version([self.executable, "version"])

    def command(self, setup, environment, directory, port):
        certificate, upstream = environment.certificate, environment.upstream
        tls = setup.listen == "tls"
        (directory / "Caddyfile").write_text(render("Caddyfile", {
            "PROTOCOLS": {"plain": "h1", "h2c": "h1 h2c", "tls": "h1 h2"}[setup.listen],
            "ADDRESS": f"{'https' if tls else 'http'}://127.0.0.1:{port}",
            "TLS": f"tls {certificate.chain} {certificate.key}" if tls else "",
            "UPSTREAM": f"unix/{upstream.socket}" if setup.upstream == "unix"
                        else f"127.0.0.1:{environment.upstream_port(setup)}",
        }))
        return ["env", f"GOMAXPROCS={setup.workers}", f"HOME={directory}", self.executable,
                "run", "--config", directory / "Caddyfile", "--adapter", "caddyfile"]

    def check(self, command):
        return ["validate" if word == "run" else word for word in command]


def installed() -> list[Proxy]:
    """The peers on this machine."""
    found = []
    if executable := programs.find("haproxy"):
        found.append(HaProxy(executable))
    # The package's own launcher is a Python program around the real one.
    packaged = pathlib.Path(sysconfig.get_path("purelib"), "envoy/_bin/envoy")
    if executable := packaged if packaged.exists() else programs.find("envoy"):
        found.append(Envoy(executable))
    if executable := programs.find("nginx"):
        found.append(Nginx(executable))
    if executable := programs.find("caddy"):
        found.append(Caddy(executable))
    return found


class RunningProxy:
    """A proxy that serves one setup, on the proxy CPUs."""

    def __init__(self, proxy: Proxy, setup: Setup, environment: Environment, cpus: set[int]):
        self.proxy, self.setup = proxy, setup
        directory = environment.directory / f"{proxy.name}-{programs.free_port()}"
        directory.mkdir()
        self.port = programs.free_port()
        command = proxy.command(setup, environment, directory, self.port)
        self.program = programs.Program(command, directory, cpus)

    @property
    def pid(self) -> int:
        return self.program.pid

    def wait(self):
        self.program.wait_until(lambda: programs.accepts(self.port))

    def stop(self):
        self.program.stop()
