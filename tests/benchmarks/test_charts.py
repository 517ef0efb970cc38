"""What a chart says and shows, with a made-up result."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks import figures, message, record
from benchmarks.chart_files import is_current
from benchmarks.server_process import ROOT
from tests.benchmarks.made_up import SERVERS, result, rounds


@pytest.fixture(scope="module")
def charts() -> ModuleType:
    """What draws; matplotlib takes half a second, and each process that runs tests lists these."""
    return importlib.import_module("benchmarks.charts")


def chart(key: str = "cost", **samples: list[dict[str, Any]]) -> message.Chart:
    scenario = record.read(result(**samples)).scenarios["tick"]
    return message.chart(scenario, scenario.metrics[key])


def costs(*values: float) -> list[dict[str, Any]]:
    return rounds(*({"cost": value} for value in values))


# Arithmetic.


def test_a_ratio_is_taken_within_each_round() -> None:
    scenario = record.read(result()).scenarios["tick"]
    ours, plain = scenario.samples["ours"], scenario.samples["plain"]
    assert figures.ratios(ours, plain, "cost") == [0.5, 0.75, 0.5]
    assert figures.ratios(ours, plain[:1], "cost") == [0.5]
    assert figures.spread(figures.values(ours, "cost")) == (12, 10, 30)


def test_a_sample_with_faults_counts_as_absent() -> None:
    sound = record.Sample({"cost": 4}, (), ())
    faulty = record.Sample({"cost": 1}, ("lost", "lost", "late"), ())
    nothing = record.Sample({"cost": 0}, (), ())
    assert figures.values([sound, faulty], "cost") == [4]
    assert figures.ratios([sound, sound, faulty], [faulty, sound, sound], "cost") == [1]
    assert figures.ratios([sound], [nothing], "cost") == []
    assert figures.faults([sound, faulty, faulty]) == ["lost", "late"]


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (0, "0.00"),
        (0.0123, "0.012"),
        (0.00123, "0.0012"),
        (0.0996, "0.10"),
        (0.654, "0.65"),
        (1, "1.00"),
        (9.996, "10.0"),
        (26.55, "26.6"),
        (1234.5, "1,234"),
    ],
)
def test_ratios_are_printed_with_the_decimals_that_matter(ratio: float, text: str) -> None:
    assert figures.ratio_text(ratio) == text


# What a chart says.


def test_the_title_compares_with_the_best_asgi_stack() -> None:
    assert chart().title == "Tick: an event costs sseflask 0.67 x the CPU of Starlette on uvicorn"
    assert chart("speed").title == "Tick: sseflask has 2.00 x the events/s of Starlette on uvicorn"


def test_the_title_says_so_where_sseflask_loses() -> None:
    lost = chart(ours=costs(30, 30, 30))
    assert lost.title == "Tick: an event costs sseflask 1.50 x the CPU of Starlette on uvicorn"


def test_the_title_compares_with_another_where_no_asgi_stack_came_through() -> None:
    broken = rounds({"cost": 1}, faults=["lost"])
    assert chart(quick=broken, slow=broken).title == (
        "Tick: an event costs sseflask 0.50 x the CPU of Flask generator on gunicorn "
        "(no figure of an ASGI stack)"
    )
    assert chart(ours=broken).title == "Tick: no figure of sseflask for CPU µs/event"


def test_the_title_gives_both_figures_where_there_is_no_ratio() -> None:
    title = "Tick: 0.00 CPU µs/event with sseflask, 20.00 with Starlette on uvicorn"
    assert chart(ours=costs(0, 0, 0)).title == title


@pytest.mark.parametrize(
    ("heading", "said"),
    [
        ("CPU µs/connect", "a connect costs sseflask 0.67 x the CPU of"),
        ("KiB/stream", "a stream costs sseflask 0.67 x the KiB of"),
        ("p99 ms", "sseflask has 0.67 x the p99 of"),
        ("s to exit", "sseflask has 0.67 x the time to exit of"),
        ("CPU ms/s, 1,000 streams", "sseflask has 0.67 x the CPU of"),
        ("streams cut short", "sseflask has 0.67 x the streams cut short of"),
    ],
)
def test_the_title_puts_any_heading_into_a_sentence(heading: str, said: str) -> None:
    document = result()
    document["scenarios"]["tick"]["metrics"][0] = {
        **document["scenarios"]["tick"]["metrics"][0],
        "heading": heading,
    }
    scenario = record.read(document).scenarios["tick"]
    assert message.title(scenario, scenario.main) == f"Tick: {said} Starlette on uvicorn"


def test_the_subtitle_says_what_was_measured() -> None:
    assert chart().subtitle == (
        "Many streams",
        "CPU µs/event, less is better; 500 streams, 5 s; "
        "median of 3 rounds, whiskers least to most",
    )


def test_the_best_comes_first_and_the_faulty_last() -> None:
    names = ["Flask + sseflask", "Starlette", "Flask generator", "FastAPI", "bare loop"]
    bars = chart().bars
    assert [bar.server.partition(",")[0] for bar in bars] == names
    assert bars[-1].spread is None
    assert bars[-1].label == "has no route 'tick'"


def test_what_depends_on_the_moment_is_shown_as_a_ratio() -> None:
    speed = chart("speed")
    assert [bar.label for bar in speed.bars[:-1]] == ["2.50 x", "1.25 x", "1.00 x", "0.50 x"]
    assert speed.axis == "events/s, as a ratio to Flask generator, gunicorn"


def test_a_wide_span_is_drawn_on_a_logarithmic_axis_that_says_so(charts: ModuleType) -> None:
    assert not chart().log
    wide = chart(slow=costs(400, 400, 400))
    assert wide.log
    assert wide.axis == "CPU µs/event (logarithmic axis)"
    assert charts.drawn(wide).axes[0].get_xscale() == "log"


# What is drawn.


def test_a_faulty_server_has_no_bar(charts: ModuleType) -> None:
    faulty = chart(ours=rounds({"cost": 1}, {"cost": 1}, faults=["lost 3 events"]))
    place = charts.drawn(faulty).axes[0]
    assert sorted(bar.get_width() for bar in place.patches) == [20, 20, 40]
    assert "lost 3 events" in [text.get_text() for text in place.texts]


ODD = "$x_1$ 你好 \\alpha {0}\nRuntimeError: generator already executing, said 500 times in vain"


@pytest.mark.parametrize(
    "samples",
    [
        {},
        {"ours": rounds({}, faults=[ODD])},
        {"slow": costs(1e12, 2e12)},
        {"ours": costs(1e-9), "slow": costs(1e-7)},
        {"ours": costs(0, 0), "slow": costs(0, 3000)},
        {name: rounds({}, faults=["not started"]) for name in SERVERS},
        {name: costs(0) for name in SERVERS},
    ],
    ids=["usual", "odd", "huge", "tiny", "zero", "none", "zeros"],
)
def test_every_text_is_inside_the_picture(
    charts: ModuleType, samples: dict[str, list[dict[str, Any]]]
) -> None:
    document = result(**samples)
    document["servers"] = {
        name: {**server, "title": f"{server['title']}, {ODD if name == 'slow' else 'with more'}"}
        for name, server in SERVERS.items()
    }
    scenario = record.read(document).scenarios["tick"]
    figure = charts.drawn(message.chart(scenario, scenario.main))
    figure.draw_without_rendering()
    (place,) = figure.axes
    least, most = place.get_xlim()
    ticks = zip(place.get_xticks(), place.get_xticklabels(), strict=True)
    texts = [label for tick, label in ticks if least <= tick <= most]
    for left, right in itertools.pairwise(texts):
        assert left.get_window_extent().x1 < right.get_window_extent().x0
    texts += [*figure.texts, *place.texts, *figure.legends[0].get_texts(), place.xaxis.label]
    assert len(texts) > len(SERVERS) * 2 + 2
    width, height = figure.bbox.size
    for text in texts:
        box = text.get_window_extent()
        assert 0 <= box.x0 <= box.x1 <= width, text.get_text()
        assert 0 <= box.y0 <= box.y1 <= height, text.get_text()


def test_the_same_result_gives_the_same_bytes_anywhere(charts: ModuleType, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    file = tmp_path / "result.json"
    file.write_text(json.dumps(result()))
    for each in message.charts(record.load(file)):
        charts.draw(each, here)
    # Somebody's style, and no place for matplotlib's cache.
    style = tmp_path / "matplotlibrc"
    style.write_text("font.size: 30\naxes.facecolor: black\n")
    code = (
        "import sys; from pathlib import Path; from benchmarks import charts, message, record\n"
        "for each in message.charts(record.load(Path(sys.argv[1]))):\n"
        "    charts.draw(each, Path(sys.argv[2]))\n"
    )
    environment = {"MATPLOTLIBRC": str(style), "MPLCONFIGDIR": "/dev/null", "PYTHONHASHSEED": "7"}
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, file, there],
        cwd=ROOT,
        env=os.environ | environment,
        check=True,
        capture_output=True,
    )
    names = sorted(path.name for path in here.iterdir())
    assert names == ["tick-cost.png", "tick-cost.svg", "tick-speed.png", "tick-speed.svg"]
    for name in names:
        assert (here / name).read_bytes() == (there / name).read_bytes(), name


def test_a_chart_of_other_figures_is_not_current(charts: ModuleType, tmp_path: Path) -> None:
    drawn = chart()
    assert not is_current(drawn, tmp_path)
    charts.draw(drawn, tmp_path)
    assert is_current(drawn, tmp_path)
    assert not is_current(chart(ours=costs(10, 12.001, 30)), tmp_path)
