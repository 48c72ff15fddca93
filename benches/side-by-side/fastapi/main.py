"""Measures a FastAPI application with its own token checks beside the same application behind claimgate."""

import argparse
import contextlib
import datetime
import http.client
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SIDE_BY_SIDE = HERE.parent
ROOT = SIDE_BY_SIDE.parent.parent
sys.path.append(str(SIDE_BY_SIDE))

import machine  # noqa: E402
import programs  # noqa: E402
from summary import FastApi, busy, cpu_us  # noqa: E402
from variants import OTHER_USER, PATH, USER, VARIANTS, Issuer, Running  # noqa: E402

CONCURRENCY = (1, 16)
WARM_UP_SECONDS = 1
# Time above the duration of the load, for the start and the end of wrk.
GRACE_SECONDS = 30
# Highest ratio of FastAPI behind claimgate over TCP to FastAPI with its own PyJWT check.
BARS = [("p50 one at a time", 1, "p50_us", 0.80), ("CPU time at 16", 16, "cpu_us", 0.88)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/side-by-side/fastapi/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of one second each")
    parser.add_argument("--claimgate", metavar="BINARY", type=pathlib.Path,
                        help="release binary (default: build one)")
    parser.add_argument("--check", action="store_true",
                        help="check that each variant responds to the owner alone, measure nothing")
    parser.add_argument("--rounds", type=int, help="rounds of each variant (default 5)")
    parser.add_argument("--seconds", type=int, help="seconds of each round (default 4)")
    parser.add_argument("--api-cpu", type=int, default=0, help="CPU of the application and the gate (default 0)")
    parser.add_argument("--load-cpu", type=int, default=1, help="CPU of the load (default 1)")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file of the results "
                        "(default: benches/side-by-side/results/run-fastapi-TIME.json)")
    return parser.parse_args()


def build() -> pathlib.Path:
    subprocess.run(["cargo", "build", "--release", "--locked", "--bin", "claimgate"], cwd=ROOT, check=True)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "claimgate"


def status(port: int, token: str | None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=GRACE_SECONDS)) as connection:
        connection.request("GET", PATH, headers=headers)
        response = connection.getresponse()
        body = response.read()
    if response.status == 200 and (len(tasks := json.loads(body)) != 5 or USER not in tasks[0]["title"]):
        sys.exit(f"not a list of five tasks of {USER}: {body!r}")
    return response.status


def check_job(running: Running, issuer: Issuer):
    """Fails unless the variant responds to the owner, and rejects all others if it verifies tokens."""
    variant, algorithm = running.variant, running.variant.algorithm
    forged = issuer.token(algorithm).rpartition(".")[0] + "." + issuer.token(algorithm, OTHER_USER).rpartition(".")[2]
    expected = [(issuer.token(algorithm), 200)]
    if variant.verifies:
        expected += [(issuer.token(algorithm, OTHER_USER), 403), (forged, 401), (issuer.token(algorithm, exp=1), 401),
                     (None, 401)]
    for token, wanted in expected:
        if (found := status(running.port, token)) != wanted:
            outputs = "\n".join(program.tail() for program in running.programs.values())
            sys.exit(f"{variant.name} does not do the job: {found}, expected {wanted}\n{outputs}")


def load(port: int, requests: pathlib.Path, connections: int, seconds: int, cpu: int) -> dict:
    """Sends the request of the file in a closed loop on each connection."""
    clients = SIDE_BY_SIDE / "clients"
    command = ["wrk", "-t", 1, "-c", connections, "-d", seconds, "-s", clients / "requests.lua",
               f"http://127.0.0.1:{port}", "--", requests, "GET", 0, "keep"]
    with machine.pinned({cpu}):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=seconds + GRACE_SECONDS)
    if done.returncode:
        sys.exit(f"wrk failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(running: Running, requests: pathlib.Path, connections: int, number: int, seconds: int, cpu: int) -> dict:
    """One round of one variant."""
    before = {name: machine.cpu_time(program.pid) for name, program in running.programs.items()}
    found = load(running.port, requests, connections, seconds, cpu)
    count = max(found["requests"], 1)
    used = {name: round(machine.cpu_time(program.pid).since(before[name])["cpu_us"] / count, 1)
            for name, program in running.programs.items()}
    return {
        "variant": running.variant.name, "concurrency": connections, "round": number,
        "p50_us": found["p50_us"], "p99_us": found["p99_us"],
        "requests_per_s": round(found["requests"] / found["duration_us"] * 1e6, 1),
        "cpu_us": used, "requests": found["requests"], "unexpected": found["rejected"] + found["failed"],
    }


def bars(fastapi: FastApi) -> list[dict]:
    found = []
    for title, concurrency, name, highest in BARS:
        measured = fastapi.ratio("claimgate-tcp", "pyjwt", concurrency, name)
        found.append({"bar": title, "highest": highest, "measured": round(measured, 3), "met": measured <= highest})
    return found


def table(fastapi: FastApi) -> str:
    """Medians of all rounds."""
    rows = [["", "p50 µs", "CPU µs: api", "gate", "requests/s", "CPU µs: api", "gate", "total"]]
    for variant in VARIANTS:
        numbers = [
            fastapi.number(variant.name, 1, "p50_us"), fastapi.cpu(variant.name, 1, "api"),
            fastapi.cpu(variant.name, 1, "gate"), fastapi.number(variant.name, 16, "requests_per_s"),
            fastapi.cpu(variant.name, 16, "api"), fastapi.cpu(variant.name, 16, "gate"), fastapi.cpu(variant.name, 16),
        ]
        rows.append([variant.name, *(f"{value:,.0f}" for value in numbers)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    title = "one at a time".rjust(sum(widths[:4]) + 6) + "16 at once".rjust(sum(widths[4:]) + 8)
    return "\n".join([title, *lines])


def check(options: argparse.Namespace, claimgate: pathlib.Path, directory: pathlib.Path):
    """Checks the job of each variant without any load."""
    with contextlib.ExitStack() as stack:
        issuer = Issuer()
        stack.callback(issuer.stop)
        for variant in VARIANTS:
            running = Running(variant, issuer, claimgate, directory / variant.name, options.api_cpu)
            stack.callback(running.stop)
            check_job(running, issuer)
            print(f"{variant.name} does the job")


def run(options: argparse.Namespace, claimgate: pathlib.Path, directory: pathlib.Path) -> dict:
    rounds = options.rounds or (1 if options.quick else 5)
    seconds = options.seconds or (1 if options.quick else 4)
    found = {
        "machine": machine.describe(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "versions": {"claimgate": programs.version([claimgate, "--version"]), "Python": platform.python_version()}
                    | {name: importlib.metadata.version(name) for name in ("FastAPI", "uvicorn", "PyJWT")},
        "rounds": rounds, "seconds": seconds, "results": [], "bars": [],
    }
    with contextlib.ExitStack() as stack:
        issuer = Issuer()
        stack.callback(issuer.stop)
        lanes = []
        for variant in VARIANTS:
            running = Running(variant, issuer, claimgate, directory / variant.name, options.api_cpu)
            stack.callback(running.stop)
            check_job(running, issuer)
            requests = directory / f"{variant.name}.requests"
            requests.write_text(f"{PATH} {issuer.token(variant.algorithm)}\n")
            load(running.port, requests, max(CONCURRENCY), WARM_UP_SECONDS, options.load_cpu)
            lanes.append((running, requests))
        for concurrency in CONCURRENCY:
            for number in range(1, rounds + 1):
                for running, requests in lanes:
                    result = measure(running, requests, concurrency, number, seconds, options.load_cpu)
                    found["results"].append(result)
                    problem = f"  {result['unexpected']:,} UNEXPECTED RESPONSES" if result["unexpected"] else ""
                    print(f"{result['variant']:<15} {concurrency:>2} at once  round {number}"
                          f"  {result['requests_per_s']:>7,.0f}/s  p50 {result['p50_us']:>6,.0f} µs"
                          f"  CPU {cpu_us(result):>5.0f} µs{problem}", file=sys.stderr)
    found["bars"] = bars(FastApi(found))
    return found


def main():
    options = arguments()
    available = os.sched_getaffinity(0)
    if not {options.api_cpu, options.load_cpu} <= available or options.api_cpu == options.load_cpu:
        sys.exit(f"needs two CPUs, one for the application and one for the load; available: {sorted(available)}")
    if not options.check and not programs.find("wrk"):
        sys.exit("wrk is missing: apt-get install wrk")
    claimgate = (options.claimgate or build()).resolve()
    if not os.access(claimgate, os.X_OK):
        sys.exit(f"no executable at {claimgate}")
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as directory:
        if options.check:
            check(options, claimgate, pathlib.Path(directory))
            return
        found = run(options, claimgate, pathlib.Path(directory))
    print(table(FastApi(found)))
    print("\nFastAPI behind claimgate / FastAPI with its own PyJWT check")
    for bar in found["bars"]:
        print(f"{bar['bar']:<18} {bar['measured']:.2f}, bar {bar['highest']:.2f}: {'met' if bar['met'] else 'MISSED'}")
    if warning := busy(found):
        print(f"\n{warning}")
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    output = options.output or SIDE_BY_SIDE / "results" / f"run-fastapi-{time}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\nresults: {output}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
