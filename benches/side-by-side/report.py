"""Tables of a run, for a terminal."""

from measure import medians, paired_ratio
from workloads import WORKLOADS

# Heading, number, format.
COLUMNS = [
    ("requests/s", "requests_per_s", "{:,.0f}"),
    ("p50 µs", "p50_us", "{:,.0f}"),
    ("p99 µs", "p99_us", "{:,.0f}"),
    ("CPU µs", "cpu_us", "{:.1f}"),
    ("user", "user_us", "{:.1f}"),
    ("sys", "sys_us", "{:.1f}"),
    ("upstream", "upstream_us", "{:.1f}"),
    ("RSS MiB", "rss_kib", "{:.1f}"),
]


def table(headings: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their longest cell, the first one aligned to the left."""
    widths = [max(len(row[place]) for row in (headings, *rows)) for place in range(len(headings))]
    lines = []
    for row in (headings, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def workload_table(results: list[dict], name: str) -> str:
    """Medians of each proxy, each with its ratio to HAProxy in brackets."""
    workload = WORKLOADS[name]
    proxies = dict.fromkeys(result["proxy"] for result in results if result["workload"] == name)
    rows = []
    for proxy in proxies:
        numbers, row = medians(results, name, proxy), [proxy]
        for _, number, form in COLUMNS:
            value = numbers[number] / 1024 if number == "rss_kib" else numbers[number]
            ratio = paired_ratio(results, (name, proxy), (workload.reference, "haproxy"), number)
            row.append(form.format(value) + (f" ({ratio:.2f})" if ratio is not None else ""))
        rows.append(row)
    unexpected = sum(result["unexpected"] for result in results if result["workload"] == name)
    note = f"\nUNEXPECTED RESPONSES: {unexpected:,}" if unexpected else ""
    return f"{workload.title} [{name}]\n" + table(["", *(heading for heading, _, _ in COLUMNS)], rows) + note


def growth_table(growth: list[dict]) -> str:
    rows = [[f"{entry['value']:,} {entry['axis']}", entry["proxy"], f"{entry['cpu_us']:.1f}",
             f"{entry['requests_per_s']:,.0f}", f"{entry['rss_kib'] / 1024:.1f}"] for entry in growth]
    return "Growth\n" + table(["", "proxy", "CPU µs", "requests/s", "RSS MiB"], rows)


def memory_table(memory: list[dict]) -> str:
    columns = [("start MiB", "start_kib", 1024), ("anonymous", "start_anonymous_kib", 1024),
               ("first response", "first_response_kib", 1024), ("idle connection KiB", "idle_connection_kib", 1),
               ("after them MiB", "after_idle_kib", 1024), ("busy connection KiB", "busy_connection_kib", 1),
               ("after them MiB", "after_busy_kib", 1024)]
    rows = []
    for entry in memory:
        cells = (f"{entry[number] / unit:.1f}" if number in entry else "-" for _, number, unit in columns)
        rows.append([entry["proxy"], *cells])
    return "Memory\n" + table(["", *(heading for heading, _, _ in columns)], rows)


def start_table(start: list[dict]) -> str:
    rows = [[entry["proxy"], f"{entry['first_response_ms']:.1f}"] for entry in start]
    return "Start to first proxied response\n" + table(["", "ms"], rows)


def instruction_table(instructions: list[dict]) -> str:
    rows = [[entry["proxy"], f"{entry['total']:,}", f"{entry['digest']:,}", f"{entry['net']:,}"]
            for entry in instructions]
    return "User instructions per request\n" + table(["", "all", "digest", "net"], rows)


def bar_table(bars: list[dict]) -> str:
    rows = [[entry["bar"], entry["proxy"], f"{entry['measured']:,.10g}", f"{entry['highest']:,}",
             "met" if entry["met"] else "MISSED"] for entry in bars]
    return "Bars\n" + table(["", "build", "measured", "bar", ""], rows)


def tables(report: dict) -> str:
    results = report["results"]
    parts = [workload_table(results, name) for name in dict.fromkeys(result["workload"] for result in results)]
    for name, make in (("growth", growth_table), ("memory", memory_table), ("start", start_table),
                       ("instructions", instruction_table), ("bars", bar_table)):
        if report[name]:
            parts.append(make(report[name]))
    return "\n\n".join(parts)
