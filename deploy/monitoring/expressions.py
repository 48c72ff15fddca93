#!/usr/bin/env python3
"""Writes every expression of a Grafana dashboard as a recording rule, so that promtool can parse them.

    deploy/monitoring/expressions.py deploy/monitoring/dashboard.json
"""

import json
import sys


def expressions(panels):
    """Yields the expressions of all panels, including panels in rows."""
    for panel in panels:
        yield from expressions(panel.get("panels", []))
        for target in panel.get("targets", []):
            yield target["expr"]


def main():
    with open(sys.argv[1], encoding="utf-8") as source:
        found = list(expressions(json.load(source)["panels"]))
    if not found:
        sys.exit("the dashboard has no expression")
    rules = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m")}
        for number, text in enumerate(found)
    ]
    # JSON is valid YAML.
    json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, sys.stdout)


if __name__ == "__main__":
    main()
