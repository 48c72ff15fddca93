"""The machine: CPUs, limits, and the kernel's accounting of processes."""

import contextlib
import os
import pathlib
import platform
import resource
from dataclasses import dataclass

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
# Ticks by which two exact readings may differ from the kernel's rounded ones.
MAX_ROUNDING = 3


@dataclass(frozen=True)
class CpuTime:
    """CPU time. The run time of the threads is exact to a nanosecond, but an ended thread takes its own with it: then the
    total comes from the ticks, which count ended threads. User and system time share the total by ticks."""

    threads: dict[str, float]
    user_ticks: int
    system_ticks: int

    def since(self, earlier: "CpuTime") -> dict:
        user, system = self.user_ticks - earlier.user_ticks, self.system_ticks - earlier.system_ticks
        total = sum(self.threads.values()) - sum(earlier.threads.values())
        ticks = (user + system) * TICK_US
        if abs(ticks - total) > MAX_ROUNDING * TICK_US:
            total = ticks
        share = user / (user + system) if user + system else 0.0
        return {"cpu_us": total, "user_us": total * share, "sys_us": total * (1 - share)}


def process_tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for parent in found:
        for children in pathlib.Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, children.read_text().split())
    return found


def cpu_time(pid: int) -> CpuTime:
    """CPU time of a process tree until now."""
    threads, user, system = {}, 0, 0
    for process in process_tree(pid):
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        user, system = user + int(fields[11]), system + int(fields[12])
        threads |= _scheduled_us(process)
    return CpuTime(threads, user, system)


def _scheduled_us(pid: int) -> dict[str, float]:
    """Run time of each thread in microseconds; empty on a kernel without scheduler statistics."""
    found = {}
    for thread in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            found[thread.parent.name] = int(thread.read_text().split()[0]) / 1000
    return found if any(found.values()) else {}


def resident_kib(pid: int, kind: str = "VmRSS") -> int:
    """Resident memory of a process tree; `RssAnon` is the part without mapped files, such as the program itself."""
    lines = [line for process in process_tree(pid)
             for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))


@contextlib.contextmanager
def pinned(cpus: set[int]):
    """Programs started inside run on these CPUs only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> int:
    """Raises the limit of open files to the highest that the system allows, and returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def describe() -> dict:
    model = next((line.partition(":")[2].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    memory = next(int(line.split()[1]) for line in pathlib.Path("/proc/meminfo").read_text().splitlines()
                  if line.startswith("MemTotal:"))
    return {
        "cpu": model, "cpus": os.cpu_count(), "memory_gib": round(memory / 1024**2),
        "kernel": platform.release(), "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "load_average": os.getloadavg()[0],
    }
