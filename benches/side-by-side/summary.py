"""Numbers of a finished run: medians over its rounds, and ratios."""

import statistics

from measure import medians, paired_ratio
from workloads import WORKLOADS

# Titles of the proxies. Results of other builds are left out.
PROXIES = {
    "claimgate": "claimgate",
    "haproxy": "HAProxy",
    "envoy": "Envoy",
    "nginx": "nginx, no authentication",
    "caddy": "Caddy, no authentication",
}

# Titles of the variants of the FastAPI application.
VARIANTS = {
    "bare": "no check",
    "pyjwt": "PyJWT, HS256",
    "jwks": "PyJWKClient, EdDSA",
    "claimgate-tcp": "behind claimgate",
    "claimgate-unix": "… on a Unix socket",
}

# Load average above which other work disturbs a run.
QUIET_LOAD = 0.5


class Summary:
    """A run of the proxies."""

    def __init__(self, report: dict):
        self.report = report

    def workloads(self) -> list[str]:
        """Measured workloads in the order of their declaration."""
        measured = {result["workload"] for result in self.report["results"]}
        return [name for name in WORKLOADS if name in measured]

    def number(self, workload: str, proxy: str, name: str) -> float | None:
        found = medians(self.report["results"], workload, proxy)
        return found[name] if found else None

    def ratio(self, workload: str, name: str = "cpu_us") -> float | None:
        """Ratio of claimgate to the HAProxy rounds beside it."""
        reference = WORKLOADS[workload].reference
        return paired_ratio(self.report["results"], (workload, "claimgate"), (reference, "haproxy"), name)

    def memory(self) -> dict[str, dict]:
        return self._by_proxy(self.report["memory"])

    def start_ms(self) -> dict[str, float]:
        return {proxy: entry["first_response_ms"] for proxy, entry in self._by_proxy(self.report["start"]).items()}

    def growth(self, axis: str) -> dict[str, dict[int, dict]]:
        """Entry of each proxy for each value of the axis."""
        found = {}
        for proxy in PROXIES:
            entries = [entry for entry in self.report["growth"] if (entry["axis"], entry["proxy"]) == (axis, proxy)]
            if entries:
                found[proxy] = {entry["value"]: entry for entry in entries}
        return found

    def instructions(self) -> int | None:
        """User instructions of claimgate per request, without the digest of the token."""
        entry = self._by_proxy(self.report["instructions"]).get("claimgate")
        return entry["net"] if entry else None

    @staticmethod
    def _by_proxy(entries: list[dict]) -> dict[str, dict]:
        return {proxy: entry for proxy in PROXIES for entry in entries if entry["proxy"] == proxy}


class FastApi:
    """A run of the FastAPI application."""

    def __init__(self, report: dict):
        self.report = report

    def _rounds(self, variant: str, concurrency: int) -> dict[int, dict]:
        return {result["round"]: result for result in self.report["results"]
                if (result["variant"], result["concurrency"]) == (variant, concurrency)}

    def number(self, variant: str, concurrency: int, name: str) -> float:
        return statistics.median(result[name] for result in self._rounds(variant, concurrency).values())

    def cpu(self, variant: str, concurrency: int, program: str | None = None) -> float:
        """CPU time per request of one program, or of all."""
        return statistics.median(cpu_us(result, program) for result in self._rounds(variant, concurrency).values())

    def ratio(self, variant: str, reference: str, concurrency: int, name: str) -> float:
        """Median of the ratios within each round, because neighbours in time share the machine's state. The name is that
        of a number, or `cpu_us` for the CPU time of all programs."""
        def value(result: dict) -> float:
            return cpu_us(result) if name == "cpu_us" else result[name]

        ours, theirs = self._rounds(variant, concurrency), self._rounds(reference, concurrency)
        return statistics.median(value(ours[number]) / value(theirs[number]) for number in ours.keys() & theirs.keys())


def cpu_us(result: dict, program: str | None = None) -> float:
    """CPU time per request of one program, or of all."""
    return result["cpu_us"].get(program, 0.0) if program else sum(result["cpu_us"].values())


def busy(report: dict) -> str:
    """Warning about a run on a busy machine, or nothing."""
    load = report["machine"]["load_average"]
    if load <= QUIET_LOAD:
        return ""
    return (f"Preliminary: the machine was busy with other work (load average {load:.1f} at the start). Response times and "
            "rates of the rows do not compare, and CPU times are too high.")
