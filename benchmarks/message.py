"""The content and the text of a chart, derived from the figures."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from benchmarks.figures import Spread, ratio_text
from benchmarks.record import Metric, Record, Scenario, Server

_LOG_FROM = 30
"""Values that span more than this factor are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Bar:
    """One server's row; without a spread there is no bar and the label says why."""

    server: str
    family: str
    label: str
    spread: Spread | None


@dataclass(frozen=True)
class Chart:
    """One metric of one scenario, the best server first; `name` is the file's without ending."""

    name: str
    title: str
    subtitle: tuple[str, str]
    axis: str
    log: bool
    bars: tuple[Bar, ...]

    def digest(self) -> str:
        """Give a short name for all of this, by which a drawn chart is known to be current."""
        everything = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(everything.encode()).hexdigest()[:16]


def charts(record: Record) -> Iterator[Chart]:
    """Give every chart that the scenarios of a result file ask for."""
    for scenario in record.scenarios.values():
        for key in scenario.charts:
            yield chart(scenario, scenario.metrics[key])


def chart(scenario: Scenario, metric: Metric) -> Chart:
    """Give one metric's chart."""
    ranked = scenario.ranked(metric)
    medians = [value.median for _, value in ranked if isinstance(value, Spread)]
    positive = [median for median in medians if median > 0]
    log = bool(positive) and max(positive) > _LOG_FROM * min(positive)
    axis = metric.heading
    if metric.wall:
        axis += f", as a ratio to {scenario.reference.title}"
    return Chart(
        name=f"{scenario.name}-{metric.key}",
        title=title(scenario, metric),
        subtitle=_subtitle(scenario, metric),
        axis=axis + (" (logarithmic axis)" if log else ""),
        log=log,
        bars=tuple(_bar(server, value, metric) for server, value in ranked),
    )


def _bar(server: Server, value: Spread | str, metric: Metric) -> Bar:
    if isinstance(value, str):
        return Bar(server.title, server.family, value, None)
    label = metric.text(value.median) + (" x" if metric.wall else "")
    return Bar(server.title, server.family, label, value)


def _subtitle(scenario: Scenario, metric: Metric) -> tuple[str, str]:
    what = scenario.title.partition(":")[2].strip() or scenario.title
    direction = "more" if metric.more_is_better else "less"
    many = scenario.rounds > 1
    rounds = f"median of {scenario.rounds_text}, whiskers least to most" if many else "one round"
    return (
        what[:1].upper() + what[1:],
        f"{metric.heading}, {direction} is better; {scenario.size}; {rounds}",
    )


def title(scenario: Scenario, metric: Metric) -> str:
    """Give the message: the best sseflask stack against the best ASGI stack, whoever is ahead.

    Where no ASGI stack has a figure the best of the others stands in, and the message says so.
    """
    subject = scenario.title.partition(":")[0]
    ours = _best(scenario, metric, "sseflask")
    theirs = _best(scenario, metric, "asgi")
    addition = "" if theirs else " (no figure of an ASGI stack)"
    theirs = theirs or _best(scenario, metric, "wsgi") or _best(scenario, metric, "bare")
    if ours is None:
        return f"{subject}: no figure of sseflask for {metric.heading}"
    if theirs is None:
        return f"{subject}: {metric.heading}, sseflask alone"
    ratio = scenario.ratio(ours, theirs, metric)
    if isinstance(ratio, str) or ratio.median == 0:
        # No ratio to or of nothing says anything: the two figures themselves do.
        own, other = (_text(scenario, server, metric) for server in (ours, theirs))
        message = f"{own} {metric.heading} with sseflask, {other} with {_spoken(theirs)}"
    else:
        message = _comparison(metric.heading, f"{ratio_text(ratio.median)} x", _spoken(theirs))
    return f"{subject}: {message}{addition}"


def _best(scenario: Scenario, metric: Metric, family: str) -> Server | None:
    ranked = scenario.ranked(metric)
    measured = (server for server, value in ranked if isinstance(value, Spread))
    return next((server for server in measured if server.family == family), None)


def _spoken(server: Server) -> str:
    """Give a title such as `Starlette, uvicorn` as it stands in a sentence."""
    return server.title.replace(", ", " on ", 1)


def _text(scenario: Scenario, server: Server, metric: Metric) -> str:
    value = scenario.value(server, metric)
    return value if isinstance(value, str) else metric.text(value.median)


def _comparison(heading: str, ratio: str, other: str) -> str:
    cost, _, thing = heading.rpartition("/")
    if cost and re.fullmatch("[a-z]{2,}", thing):
        article = "an" if thing[0] in "aeiou" else "a"
        return f"{article} {thing} costs sseflask {ratio} the {_quantity(cost)} of {other}"
    return f"sseflask has {ratio} the {_quantity(heading)} of {other}"


def _quantity(heading: str) -> str:
    """Leave out what a ratio has not: `CPU µs`, `p99 ms`, `s to exit`, `CPU ms/s, 9 streams`."""
    heading = heading.partition(", ")[0]
    heading = re.sub(r"^(µs|ms|s) (?=to )", "time ", heading)
    return re.sub(r"(?<=\S) (µs|ms|s)(/s)?$", "", heading)
