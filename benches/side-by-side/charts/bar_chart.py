"""Horizontal bars: one group for each row, one bar for each series, or one bar with stacked series."""

from charts.svg import Picture, amount, tick_label, ticks

BAR = 13
GAP = 14
LEFT = 200
RIGHT = 690

# Title of a row, and the value of each series that has one.
Rows = list[tuple[str, dict[str, float]]]


def _grid(picture: Picture, highest: float, top: float, bottom: float):
    """Vertical lines with their values below. Returns the pixels of one unit."""
    marks = ticks(highest)
    scale = (RIGHT - LEFT) / marks[-1]
    for mark in marks:
        x = LEFT + mark * scale
        picture.line(x, top, x, bottom)
        picture.text(x, bottom + 16, tick_label(mark), "faint middle")
    return scale


def grouped_bars(picture: Picture, rows: Rows):
    """Adds the bars to the picture, below what it has."""
    top = picture.height
    heights = [len(values) * (BAR + 1) for _, values in rows]
    bottom = top + sum(heights) + GAP * len(rows)
    scale = _grid(picture, max(max(values.values()) for _, values in rows), top, bottom)
    y = top + GAP / 2
    for (title, values), height in zip(rows, heights):
        picture.text(LEFT - 10, y + height / 2 + 4, title, "end")
        for series, value in values.items():
            picture.rectangle(LEFT, y, value * scale, BAR, series)
            picture.text(LEFT + value * scale + 5, y + 10, amount(value), "value")
            y += BAR + 1
        y += GAP
    picture.height = bottom + 32


def stacked_bars(picture: Picture, heading: str, rows: Rows):
    """Adds one bar for each row, with the series one after the other and their sum at the end."""
    picture.text(16, picture.height + 4, heading, "heading")
    top = picture.height + 14
    bottom = top + (BAR + 5 + GAP) * len(rows)
    scale = _grid(picture, max(sum(values.values()) for _, values in rows), top, bottom)
    y = top + GAP / 2
    for title, values in rows:
        picture.text(LEFT - 10, y + 13, title, "end")
        x = float(LEFT)
        for series, value in values.items():
            picture.rectangle(x, y, value * scale, BAR + 5, series)
            x += value * scale
        picture.text(x + 5, y + 13, amount(sum(values.values())), "value")
        y += BAR + 5 + GAP
    picture.height = bottom + 40
