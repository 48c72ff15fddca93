"""The generated parts of docs/performance.md as Markdown."""

import re
import textwrap

from summary import PROXIES, VARIANTS, FastApi, Summary, busy
from workloads import DIRECT, GROWTH, WORKLOADS

# Workloads at a fixed rate have their own table.
PACED = ("paced", "paced-public", "paced-unix-socket")
# Workloads that only show growth.
GROWTH_ONLY = {name for values in GROWTH.values() for name in values.values()} - {
    "hs256", "hs256-1000-tokens", "1000-connections"}
HEADINGS = {"nginx": "nginx *", "caddy": "Caddy *"}


def _table(headings: list[str], rows: list[list[str]]) -> str:
    """First column left, the others right."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(value: float | None, form: str = "{:,.1f}") -> str:
    return "–" if value is None else form.format(value)


def _proxies(summary: Summary) -> list[str]:
    measured = {result["proxy"] for result in summary.report["results"]}
    return [proxy for proxy in PROXIES if proxy in measured]


def _heading(proxy: str) -> str:
    return HEADINGS.get(proxy, PROXIES[proxy])


def _steady(summary: Summary) -> list[str]:
    return [name for name in summary.workloads() if name not in PACED and name not in GROWTH_ONLY]


def cpu(summary: Summary) -> str:
    proxies = _proxies(summary)
    rows = []
    for workload in _steady(summary):
        numbers = {proxy: summary.number(workload, proxy, "cpu_us") for proxy in proxies}
        cells = [_cell(value) for value in numbers.values()]
        rows.append([WORKLOADS[workload].title, _cell(summary.ratio(workload), "{:.2f}"), *cells])
    return _table(["CPU time per request, µs", "claimgate / HAProxy", *map(_heading, proxies)], rows)


def throughput(summary: Summary) -> str:
    proxies = _proxies(summary)
    rows = [[WORKLOADS[workload].title,
             *(_cell(summary.number(workload, proxy, "requests_per_s"), "{:,.0f}") for proxy in proxies)]
            for workload in _steady(summary) if not hasattr(WORKLOADS[workload].load, "rate")]
    return _table(["requests/s", *map(_heading, proxies)], rows)


def latency(summary: Summary) -> str:
    direct = summary.number("paced", DIRECT, "p50_us")
    lanes = [("paced", DIRECT, "no proxy")]
    lanes += [("paced", proxy, _heading(proxy)) for proxy in _proxies(summary)]
    lanes += [(workload, "claimgate", f"claimgate, {WORKLOADS[workload].title.removeprefix('… ')}")
              for workload in PACED[1:]]
    rows = []
    for workload, proxy, title in lanes:
        p50, p99 = (summary.number(workload, proxy, name) for name in ("p50_us", "p99_us"))
        if p50 is None:
            continue
        added = p50 - direct if direct is not None and proxy != DIRECT else None
        used = summary.number(workload, proxy, "cpu_us") if proxy != DIRECT else None
        rows.append([title, _cell(p50, "{:,.0f}"), _cell(added, "{:+,.0f}"), _cell(p99, "{:,.0f}"), _cell(used)])
    return _table(["3,000 requests/s", "p50, µs", "added", "p99, µs", "CPU time of the proxy, µs"], rows)


def instructions(summary: Summary) -> str:
    count = summary.instructions()
    return "not counted" if count is None else f"{count:,}"


def memory(summary: Summary) -> str:
    start, entries = summary.start_ms(), summary.memory()
    rows = []
    for proxy, entry in entries.items():
        rows.append([_heading(proxy), _cell(entry["start_kib"] / 1024), _cell(entry["idle_connection_kib"]),
                     _cell(entry.get("busy_connection_kib")), _cell(start.get(proxy))])
    idle, busy = (max((entry[name] for entry in entries.values()), default=0)
                  for name in ("idle_connections", "busy_connections"))
    return f"Resident memory with one worker, {idle:,} idle and {busy:,} busy connections:\n\n" + _table(
        ["", "memory at the start, MiB", "per idle connection, KiB", "per busy connection, KiB",
         "start to first response, ms"], rows)


def growth(summary: Summary) -> str:
    rows = []
    proxies = [proxy for proxy in _proxies(summary) if any(proxy in summary.growth(axis) for axis in GROWTH)]
    for axis in GROWTH:
        lines = summary.growth(axis)
        for value in sorted({value for line in lines.values() for value in line}):
            entries = {proxy: lines.get(proxy, {}).get(value) for proxy in proxies}
            ours = entries.get("claimgate")
            noun = axis.removesuffix("s") if value == 1 else axis
            rows.append([f"{value:,} {noun}", *(_cell(entry and entry["cpu_us"]) for entry in entries.values()),
                         _cell(ours and ours["requests_per_s"], "{:,.0f}"), _cell(ours and ours["rss_kib"] / 1024)])
    return _table(["CPU time per request, µs", *map(_heading, proxies), "requests/s of claimgate",
                   "memory of claimgate, MiB"], rows)


def fastapi(application: FastApi) -> str:
    rows = []
    for variant, title in VARIANTS.items():
        alone = application.number(variant, 1, "p50_us")
        cells = [f"{alone:,.0f}"]
        for concurrency in (1, 16):
            gate = application.cpu(variant, concurrency, "gate")
            cells.append(f"{application.cpu(variant, concurrency, 'api'):,.0f}" + (f" + {gate:,.0f}" if gate else ""))
        rows.append([title, cells[0], cells[1], f"{application.number(variant, 16, 'requests_per_s'):,.0f}", cells[2]])
    return _table(["", "one at a time: p50, µs", "CPU time, µs", "16 at once: requests/s", "CPU time, µs"], rows)


def fastapi_ratios(application: FastApi) -> str:
    rows = []
    for variant, title in (("claimgate-tcp", "behind claimgate"), ("claimgate-unix", "behind claimgate on a Unix socket")):
        for reference, check in (("pyjwt", "PyJWT check"), ("jwks", "PyJWKClient check")):
            values = [application.ratio(variant, reference, concurrency, name)
                      for concurrency, name in ((1, "p50_us"), (1, "cpu_us"), (16, "requests_per_s"), (16, "cpu_us"))]
            rows.append([f"{title} / {check}", *(f"{value:.2f}" for value in values)])
    return _table(["ratio", "one at a time: p50", "CPU time", "16 at once: requests/s", "CPU time"], rows)


def _machine(report: dict) -> str:
    """The machine, the programs and the rounds of a run, as wrapped prose."""
    machine = report["machine"]
    version = {name: re.search(r"\d+\.\d+(\.\d+)?", text) for name, text in report["versions"].items()}
    programs = ", ".join(f"{PROXIES.get(name, name).partition(',')[0]} {found[0]}"
                         for name, found in version.items() if found)
    rounds = "1 round" if report["rounds"] == 1 else f"{report['rounds']} rounds"
    kernel = ".".join(machine["kernel"].split(".")[:2])
    text = (f"Measured on {report['date']} on {machine['cpu']} with {machine['cpus']} CPUs and {machine['memory_gib']} GiB, "
            f"{machine['system']}, Linux {kernel}: medians of {rounds} of {report['seconds']} s. {programs}.")
    if warning := busy(report):
        text += f" **{warning}**"
    return textwrap.fill(text, 120, break_on_hyphens=False)


def parts(summary: Summary, application: FastApi) -> dict[str, str]:
    """Name and text of each generated part."""
    return {
        "machine": _machine(summary.report), "cpu": cpu(summary), "instructions": instructions(summary),
        "throughput": throughput(summary), "latency": latency(summary), "memory": memory(summary),
        "growth": growth(summary), "fastapi-machine": _machine(application.report), "fastapi": fastapi(application),
        "fastapi-ratios": fastapi_ratios(application),
    }
