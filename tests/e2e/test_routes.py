"""Routes of the gate in front of web frameworks: targets that a framework routes to one handler with the same parameters
get the same decision, or are rejected as a path.

The routers run in this process (Express in Node), without their servers: Starlette, Flask (Werkzeug), Django, Express. The
tables and the targets are random with fixed seeds.
"""

import http.client
import itertools
import json
import os
import pathlib
import random
import subprocess
from urllib.parse import unquote

import pytest
from django.conf import settings
from django.urls import Resolver404, path
from django.urls.resolvers import RegexPattern, URLResolver
from starlette.routing import Match, Route
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, RequestRedirect, Rule

from gate import CONFIGURATION, SECRET, running_gate, sign_token
from programs import NODE

TABLES = 8
# Words, each in several spellings of it.
WORDS = [
    ["admin", "Admin", "ADMIN", "admin;x", "admin;", "admin%3Bx"],
    ["tasks:purge", "tasks%3Apurge", "tasks%3apurge", "TASKS:purge"],
    ["%C3%B6l", "%c3%b6l", "%C3%96l", "%C3%B6L"],
    ["1", "01", "001", "%D9%A1", "1.0"],
    ["@me", "%40me", "@ME"],
    ["other", "OTHER", "other;y"],
]
ACCESS = [
    'access = "public"',
    'access = "authenticated"',
    'access = "authenticated"\nrequire = [{ claim = "role", has = "admin" }]',
]
# Statuses of paths that the gate does not serve in this spelling.
REJECTED = {400, 404, 405}

settings.configure(ROOT_URLCONF=[])


def targets() -> list[str]:
    spellings = list(itertools.chain(*WORDS))
    chosen = random.Random(1)
    of_three = [[chosen.choice(spellings) for _ in range(3)] for _ in range(500)]
    paths = [[one] for one in spellings] + [list(two) for two in itertools.product(spellings, repeat=2)] + of_three
    return ["/" + "/".join(segments) + end for segments in paths for end in ("", "/")]


TARGETS = targets()


def random_pattern(chosen: random.Random) -> list[str]:
    """Segments: a word, `{}` for a parameter, `{int}` for an integer in the API, `{*}` for the rest."""
    segments = [chosen.choice([word[0] for word in WORDS] + ["{}"] * 3 + ["{int}"]) for _ in range(chosen.randint(1, 3))]
    if chosen.random() < 0.2:
        segments[-1] = "{*}"
    return segments


def written(segments: list[str], parameter: str, integer: str, rest: str, word=lambda word: word) -> str:
    """The pattern in the syntax of a framework."""
    def one(index: int, segment: str) -> str:
        names = {"{}": parameter, "{int}": integer, "{*}": rest}
        return names[segment].format(f"p{index}") if segment in names else word(segment)
    return "/" + "/".join(one(index, segment) for index, segment in enumerate(segments))


def starlette(patterns):
    routes = [Route(written(segments, "{{{}}}", "{{{}:int}}", "{{{}:path}}", unquote), lambda request: None) for segments in patterns]

    def match(target):
        scope = {"type": "http", "method": "GET", "path": unquote(target), "root_path": "", "headers": []}
        for handler, route in enumerate(routes):
            matched, child = route.matches(scope)
            if matched == Match.FULL:
                return handler, sorted(child["path_params"].items())
        return None
    return match


def flask(patterns, strict_slashes):
    rules = [Rule(written(segments, "<{}>", "<int:{}>", "<path:{}>", unquote), endpoint=handler)
             for handler, segments in enumerate(patterns)]
    adapter = Map(rules, strict_slashes=strict_slashes).bind("api.example")

    def match(target):
        try:
            handler, values = adapter.match(unquote(target), method="GET")
        except (RequestRedirect, HTTPException):
            return None
        return handler, sorted(values.items())
    return match


def django(patterns):
    routes = [path(written(segments, "<{}>", "<int:{}>", "<path:{}>", unquote)[1:], lambda request: None, name=str(handler))
              for handler, segments in enumerate(patterns)]
    resolver = URLResolver(RegexPattern(r"^/"), routes)

    def match(target):
        try:
            found = resolver.resolve(unquote(target))
        except Resolver404:
            return None
        return found.url_name, sorted(found.kwargs.items())
    return match


def express(patterns):
    escaped = [written(segments, ":{}", ":{}", "*{}", lambda word: word.replace(":", r"\:")) for segments in patterns]
    script = pathlib.Path(os.environ["EXPRESS"]) / "match.mjs"
    command = [NODE, script]
    asked = json.dumps({"patterns": escaped, "targets": TARGETS})
    ended = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=120, check=True)
    results = dict(zip(TARGETS, json.loads(ended.stdout)))
    return lambda target: results[target]


FRAMEWORKS = {
    "Starlette": starlette,
    "Flask": lambda patterns: flask(patterns, True),
    "Flask without strict slashes": lambda patterns: flask(patterns, False),
    "Django": django,
    "Express": express,
}


def gate_routes(patterns, chosen: random.Random) -> str:
    def route(segments):
        name = written(segments, "{{{}}}", "{{{}}}", "{{*{}}}")
        return f'[[routes]]\npath = "{name}"\n{chosen.choice(ACCESS)}\n'
    return "".join(route(segments) for segments in patterns)


def is_valid(directory: pathlib.Path, routes: str) -> bool:
    (directory / "secret").write_text(SECRET)
    (directory / "secret").chmod(0o600)
    file = directory / "check.toml"
    file.write_text(CONFIGURATION.format(url="http://127.0.0.1:1") + routes)
    command = [os.environ["CLAIMGATE"], "check", "--config", file]
    return subprocess.run(command, cwd=directory, capture_output=True, timeout=60).returncode == 0


def random_table(directory: pathlib.Path, seed: int):
    """Patterns of the gate that are valid together, their routes, and the patterns of the API behind it."""
    chosen = random.Random(seed)
    patterns, routes = [], ""
    for _ in range(40):
        if len(patterns) == 7:
            break
        added = random_pattern(chosen)
        with_added = routes + gate_routes([added], chosen)
        if is_valid(directory, with_added):
            patterns, routes = patterns + [added], with_added
    assert len(patterns) > 4, routes
    api = [segments for segments in patterns if chosen.random() < 0.7]
    # Handlers with parameters in place of words: the API does not know what the gate protects.
    api += [["{int}" if word == "1" else "{}" if chosen.random() < 0.5 else word for word in segments if word != "{*}"] or ["{}"]
            for segments in patterns]
    unique = []
    for segments in sorted(api, key=lambda segments: sum(segment.startswith("{") for segment in segments)):
        if segments not in unique:
            unique.append(segments)
    return routes, unique


def decisions(gate) -> dict[str, tuple[int, int]]:
    """Statuses of each target without a token, and with one that has no role."""
    host, port = gate.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)

    def status(target: str, headers: dict[str, str]) -> int:
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status
    token = {"Authorization": f"Bearer {sign_token()}"}
    return {target: (status(target, {}), status(target, token)) for target in TARGETS}


@pytest.mark.parametrize("seed", range(TABLES))
def test_one_handler_and_its_parameters_get_one_decision(tmp_path, upstream, seed):
    routes, api = random_table(tmp_path, seed)
    with running_gate(tmp_path, upstream, routes) as gate:
        decided = decisions(gate)
    pairs = 0
    for name, framework in FRAMEWORKS.items():
        match = framework(api)
        reached: dict[str, list[str]] = {}
        for target in TARGETS:
            handled = match(target)
            if handled is not None:
                reached.setdefault(json.dumps(handled), []).append(target)
        assert len(reached) > 10, f"{name} serves only {reached}"
        for handled, group in reached.items():
            accepted = {target: decided[target] for target in group if decided[target][0] not in REJECTED}
            pairs += len(group) * (len(group) - 1) // 2
            assert len(set(accepted.values())) <= 1, f"{name} {handled} in\n{routes}{accepted}"
    assert pairs > 1000, pairs
