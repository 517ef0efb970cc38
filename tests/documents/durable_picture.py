"""The picture of `docs/durable.md`: a generator in a response, and the same one as a run.

`python -m tests.documents.durable_picture` draws it anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

__all__ = ["PICTURE", "draw"]

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "durable.svg"

_WIDTH, _HEIGHT = 920, 538
_LEFT, _STEP, _SIDE = 190, 62, 34
#: The moments at which a client loses its connection, comes back, and a worker dies.
_LOST, _BACK, _DEATH = 3.0, 5.2, 6.2

_STYLE = """
svg { font-family: system-ui, -apple-system, "Segoe UI", sans-serif; color: #1f2328; }
text { fill: currentColor; font-size: 14px; }
.title { font-size: 16px; font-weight: 600; }
.quiet { font-size: 13px; opacity: 0.8; }
.small { font-size: 13px; }
.panel, .item { fill: #f6f8fa; stroke: #59636e; }
.panel { fill: none; opacity: 0.5; }
.number { font-size: 15px; font-weight: 600; }
.paid { fill: #ffebe9; stroke: #d1242f; }
.gone { fill: none; stroke-dasharray: 4 4; opacity: 0.6; }
.stored { fill: #ddf4ff; stroke: #0969da; }
path { fill: none; stroke: #59636e; stroke-width: 1.4; }
.bad { stroke: #d1242f; stroke-width: 1.8; }
.bad-text { fill: #d1242f; }
.lost { stroke: #d1242f; stroke-dasharray: 5 4; }
marker path { fill: #59636e; stroke: none; }
@media (prefers-color-scheme: dark) {
  svg { color: #f0f6fc; }
  .panel, .item { fill: #1c2430; stroke: #9198a1; }
  .panel { fill: none; }
  .paid { fill: #3c1618; stroke: #ff7b72; }
  .stored { fill: #0c2d4f; stroke: #4493f8; }
  path { stroke: #9198a1; }
  .bad, .lost { stroke: #ff7b72; }
  .bad-text { fill: #ff7b72; }
  marker path { fill: #9198a1; }
}
"""


def _x(moment: float) -> float:
    return _LEFT + moment * _STEP


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _item(moment: float, y: float, number: str, kind: str = "item") -> Iterator[str]:
    width = _SIDE if len(number) < 3 else 52
    yield (
        f'<rect class="{kind}" x="{_x(moment):g}" y="{y:g}" width="{width}" '
        f'height="{_SIDE}" rx="5"/>'
    )
    yield _text(_x(moment) + width / 2, y + 22.5, number, "number", "middle")


def _arrow(moment: float, top: float, bottom: float) -> str:
    x = _x(moment) + _SIDE / 2
    return f'<path d="M{x:g} {top:g}V{bottom:g}" marker-end="url(#head)"/>'


def _cross(moment: float, y: float) -> str:
    x, y, half = _x(moment) + _SIDE / 2, y + _SIDE / 2, 8
    return (
        f'<path class="bad" d="M{x - half:g} {y - half:g}l{2 * half} {2 * half}'
        f'M{x + half:g} {y - half:g}l{-2 * half} {2 * half}"/>'
    )


def _sleep(top: float, bottom: float) -> Iterator[str]:
    """The time in which the client is away."""
    for moment in (_LOST, _BACK):
        yield f'<path class="lost" d="M{_x(moment) - 14:g} {top:g}V{bottom:g}"/>'
    middle = (_x(_LOST) + _x(_BACK)) / 2 - 14
    yield _text(middle, bottom - 8, "the phone sleeps", "bad-text small", "middle")


def _in_a_response(top: float) -> Iterator[str]:
    generator, client = top + 52, top + 136
    yield _text(30, top + 26, "A generator in a response", "title")
    yield _text(30, generator + 22, "the generator")
    yield _text(30, client + 22, "the client has")
    for number in (1, 2, 3):
        yield from _item(number - 1, generator, str(number))
        yield _arrow(number - 1, generator + _SIDE, client - 4)
        yield from _item(number - 1, client, str(number))
    yield _cross(_LOST + 0.35, generator)
    yield _text(
        _x(_LOST + 0.35) + _SIDE / 2, generator - 8, "it is closed", "bad-text small", "middle"
    )
    for number in range(1, 7):
        yield from _item(_BACK - 1 + number, generator, str(number), "paid")
        yield _arrow(_BACK - 1 + number, generator + _SIDE, client - 4)
        yield from _item(_BACK - 1 + number, client, str(number), "item")
    yield from _sleep(top + 44, client + _SIDE + 30)
    yield _text(_x(_BACK), client + _SIDE + 22, "all of it is made, and paid for, again", "quiet")


def _as_a_run(top: float) -> Iterator[str]:
    generator, stored, client = top + 66, top + 146, top + 226
    yield _text(30, top + 26, "The same one as a run: sse.run(generator)", "title")
    yield _text(30, generator + 22, "the generator")
    yield _text(30, stored + 22, "stored, in a file")
    yield _text(30, stored + 40, "or on a Redis server", "quiet")
    yield _text(30, client + 22, "the client has")
    yield _text(_x(0), generator - 10, "worker 1", "quiet")
    yield _text(_x(_DEATH + 1), generator - 10, "worker 2, if there is a resume function", "quiet")
    made = [0.0, 1.0, 2.0, 3.0, 4.0, _DEATH + 1]
    had = [0.0, 1.0, 2.0, _BACK, _BACK + 0.7, _DEATH + 1]
    for number, (moment, seen) in enumerate(zip(made, had, strict=True), 1):
        yield from _item(moment, generator, str(number))
        yield _arrow(moment, generator + _SIDE, stored - 4)
        yield from _item(moment, stored, str(number), "stored")
        yield from _item(seen, client, str(number), "item")
    for moment in (0, 1, 2, _DEATH + 1, _DEATH + 2):
        yield _arrow(moment, stored + _SIDE, client - 4)
    for moment in (3, 4):  # kept until the client is back
        x, to = _x(moment) + _SIDE / 2, _x(_BACK + (moment - 3) * 0.7) + _SIDE / 2
        middle = (stored + _SIDE + client) / 2
        yield (
            f'<path d="M{x:g} {stored + _SIDE}C{x:g} {middle + 12:g} {to:g} {middle - 12:g} '
            f'{to:g} {client - 4}" marker-end="url(#head)"/>'
        )
    yield _cross(_DEATH - 0.6, generator)
    yield _text(_x(_DEATH - 0.6) + _SIDE / 2, generator - 10, "it dies", "bad-text small", "middle")
    yield from _item(_DEATH + 2, stored, "done", "stored")
    yield from _item(_DEATH + 2, client, "done", "item")
    yield from _sleep(client - 6, client + _SIDE + 30)
    yield _text(_x(_BACK), client + _SIDE + 22, "Last-Event-ID: 3, and it gets the rest", "quiet")


def draw() -> str:
    """The picture as an SVG, for a light and for a dark background."""
    panels = [(14.0, 208.0), (234.0, 290.0)]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" role="img">',
        "<title>A client that comes back to a generator in a response begins it again; one that "
        "comes back to a run gets the rest</title>",
        f"<style>{_STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>',
        *(
            f'<rect class="panel" x="14" y="{top:g}" width="{_WIDTH - 28}" height="{height:g}" '
            'rx="8"/>'
            for top, height in panels
        ),
        *_in_a_response(panels[0][0]),
        *_as_a_run(panels[1][0]),
    ]
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
