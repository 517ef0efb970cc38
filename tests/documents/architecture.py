"""The picture of `docs/architecture.md`: the packages, and which imports which.

`python -m tests.documents.architecture` draws it anew. A box holds modules and packages of
``sseflask``; an arrow says that one box imports another. What follows from other
arrows is left out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

__all__ = ["BOXES", "PACKAGE", "PICTURE", "ROOT", "arrows", "draw", "imports", "members"]

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sseflask"
PICTURE = ROOT / "docs" / "architecture.svg"

_COLUMN, _ROW = 78, 92
_BOX_HEIGHT, _MARGIN = 52, 14


class Box(NamedTuple):
    """One box of the picture.

    Args:
        name: what stands in it.
        meaning: a few words below the name.
        row: from the top; imports go downwards.
        column: where it begins, of 12 columns.
        width: how many columns it takes.
        members: the modules and packages in it; by default the one that has its name.
    """

    name: str
    meaning: str
    row: int
    column: float
    width: float
    members: tuple[str, ...] = ()

    @property
    def left(self) -> float:
        return _MARGIN + self.column * _COLUMN

    @property
    def right(self) -> float:
        return self.left + self.width * _COLUMN - 16

    @property
    def top(self) -> float:
        return _MARGIN + self.row * _ROW


BOXES = (
    Box("cli", "the command line", 0, 0, 3, ("cli", "__main__")),
    Box("app", "the service as a Flask application", 0, 3.5, 4.5),
    Box("gunicorn_conf", "gunicorn's hooks", 0, 9, 3),
    Box("openapi", "the HTTP contract", 1, 3.5, 2.5),
    Box("routes", "one blueprint a file", 2, 3.5, 4.5),
    Box("metrics", "Prometheus, the chart", 3, 0, 3),
    Box("completions", "OpenAI: upstream, formats", 3, 3.5, 4.5),
    Box("auth", "tokens and rights", 3, 9, 3),
    Box("compat", "Flask-SSE's interface", 4, 4.4, 2.7),
    Box("config", "the settings", 4, 9, 3, ("config", "setting_types", "outbound")),
    Box(
        "extension, response, testing",
        "what an application imports",
        5,
        3.5,
        4.5,
        (
            "channel_api",
            "extension",
            "readiness",
            "response",
            "run_api",
            "run_arguments",
            "run_responses",
            "testing",
        ),
    ),
    Box("runs", "generators, stored as they run", 6, 0, 3),
    Box("channels", "publish and subscribe", 6, 3.5, 4.5),
    Box("web", "what routes share", 6, 9, 3),
    Box("store", "events and runs, on disk", 7, 3.5, 4.5),
    Box("transport", "how bytes travel", 8, 3.5, 4.5),
    Box(
        "flask_context, items",
        "contexts, errors, items",
        8,
        9,
        3,
        ("error_reports", "flask_context", "items", "lasting_context"),
    ),
    Box(
        "wire, event, loop, logs, counters",
        "what is sent; threads and the event loop; the server's log; what is counted",
        9,
        0,
        12,
        (
            "counters",
            "defaults",
            "errors",
            "event",
            "frame",
            "json_text",
            "logs",
            "loop",
            "platforms",
            "wire",
        ),
    ),
)


def members() -> set[str]:
    """The names of the modules and packages right below ``sseflask``."""
    return {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    } - {"__init__"}


def imports() -> dict[str, set[str]]:
    """For each of `members` the others that it imports, wherever in its code."""
    known = members()
    found: dict[str, set[str]] = {name: set() for name in known}
    for path in PACKAGE.rglob("*.py"):
        importer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if importer in known:
            names = _imported(ast.parse(path.read_text(encoding="utf-8")))
            found[importer] |= {name for name in names if name in known} - {importer}
    return found


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            paths = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            paths = [f"{node.module}.{each.name}" for each in node.names]
        else:
            continue
        for path in paths:
            package, _, rest = path.partition(".")
            if package == "sseflask":
                yield rest.partition(".")[0]


def arrows() -> list[tuple[Box, Box]]:
    """Which box imports which, without what follows from other arrows."""
    box_of = {member: box for box in BOXES for member in box.members or (box.name,)}
    targets: dict[Box, set[Box]] = {box: set() for box in BOXES}
    for importer, names in imports().items():
        targets[box_of[importer]] |= {box_of[name] for name in names} - {box_of[importer]}
    below = {box: {each for each in found if each.row > box.row} for box, found in targets.items()}
    return [
        (box, target)
        for box in BOXES
        for target in sorted(targets[box])
        if not any(target in _reached(other, below) for other in below[box] - {target})
    ]


def _reached(box: Box, below: Mapping[Box, set[Box]]) -> set[Box]:
    return {box}.union(*(_reached(each, below) for each in below[box]))


_STYLE = """
svg { font-family: system-ui, -apple-system, "Segoe UI", sans-serif; color: #1f2328; }
rect { fill: #f6f8fa; stroke: #59636e; }
text { fill: currentColor; }
.name { font-size: 16px; font-weight: 600; }
.meaning { font-size: 13px; opacity: 0.8; }
path { fill: none; stroke: #59636e; stroke-width: 1.4; }
.upwards { stroke: #d1242f; stroke-dasharray: 5 4; }
marker path { fill: #59636e; stroke: none; }
@media (prefers-color-scheme: dark) {
  svg { color: #f0f6fc; }
  rect { fill: #1c2430; stroke: #9198a1; }
  path { stroke: #9198a1; }
  marker path { fill: #9198a1; }
}
"""


def draw() -> str:
    """The picture as an SVG, for a light and for a dark background."""
    width = round(2 * _MARGIN + 12 * _COLUMN - 16)
    height = 2 * _MARGIN + max(box.row for box in BOXES) * _ROW + _BOX_HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        "<title>The packages of sseflask; an arrow says that one imports the other</title>",
        f"<style>{_STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>',
        *_paths(arrows()),
    ]
    for box in BOXES:
        middle = (box.left + box.right) / 2
        lines += [
            f'<rect x="{box.left:g}" y="{box.top:g}" width="{box.right - box.left:g}" '
            f'height="{_BOX_HEIGHT}" rx="6"/>',
            f'<text class="name" x="{middle:g}" y="{box.top + 22:g}" text-anchor="middle">'
            f"{escape(box.name)}</text>",
            f'<text class="meaning" x="{middle:g}" y="{box.top + 41:g}" text-anchor="middle">'
            f"{escape(box.meaning)}</text>",
        ]
    return "\n".join([*lines, "</svg>", ""])


def _paths(pairs: list[tuple[Box, Box]]) -> Iterator[str]:
    """An arrow for each pair, from the lower side of a box to the upper side of another."""
    for box, target in pairs:
        outgoing = sorted((each for one, each in pairs if one == box), key=_middle)
        incoming = sorted((one for one, each in pairs if each == target), key=_middle)
        start = _spread(box, outgoing.index(target), len(outgoing))
        end = _spread(target, incoming.index(box), len(incoming))
        upwards = target.row <= box.row
        top = box.top if upwards else box.top + _BOX_HEIGHT
        bottom = target.top + _BOX_HEIGHT + 2 if upwards else target.top - 2
        bend = (bottom - top) / 2
        yield (
            f"<path{' class=' + chr(34) + 'upwards' + chr(34) if upwards else ''} "
            f'd="M{start:.1f} {top:g}C{start:.1f} {top + bend:.1f} {end:.1f} {bottom - bend:.1f} '
            f'{end:.1f} {bottom:g}" marker-end="url(#head)"/>'
        )


def _middle(box: Box) -> float:
    return box.left + box.right


def _spread(box: Box, number: int, count: int) -> float:
    return box.left + (box.right - box.left) * (number + 1) / (count + 1)


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
