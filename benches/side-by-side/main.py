"""Measures claimgate beside other proxies that do the same job. See README.md."""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import bars
import instructions
import machine
import measure
import programs
import report
from proxies import Certificate, Claimgate, Environment, Proxy, Setup, installed
from upstream import Upstream
from workloads import GROWTH, WORKLOADS, Workload

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Parts of a run beside the workloads.
MEMORY, START, INSTRUCTIONS = PARTS = ("memory", "start", "instructions")
STARTS = 10
# The limit of open files must leave room for the other descriptors of a proxy.
SPARE_FILES = 1000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/side-by-side/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of one second each, fewer idle connections")
    parser.add_argument("--bars", action="store_true", help="only what the bars need")
    parser.add_argument("--only", metavar="NAME", action="append", default=[],
                        help="a workload, or one of " + ", ".join(PARTS) + "; repeatable, or a list with commas")
    parser.add_argument("--proxies", metavar="A,B", help="only these; claimgate means all of its builds")
    parser.add_argument("--claimgate", metavar="[LABEL=]BINARY", action="append", default=[],
                        help="release binary; repeatable with labels, to compare builds (default: build one)")
    parser.add_argument("--rounds", type=int, help="rounds of each workload (default 3)")
    parser.add_argument("--seconds", type=int, help="seconds of each round (default 2)")
    parser.add_argument("--proxy-cpu", type=int, default=0, help="CPU of the proxy (default 0)")
    parser.add_argument("--load-cpu", type=int, default=1, help="CPU of the load and the upstream (default 1)")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file of the results (default: results/run-TIME.json)")
    parser.add_argument("--check", action="store_true", help="check the configurations of all proxies, measure nothing")
    parser.add_argument("--list", action="store_true", help="list the workloads, measure nothing")
    return parser.parse_args()


def builds(written: list[str]) -> list[Claimgate]:
    """The builds of claimgate; without any, builds one."""
    found = []
    for text in written:
        label, separator, path = text.rpartition("=")
        found.append(Claimgate(pathlib.Path(path).resolve(), label if separator else "claimgate"))
    if not written:
        subprocess.run(["cargo", "build", "--release", "--locked", "--bin", "claimgate"], cwd=ROOT, check=True)
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        found.append(Claimgate(target / "release" / "claimgate", "claimgate"))
    for gate in found:
        if not os.access(gate.executable, os.X_OK):
            sys.exit(f"no executable at {gate.executable}")
    if len({gate.name for gate in found}) < len(found):
        sys.exit("several builds need different labels: --claimgate old=PATH --claimgate new=PATH")
    return found


def selection(options: argparse.Namespace) -> tuple[list[Workload], set[str]]:
    """The workloads and the other parts of the run."""
    names = [name for text in options.only for name in text.split(",")]
    if unknown := [name for name in names if name not in WORKLOADS and name not in PARTS]:
        sys.exit(f"unknown workload {', '.join(unknown)}; known: {', '.join((*WORKLOADS, *PARTS))}")
    if names:
        return [WORKLOADS[name] for name in names if name in WORKLOADS], set(names) & set(PARTS)
    if options.bars:
        return [WORKLOADS[name] for name in bars.lanes()], {MEMORY, INSTRUCTIONS}
    return list(WORKLOADS.values()), set(PARTS)


def selected_proxies(options: argparse.Namespace, gates: list[Claimgate]) -> list[Proxy]:
    """The builds of claimgate and the installed peers, as far as the options select them."""
    proxies = [*gates, *installed()]
    wanted = set(options.proxies.split(",")) if options.proxies else {"claimgate", *(proxy.name for proxy in proxies)}
    if options.bars:
        wanted &= set().union(*bars.lanes().values())
    return [proxy for proxy in proxies
            if proxy.name in wanted or (isinstance(proxy, Claimgate) and "claimgate" in wanted)]


def groups(workloads: list[Workload]) -> list[list[Workload]]:
    """Workloads with the same reference: their rounds take turns."""
    found = {}
    for workload in workloads:
        found.setdefault(workload.reference, []).append(workload)
    return list(found.values())


def check_configurations(proxies: list[Proxy], environment: Environment) -> int:
    """Fails unless each proxy accepts its configuration of each workload, and returns their number."""
    checked = 0
    for setup in dict.fromkeys(workload.setup for workload in WORKLOADS.values()):
        for proxy in proxies:
            if not proxy.supports(setup):
                continue
            directory = environment.directory / f"check-{checked}"
            directory.mkdir()
            command = proxy.command(setup, environment, directory, programs.free_port())
            result = subprocess.run(list(map(str, proxy.check(command))), cwd=directory, capture_output=True, text=True)
            if result.returncode:
                sys.exit(f"{proxy.name} rejects its configuration for {setup}:\n{result.stdout}{result.stderr}")
            checked += 1
    return checked


def check_job(bench: measure.Bench):
    """Fails unless each verifying proxy forwards the owner with `X-User-Id` and rejects all other requests."""
    issuer = bench.environment.issuer("HS256")
    path = "/api/alice/identity"
    for proxy in bench.proxies.values():
        if not proxy.verifies:
            continue
        running = bench.start(proxy, Setup())
        try:
            for token, expected in ((issuer.token("alice"), 200), (issuer.token("bob"), 403),
                                    (issuer.forged("alice"), 401), ("", 401)):
                status, body = measure.fetch(running.port, path, token)
                if status != expected or (expected == 200 and body.strip() != "alice"):
                    sys.exit(f"{proxy.name} does not do the job: {status} {body!r}, expected {expected}")
        finally:
            running.stop()


@contextlib.contextmanager
def reported(found: dict):
    """Keeps a failed measurement from ending the run, which shows it at the end."""
    try:
        yield
    except programs.Failed as failure:
        print(failure, file=sys.stderr)
        found["failures"].append(str(failure))


def progress(result: dict):
    unexpected = f"  {result['unexpected']:,} UNEXPECTED RESPONSES" if result["unexpected"] else ""
    print(f"{result['workload']:<22} round {result['round']}  {result['proxy']:<12} {result['requests_per_s']:>10,.0f}/s"
          f"  p50 {result['p50_us']:>8,.0f} µs  CPU {result['cpu_us']:>7.1f} µs{unexpected}", file=sys.stderr)


def run(options: argparse.Namespace, gates: list[Claimgate], directory: pathlib.Path) -> dict:
    rounds = options.rounds or (1 if options.quick else 3)
    seconds = options.seconds or (1 if options.quick else 2)
    workloads, parts = selection(options)
    proxies = selected_proxies(options, gates)
    labels = [proxy.name for proxy in proxies if isinstance(proxy, Claimgate)]
    upstream = Upstream(directory)
    environment = Environment(directory, upstream, Certificate.create(directory), {})
    try:
        upstream.start({options.load_cpu})
        bench = measure.Bench(proxies, labels, environment, options.proxy_cpu, {options.load_cpu}, rounds, seconds)
        found = {
            "machine": machine.describe(),
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            "versions": {proxy.name: proxy.version() for proxy in proxies},
            "rounds": rounds, "seconds": seconds,
            "results": [], "growth": [], "memory": [], "start": [], "instructions": [], "bars": [], "failures": [],
        }
        check_job(bench)
        for group in groups(workloads):
            with reported(found):
                for result in bench.measure(group, bars.lanes() if options.bars else None):
                    progress(result)
                    found["results"].append(result)
        if not options.bars and not options.only:
            found["growth"] = measure.growth(found["results"], GROWTH, [*labels, "haproxy", "envoy"])
        if MEMORY in parts:
            idle = 1000 if options.quick else min(measure.IDLE_CONNECTIONS, machine.raise_file_limit() - SPARE_FILES)
            for proxy in proxies:
                if options.bars and not isinstance(proxy, Claimgate):
                    continue
                with reported(found):
                    found["memory"].append(measure.memory(bench, proxy, idle))
                    print(f"memory of {proxy.name}: {found['memory'][-1]}", file=sys.stderr)
        if START in parts:
            with reported(found):
                found["start"] = measure.start_times(bench, 3 if options.quick else STARTS)
        if INSTRUCTIONS in parts:
            if programs.find("valgrind"):
                with reported(found):
                    found["instructions"] = [instructions.count(bench, gate) for gate in gates if gate in proxies]
            else:
                print("skipped the instructions: valgrind is missing", file=sys.stderr)
        found["bars"] = bars.evaluate(found, labels)
        return found
    finally:
        upstream.stop()


def main():
    options = arguments()
    if options.list:
        for workload in WORKLOADS.values():
            print(f"{workload.name:<20} {workload.title}")
        return
    if options.check:
        with tempfile.TemporaryDirectory(prefix="side-by-side-") as name:
            directory = pathlib.Path(name)
            environment = Environment(directory, Upstream(directory), Certificate.create(directory), {})
            proxies = selected_proxies(options, builds(options.claimgate))
            print(f"{check_configurations(proxies, environment)} configurations are valid")
        return
    available = os.sched_getaffinity(0)
    if not {options.proxy_cpu, options.load_cpu} <= available or options.proxy_cpu == options.load_cpu:
        sys.exit(f"needs two CPUs, one for the proxy and one for the load; available: {sorted(available)}")
    for name in ("nginx", "openssl"):
        if not programs.find(name):
            sys.exit(f"{name} is missing; README.md lists the packages")
    machine.raise_file_limit()
    gates = builds(options.claimgate)
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as directory:
        # nginx as a worker without privileges must enter it.
        pathlib.Path(directory).chmod(0o711)
        found = run(options, gates, pathlib.Path(directory))
    print(report.tables(found))
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    output = options.output or HERE / "results" / f"run-{time}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\nresults: {output}")
    if found["failures"]:
        sys.exit("\n".join(("failed measurements:", *found["failures"])))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
