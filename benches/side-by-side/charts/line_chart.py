"""Panels with lines: one for each axis of growth, with its values at equal distances."""

from dataclasses import dataclass

from charts.svg import WIDTH, Picture, amount, tick_label, ticks

COLUMNS = 2
PANEL_HEIGHT = 180
MARGIN = 48
LABEL_HEIGHT = 12


@dataclass(frozen=True)
class Panel:
    heading: str
    values: list[int]
    # Value of each series at each of `values`, with gaps.
    series: dict[str, dict[int, float]]


def panels(picture: Picture, all_panels: list[Panel]):
    """Adds the panels in two columns with one vertical scale, so that they compare."""
    marks = ticks(max(value for panel in all_panels for line in panel.series.values() for value in line.values()))
    width = WIDTH / COLUMNS
    top = picture.height
    for place, panel in enumerate(all_panels):
        x = (place % COLUMNS) * width
        y = top + (place // COLUMNS) * (PANEL_HEIGHT + 70)
        _panel(picture, panel, x + MARGIN, y, width - MARGIN - 34, marks)
    picture.height = top + -(-len(all_panels) // COLUMNS) * (PANEL_HEIGHT + 70) - 10


def _panel(picture: Picture, panel: Panel, left: float, top: float, width: float, marks: list[float]):
    picture.text(left - 32, top + 4, panel.heading, "heading")
    bottom = top + 20 + PANEL_HEIGHT
    scale = PANEL_HEIGHT / marks[-1]
    for mark in marks:
        picture.line(left, bottom - mark * scale, left + width, bottom - mark * scale)
        picture.text(left - 8, bottom - mark * scale + 4, tick_label(mark), "faint end")
    step = width / len(panel.values)
    places = {value: left + step * (place + 0.5) for place, value in enumerate(panel.values)}
    for value, x in places.items():
        picture.text(x, bottom + 18, f"{value:,}", "faint middle")
    labels = []
    for series, line in panel.series.items():
        points = {value: (places[value], bottom - line[value] * scale) for value in panel.values if value in line}
        picture.curve(list(points.values()), series)
        last = max(points)
        labels.append((points[last], amount(line[last])))
    # From the bottom up, each label at least its height above the one before.
    lowest = bottom + LABEL_HEIGHT
    for (x, y), text in sorted(labels, key=lambda label: -label[0][1]):
        lowest = min(y, lowest - LABEL_HEIGHT)
        picture.text(x + 8, lowest + 4, text, "value")
