"""Charts as SVG and PNG: horizontal bars, the best first; the same chart gives the same bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Patch
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from benchmarks.chart_files import files
from benchmarks.message import Bar, Chart

FAMILIES = {
    "sseflask": ("sseflask", "#d9480f"),
    "wsgi": ("other WSGI", "#a8d0ea"),
    "asgi": ("ASGI", "#3a7fb0"),
    "bare": ("bare, no framework", "#9aa0a6"),
}
"""The legend's text and the colour of each family; they differ in lightness as well."""

_FAMILY = "DejaVu Sans"  # comes with matplotlib, so it is everywhere where charts are drawn
STYLE: dict[str, object] = {
    "font.family": _FAMILY,
    "svg.fonttype": "path",  # no reader needs the font
    "svg.hashsalt": "sseflask",
}
INK, PALE, _FAULT = "#24292f", "#57606a", "#a40e26"

_TITLE, _TEXT, _SMALL = 13.0, 9.5, 9.0  # points
# Inches; 8.33 of them are 800 CSS pixels.
_WIDTH, _MARGIN, _LABELS, _LINE = 8.33, 0.15, 2.55, 0.165
_LEFT = _MARGIN + _LABELS + 0.12
_BARS = _WIDTH - _LEFT - _MARGIN
_PNG_DPI = 144  # 1200 pixels


def draw(chart: Chart, folder: Path) -> None:
    """Write `<name>.svg` and `<name>.png` into a folder that exists."""
    with matplotlib.style.context(["default", STYLE]):
        figure = drawn(chart)
        svg, png = files(chart, folder)
        about = {"Description": chart.digest()}
        figure.savefig(svg, format="svg", metadata={**about, "Date": None})
        figure.savefig(png, format="png", metadata=about, dpi=_PNG_DPI)


def drawn(chart: Chart) -> Figure:
    """Give a chart as a figure of matplotlib, in whatever style is in use."""
    chart = _drawable(chart)
    inner = _WIDTH - 2 * _MARGIN
    title = _balanced(chart.title, inner, _TITLE, "bold")
    subtitle = [line for part in chart.subtitle for line in _wrap(part.split(), inner, _TEXT)]
    axis = _wrap(chart.axis.split(), _BARS, _SMALL)
    labels = [_label(bar) for bar in chart.bars]
    rows = len(chart.bars) * (0.18 + _LINE * max(map(len, labels), default=1))
    head = 0.28 + 0.25 * len(title) + 0.18 * len(subtitle)
    foot = 0.7 + _LINE * len(axis)
    height = head + rows + foot

    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    place = figure.add_axes((_LEFT / _WIDTH, foot / height, _BARS / _WIDTH, rows / height))
    _set_up(place, chart, "\n".join(axis))
    for row, (bar, label) in enumerate(zip(chart.bars, labels, strict=True)):
        place.annotate(
            "\n".join(label),
            (0, row),
            xycoords=place.get_yaxis_transform(),
            xytext=(-7, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            size=_TEXT,
            weight=_weight(bar),
            color=INK,
            parse_math=False,
        )
        _draw_bar(place, row, bar)
    for lines, down, size, weight, colour in (
        (title, 0.13, _TITLE, "bold", INK),
        (subtitle, 0.17 + 0.25 * len(title), _TEXT, "normal", PALE),
    ):
        figure.text(
            _MARGIN / _WIDTH,
            1 - down / height,
            "\n".join(lines),
            va="top",
            size=size,
            weight=weight,
            color=colour,
            parse_math=False,
        )
    _legend(figure, chart, height)
    return figure


def _set_up(place: Axes, chart: Chart, axis: str) -> None:
    """Give the axes their limits, with room for a value behind the longest bar."""
    shown = [bar.spread for bar in chart.bars if bar.spread]
    most = max((spread.most for spread in shown), default=0) or 1
    values = [_width(bar.label, _TEXT, "bold") for bar in chart.bars if bar.spread]
    used = 1 - (max(values, default=0) + 0.2) / _BARS
    if chart.log:
        least = min(spread.median for spread in shown if spread.median > 0)
        # A bar's length on a logarithmic axis means nothing; the shortest is to be seen.
        least = 10 ** math.floor(math.log10(least * 0.7))
        place.set_xscale("log")
        place.set_xlim(least, least * (most / least) ** (1 / used))
        place.xaxis.set_major_locator(LogLocator())
        place.xaxis.set_minor_locator(NullLocator())
    else:
        place.set_xlim(0, most / used)
        place.xaxis.set_major_locator(MaxNLocator(5))
    place.xaxis.set_major_formatter(FuncFormatter(_tick))
    place.set_ylim(len(chart.bars) - 0.5, -0.5)
    place.yaxis.set_major_locator(NullLocator())
    place.set_xlabel(axis, size=_SMALL, color=PALE, parse_math=False)
    place.tick_params(axis="x", labelsize=_SMALL, labelcolor=PALE, color="#d0d7de")
    place.grid(axis="x", color="#e6e9ed", linewidth=0.8)
    place.set_axisbelow(True)
    for side in ("top", "right", "bottom"):
        place.spines[side].set_visible(False)
    place.spines["left"].set_color("#8c959f")


def _tick(value: float, _position: int | None) -> str:
    return f"{value:,.0f}" if 1000 <= value < 10_000_000 else f"{value:.3g}"


def _draw_bar(place: Axes, row: int, bar: Bar) -> None:
    start, _ = place.get_xlim()
    label, colour, style, end = bar.label, INK, "normal", start
    if bar.spread is None:
        label = _shorten(label, _BARS - 0.15)
        colour, style = _FAULT, "italic"
    else:
        median, least, most = bar.spread
        end = max(most, start)
        if median > start:
            place.barh(row, median - start, height=0.62, left=start, color=FAMILIES[bar.family][1])
        if most > least:
            ends = [max(least, start), end]
            place.plot(ends, [row, row], color=INK, linewidth=1.1)
            place.plot(ends, [row, row], color=INK, linestyle="", marker="|", markersize=7)
    place.annotate(
        label,
        (end, row),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        size=_TEXT,
        weight=_weight(bar),
        style=style,
        color=colour,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        parse_math=False,
    )


def _legend(figure: Figure, chart: Chart, height: float) -> None:
    present = {bar.family for bar in chart.bars}
    figure.legend(
        handles=[
            Patch(color=colour, label=label)
            for family, (label, colour) in FAMILIES.items()
            if family in present
        ],
        loc="lower left",
        bbox_to_anchor=(_MARGIN / _WIDTH, 0.1 / height),
        ncols=len(FAMILIES),
        fontsize=_SMALL,
        labelcolor=INK,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.2,
        handleheight=0.9,
    )


def _weight(bar: Bar) -> str:
    return "bold" if bar.family == "sseflask" and bar.spread else "normal"


def _label(bar: Bar) -> list[str]:
    """Break a server's title, after commas where that will do."""
    parts = [f"{part}," for part in bar.server.split(", ")]
    parts[-1] = parts[-1][:-1]
    weight = _weight(bar)
    broken = ([part] if _width(part, _TEXT, weight) <= _LABELS else part.split() for part in parts)
    return _wrap([piece for pieces in broken for piece in pieces], _LABELS, _TEXT, weight)


def _balanced(text: str, inches: float, size: float, weight: str) -> list[str]:
    """Break a text into as few lines as it needs, none of them much shorter than the others."""
    words = text.split()
    lines = narrower = _wrap(words, inches, size, weight)
    while 1 < len(narrower) == len(lines) and inches > 1:
        lines = narrower
        inches -= 0.1
        narrower = _wrap(words, inches, size, weight)
    return lines


def _wrap(pieces: Sequence[str], inches: float, size: float, weight: str = "normal") -> list[str]:
    """Put pieces of a text on lines that are no wider; a wider piece has a line of its own."""
    lines: list[str] = []
    for piece in pieces:
        longer = f"{lines[-1]} {piece}" if lines else piece
        if lines and _width(longer, size, weight) <= inches:
            lines[-1] = longer
        else:
            lines.append(piece)
    return lines


def _shorten(text: str, inches: float) -> str:
    if _width(text, _TEXT) <= inches:
        return text
    while text and _width(f"{text} ...", _TEXT) > inches:
        text = text[:-1].rstrip()
    return f"{text} ..."


def _width(text: str, size: float, weight: str = "normal") -> float:
    """Give a text's width in inches."""
    font = FontProperties(family=_FAMILY, size=size, weight=weight)
    points, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return points / 72


def _drawable(chart: Chart) -> Chart:
    """Take Markdown's ticks out of texts, and signs that the font has not: faults say anything."""
    font = get_font(findfont(FontProperties(family=_FAMILY)))

    def known(text: str) -> str:
        text = " ".join(text.replace("`", "").split())
        return "".join(sign if font.get_char_index(ord(sign)) else "?" for sign in text)

    return replace(
        chart,
        title=known(chart.title),
        subtitle=(known(chart.subtitle[0]), known(chart.subtitle[1])),
        axis=known(chart.axis),
        bars=tuple(
            replace(bar, server=known(bar.server), label=known(bar.label)) for bar in chart.bars
        ),
    )
