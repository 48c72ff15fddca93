"""The services of deploy/compose as processes on loopback, without containers. Docker Compose itself resolves the files."""

import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import pytest

from programs import NODE, Program, free_port, http_client, wait_until

REPOSITORY = pathlib.Path(__file__).parents[2]
COMPOSE = REPOSITORY / "deploy/compose"
GUIDE = REPOSITORY / "docs/guides/docker-compose.md"
VARIABLES = {"BETTER_AUTH_SECRET": "mC0xq8Yw3kTfZ6uJr1LsVb9dNgHp5eAi", "POSTGRES_PASSWORD": "a-password-of-the-tests"}
VARIANTS = {"shared namespace": ["compose.yaml"], "two networks": ["compose.yaml", "compose.two-networks.yaml"]}
DATABASE_PROGRAMS = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), default=pathlib.Path("/usr/bin"))


def docker_compose(variant: str, variables: dict = VARIABLES) -> subprocess.CompletedProcess:
    files = [word for name in VARIANTS[variant] for word in ("-f", name)]
    program = pathlib.Path(sys.executable).with_name("docker-compose")
    command = [program, *files, "config", "--format", "json"]
    return subprocess.run(command, cwd=COMPOSE, env={"HOME": "/nonexistent"} | variables, capture_output=True, text=True)


def services(variant: str) -> dict:
    resolved = docker_compose(variant)
    assert resolved.returncode == 0, resolved.stderr
    return json.loads(resolved.stdout)["services"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("variable", VARIABLES)
def test_names_a_missing_secret(variant, variable):
    resolved = docker_compose(variant, {name: value for name, value in VARIABLES.items() if name != variable})
    assert resolved.returncode != 0
    assert f"required variable {variable} is missing a value" in resolved.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_restricts_every_container(variant):
    found = services(variant)
    assert len(found) == 4
    for name, service in found.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_publishes_the_gate_and_the_front_end_alone(variant):
    published = {name for name, service in services(variant).items() if service.get("ports")}
    assert published == {"claimgate", "frontend"}


def test_the_api_listens_on_the_loopback_that_it_shares_with_the_gate():
    api = services("shared namespace")["api"]
    assert api["network_mode"] == "service:claimgate"
    assert "networks" not in api
    assert api["command"][api["command"].index("--host") + 1] == "127.0.0.1"


def test_no_client_shares_a_network_with_the_api():
    found = services("two networks")
    assert "network_mode" not in found["api"]
    networks = set(found["api"]["networks"])
    beside = {name for name, service in found.items() if networks & service["networks"].keys()}
    assert beside == {"api", "claimgate", "postgres"}


class Project:
    """The services of a variant. Each port becomes a free one, each container name loopback."""

    def __init__(self, variant: str, directory: pathlib.Path):
        self.services = services(variant)
        self.ports = {port: free_port() for port in ("3000", "5432", "8000", "8080", "9901")}
        self.directory = directory
        # Outside the private folder of pytest, because the server refuses to run as root.
        self.database = pathlib.Path(tempfile.mkdtemp(prefix="claimgate-compose-"))
        self.programs = []

    def mapped(self, text: str) -> str:
        """`localhost` stays, because it is the URL for browsers, which differs from the one for the gate."""
        if text in self.ports:
            return str(self.ports[text])
        text = re.sub(r"\b(?:api|claimgate|frontend|postgres):(?=\d)", "127.0.0.1:", text).replace("0.0.0.0", "127.0.0.1")
        return re.sub(r"(127\.0\.0\.1|localhost):(\d+)", lambda it: f"{it[1]}:{self.ports[it[2]]}", text)

    def environment(self, name: str) -> dict:
        return {key: self.mapped(value) for key, value in self.services[name]["environment"].items()}

    def start(self, name: str, command: list, environment: dict | None = None, directory: str | None = None):
        folder = self.directory / name
        folder.mkdir()
        if directory is not None:
            command = ["env", "-C", directory, *command]
        program = Program(folder, command, self.environment(name) | (environment or {}))
        self.programs.append(program)
        return program

    def command(self, name: str) -> list:
        """Command of the service, or of its image."""
        if command := self.services[name].get("command"):
            return [self.mapped(word) for word in command]
        image = (COMPOSE / name / "Dockerfile").read_text()
        return json.loads(re.search(r"^CMD (.*)$", image, re.MULTILINE)[1])

    def healthy(self, name: str) -> bool:
        """Runs the health check of the service, with the programs that its image has."""
        kind, *command = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        path = f"{NODE.parent}:{DATABASE_PROGRAMS}:/usr/bin:/bin"
        checked = subprocess.run(list(map(self.mapped, command)), env={"PATH": path}, capture_output=True)
        return checked.returncode == 0

    def start_postgres(self):
        settings = self.environment("postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        folder = self.database
        (folder / "password").write_text(settings["POSTGRES_PASSWORD"])
        if as_user:
            shutil.chown(folder, "postgres")
            shutil.chown(folder / "password", "postgres")
        user = settings["POSTGRES_USER"]
        initdb = [DATABASE_PROGRAMS / "initdb", "-D", folder / "data", "-U", user, "-A", "scram-sha-256", "--no-sync"]
        subprocess.run([*as_user, *initdb, "--pwfile", folder / "password"], cwd="/", check=True, capture_output=True)
        options = {"listen_addresses": "127.0.0.1", "port": self.ports["5432"], "unix_socket_directories": "", "fsync": "off"}
        options = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self.start("postgres", [*as_user, DATABASE_PROGRAMS / "postgres", "-D", folder / "data", *options])
        wait_until(lambda: self.healthy("postgres"))
        # As the image does: a database with the name of the user.
        createdb = [DATABASE_PROGRAMS / "createdb", "-h", "127.0.0.1", "-p", str(self.ports["5432"]), "-U", user, user]
        password = {"PGPASSWORD": settings["POSTGRES_PASSWORD"]}
        subprocess.run(createdb, env=password, cwd="/", check=True, capture_output=True)

    def start_all(self):
        """Everything but the database at once, like Compose."""
        self.start_postgres()
        on_loopback = {"PORT": str(self.ports["3000"]), "HOST": "127.0.0.1"}
        self.start("frontend", [NODE, os.environ["FRONTEND_SERVER"]], on_loopback)
        assert self.command("frontend") == ["node", "server.mjs"]
        addresses = {"PORT": str(self.ports["8080"]), "ADMIN_ADDRESS": f"127.0.0.1:{self.ports['9901']}"}
        self.start("claimgate", [os.environ["CLAIMGATE"], *(self.services["claimgate"]["command"] or [])], addresses)
        python = pathlib.Path(sys.executable)
        program, *arguments = self.command("api")
        self.start("api", [python.with_name(program), *arguments], directory=COMPOSE / "api")
        for name in ("frontend", "api"):
            wait_until(lambda: self.healthy(name))

    def stop(self):
        for program in reversed(self.programs):
            program.stop()
        shutil.rmtree(self.database, ignore_errors=True)


@pytest.fixture(scope="module", params=VARIANTS)
def project(request, tmp_path_factory):
    project = Project(request.param, tmp_path_factory.mktemp("compose"))
    try:
        project.start_all()
        yield project
    finally:
        project.stop()


def test_the_commands_of_the_guide_work(project):
    page = GUIDE.read_text()
    commands = re.search(r"^## Try it\n.*?^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1]
    expected = re.search(r"^## Try it\n.*?^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1]
    script = re.sub(r"(?<=http://localhost:)\d+", lambda port: str(project.ports[port[0]]), commands)
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PATH": os.environ["PATH"], "no_proxy": "*"}
        script = f"set -euo pipefail\n{script}"
        ran = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    pattern = re.escape(expected.strip()).replace("…", ".*")
    assert re.fullmatch(pattern, ran.stdout.strip()), ran.stdout


def test_replaces_a_forged_user_id_and_allows_the_origin_of_the_front_end(project):
    front_end = http_client(f"http://localhost:{project.ports['3000']}")
    gate = http_client(f"http://127.0.0.1:{project.ports['8080']}")
    with contextlib.closing(front_end), contextlib.closing(gate):
        account = {"name": "Eve", "email": "eve@example.com", "password": "correct horse battery staple"}
        origin = str(front_end.base_url).rstrip("/")
        signed_up = front_end.post("/api/auth/sign-up/email", json=account, headers={"Origin": origin})
        assert signed_up.status_code == 200, signed_up.text
        user = signed_up.json()["user"]["id"]
        token = front_end.get("/api/auth/token", headers={"Origin": origin}).json()["token"]
        headers = {"Authorization": f"Bearer {token}", "X-User-Id": "alice", "Origin": origin}
        created = gate.post(f"/api/{user}/tasks", json={"title": "water the plants"}, headers=headers)
        assert created.status_code == 201, created.text
        assert created.headers["access-control-allow-origin"] == origin
        # A forwarded `X-User-Id: alice` would show that the tasks of `alice` are read, and there are none.
        tasks = gate.get(f"/api/{user}/tasks", headers=headers).json()
        assert [task["title"] for task in tasks] == ["water the plants"]
