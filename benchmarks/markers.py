"""Markers in Markdown: `<!-- word: arguments -->`, what it is about, and `<!-- / -->`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "figure": ("SCENARIO", "SERVER", "METRIC"),
    "ratio": ("SCENARIO", "SERVER", "OTHER", "METRIC"),
    "table": ("SCENARIO",),
    "chart": ("SCENARIO", "METRIC"),
    "per_second": ("SCENARIO", "SERVER", "METRIC"),
    "machine": (),
    "versions": (),
}
"""The markers that have an end, with their arguments."""

_RESULTS = "results"
_FENCE = re.compile(r"[ \t>]*(?:(?:[-*+]|\d+[.)])[ \t]+)?(`{3,}(?=[^`]*$)|~{3,})")
_NEXT = re.compile(r"\\.|(?P<ticks>`+)|<!--(?P<inside>.*?)-->", re.DOTALL)
_BLOCK_ENDS = re.compile(r"\n(?=[ \t]*(?:\n|[-*+>|#]|\d+[.)]|$))")
_LINE_BEGINS = re.compile(r"[ \t>]*(?:(?:[-*+]|\d+[.)])[ \t]+)*")


class DocumentError(ValueError):
    """A marker can't be filled; the text says where and what there is instead."""


@dataclass(frozen=True)
class Comment:
    """An HTML comment outside of code, from `start` to `end` in the text."""

    word: str
    arguments: tuple[str, ...]
    start: int
    end: int
    line: int
    first: bool
    """Whether it begins its line, list signs aside; Markdown takes such a line for HTML."""


@dataclass(frozen=True)
class Marker:
    """A marker: what stands between its two comments is made from figures."""

    begin: Comment
    end: Comment


def markers(text: str, name: str) -> list[Marker]:
    """Give a document's markers that have an end; DocumentError where one is not as it must be."""
    found = []
    before: Comment | None = None
    for comment in _comments(text):
        opened = before is not None and before.word in ARGUMENTS
        if before and opened and comment.word != "/":
            raise DocumentError(f"{name}:{before.line}: `{before.word}` has no `<!-- / -->`")
        if comment.word == "/":
            if before is None or not opened:
                close_to = before or comment
                raise DocumentError(
                    f"{name}:{close_to.line}: `{close_to.word}` begins nothing that has an end; "
                    f"there are {', '.join(ARGUMENTS)}"
                )
            found.append(_marker(before, comment, name))
            before = None
        else:
            before = comment
    if before and before.word in ARGUMENTS:
        raise DocumentError(f"{name}:{before.line}: `{before.word}` has no `<!-- / -->`")
    return found


def _marker(begin: Comment, end: Comment, name: str) -> Marker:
    wanted = ARGUMENTS[begin.word]
    if len(begin.arguments) != len(wanted):
        takes = " ".join(wanted) or "no arguments"
        raise DocumentError(f"{name}:{begin.line}: `{begin.word}` takes {takes}")
    return Marker(begin, end)


def results(text: str, name: str) -> str | None:
    """Give the result file that a document names, None where it names none."""
    comment = _results(text, name)
    return comment.arguments[0] if comment else None


def with_results(text: str, file: str, name: str) -> str:
    """Let a document name another result file; DocumentError where it has no place for that."""
    comment = _results(text, name)
    if comment is None:
        raise DocumentError(f"{name}: has no line `<!-- results: FILE -->`")
    return f"{text[: comment.start]}<!-- {_RESULTS}: {file} -->{text[comment.end :]}"


def _results(text: str, name: str) -> Comment | None:
    found = [comment for comment in _comments(text) if comment.word == _RESULTS]
    for comment in found[1:]:
        raise DocumentError(f"{name}:{comment.line}: `{_RESULTS}` stands here a second time")
    for comment in found:
        if len(comment.arguments) != 1:
            raise DocumentError(f"{name}:{comment.line}: `{_RESULTS}` takes FILE")
    return found[0] if found else None


def _comments(text: str) -> Iterator[Comment]:
    """Give the comments that are not in code, so that a document can explain them."""
    masked = _without_fences(text)
    position = 0
    while match := _NEXT.search(masked, position):
        position = match.end()
        if match["ticks"]:
            position = _code_ends(masked, match["ticks"], position)
        elif match["inside"] is not None:
            word, _, arguments = match["inside"].partition(":")
            begin = masked.rfind("\n", 0, match.start()) + 1
            yield Comment(
                word=word.strip(),
                arguments=tuple(arguments.split()),
                start=match.start(),
                end=match.end(),
                line=masked.count("\n", 0, match.start()) + 1,
                first=bool(_LINE_BEGINS.fullmatch(masked, begin, match.start())),
            )


def _code_ends(text: str, ticks: str, position: int) -> int:
    """Give where code in a line ends; the position where these backticks do not begin any."""
    block = _BLOCK_ENDS.search(text, position)
    for run in re.compile("`+").finditer(text, position, block.start() if block else len(text)):
        if run.group() == ticks:
            return run.end()
    return position


def _without_fences(text: str) -> str:
    """Give the text with blanks instead of fenced blocks of code, everything else in its place."""
    lines = []
    fence = ""
    for line in text.splitlines(keepends=True):
        bare = line.strip(" \t>\r\n")
        if fence:
            if bare and set(bare) == {fence[0]} and len(bare) >= len(fence):
                fence = ""
        elif match := _FENCE.match(line.rstrip("\r\n")):
            fence = match[1]
        else:
            lines.append(line)
            continue
        lines.append(re.sub(r"[^\r\n]", " ", line))
    return "".join(lines)
