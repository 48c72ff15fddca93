"""Attack and conformance suites of `tests/wild/scores`, with the standard library of Python alone."""
