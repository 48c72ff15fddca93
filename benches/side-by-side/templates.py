"""Configuration templates: `@NAME@` is a value."""

import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent


def render(name: str, values: dict) -> str:
    """The template with its values. A value with several lines keeps the indentation of its place."""

    def value(match: re.Match) -> str:
        indentation = match["indentation"]
        return indentation + str(values[match["name"]]).replace("\n", "\n" + " " * len(indentation))

    text = (HERE / "configs" / name).read_text()
    text = re.sub(r"(?P<indentation>(?m:^[ \t]*)|)@(?P<name>[A-Z_]+)@", value, text)
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
