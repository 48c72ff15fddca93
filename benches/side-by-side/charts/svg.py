"""SVG elements, the colors of both themes, and the scale of an axis. The same input always makes the same text."""

import math
from xml.sax.saxutils import escape, quoteattr

WIDTH = 760
# Average width of a character of the legend in pixels; system fonts differ, so spaces around it are generous.
CHARACTER = 6.8

# Name of a series: color in the light theme, color in the dark theme. Blue, orange and green differ for all kinds of color
# vision; gray is for proxies that do less.
COLORS = {
    "claimgate": ("#0072b2", "#56a8e8"),
    "haproxy": ("#e69f00", "#e6a532"),
    "envoy": ("#009e73", "#2fbf94"),
    "nginx": ("#7d8590", "#9aa4af"),
    "caddy": ("#bcc3ca", "#5d6670"),
    "time": ("#59636e", "#9198a1"),
    "api": ("#9aa4af", "#7d8590"),
    "gate": ("#0072b2", "#56a8e8"),
}


def _style() -> str:
    """Both themes have their own background, so that the picture is readable on a page of either."""
    def rules(theme: int, background: str, text: str, faint: str, line: str) -> str:
        series = "".join(f".{name}{{fill:{colors[theme]};stroke:{colors[theme]}}}" for name, colors in COLORS.items())
        return (f".background{{fill:{background}}}text{{fill:{text}}}.faint{{fill:{faint}}}"
                f".value{{stroke:{background}}}.grid{{stroke:{line}}}{series}")

    return (
        "text{font:12px -apple-system,BlinkMacSystemFont,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif}"
        ".title{font-size:16px;font-weight:600}.heading{font-weight:600}"
        # The outline in the color of the background keeps numbers readable on lines.
        ".value{font-size:11px;paint-order:stroke;stroke-width:3px}.end{text-anchor:end}"
        ".middle{text-anchor:middle}rect{stroke:none!important}.line{fill:none!important;stroke-width:2}"
        + rules(0, "#ffffff", "#1f2328", "#59636e", "#d1d9e0")
        + "@media(prefers-color-scheme:dark){" + rules(1, "#0d1117", "#f0f6fc", "#9198a1", "#3d444d") + "}"
    )


def number(value: float) -> str:
    """Coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def amount(value: float) -> str:
    """Measured value with about three digits."""
    return f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


class Picture:
    """A picture that grows downward: `height` is where the next part starts."""

    def __init__(self, title: str, subtitle: str):
        self._title = title
        self._elements: list[str] = []
        self.text(16, 28, title, "title")
        self.text(16, 47, subtitle, "faint")
        self.height = 72.0

    def text(self, x: float, y: float, text: str, kind: str = ""):
        kind = f' class="{kind}"' if kind else ""
        self._elements.append(f'<text x="{number(x)}" y="{number(y)}"{kind}>{escape(text)}</text>')

    def rectangle(self, x: float, y: float, width: float, height: float, kind: str):
        self._elements.append(f'<rect class="{kind}" x="{number(x)}" y="{number(y)}" width="{number(width)}" '
                              f'height="{number(height)}"/>')

    def line(self, x1: float, y1: float, x2: float, y2: float):
        self._elements.append(f'<path class="grid" d="M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}"/>')

    def curve(self, points: list[tuple[float, float]], kind: str):
        path = "L".join(f"{number(x)} {number(y)}" for x, y in points)
        self._elements.append(f'<path class="line {kind}" d="M{path}"/>')
        self._elements += [f'<circle class="{kind}" cx="{number(x)}" cy="{number(y)}" r="3.5"/>' for x, y in points]

    def legend(self, series: dict[str, str]):
        """Names of the series, each after its color."""
        x = 16.0
        for kind, name in series.items():
            self.rectangle(x, self.height - 10, 12, 12, kind)
            self.text(x + 18, self.height, name)
            x += 18 + len(name) * CHARACTER + 18
        self.height += 24

    def svg(self) -> str:
        height = number(self.height + 8)
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f"role=\"img\" aria-label={quoteattr(self._title)}>",
            f"<title>{escape(self._title)}</title>",
            f"<style>{_style()}</style>",
            f'<rect class="background" width="{WIDTH}" height="{height}" rx="6"/>',
            *self._elements,
            "</svg>", "",
        ])


def ticks(highest: float, count: int = 5) -> list[float]:
    """Round values from 0 to at least the highest one."""
    if highest <= 0:
        return [0.0, 1.0]
    raw = highest / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    return [step * index for index in range(math.ceil(highest / step * 0.999) + 1)]


def tick_label(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:.1f}"
