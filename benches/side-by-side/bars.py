"""The bars: how claimgate has to compare, and whether it does."""

from dataclasses import dataclass

from measure import paired_ratio


@dataclass(frozen=True)
class Bar:
    """Highest accepted ratio of one number between a workload of claimgate and a lane of reference."""

    title: str
    workload: str
    against: tuple[str, str]  # workload and proxy; "" stands for the same build of claimgate
    highest: float
    number: str = "cpu_us"


def _haproxy(title: str, workload: str, highest: float, reference: str | None = None) -> Bar:
    return Bar(title, workload, (reference or workload, "haproxy"), highest)


RATIOS = [
    _haproxy("HS256, one token", "hs256", 0.76),
    _haproxy("… with the default access log, HAProxy without a log", "access-log", 0.84, "hs256"),
    _haproxy("… upstream on a Unix socket, HAProxy over TCP", "unix-socket", 0.64, "hs256"),
    Bar("… against nginx without authentication", "hs256", ("hs256", "nginx"), 1.05),
    _haproxy("HS256, 1,000 tokens", "hs256-1000-tokens", 0.82),
    _haproxy("1,000 busy connections", "1000-connections", 0.92),
    _haproxy("a new connection per request", "new-connections", 0.97),
    _haproxy("response body of 64 KiB", "body-64k", 0.80),
    _haproxy("response body of 1 MiB", "body-1m", 0.60),
    _haproxy("POST of 16 KiB", "post-16k", 0.65),
    Bar("protected over public route, CPU time", "hs256", ("public", ""), 1.05),
    Bar("protected over public route, p50", "hs256", ("public", ""), 1.05, "p50_us"),
    _haproxy("TLS, kept connections", "tls", 0.80),
    _haproxy("HTTP/2 over TLS, 16 streams", "tls-h2", 0.80),
    _haproxy("HTTP/2 without TLS, 16 streams", "h2c", 0.80),
    _haproxy("TLS, a new connection per request", "tls-new-connections", 0.64),
    _haproxy("3,000 requests/s", "paced", 0.80),
]

# Highest memory in KiB.
MEMORY = [
    ("memory of an idle connection, KiB", "idle_connection_kib", 12),
    ("memory of a busy connection, KiB", "busy_connection_kib", 35),
    ("memory at the start, KiB", "start_kib", 8 * 1024),
]

HIGHEST_INSTRUCTIONS = 36_000


def lanes() -> dict[str, set[str]]:
    """The workloads that the bars need, each with its proxies."""
    needed = {}
    for bar in RATIOS:
        needed.setdefault(bar.workload, set()).add("claimgate")
        workload, proxy = bar.against
        needed.setdefault(workload, set()).add(proxy or "claimgate")
    return needed


def evaluate(report: dict, labels: list[str]) -> list[dict]:
    """Each bar that the run measured, for each build of claimgate."""
    found = []

    def add(title: str, build: str, highest: float, measured: float | None):
        if measured is not None:
            found.append({"bar": title, "proxy": build, "highest": highest, "measured": round(measured, 3),
                          "met": measured <= highest})

    for build in labels:
        for entry in report.get("instructions", []):
            if entry["proxy"] == build:
                add("user instructions per request, without the digest", build, HIGHEST_INSTRUCTIONS, entry["net"])
        for bar in RATIOS:
            workload, proxy = bar.against
            measured = paired_ratio(report["results"], (bar.workload, build), (workload, proxy or build), bar.number)
            add(bar.title, build, bar.highest, measured)
        for entry in report["memory"]:
            if entry["proxy"] == build:
                for title, number, highest in MEMORY:
                    add(title, build, highest, entry.get(number))
    return found
