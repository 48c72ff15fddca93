"""Results of a suite."""

import concurrent.futures
import dataclasses


@dataclasses.dataclass
class Result:
    """One case: its section and name, and what happened if it failed."""

    name: str
    failure: str = ""
    number: float | None = None


@dataclasses.dataclass
class Suite:
    """Row of the table."""

    title: str
    results: list[Result]
    allowed: int = 0
    measured: str = ""
    bar: str = ""

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if result.failure]

    @property
    def holds(self) -> bool:
        return bool(self.results) and len(self.failed) <= self.allowed


def run_all(cases, check, threads: int = 12) -> list[Result]:
    """Runs `check(case)`, which returns a failure text or nothing, for every `(name, …)` case in parallel."""

    def one(case) -> Result:
        try:
            return Result(case[0], check(case) or "")
        except Exception as error:  # a broken case is a failed case, and the others still run
            return Result(case[0], f"{type(error).__name__}: {error}")

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, cases))
