"""The pictures of docs/performance.md as SVG, from the results of a run."""

from charts.bar_chart import Rows, grouped_bars, stacked_bars
from charts.line_chart import Panel, panels
from charts.svg import Picture
from summary import PROXIES, VARIANTS, FastApi, Summary

# Workloads of the picture, with shorter titles than in the tables.
CPU_ROWS = {
    "hs256": "HS256, one token",
    "hs256-1000-tokens": "HS256, 1,000 tokens",
    "rs256-1000-tokens": "RS256, 1,000 tokens",
    "es256-1000-tokens": "ES256, 1,000 tokens",
    "post-16k": "POST of 16 KiB",
    "body-64k": "response of 64 KiB",
    "1000-connections": "1,000 busy connections",
    "new-connections": "new connections",
    "tls": "TLS",
    "tls-h2": "HTTP/2 over TLS",
}
AXES = {"tokens": "tokens in use", "connections": "busy connections", "routes": "routes", "workers": "workers"}


def _cpu(summary: Summary) -> str:
    picture = Picture("CPU time per request", "µs of one proxy on one core, user and system; less is better")
    rows: Rows = []
    for name, title in CPU_ROWS.items():
        values = {proxy: summary.number(name, proxy, "cpu_us") for proxy in PROXIES}
        rows.append((title, {proxy: value for proxy, value in values.items() if value is not None}))
    _legend(picture, [series for _, values in rows for series in values])
    grouped_bars(picture, [row for row in rows if row[1]])
    return picture.svg()


def _memory(summary: Summary) -> str:
    picture = Picture("Memory per connection", "KiB of resident memory for each client connection; less is better")
    titles = {"idle_connection_kib": "idle connection", "busy_connection_kib": "busy connection"}
    rows: Rows = [(title, {proxy: entry[name] for proxy, entry in summary.memory().items() if name in entry})
                  for name, title in titles.items()]
    _legend(picture, [series for _, values in rows for series in values])
    grouped_bars(picture, [row for row in rows if row[1]])
    return picture.svg()


def _growth(summary: Summary) -> str:
    picture = Picture("How the cost grows", "CPU time per request in µs")
    found = []
    for axis, heading in AXES.items():
        lines = summary.growth(axis)
        values = sorted({value for line in lines.values() for value in line})
        series = {proxy: {value: entry["cpu_us"] for value, entry in line.items()}
                  for proxy, line in lines.items() if len(line) == len(values) > 1}
        if series:
            found.append(Panel(heading, values, series))
    _legend(picture, [series for panel in found for series in panel.series])
    picture.height += 12
    panels(picture, found)
    return picture.svg()


def _fastapi(fastapi: FastApi) -> str:
    picture = Picture("FastAPI with its own token check, and behind claimgate",
                      "application and gate share one core; less is better")
    picture.height += 8

    def cpu(variant: str, concurrency: int) -> dict[str, float]:
        values = {program: fastapi.cpu(variant, concurrency, program) for program in ("api", "gate")}
        return {program: value for program, value in values.items() if value}

    latency = [(title, {"time": fastapi.number(variant, 1, "p50_us")}) for variant, title in VARIANTS.items()]
    stacked_bars(picture, "one request at a time: median response time, µs", latency)
    picture.legend({"api": "FastAPI on uvicorn", "gate": "claimgate"})
    stacked_bars(picture, "16 requests at once: CPU time per request, µs",
                 [(title, cpu(variant, 16)) for variant, title in VARIANTS.items()])
    return picture.svg()


def _legend(picture: Picture, present: list[str]):
    picture.legend({proxy: title for proxy, title in PROXIES.items() if proxy in present})


def pictures(summary: Summary, fastapi: FastApi) -> dict[str, str]:
    """File names and contents. A picture without data is left out."""
    found = {}
    if any(summary.number(name, "claimgate", "cpu_us") is not None for name in CPU_ROWS):
        found["cpu.svg"] = _cpu(summary)
    if summary.memory():
        found["memory.svg"] = _memory(summary)
    if any(summary.growth(axis) for axis in AXES):
        found["growth.svg"] = _growth(summary)
    found["fastapi.svg"] = _fastapi(fastapi)
    return found
