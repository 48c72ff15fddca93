"""Measurements: rounds of workloads that take turns, growth, memory, start."""

import contextlib
import socket
import statistics
import subprocess
import sys
import time

import machine
import programs
from clients import message
from load import HERE, Generator, required_program
from proxies import Environment, Proxy, RunningProxy, Setup
from workloads import DIRECT, Load, WebSocket, Workload

# Before the first round of a proxy, not reported.
WARM_UP_SECONDS = 1
IDLE_CONNECTIONS = 10_000
BUSY_CONNECTIONS = 1000
BUSY_SECONDS = 3
START_TIMEOUT = 30


class Bench:
    """One run: the proxies, the shared environment and the CPUs."""

    def __init__(self, proxies: list[Proxy], labels: list[str], environment: Environment,
                 proxy_cpu: int, load_cpus: set[int], rounds: int, seconds: int):
        self.proxies = {proxy.name: proxy for proxy in proxies}
        # Names of the builds of claimgate.
        self.labels = labels
        self.environment = environment
        self.proxy_cpu, self.load_cpus = proxy_cpu, load_cpus
        self.rounds, self.seconds = rounds, seconds

    def lanes(self, workload: Workload) -> list[Proxy | None]:
        """The proxies of a workload on this machine; `None` is the upstream without a proxy."""
        names = []
        for name in workload.proxies:
            names += self.labels if name == "claimgate" else [name]
        found = [self.proxies[name] for name in names
                 if name in self.proxies and self.proxies[name].supports(workload.setup)]
        return found + ([None] if DIRECT in names else [])

    def _kind(self, proxy: Proxy | None) -> str:
        name = proxy.name if proxy else DIRECT
        return "claimgate" if name in self.labels else name

    def cpus(self, setup: Setup) -> set[int]:
        """CPUs of a proxy. A second worker shares the CPUs of the load."""
        return {self.proxy_cpu} if setup.workers == 1 else {self.proxy_cpu, *self.load_cpus}

    def start(self, proxy: Proxy, setup: Setup) -> RunningProxy:
        running = RunningProxy(proxy, setup, self.environment, self.cpus(setup))
        running.wait()
        return running

    @contextlib.contextmanager
    def echo_server(self, load: Load):
        """The upstream of WebSockets, for workloads with them."""
        if not isinstance(load, WebSocket):
            yield None
            return
        port = self.environment.upstream.websocket_port
        directory = self.environment.upstream.directory
        command = [sys.executable, HERE / "websocket.py", "serve", port]
        with programs.Program(command, directory, self.load_cpus) as echo:
            echo.wait_until(lambda: programs.accepts(port))
            yield echo

    def measure(self, workloads: list[Workload], only: dict[str, set[str]] | None = None):
        """Yields the results of the workloads in interleaved rounds; `only` limits each to some of its proxies."""
        with contextlib.ExitStack() as stack:
            lanes = []
            for workload in workloads:
                if missing := required_program(workload.load):
                    print(f"skipped {workload.name}: {missing} is missing", file=sys.stderr)
                    continue
                try:
                    generator = Generator(workload.load, workload.setup, self.environment, self.load_cpus, self.seconds)
                except ModuleNotFoundError as error:
                    print(f"skipped {workload.name}: {error}", file=sys.stderr)
                    continue
                echo = stack.enter_context(self.echo_server(workload.load))
                lanes += [Lane(self, workload, proxy, generator, echo) for proxy in self.lanes(workload)
                          if only is None or self._kind(proxy) in only[workload.name]]
            for lane in lanes:
                stack.callback(lane.stop)
            for number in range(1, self.rounds + 1):
                for lane in lanes:
                    yield lane.round(number)


class Lane:
    """One proxy in one workload."""

    def __init__(self, bench: Bench, workload: Workload, proxy: Proxy | None, generator: Generator, echo):
        self.bench, self.workload, self.proxy, self.generator = bench, workload, proxy, generator
        self.name = proxy.name if proxy else DIRECT
        self.upstream = echo or bench.environment.upstream.program
        self.running = None

    def stop(self):
        if self.running:
            self.running.stop()
            self.running = None

    def round(self, number: int) -> dict:
        bench, workload = self.bench, self.workload
        if self.proxy and not self.running:
            self.running = bench.start(self.proxy, workload.setup)
            if not workload.fresh:
                self.generator.run(self.running.port, WARM_UP_SECONDS, lambda: None)
        port = self.running.port if self.running else bench.environment.upstream.port
        program = self.running or self.upstream
        memory = []
        before, upstream_before = machine.cpu_time(program.pid), machine.cpu_time(self.upstream.pid)
        outcome = self.generator.run(port, bench.seconds, lambda: memory.append(machine.resident_kib(program.pid)))
        used, upstream_used = (machine.cpu_time(pid).since(earlier) for pid, earlier in
                               ((program.pid, before), (self.upstream.pid, upstream_before)))
        if workload.fresh:
            self.stop()
        elif workload.setup.access_log and self.running:
            self.running.program.discard_output()
        rejected = outcome.requests if self.generator.expects_rejection() else 0
        requests = max(outcome.requests, 1)
        return {
            "workload": workload.name, "proxy": self.name, "round": number,
            "requests_per_s": round(outcome.requests_per_s, 1),
            "p50_us": round(outcome.p50_us, 1), "p99_us": round(outcome.p99_us, 1),
            **{name: round(value / requests, 3) for name, value in used.items()},
            "upstream_us": round(upstream_used["cpu_us"] / requests, 3),
            "rss_kib": memory[0] if memory else 0,
            "requests": outcome.requests,
            "unexpected": outcome.failed + abs(outcome.rejected - rejected),
        }


def medians(results: list[dict], workload: str, proxy: str) -> dict | None:
    """Median of each number over the rounds."""
    rounds = [result for result in results if (result["workload"], result["proxy"]) == (workload, proxy)]
    if not rounds:
        return None
    return {name: statistics.median(result[name] for result in rounds)
            for name, value in rounds[0].items() if isinstance(value, (int, float)) and name != "round"}


def paired_ratio(results: list[dict], ours: tuple[str, str], theirs: tuple[str, str], number: str) -> float | None:
    """Median over the rounds of the ratio within a round, because neighbours in time share the machine's state."""
    def by_round(lane: tuple[str, str]) -> dict:
        return {result["round"]: result[number] for result in results if (result["workload"], result["proxy"]) == lane}

    left, right = by_round(ours), by_round(theirs)
    ratios = [left[number] / right[number] for number in left.keys() & right.keys() if right[number]]
    return statistics.median(ratios) if ratios else None


def growth(results: list[dict], axes: dict, proxies: list[str]) -> list[dict]:
    """CPU time per request along each axis."""
    found = []
    for axis, values in axes.items():
        for proxy in proxies:
            for value, workload in values.items():
                if numbers := medians(results, workload, proxy):
                    found.append({"axis": axis, "value": value, "proxy": proxy, "cpu_us": numbers["cpu_us"],
                                  "requests_per_s": numbers["requests_per_s"], "rss_kib": numbers["rss_kib"]})
    return found


def fetch(port: int, path: str, token: str) -> tuple[int, str]:
    """Status and body of one response."""
    with socket.create_connection(("127.0.0.1", port), START_TIMEOUT) as connection:
        response = message.exchange(connection, message.request(path, token, f"127.0.0.1:{port}"))
    return message.status(response), response.partition(b"\r\n\r\n")[2].decode(errors="replace")


def wait_for_response(port: int, path: str, token: str, program: programs.Program) -> float:
    """Time at which the first proxied response has arrived."""
    request = message.request(path, token, f"127.0.0.1:{port}")
    deadline = time.perf_counter() + START_TIMEOUT
    while time.perf_counter() < deadline and program.process.poll() is None:
        with socket.socket() as connection, contextlib.suppress(OSError):
            connection.connect(("127.0.0.1", port))
            if message.status(message.exchange(connection, request)) == 200:
                return time.perf_counter()
        time.sleep(0.0002)
    program.stop()
    raise programs.Failed(f"no response:\n{program.tail()}")


def start_times(bench: Bench, repetitions: int) -> list[dict]:
    """Time from the start of each proxy to its first proxied response."""
    token = bench.environment.issuer("HS256").token("alice")
    times = {name: [] for name in bench.proxies}
    for _ in range(repetitions):
        for name, proxy in bench.proxies.items():
            began = time.perf_counter()
            running = RunningProxy(proxy, Setup(), bench.environment, {bench.proxy_cpu})
            try:
                times[name].append(wait_for_response(running.port, "/api/alice/tasks", token, running.program) - began)
            finally:
                running.stop()
    return [{"proxy": name, "first_response_ms": round(statistics.median(found) * 1000, 2)}
            for name, found in times.items()]


def memory(bench: Bench, proxy: Proxy, idle_connections: int) -> dict:
    """Resident memory at the start, for each idle and each busy connection, and after all of them are closed."""
    token = bench.environment.issuer("HS256").token("alice")
    found = {"proxy": proxy.name, "idle_connections": idle_connections, "busy_connections": BUSY_CONNECTIONS}
    running = bench.start(proxy, Setup())
    try:
        found["start_kib"] = settled(running.pid)
        found["start_anonymous_kib"] = machine.resident_kib(running.pid, "RssAnon")
        wait_for_response(running.port, "/api/alice/tasks", token, running.program)
        found["first_response_kib"] = start = settled(running.pid)
        with machine.pinned(bench.load_cpus), subprocess.Popen(
            [sys.executable, HERE / "idle.py", *map(str, (running.port, "/api/alice/tasks", token, idle_connections))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as client:
            if client.stdout.readline() != "open\n":
                raise programs.Failed(f"{proxy.name} did not serve {idle_connections} connections:\n{running.program.tail()}")
            found["idle_connection_kib"] = round((settled(running.pid) - start) / idle_connections, 2)
            client.stdin.close()
        found["after_idle_kib"] = settled(running.pid)
    finally:
        running.stop()
    if required_program(Load()):
        return found
    running = bench.start(proxy, Setup())
    try:
        wait_for_response(running.port, "/api/alice/tasks", token, running.program)
        start = settled(running.pid)
        load = Load(connections=BUSY_CONNECTIONS)
        generator = Generator(load, Setup(), bench.environment, bench.load_cpus, BUSY_SECONDS)
        peak = []
        generator.run(running.port, BUSY_SECONDS, lambda: peak.append(machine.resident_kib(running.pid)))
        found["busy_connection_kib"] = round((peak[0] - start) / BUSY_CONNECTIONS, 2)
        found["after_busy_kib"] = settled(running.pid)
    finally:
        running.stop()
    return found


def settled(pid: int) -> int:
    """Resident memory once it no longer changes."""
    previous = -1
    for _ in range(20):
        current = machine.resident_kib(pid)
        if current == previous:
            break
        previous = current
        time.sleep(0.2)
    return previous
